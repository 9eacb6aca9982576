from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from lightning_diffaug.data import DigitsDataModule, classical
from lightning_diffaug.errors import ConfigurationError


def imbalanced(seed: int = 0) -> DigitsDataModule:
    return DigitsDataModule(shots=80, rare_classes=5, rare_shots=5, seed=seed)


def test_default_of_the_demo_has_five_rare_classes_of_five() -> None:
    data = imbalanced()
    assert sorted(data.class_counts) == [5] * 5 + [80] * 5
    assert [data.class_counts[index] for index in data.rare_classes] == [5] * 5
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, 8)
    assert data.class_names == [str(digit) for digit in range(10)]


def test_raw_pixels_keep_every_grey_level() -> None:
    data = DigitsDataModule()
    raw = torch.cat([part.images for part in (data.splits.train, data.splits.val, data.splits.test)])
    assert raw.dtype == torch.uint8
    assert raw.shape == (1797, 1, 8, 8)
    levels = torch.bincount((raw.float() * 16 / 255).round().long().flatten(), minlength=17)
    expected = torch.bincount(torch.from_numpy(load_digits().images).long().flatten(), minlength=17)
    assert torch.equal(levels, expected)


def test_split_is_60_15_25_and_disjoint_in_content_of_the_source() -> None:
    splits = DigitsDataModule().splits
    assert [len(splits.train), len(splits.val), len(splits.test)] == [1078, 269, 450]
    total = sum(float(part.images.double().sum()) for part in (splits.train, splits.val, splits.test))
    assert total == float((torch.from_numpy(load_digits().images) * 255 / 16).round().sum())


def test_seed_changes_the_selection_but_never_validation_or_test() -> None:
    first, second = imbalanced(seed=0).splits, imbalanced(seed=1).splits
    assert not torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.val.images, second.val.images)
    assert torch.equal(first.test.images, second.test.images)
    assert torch.equal(imbalanced(seed=1).splits.train.images, second.train.images)


def test_raw_sample_appears_when_the_transform_is_off() -> None:
    train = imbalanced().splits.train
    image, label = train[0]
    assert (image.dtype, type(label)) == (torch.float32, int)
    train.transform = None
    raw, _ = train[0]
    assert raw.dtype == torch.uint8
    assert torch.allclose(raw / 255, image)


def test_augmentation_touches_training_images_only() -> None:
    data = DigitsDataModule(augment=classical(p=1.0))
    splits = data.splits
    torch.manual_seed(0)
    assert not torch.equal(splits.train[0][0], splits.train[0][0])
    for part in (splits.val, splits.test):
        assert torch.equal(part[0][0], part[0][0])
        assert torch.allclose(part[0][0], part.images[0] / 255)
    assert data.eval_transform is data.conversion


def test_loaders_serve_everything_once_and_only_training_is_shuffled() -> None:
    data = DigitsDataModule(shots=7, batch_size=16)
    torch.manual_seed(0)
    first, second = (torch.cat([y for _, y in data.train_dataloader()]) for _ in range(2))
    assert len(first) == 70
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)
    x, y = next(iter(data.train_dataloader()))
    assert (x.shape, x.dtype, y.dtype) == ((16, 1, 8, 8), torch.float32, torch.int64)
    assert x.min() >= 0 and x.max() == 1  # noqa: PT018
    for loader, part in (
        (data.val_dataloader(), data.splits.val),
        (data.test_dataloader(), data.splits.test),
    ):
        assert torch.cat([y for _, y in loader]).tolist() == part.targets


def test_setup_of_every_stage_loads_once() -> None:
    data = DigitsDataModule()
    data.setup("fit")
    train = data.splits.train
    data.setup("test")
    assert data.splits.train is train


def test_without_rare_classes_none_are_rare_in_balanced_data() -> None:
    assert DigitsDataModule(shots=5).rare_classes == []


def test_rare_classes_can_be_named_without_a_cap() -> None:
    data = DigitsDataModule(shots=9, rare_classes=["3", 7])
    assert data.rare_classes == [3, 7]
    assert data.class_counts == [9] * 10


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"shots": 0}, "real.shots"),
        ({"rare_shots": 0}, "real.rare_shots"),
        ({"batch_size": 0}, "real.batch_size"),
        ({"seed": -1}, "real.seed"),
        ({"num_workers": -1}, "real.num_workers"),
        ({"rare_classes": 3}, "real.rare_shots"),
    ],
)
def test_a_setting_out_of_range_names_its_key(settings: dict[str, int], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        DigitsDataModule(**settings)


def test_too_many_rare_classes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"rare_classes=11 is not in \[0, 10\]"):
        DigitsDataModule(rare_classes=11, rare_shots=5).setup()


@pytest.mark.parametrize(("shots", "said"), [(100000, True), (80, False)])
def test_more_shots_than_there_are_is_said_with_what_there_is(
    shots: int, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = DigitsDataModule(shots=shots)
    data.setup("fit")
    data.setup("test")
    most = max(data.class_counts)
    assert caplog.text.count(f"real.shots={shots} is more than there is: no class has more than {most} images") == said
