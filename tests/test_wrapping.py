"""Samples without their transform, and the transform that is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2
from training_toys import Images

from lightning_diffaug.errors import SampleStructureError
from lightning_diffaug.probing import equal, seeded, spread
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.sample import probe
from lightning_diffaug.structure import with_leaf
from lightning_diffaug.wrapping import SampleTransform, find_transform, raw_view


def test_a_raw_view_leaves_the_dataset_as_it_was() -> None:
    inner = Images(transform=lambda image: image.float() * 0)
    data = ConcatDataset([Subset(inner, [4, 5]), inner])
    view = raw_view(data)
    assert view[0][0].dtype == torch.uint8
    assert int(view[0][0].max()) == 4
    assert data[0][0].dtype == torch.float32
    assert inner.transform is not None


def test_random_states_are_left_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def draw_and_fail() -> None:
        with untouched_rng():
            draw()
            raise RuntimeError

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(RuntimeError):
        draw_and_fail()
    assert draw() == expected


def _double(image: Any) -> Any:
    return image.float() * 2


def test_a_transform_of_image_and_label_together_is_found() -> None:
    """Torchvision's third convention: ``transforms(image, target)``."""

    class Paired(Images):
        def __init__(self) -> None:
            super().__init__()
            self.transforms = lambda image, label: (_double(image), label + 10)

        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return (image, label) if self.transforms is None else self.transforms(image, label)

    data = Paired()
    raw = raw_view(data)
    spec = probe(raw[0])
    found = find_transform(data, raw, spec["image"], spec["label"])
    image, label = found(raw[5])
    assert (float(image.max()), label) == (10.0, raw[5][1] + 10)


def test_a_transform_that_cannot_be_told_is_refused_with_both_structures() -> None:
    class Odd(Images):
        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return {"x": image, "y": label} if image.is_floating_point() else (image, label)

    data = Odd(transform=_double)
    raw = raw_view(data)
    spec = probe(raw[0])
    with pytest.raises(SampleStructureError) as error:
        find_transform(data, raw, spec["image"], spec["label"])
    assert "0: Tensor shape (1, 4, 4) torch.uint8" in str(error.value)
    assert "x: Tensor shape (1, 4, 4) torch.float32" in str(error.value)
    assert "synthetic_transform=" in str(error.value)


def test_a_transform_of_one_leaf_copies_the_containers_on_its_way() -> None:
    sample = {"inputs": (torch.ones(2), "text"), "y": 1}
    changed = SampleTransform(of_image=_double, image_path="inputs.0")(sample)
    assert changed["inputs"][0].tolist() == [2, 2]
    assert sample["inputs"][0].tolist() == [1, 1]
    assert changed["inputs"][1] == "text"


class Continued(Images):
    """Goes on after its transform, as `after` says."""

    after: Callable[[Any], Any]

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return self.after(image), label


def _found(data: Dataset[Any]) -> SampleTransform:
    raw = raw_view(data)
    spec = probe(raw[0])
    return find_transform(data, raw, spec["image"], spec["label"])


def test_a_dataset_that_goes_on_after_its_transform_is_refused() -> None:
    """Its synthetic samples would have the structure of the real ones and other values."""
    data = Continued(transform=lambda image: (image.float() - 128) / 64)
    data.after = lambda image: image.float() / 255
    with pytest.raises(SampleStructureError, match=r"__getitem__ does more(.|\n)*raw=(.|\n)*synthetic_transform="):
        _found(data)


def test_a_dataset_that_goes_on_for_some_samples_only_is_refused() -> None:
    data = Continued(transform=_double)
    data.after = lambda image: image + 1 if image.max() > 30 else image
    with pytest.raises(SampleStructureError, match="synthetic_transform="):
        _found(data)


def test_a_transform_that_draws_at_random_is_found_whatever_generator_it_draws_from() -> None:
    data = Images(transform=lambda x: x.float() + torch.rand(x.shape) + random.random() + float(np.random.rand()))
    before = torch.get_rng_state()
    assert _found(data).of_image is data.transform
    assert torch.equal(torch.get_rng_state(), before)


def test_of_two_conventions_with_one_structure_that_with_the_right_values_is_taken() -> None:
    class OfSample(Images):
        def __getitem__(self, index: int) -> Any:
            sample = torch.full((1, 4, 4), index, dtype=torch.uint8), self.targets[index]
            return sample if self.transform is None else self.transform(sample)

    data = OfSample(transform=lambda x: (x[0], x[1] + 10) if isinstance(x, tuple) else x)
    assert _found(data).of_sample is data.transform


class Segmented(Dataset[Any]):
    """Images with their masks, and a flip of both or of the image alone."""

    def __init__(self, of_image_alone: bool) -> None:
        self.transform: Any = v2.RandomHorizontalFlip(0.1)
        self.of_image_alone = of_image_alone

    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> Any:
        rows = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4) + index
        sample = {"image": tv_tensors.Image(rows), "mask": tv_tensors.Mask(rows[0] % 2)}
        if self.transform is None:
            return sample
        return with_leaf(sample, "image", self.transform) if self.of_image_alone else self.transform(sample)


@pytest.mark.parametrize("of_image_alone", [True, False])
def test_a_flip_that_no_probe_drew_is_still_told_from_one_of_the_image_alone(of_image_alone: bool) -> None:
    data = Segmented(of_image_alone)
    raw = raw_view(data)
    with untouched_rng():
        assert all(equal(seeded(partial(data.__getitem__, i), i), raw[i]) for i in spread(data)), "no probe flips"
    found = find_transform(data, raw, probe(raw[0], {"image": "image"})["image"], None)
    with untouched_rng():
        for seed in range(40):
            torch.manual_seed(seed)
            wanted = data[0]
            torch.manual_seed(seed)
            assert equal(found(raw[0]), wanted)


def test_data_with_nan_are_not_taken_for_augmented() -> None:
    class Holes(Images):
        def __getitem__(self, index: int) -> Any:
            return torch.full((1, 4, 4), float("nan")), self.targets[index]

    assert _found(Holes()).is_identity


def test_augmentation_inside_getitem_is_seen_though_the_first_sample_does_not_show_it() -> None:
    class Flips(Images):
        def __getitem__(self, index: int) -> Any:
            image = torch.zeros(1, 4, 4) if index == 0 else torch.arange(16.0).reshape(1, 4, 4)
            return image.flip(-1) if random.random() < 0.5 else image, self.targets[index]

    with pytest.raises(SampleStructureError, match="inside __getitem__"):
        _found(Flips())
