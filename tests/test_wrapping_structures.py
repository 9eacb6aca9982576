"""A mixed batch looks like a real batch: structure, types, ranges and strings of the user's own samples."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2
from training_toys import Noise, RealModule, unnamed

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError, SampleStructureError

N = 16


class Made(Dataset[Any]):
    """Sample i is ``make(i)``."""

    def __init__(self, make: Callable[[int], Any], n: int = N) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.n:
            raise IndexError(index)
        return self.make(index)


def image(i: int, channels: int = 1) -> Tensor:
    return torch.full((channels, 4, 6), i, dtype=torch.uint8)


def no_collate(samples: list[Any]) -> list[Any]:
    """A custom collate function: the batch is the list of samples."""
    return samples


class Mixed:
    """The batches of one epoch, without a Trainer."""

    def __init__(
        self,
        data: Dataset[Any],
        tmp_path: Path,
        collate: Callable[[list[Any]], Any] | None = None,
        channels: int = 1,
        size: Sequence[int] = (4, 6),
        **settings: Any,
    ) -> None:
        loader = {} if collate is None else {"collate_fn": collate}
        defaults: dict[str, Any] = {
            "generator": unnamed(Noise((channels, *size))),
            "synthetic_fraction": 0.5,
            "refill": "sync",
            "window": 16,
            "slot_size": 8,
            "gates": {"blank": False, "copy": False, "duplicate": False},  # the toys make plain areas
            "cache_dir": tmp_path / "cache",
        }
        self.module = DiffAugDataModule(RealModule(data, 4, **loader), **{**defaults, **settings})

    def batches(self) -> list[Any]:
        self.module.prepare_data()
        self.module.setup("fit")
        try:
            return list(self.module.train_dataloader())
        finally:
            self.module.close()

    def samples(self) -> list[Any]:
        return [sample for batch in self.batches() for sample in batch]


# Structures -------------------------------------------------------------------------------------------


def test_tuple_batch(tmp_path: Path) -> None:
    batches = Mixed(Made(lambda i: (image(i), i % 2)), tmp_path).batches()
    assert len(batches) == 4
    for batch in batches:
        assert type(batch) is list  # as default_collate makes of tuples
        images, labels = batch
        assert (images.shape, images.dtype) == ((4, 1, 4, 6), torch.uint8)
        assert (labels.shape, labels.dtype) == ((4,), torch.int64)
        constant = (images.flatten(1) == images[:, :1, :1, :1].flatten(1)).all(1)
        assert int(constant.sum()) == 2  # real images have one value, noise has many


def test_dict_batch_with_a_string(tmp_path: Path) -> None:
    data = Made(lambda i: {"pixels": image(i), "target": i % 2, "name": f"real {i}"})
    for batch in Mixed(data, tmp_path, return_source=True).batches():
        assert list(batch) == ["pixels", "target", "name", "source"]
        source = batch["source"]
        for name, synthetic, slot, row, index, target, pixels in zip(
            batch["name"], source["is_synthetic"], source["slot"], source["row"], source["real_index"],
            batch["target"], batch["pixels"], strict=True,
        ):  # fmt: skip
            if synthetic:
                assert name == f"synthetic/{slot}/{row}"
                assert index == -1
            else:
                assert name == f"real {index}"
                assert (slot, row) == (-1, -1)
                assert target == index % 2
                assert (pixels == index).all()


Pair = namedtuple("Pair", "picture kind")


@dataclass
class Record:
    picture: Tensor
    kind: int
    note: str = ""


@dataclass(frozen=True)
class Frozen:
    picture: Tensor
    kind: int


@pytest.mark.parametrize(
    "make",
    [
        lambda i: [image(i), i % 2],
        lambda i: Pair(image(i), i % 2),
        lambda i: Record(image(i), i % 2, "of the user"),
        lambda i: Frozen(image(i), i % 2),
        lambda i: OrderedDict(picture=image(i), kind=i % 2),
        lambda i: {"inputs": {"picture": image(i)}, "meta": ("text", {"kind": i % 2})},
        lambda i: {3: image(i), 4: i % 2},
        lambda i: (image(i), i % 2, None),
        lambda i: (image(i), np.int64(i % 2)),
        lambda i: (image(i), torch.tensor(i % 2)),
        lambda i: (image(i), torch.tensor(i % 2, dtype=torch.int32)),
    ],
    ids=[
        "list",
        "namedtuple",
        "dataclass",
        "frozen",
        "OrderedDict",
        "nested",
        "keys",
        "None",
        "np",
        "0d",
        "0d32",
    ],
)
def test_samples_of_any_structure_come_back_in_it(make: Callable[[int], Any], tmp_path: Path) -> None:
    def structure(sample: Any) -> Any:
        if isinstance(sample, dict):
            return type(sample), {key: structure(value) for key, value in sample.items()}
        if isinstance(sample, (tuple, list)):
            return type(sample), [structure(value) for value in sample]
        if isinstance(sample, (Record, Frozen)):
            return type(sample), structure(vars(sample))
        return type(sample), getattr(sample, "shape", None), getattr(sample, "dtype", None)

    samples = Mixed(Made(make), tmp_path, no_collate).samples()
    assert len(samples) == N
    for sample in samples:
        assert structure(sample) == structure(make(0))


def test_a_namedtuple_batch_stays_one(tmp_path: Path) -> None:
    (batch, *_) = Mixed(Made(lambda i: Pair(image(i), i % 2)), tmp_path).batches()
    assert type(batch) is Pair


def test_data_of_images_alone(tmp_path: Path) -> None:
    batches = Mixed(Made(image), tmp_path).batches()
    assert all(batch.shape == (4, 1, 4, 6) for batch in batches)


def test_data_of_images_alone_cannot_be_balanced(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.balance"):
        Mixed(Made(image), tmp_path, balance="classes").batches()


def test_custom_collate_makes_the_batch(tmp_path: Path) -> None:
    def collate(samples: list[Any]) -> dict[str, Any]:
        return {"x": torch.stack([s[0] for s in samples]).float(), "y": [s[1] for s in samples]}

    batches = Mixed(Made(lambda i: (image(i), i % 2)), tmp_path, collate, return_source=True).batches()
    assert all(list(batch) == ["x", "y", "source"] for batch in batches)
    assert all(batch["x"].is_floating_point() for batch in batches)


@pytest.mark.parametrize(
    ("make", "get"),
    [
        (lambda i: {"x": image(i), "y": i % 2}, lambda batch: batch["source"]),
        (lambda i: (image(i), i % 2), lambda batch: batch[-1]),
        (lambda i: Pair(image(i), i % 2), lambda batch: batch[1]),
        (image, lambda batch: batch[1]),
    ],
    ids=["dict", "tuple", "namedtuple", "tensor"],
)
def test_return_source_says_what_is_synthetic(
    make: Callable[[int], Any], get: Callable[[Any], Any], tmp_path: Path
) -> None:
    for batch in Mixed(Made(make), tmp_path, return_source=True).batches():
        source = get(batch)
        assert list(source) == ["is_synthetic", "slot", "row", "real_index"]
        assert source["is_synthetic"].dtype == torch.bool
        assert int(source["is_synthetic"].sum()) == 2
        assert ((source["slot"] >= 0) == source["is_synthetic"]).all()
        assert ((source["row"] >= 0) == source["is_synthetic"]).all()
        assert ((source["real_index"] >= 0) == ~source["is_synthetic"]).all()


# Types and ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_pil_images_stay_pil_images(mode: str, channels: int, tmp_path: Path) -> None:
    data = Made(lambda i: (PILImage.new(mode, (6, 4), (i,) * channels if channels > 1 else i), i % 2))
    for picture, _ in Mixed(data, tmp_path, no_collate, channels).samples():
        assert isinstance(picture, PILImage.Image)
        assert (picture.mode, picture.size) == (mode, (6, 4))


def test_tv_tensors_stay_tv_tensors_through_a_joint_transform(tmp_path: Path) -> None:
    """Image and mask of a synthetic sample are flipped together, as those of a real one."""

    class Segmentation(Made):
        transforms = v2.RandomHorizontalFlip(p=1.0)

        def __getitem__(self, index: int) -> Any:
            pair = tv_tensors.Image(image(index)), tv_tensors.Mask(image(index))
            return pair if self.transforms is None else self.transforms(*pair)

    def generate(condition: Any, seeds: Sequence[int]) -> dict[str, Tensor]:
        ramp = torch.linspace(-1, 1, 6).expand(len(seeds), 1, 4, 6)
        return {"image": ramp, "mask": ramp}

    data = Segmentation(image)
    mixed = Mixed(
        data,
        tmp_path,
        no_collate,
        generator=generate,
        synthetic_fraction=1,
        fields={"0": "image", "1": "mask"},
    )
    for picture, mask in mixed.samples():
        assert type(picture) is tv_tensors.Image
        assert type(mask) is tv_tensors.Mask
        assert picture.dtype == mask.dtype == torch.uint8
        assert picture[0, 0].tolist() == [255, 204, 153, 102, 51, 0]
        assert mask[0, 0].tolist() == [15, 12, 9, 6, 3, 0]  # up to the highest class of the data


@pytest.mark.parametrize("kind", ["writable", "read-only", "reversed"])
@pytest.mark.parametrize(("shape", "channels"), [((4, 6, 3), 3), ((4, 6), 1), ((3, 4, 6), 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_keep_layout_type_and_range(
    dtype: Any, shape: tuple[int, ...], channels: int, kind: str, tmp_path: Path
) -> None:
    def make(i: int) -> Any:
        array = np.full(shape, i * (255 // N) if dtype == np.uint8 else i / N, dtype)
        array = array[::-1] if kind == "reversed" else array
        array.flags.writeable = kind != "read-only"
        return array, i % 2

    for array, _ in Mixed(Made(make), tmp_path, no_collate, channels).samples():
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (shape, dtype)
        if dtype != np.uint8:
            assert 0 <= array.min() <= array.max() <= 1


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0.0, 0.9, (0, 1)), (-0.9, 0.9, (-1, 1)), (0.0, 16.0, (0, 16)), (-3.0, 5.0, (-3, 5))],
)
def test_float_images_keep_the_range_of_the_data(
    low: float, high: float, found: tuple[float, float], tmp_path: Path
) -> None:
    def extremes(condition: Any, seeds: Sequence[int]) -> Tensor:
        return torch.linspace(-1, 1, 24).reshape(1, 1, 4, 6).expand(len(seeds), -1, -1, -1)

    data = Made(lambda i: (torch.full((1, 4, 6), low + (high - low) * i / (N - 1)), i % 2))
    mixed = Mixed(data, tmp_path, generator=extremes, synthetic_fraction=1)
    for images, _ in mixed.batches():
        assert images.dtype == torch.float32
        assert (images.min(), images.max()) == pytest.approx(found)


def test_image_range_overrides_the_range_of_the_data(tmp_path: Path) -> None:
    def extremes(condition: Any, seeds: Sequence[int]) -> Tensor:
        return torch.linspace(-1, 1, 24).reshape(1, 1, 4, 6).expand(len(seeds), -1, -1, -1)

    data = Made(lambda i: (torch.full((1, 4, 6), i / N), i % 2))
    mixed = Mixed(data, tmp_path, generator=extremes, synthetic_fraction=1, image_range=(-2.0, 3.0))
    images, _ = mixed.batches()[0]
    assert (images.min(), images.max()) == pytest.approx((-2, 3))


def test_constant_float_images_need_a_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.image_range"):
        Mixed(Made(lambda i: (torch.full((1, 4, 6), 7.0), i % 2)), tmp_path).batches()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_images_that_no_generator_makes_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    with pytest.raises(SampleStructureError, match=rf"field '0'.*{str(dtype).removeprefix('torch.')}"):
        Mixed(Made(lambda i: (image(i).to(dtype), i % 2)), tmp_path).batches()


def test_a_pool_of_nothing_but_rejected_samples_trains_on_real_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed = Mixed(Made(lambda i: (image(i), i % 2)), tmp_path, generator=unnamed(Noise((2, 2, 2))))
    assert len(mixed.batches()) == 4
    figures = mixed.module.figures()
    assert (figures["mix/achieved_fraction"], figures["mix/short_epochs"]) == (0, 1)
    assert "every sample was rejected" in caplog.text


def test_images_of_different_sizes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    data = Made(lambda i: (torch.zeros(1, 4, 6 + i, dtype=torch.uint8), i % 2))
    with pytest.raises(SampleStructureError, match=r"one size"):
        Mixed(data, tmp_path, generator={"_target_": "training_toys.Fitted"}).batches()


# Roles, fills, labels -----------------------------------------------------------------------------------


def test_an_ambiguous_sample_is_an_error_that_prints_its_structure(tmp_path: Path) -> None:
    data = Made(lambda i: {"left": image(i), "right": image(i), "kind": i % 2, "weight": 0.5})
    with pytest.raises(SampleStructureError) as error:
        Mixed(data, tmp_path).batches()
    text = str(error.value)
    for part in ("2 image-like", "left: Tensor shape (1, 4, 6) torch.uint8", "kind: int", "weight: float"):
        assert part in text
    assert "data.fields" in text


def test_fields_say_which_leaf_is_what(tmp_path: Path) -> None:
    data = Made(lambda i: {"left": image(i), "right": image(i), "kind": i % 2, "id": i})
    mixed = Mixed(
        data,
        tmp_path,
        no_collate,
        generator=lambda condition, seeds: {
            "image": -torch.ones(len(seeds), 1, 4, 6),
            "second": torch.ones(len(seeds), 1, 4, 6),
        },
        fields={"left": "image", "right": "second", "kind": "label"},
        fill={"id": -5},
        synthetic_fraction=1,
    )
    for sample in mixed.samples():
        assert (sample["left"] == 0).all()
        assert (sample["right"] == 255).all()
        assert sample["kind"] in (0, 1)
        assert sample["id"] == -5


@pytest.mark.parametrize("fields", [{"no": "image"}, {"left": "image", "right": "image"}])
def test_fields_that_do_not_fit_are_refused(fields: dict[str, str], tmp_path: Path) -> None:
    data = Made(lambda i: {"left": image(i), "right": image(i), "kind": i % 2})
    with pytest.raises(SampleStructureError, match=r"does not fit the sample(.|\n)*left: Tensor"):
        Mixed(data, tmp_path, fields=fields).batches()


def test_fill_gives_what_no_generator_makes(tmp_path: Path) -> None:
    data = Made(lambda i: {"x": image(i), "y": i % 2, "weight": 0.5, "size": torch.ones(2)})
    fill = {"weight": 0.25, "size": lambda fields: fields["label"] * torch.ones(2)}
    for sample in Mixed(data, tmp_path, no_collate, fill=fill, synthetic_fraction=1).samples():
        assert sample["weight"] == 0.25
        assert sample["size"].tolist() == [sample["y"]] * 2


@pytest.mark.parametrize("fill", [None, {"wait": 1.0}])
def test_a_leaf_without_a_value_is_refused(fill: Any, tmp_path: Path) -> None:
    data = Made(lambda i: {"x": image(i), "y": i % 2, "weight": 0.5})
    with pytest.raises(ConfigurationError, match=r"weight"):
        Mixed(data, tmp_path, fill=fill).batches()


def test_labels_may_be_given(tmp_path: Path) -> None:
    """Data without a label in the sample, balanced by labels from beside it."""
    labels = [0] * 12 + [1] * 4
    mixed = Mixed(Made(image), tmp_path, labels=labels, balance="classes", return_source=True)
    real = [labels[i] for _, source in mixed.batches() for i in source["real_index"].tolist() if i >= 0]
    assert (real.count(0), real.count(1)) == (2, 6)  # the synthetic ones are 6 and 2, as in the data
    assert list(mixed.module.class_names) == ["0", "1"]


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"labels has 3 entries for 16"):
        Mixed(Made(image), tmp_path, labels=[0, 1, 0]).batches()


def test_labels_may_be_strings_and_any_integers(tmp_path: Path) -> None:
    names = ["wolf", "cat", "ant"]
    data = Made(lambda i: {"x": image(i), "animal": names[i % 3]})
    mixed = Mixed(data, tmp_path, no_collate, fields={"x": "image", "animal": "label"}, synthetic_fraction=1)
    assert {sample["animal"] for sample in mixed.samples()} == set(names)
    assert list(mixed.module.class_names) == sorted(names)

    mixed = Mixed(Made(lambda i: (image(i), [7, -2, 40][i % 3])), tmp_path, no_collate, synthetic_fraction=1)
    assert {label for _, label in mixed.samples()} == {7, -2, 40}


@pytest.mark.parametrize("order", [lambda i: "ab"[i % 2], lambda i: "ab"[i // (N // 2)]], ids=["mixed", "sorted"])
def test_a_string_that_may_be_the_label_is_asked_about(order: Callable[[int], str], tmp_path: Path) -> None:
    """Without an answer, ``synthetic/0/3`` would be trained on as a class."""
    data = Made(lambda i: (image(i), order(i)))
    with pytest.raises(SampleStructureError, match=r'fields=\{"0": "image", "1": "label"\} \(key data\.fields\)'):
        Mixed(data, tmp_path).batches()
    labelled = Mixed(data, tmp_path, no_collate, fields={"0": "image", "1": "label"}, synthetic_fraction=1)
    assert {label for _, label in labelled.samples()} == {"a", "b"}
    unlabelled = Mixed(data, tmp_path, no_collate, fields={"0": "image"}, synthetic_fraction=1)
    assert all(text.startswith("synthetic/") for _, text in unlabelled.samples())
    filled = Mixed(data, tmp_path, no_collate, fill={"1": "?"}, synthetic_fraction=1)
    assert {text for _, text in filled.samples()} == {"?"}


def test_a_string_that_names_each_sample_is_no_label(tmp_path: Path) -> None:
    data = Made(lambda i: (image(i), f"scan {i}"))
    assert len(Mixed(data, tmp_path).batches()) == 4


@pytest.mark.parametrize("target", [0.5, np.float64(0.5), torch.tensor(0.5), torch.ones(3)])
def test_a_target_of_regression_needs_a_generator_that_makes_it_or_a_fill(target: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.fill.*regression.*data\.fields"):
        Mixed(Made(lambda i: (image(i), target)), tmp_path).batches()
    made = Mixed(
        Made(lambda i: (image(i), 0.5)),
        tmp_path,
        no_collate,
        fields={"0": "image", "1": "target"},
        generator=lambda condition, seeds: {
            "image": torch.zeros(len(seeds), 1, 4, 6),
            "target": torch.zeros(len(seeds)),
        },
        synthetic_fraction=1,
        image_range=(0.0, 1.0),
    )
    assert {value for _, value in made.samples()} == {0.5}


# The training transform -----------------------------------------------------------------------------------


class Transformed(Dataset[Any]):
    """Torchvision's conventions: ``transform`` of the image, ``target_transform`` of the label."""

    def __init__(self, transform: Any = None, target_transform: Any = None) -> None:
        self.transform, self.target_transform = transform, target_transform

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        picture, label = image(index), index % 2
        if self.transform is not None:
            picture = self.transform(picture)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return picture, label


