"""The transforms of one sample chained, built from a configuration, and sent to a worker."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torchvision.transforms import v2
from training_toys import same, snapshot_of, unnamed

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.data.aligned import AlignedDataModule, AlignedDataset, AlignedSplits
from lightning_diffaug.randomness import seeded
from lightning_diffaug.transforms import JointSpatial

HERE = "lightning_diffaug.transforms"
CONFIG = f"""
_target_: torchvision.transforms.v2.Compose
_convert_: all
transforms:
  - _target_: {HERE}.JointSpatial
    transform:
      - {{_target_: torchvision.transforms.v2.RandomHorizontalFlip, p: 0.5}}
      - {{_target_: torchvision.transforms.v2.RandomAffine, degrees: 20}}
    kinds: {{video: video, mask: mask}}
    stereo: audio
  - _target_: {HERE}.TimeWarp
    max_rate: 1.2
    streams: &streams
      video: {{rate: 8, axis: 0}}
      mask: {{rate: 8, axis: 0, interpolation: nearest}}
      audio: {{rate: 800}}
      onset: {{_target_: {HERE}.Events}}
  - _target_: {HERE}.TemporalCrop
    seconds: 0.75
    streams: *streams
  - _target_: {HERE}.JointRotation3D
    azimuth: angle
    max_degrees: 10
"""


def sample() -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    video = torch.rand(8, 3, 16, 16, generator=rng)
    audio = torch.randn(2, 800, generator=rng)
    return {"video": video, "mask": (video > 0.5).long(), "audio": audio, "onset": torch.tensor([0.5]), "angle": 0.2}


@pytest.fixture
def transform() -> Any:
    return instantiate(OmegaConf.create(CONFIG))


def test_chain_from_a_configuration_changes_all_parts(transform: Any) -> None:
    with seeded(3):
        moved = transform(sample())
    assert moved["video"].shape == (6, 3, 16, 16)
    assert moved["mask"].shape == (6, 3, 16, 16)
    assert set(moved["mask"].unique().tolist()) <= {0, 1}
    assert moved["audio"].shape == (2, 600)
    assert moved["angle"] != 0.2


def test_a_batchs_seed_decides_all_draws_also_after_pickling(transform: Any) -> None:
    made = []
    for one, seed in ((transform, 5), (pickle.loads(pickle.dumps(transform)), 5), (transform, 6)):
        with seeded(seed):
            made.append(one(sample()))
    first, again, other = made
    assert all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(again[name])) for name in first)
    assert not torch.equal(first["audio"], other["audio"])
    state = torch.get_rng_state()
    with seeded(7):
        transform(sample())
    assert torch.equal(torch.get_rng_state(), state)


class Scenes(AlignedDataModule):
    """Images whose object is where the mask is, with sound from the object's side."""

    def load(self) -> AlignedSplits:
        images = torch.zeros(24, 1, 8, 8, dtype=torch.uint8)
        sound = torch.zeros(24, 2, 6)
        for i in range(24):
            left = i % 2 == 0
            images[i, 0, 2:6, slice(1, 3) if left else slice(5, 7)] = 200
            sound[i, 0 if left else 1] = 1.0
        whole = AlignedDataset({"image": images, "mask": (images[:, 0] > 0).to(torch.uint8) * 255, "sound": sound})
        return AlignedSplits(whole, whole.select(range(4)), whole.select(range(4)))


class OnTheLeft:
    """Makes scenes whose object is on the left."""

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Tensor]:
        image = torch.full((len(seeds), 1, 8, 8), -1.0)
        image[:, :, 2:6, 1:3] = 1.0
        sound = torch.full((len(seeds), 2, 6), -1.0)  # of [0, 1]: silence
        sound[:, 0] = 1.0
        return {"image": image, "mask": image.clone(), "sound": sound}


def aligned(batch: dict[str, Tensor]) -> int:
    """How many objects of a batch are on the right; each is where its mask is and is heard on its side."""
    right = 0
    for image, mask, sound in zip(batch["image"], batch["mask"].reshape(-1, 8, 8), batch["sound"], strict=True):
        assert torch.equal(image[0] > 0, mask > 0)
        on_the_right = bool((image[0, :, 4:] > 0).any())
        assert sound.abs().sum(dim=1).gt(0).tolist() == [not on_the_right, on_the_right]
        right += on_the_right
    return right


def test_mixed_batches_are_flipped_jointly_real_and_synthetic_alike_and_the_same_when_read_again(
    tmp_path: Path,
) -> None:
    flip = JointSpatial(v2.RandomHorizontalFlip(), {"image": "image", "mask": "mask"}, stereo="sound")

    def batches(name: str) -> list[dict[str, Tensor]]:
        data = DiffAugDataModule(
            real=Scenes(batch_size=8, augment=flip),
            generator=unnamed(OnTheLeft()),
            synthetic_fraction=0.5,
            refill="sync",
            window=16,
            slot_size=16,
            gates=[],
            fields={"image": "image", "mask": "mask", "sound": "sound"},
            cache_dir=tmp_path / name,
            return_source=True,
        )
        try:
            return [snapshot_of(batch) for batch in data.train_dataloader()]
        finally:
            data.close()

    first = batches("first")
    synthetic = torch.cat([batch["source"]["is_synthetic"] for batch in first])
    assert synthetic.float().mean() == 0.5
    assert sum(aligned(batch) for batch in first) > 0
    flipped = [b["image"][b["source"]["is_synthetic"]][..., 4:].flatten(1).amax(1) > 0 for b in first]
    assert 0 < torch.cat(flipped).float().mean() < 1, "synthetic ones are flipped too"
    assert same(first, batches("second"))


def test_examples_of_the_docs_run() -> None:
    text = (Path(__file__).parents[2] / "docs" / "transforms.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["dropout"].missing_probabilities == pytest.approx({"image": 0.225, "sound": 0.425})
    assert {tuple(logits.shape) for logits in names["logits"].values()} == {(16, 10)}
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    augment = instantiate(OmegaConf.create(settings).real.augment)
    assert isinstance(augment, JointSpatial)
    assert set(augment(names["sample"])) == {"image", "mask", "boxes", "sound"}
