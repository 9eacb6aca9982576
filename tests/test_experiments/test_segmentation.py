"""A brief run of ``experiment=segmentation``; images with masks in each structure that a user may have."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from training_toys import Noise, RealModule, unnamed

from lightning_diffaug import DiffAugDataModule, SyntheticPool
from lightning_diffaug.data import MaskBoxes, SegmentationDataModule
from lightning_diffaug.data.digit_scenes import digit_scenes
from lightning_diffaug.data.mask_boxes import mask_regions
from lightning_diffaug.experiment import run
from lightning_diffaug.paths import config_dir

BRIEF = (
    "refill=sync", "logger=none", "trainer.max_epochs=2", "+trainer.enable_progress_bar=false", "real.shots=16",
    "real.batch_size=8", "generator.fit.steps=6", "generator.fit.batch_size=8", "generator.fit.channels=[16, 16]",
    "generator.num_inference_steps=2", "data.window=16", "data.slot_size=16", "model.width=8", "data.gates=[]",
)  # fmt: skip


def _run(root: Path, *overrides: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    GlobalHydra.instance().clear()
    where = [f"paths.output_dir={root / 'run'}", f"paths.cache_dir={root / 'cache'}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["experiment=segmentation", *BRIEF, *where, *overrides])
    run(config)
    (folder,) = (root / "cache" / "pools").iterdir()
    return json.loads((root / "run" / "metrics.json").read_text()), SyntheticPool.open(folder).read(0).fields


def test_images_after_real_masks(tmp_path: Path) -> None:
    figures, made = _run(tmp_path, "generator.conditions={mask: concat}")
    for name in ("val/miou", "test/miou", "test/miou_trivial"):
        assert 0 < figures[name] < 1
    assert figures["mix/achieved_fraction"] == 0.5
    assert (tmp_path / "run" / "samples.png").stat().st_size > 1000
    real = digit_scenes().train.fields["mask"]
    assert all(bool((mask == real).flatten(1).all(1).any()) for mask in made["mask"])
    assert (made["image"].dtype, made["image"].shape) == (torch.uint8, (16, 1, 24, 24))


def test_image_and_mask_jointly(tmp_path: Path) -> None:
    figures, made = _run(tmp_path, "generator.conditions=null")
    assert figures["mix/achieved_fraction"] == 0.5
    assert made["mask"].dtype == torch.int64
    assert set(made["mask"].unique().tolist()) <= set(range(5))
    real = digit_scenes().train.fields["mask"]
    assert not all(bool((mask == real).flatten(1).all(1).any()) for mask in made["mask"])


def test_a_folder_with_boxes_and_void_pixels(tmp_path: Path) -> None:
    """All classes are known of the data, and batches hold boxes of real and of made samples."""
    root, side = tmp_path / "own", 16
    for part in ("train", "test"):
        for name in ("images", "masks", "boxes"):
            (root / part / name).mkdir(parents=True)
        for i in range(12):
            x, y, number = i % 6, 2 * (i % 3), 1 + i % 2
            mask = np.zeros((side, side), np.uint8)
            mask[y + 1 : y + 9, x + 1 : x + 10] = 255
            mask[y + 2 : y + 8, x + 2 : x + 9] = number
            Image.fromarray(mask // 255 * 90 + mask % 255 * 40 + 20).save(root / part / "images" / f"{i}.png")
            Image.fromarray(mask).save(root / part / "masks" / f"{i}.png")
            (root / part / "boxes" / f"{i}.xml").write_text(
                f"<annotation><object><name>{'ab'[number - 1]}</name><bndbox><xmin>{x + 3}</xmin><ymin>{y + 3}</ymin>"
                f"<xmax>{x + 9}</xmax><ymax>{y + 8}</ymax></bndbox></object></annotation>"
            )
    own = (f"real.root={root}", "real.void=255", "real.classes=[nothing,a,b]")
    figures, made = _run(tmp_path, *own, "generator.codecs.mask.classes=4")
    assert figures["mix/achieved_fraction"] == 0.5
    assert 0 < figures["test/miou"] < 1
    assert figures["test/map"] >= 0
    assert set(made["mask"].unique().tolist()) == {0, 1, 2, 3}, "void is made like a class"

    data = SegmentationDataModule(root, void=255, classes=["nothing", "a", "b"], batch_size=4)
    module = DiffAugDataModule(
        data, unnamed(NoisyScenes(True, (1, side, side))), 0.5, refill="sync", window=16, slot_size=8, gates=[],
        cache_dir=tmp_path / "cache", fields={"image": "image", "mask": "mask"}, return_source=True,
    )  # fmt: skip
    module.prepare_data()
    module.setup("fit")
    seen = 0
    try:
        for batch in module.train_dataloader():
            assert set(batch["mask"].unique().tolist()) <= {-100, 0, 1, 2}
            for i in batch["source"]["is_synthetic"].nonzero()[:, 0].tolist():
                regions = mask_regions(batch["mask"][i])
                assert torch.equal(batch["boxes"][i].as_subclass(Tensor), regions.boxes)
                assert torch.equal(batch["labels"][i], regions.labels)
                seen += len(regions.labels)
    finally:
        module.close()
    assert seen


# A user's samples -------------------------------------------------------------------------------------


@dataclass
class Scene:
    image: Tensor
    mask: Tensor


def pair(i: int) -> tuple[Tensor, Tensor]:
    mask = torch.zeros(6, 6, dtype=torch.int64)
    mask[1:4, 1 : 2 + i % 4] = 1 + i % 2
    return torch.full((3, 6, 6), i, dtype=torch.uint8), mask


class Made(Dataset[Any]):
    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


class NoisyScenes(Noise):
    """Images and masks of noise; a plain (H, W) tensor is seen as (1, H, W), a Mask as it is."""

    def __init__(self, wrapped: bool, shape: tuple[int, int, int] = (3, 6, 6)) -> None:
        super().__init__(shape)
        self.wrapped = wrapped

    def generate(self, condition: Any, seeds: Any) -> Any:
        image = super().generate(condition, seeds)
        return {"image": image, "mask": image[:, 0] if self.wrapped else image[:, :1]}


def _samples(
    make: Callable[[int], Any], cache: Path, paths: dict[str, str], wrapped: bool, **settings: Any
) -> list[Any]:
    """Samples of one epoch, not collated."""
    module = DiffAugDataModule(
        RealModule(Made(make), 4, collate_fn=list), unnamed(NoisyScenes(wrapped)), 0.5, refill="sync", window=16,
        slot_size=8, gates=[], cache_dir=cache, fields=paths, balance="none",
        allocation="as_real", **settings,
    )  # fmt: skip
    module.prepare_data()
    module.setup("fit")
    try:
        return [sample for batch in module.train_dataloader() for sample in batch]
    finally:
        module.close()


STRUCTURES: dict[str, tuple[Callable[[int], Any], dict[str, str], Callable[[Any], tuple[Any, Any]]]] = {
    "dict": (
        lambda i: dict(zip(("picture", "classes"), pair(i), strict=True)),
        {"picture": "image", "classes": "mask"},
        lambda sample: (sample["picture"], sample["classes"]),
    ),
    "tuple": (lambda i: pair(i), {"0": "image", "1": "mask"}, lambda sample: sample[:2]),
    "dataclass": (lambda i: Scene(*pair(i)), {"image": "image", "mask": "mask"}, lambda s: (s.image, s.mask)),
    "tv_tensors": (
        lambda i: (tv_tensors.Image(pair(i)[0]), tv_tensors.Mask(pair(i)[1])),
        {"0": "image", "1": "mask"},
        lambda sample: sample[:2],
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_pooled_sample_has_the_structure_types_and_ranges_of_the_real_ones(tmp_path: Path, name: str) -> None:
    make, paths, parts = STRUCTURES[name]
    template = make(0)
    real_image, real_mask = parts(template)
    seen = 0
    for sample in _samples(make, tmp_path, paths, wrapped=name == "tv_tensors"):
        image, mask = parts(sample)
        assert (type(image), image.dtype, image.shape) == (type(real_image), torch.uint8, (3, 6, 6))
        assert (type(mask), mask.dtype, mask.shape) == (type(real_mask), torch.int64, (6, 6))
        assert int(mask.min()) >= 0
        assert int(mask.max()) <= 2
        seen += int((image != image[0, 0, 0]).any())
    assert seen == 8  # half of 16 are noise, and all real ones have one value


def test_boxes_of_a_users_samples_follow_from_the_made_masks(tmp_path: Path) -> None:
    def make(i: int) -> dict[str, Any]:
        image, mask = pair(i)
        fields = {"mask": mask}
        return {"image": image, "mask": mask, "boxes": MaskBoxes(least=1)(fields)}

    paths, fill = {"image": "image", "mask": "mask"}, {"boxes": MaskBoxes(least=1)}
    made = 0
    for sample in _samples(make, tmp_path, paths, wrapped=False, fill=fill):
        assert isinstance(sample["boxes"], tv_tensors.BoundingBoxes)
        assert torch.equal(sample["boxes"], MaskBoxes(least=1)(sample))
        made += int((sample["image"] != sample["image"][0, 0, 0]).any())
    assert made == 8