class Unconditional(Transformed):
    """Calls its transform without asking whether there is one."""

    def __getitem__(self, index: int) -> Any:
        return self.transform(image(index)), index % 2


class OfSample(Transformed):
    """Its transform maps the whole sample."""

    def __getitem__(self, index: int) -> Any:
        sample = {"x": image(index), "y": index % 2}
        return sample if self.transform is None else self.transform(sample)


def halves(picture: Tensor) -> Tensor:
    return picture.float() / 510  # 0 … 0.5


def sample_halves(sample: Any) -> Any:
    return {**sample, "x": halves(sample["x"])}


@pytest.mark.parametrize(
    ("data", "get"),
    [
        (Transformed(halves), lambda batch: batch[0]),
        (Unconditional(halves), lambda batch: batch[0]),
        (OfSample(sample_halves), lambda batch: batch["x"]),
        (Subset(Transformed(halves), range(8)), lambda batch: batch[0]),
        (ConcatDataset([Transformed(halves), Transformed(halves)]), lambda batch: batch[0]),
        (ConcatDataset([Subset(Transformed(halves), range(4)), Transformed(halves)]), lambda batch: batch[0]),
    ],
    ids=["image", "unconditional", "sample", "Subset", "ConcatDataset", "both"],
)
def test_synthetic_samples_go_through_the_real_training_transform(
    data: Any, get: Callable[[Any], Tensor], tmp_path: Path
) -> None:
    before = [get(data[i]) if not isinstance(data[i], dict) else data[i]["x"] for i in range(len(data))]
    mixed = Mixed(data, tmp_path, synthetic_fraction=1)
    images = torch.cat([get(batch) for batch in mixed.batches()])
    assert images.dtype == torch.float32
    assert 0.25 < images.max() <= 0.5  # the pool has the raw values, the transform halves them
    assert ((images * 510) % 1 < 1e-3).logical_or((images * 510) % 1 > 1 - 1e-3).all()
    after = [get(data[i]) if not isinstance(data[i], dict) else data[i]["x"] for i in range(len(data))]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # the user's dataset is as it was


