"""The control fills places with real images: some of the class asked for, moved a little, the others mislabelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_toys import RealModule

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import ControlGenerator, Fittable
from lightning_diffaug.generators.protocol import Bindable
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.snapshot import Snapshot

COUNTS = (80, 40, 4)  # images of each class, the last rare
Make = Callable[..., ControlGenerator]


@pytest.fixture
def data(make_snapshot: Callable[..., Snapshot]) -> Snapshot:
    """Random images: each is told by its pixels, and blurred ones by their nearest."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    images = torch.randint(
        0, 256, (len(labels), 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return make_snapshot(images, labels, num_classes=3)


@pytest.fixture
def loaded(data: Snapshot, tmp_path: Path) -> Make:
    def make(of: Snapshot = data, **settings: Any) -> ControlGenerator:
        generator = ControlGenerator(**settings)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        generator.fit(of, folder, lambda step, total: None)
        generator.load(folder)
        return generator

    return make


def _rows(images: Tensor, data: Snapshot) -> Tensor:
    """The training image that each is nearest to."""
    return torch.cdist(images.flatten(1), data.unit("image").flatten(1)).argmin(1)


def test_a_share_is_of_the_class_and_the_others_are_drawn_by_the_counts_of_the_other_classes(
    loaded: Make, data: Snapshot
) -> None:
    generator, n = loaded(degrees=0.0, pixels=0.0, scale=0.0), 2000
    images = generator.generate({"label": torch.full((n,), 2)}, range(n))["image"]
    rows, labels = _rows(images, data), data.labels
    assert labels is not None
    torch.testing.assert_close(images, data.unit("image", rows), msg="not moved: each is a real image")
    shares = Counter(labels[rows].tolist())
    assert shares[2] / n == pytest.approx(0.6, abs=0.04)
    assert shares[0] / n == pytest.approx(0.4 * 80 / 120, abs=0.04)
    assert shares[1] / n == pytest.approx(0.4 * 40 / 120, abs=0.04)
    assert len(set(rows[labels[rows] == 0].tolist())) == 80, "any image of theirs"


def test_what_is_of_the_class_is_moved_a_little_and_what_is_mislabelled_is_left_as_it_is(
    loaded: Make, digits: Snapshot
) -> None:
    real = digits.unit("image")
    labels = digits.labels
    assert labels is not None
    own, other = (loaded(digits, real_share=share) for share in (1.0, 0.0))
    wanted = torch.full((100,), 3)
    moved, taken = (generator.generate({"label": wanted}, range(100))["image"] for generator in (own, other))
    distances = torch.cdist(taken.flatten(1), real.flatten(1))
    torch.testing.assert_close(real[distances.argmin(1)], taken)
    assert not (labels[distances.argmin(1)] == 3).any()
    distances = torch.cdist(moved.flatten(1), real.flatten(1))
    assert distances.amin(1).median() > 0.5, "no exact copies"
    assert (labels[distances.argmin(1)] == 3).float().mean() > 0.6, "chance is 0.1"
    assert moved.abs().max() <= 1


def test_a_sample_follows_from_its_seed_and_class_alone(loaded: Make) -> None:
    generator, label = loaded(), torch.arange(30) % 3
    torch.manual_seed(0)
    state = torch.get_rng_state()
    whole = generator.generate({"label": label}, range(30))["image"]
    assert torch.equal(torch.get_rng_state(), state)
    backwards = generator.generate({"label": label.flip(0)}, range(29, -1, -1))["image"].flip(0)
    torch.testing.assert_close(backwards, whole)
    alone = generator.generate({"label": label[7:8]}, [7])["image"]
    torch.testing.assert_close(alone, whole[7:8])
    assert not torch.equal(generator.generate({"label": label}, range(100, 130))["image"], whole)


def test_maps_are_moved_with_their_image_and_vectors_are_left(
    loaded: Make, make_snapshot: Callable[..., Snapshot]
) -> None:
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    data = make_snapshot(images, labels, 2, mask=images.clone(), sound=torch.rand(20, 3))
    made = loaded(data, real_share=1.0).generate({"label": labels}, range(20))
    assert list(made) == ["image", "mask", "sound"]
    torch.testing.assert_close(made["mask"], made["image"])
    assert made["sound"].shape == (20, 3)


def test_a_class_without_images_gets_those_of_others_and_an_only_class_its_own(
    loaded: Make, make_snapshot: Callable[..., Snapshot]
) -> None:
    data = make_snapshot(torch.rand(10, 1, 8, 8), torch.zeros(10, dtype=torch.int64), 2)
    made = loaded(data).generate({"label": torch.arange(20) % 2}, range(20))["image"]
    assert made.isfinite().all()


def test_it_is_a_fittable_generator_that_can_be_named() -> None:
    generator = ControlGenerator(0.5, degrees=3.0)
    assert isinstance(generator, Fittable)
    assert isinstance(generator, Bindable)
    again = build(name_of(generator))
    assert again.config() == generator.config() == {"real_share": 0.5, "degrees": 3.0, "pixels": 1.0, "scale": 0.1}
    assert again.sample_key() != ControlGenerator().sample_key()
    assert again.fit_key() == ControlGenerator().fit_key()


@pytest.mark.parametrize("settings", [{"real_share": 1.1}, {"degrees": -1.0}, {"pixels": -1.0}, {"scale": 1.0}])
def test_a_wrong_setting_names_its_key(settings: dict[str, float]) -> None:
    (key,) = settings
    with pytest.raises(ConfigurationError, match=rf"generator\.{key}"):
        ControlGenerator(**settings)


def test_it_says_what_it_lacks(make_snapshot: Callable[..., Snapshot], tmp_path: Path, loaded: Make) -> None:
    with pytest.raises(GeneratorError, match=r"fit\(\.\.\.\) and load"):
        ControlGenerator().generate({"label": torch.zeros(1, dtype=torch.int64)}, [0])
    with pytest.raises(GeneratorError, match="label"):
        loaded().generate({}, [0])
    unlabelled = make_snapshot(torch.rand(3, 1, 8, 8), None)
    with pytest.raises(ConfigurationError, match=r"no labels.*data\.fields"):
        ControlGenerator().fit(unlabelled, tmp_path, lambda step, total: None)


def test_a_run_is_filled_with_copies_where_the_gates_against_them_are_off(tmp_path: Path) -> None:
    data = DiffAugDataModule(
        RealModule(), ControlGenerator(), synthetic_fraction=0.5, refill="sync", window=16, slot_size=8,
        gates={"copy": False, "duplicate": False, "blank": False}, cache_dir=tmp_path,
    )  # fmt: skip
    data.setup("fit")
    try:
        list(data.train_dataloader())
        figures = data.figures()
    finally:
        data.close()
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5)
    assert figures["pool/rejected"] == 0