def test_target_transform_maps_synthetic_labels_too(tmp_path: Path) -> None:
    data = Transformed(halves, lambda label: label + 100)
    mixed = Mixed(data, tmp_path, no_collate, synthetic_fraction=1)
    assert {label for _, label in mixed.samples()} == {100, 101}


def test_synthetic_transform_is_for_synthetic_samples_alone(tmp_path: Path) -> None:
    data = Transformed(halves)
    mixed = Mixed(
        data, tmp_path, synthetic_transform=lambda picture: torch.full_like(picture, 9.0, dtype=torch.float32),
        return_source=True,
    )  # fmt: skip
    for images, _, source in mixed.batches():
        assert (images[source["is_synthetic"]] == 9).all()
        assert (images[~source["is_synthetic"]] <= 0.5).all()


def test_a_synthetic_transform_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SampleStructureError, match=r"would not look like a real one"):
        Mixed(Transformed(halves), tmp_path, synthetic_transform=lambda x: x[:, :2]).batches()


class Augmenting(Made):
    """Augments inside ``__getitem__``: flips one image of two."""

    def __init__(self) -> None:
        super().__init__(lambda i: (torch.arange(24, dtype=torch.uint8).reshape(1, 4, 6) + i, i % 2))

    def __getitem__(self, index: int) -> Any:
        picture, label = super().__getitem__(index)
        return (picture.flip(2) if torch.rand(()) < 0.5 else picture), label


class AugmentingToo(Augmenting):
    """… and has a transform beside it."""

    transform = staticmethod(halves)

    def __getitem__(self, index: int) -> Any:
        picture, label = super().__getitem__(index)
        return picture if self.transform is None else self.transform(picture), label


@pytest.mark.parametrize("data", [Augmenting(), AugmentingToo()], ids=["alone", "beside a transform"])
def test_augmentation_inside_getitem_is_found(data: Any, tmp_path: Path) -> None:
    with pytest.raises(SampleStructureError, match=r"augmented inside __getitem__(.|\n)*raw="):
        Mixed(data, tmp_path).batches()


def test_raw_gives_the_data_without_augmentation(tmp_path: Path) -> None:
    data = Augmenting()
    mixed = Mixed(data, tmp_path, raw=Made(data.make), return_source=True)
    assert sum(int(source["is_synthetic"].sum()) for _, _, source in mixed.batches()) == N // 2


def test_raw_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"raw has 3 samples and the training data 16"):
        Mixed(Augmenting(), tmp_path, raw=Made(Augmenting().make, 3)).batches()


def test_augment_synthetic_false_takes_the_evaluation_transform(tmp_path: Path) -> None:
    class Apart(RealModule):
        eval_transform = staticmethod(halves)

    real = Apart(Transformed(lambda picture: halves(picture) + 10), 4)
    module = DiffAugDataModule(
        real, unnamed(Noise((1, 4, 6))), 0.5, augment_synthetic=False, refill="sync", window=16, slot_size=8,
        return_source=True, cache_dir=tmp_path / "cache",
    )  # fmt: skip
    batches = list(module.train_dataloader())
    module.close()
    for images, _, source in batches:
        assert (images[source["is_synthetic"]] <= 0.5).all()
        assert (images[~source["is_synthetic"]] >= 10).all()


def test_augment_synthetic_false_needs_to_know_the_conversion(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.synthetic_transform"):
        Mixed(Transformed(halves), tmp_path, augment_synthetic=False).batches()


def test_a_dataset_that_needs_its_transform_says_what_to_give(tmp_path: Path) -> None:
    class Continued(Transformed):
        def __getitem__(self, index: int) -> Any:
            picture = self.transform(PILImage.new("L", (6, 4), index))
            return (picture - 0.5) / 0.5, index % 2

    data = Continued(lambda picture: torch.from_numpy(np.array(picture)).float()[None] / 255)
    with pytest.raises(SampleStructureError, match=r"TypeError(.|\n)*raw=(.|\n)*synthetic_transform=") as error:
        Mixed(data, tmp_path).batches()
    assert isinstance(error.value.__cause__, TypeError)
    given = Mixed(
        data,
        tmp_path,
        raw=Made(lambda i: (PILImage.new("L", (6, 4), i), i % 2)),
        synthetic_transform=lambda picture: (data.transform(picture) - 0.5) / 0.5,
    )
    assert len(given.batches()) == 4


def test_the_users_own_error_stays_the_users(tmp_path: Path) -> None:
    def make(i: int) -> Any:
        raise FileNotFoundError("the user's disk")

    with pytest.raises(FileNotFoundError, match="the user's disk"):
        Mixed(Made(make), tmp_path).batches()
