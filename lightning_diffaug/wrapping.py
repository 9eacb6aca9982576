"""The user's samples without their transform, and what that transform is applied to."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import ConcatDataset, Dataset, Subset

from lightning_diffaug.errors import SampleStructureError
from lightning_diffaug.probing import equal, seeded, signature, spread, varies
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.spec import FieldSpec
from lightning_diffaug.structure import describe, with_leaf

_SEEDS_TO_TELL_APART = 64  # a change drawn with probability 0.1 is missed by one in a thousand
_TRANSFORMS = ("transform", "transforms", "target_transform")


def _untransformed(*args: Any, **kwargs: Any) -> Any:
    """Stands for a transform that is off; datasets that call theirs without asking whether there is one need it."""
    return kwargs or (args[0] if len(args) == 1 else args)


def raw_view(dataset: Dataset[Any]) -> Dataset[Any]:
    """A shallow copy of a dataset (through Subset and ConcatDataset) whose transforms are off."""
    view = copy.copy(dataset)
    if isinstance(view, Subset):
        view.dataset = raw_view(view.dataset)
    elif isinstance(view, ConcatDataset):
        view.datasets = [raw_view(part) for part in view.datasets]
    else:
        for name in _TRANSFORMS:
            if callable(getattr(view, name, None)):
                setattr(view, name, _untransformed)
    return view


def innermost(dataset: Dataset[Any]) -> Dataset[Any]:
    """The dataset below Subset and ConcatDataset (the first part of the latter)."""
    while isinstance(dataset, (Subset, ConcatDataset)):
        dataset = dataset.dataset if isinstance(dataset, Subset) else dataset.datasets[0]
    return dataset


@dataclass(frozen=True)
class SampleTransform:
    """A transform and what it is applied to.

    Attributes:
        of_sample: ``(sample) -> sample``, or None.
        of_image: ``(image) -> image``, or None; torchvision's ``transform``.
        of_label: ``(label) -> label``, or None; torchvision's ``target_transform``.
        of_pair: ``(image, label) -> (image, label)``, or None; torchvision's ``transforms``.
        image_path: Path of the leaf that `of_image` maps.
        label_path: Path of the leaf that `of_label` maps.
    """

    of_sample: Callable[[Any], Any] | None = None
    of_image: Callable[[Any], Any] | None = None
    of_label: Callable[[Any], Any] | None = None
    of_pair: Callable[[Any, Any], Any] | None = None
    image_path: str = ""
    label_path: str = ""

    @property
    def is_identity(self) -> bool:
        """Whether nothing is transformed."""
        return not (self.of_sample or self.of_image or self.of_label or self.of_pair)

    @property
    def leaf_changes(self) -> dict[str, Callable[[Any], Any]] | None:
        """The same by path, for samples that are yet to be built; None for a transform of the whole sample."""
        if self.of_sample is not None or self.of_pair is not None:
            return None
        changes = ((self.image_path, self.of_image), (self.label_path, self.of_label))
        return {path: change for path, change in changes if change is not None}

    def __call__(self, sample: Any) -> Any:
        """Applies it to one sample."""
        if self.of_sample is not None:
            return self.of_sample(sample)
        if self.of_pair is not None:
            image, label = self.of_pair(*sample)
            return type(sample)((image, label))
        if self.of_image is not None:
            sample = with_leaf(sample, self.image_path, self.of_image)
        if self.of_label is not None:
            sample = with_leaf(sample, self.label_path, self.of_label)
        return sample


def find_transform(
    dataset: Dataset[Any], raw: Dataset[Any], image: FieldSpec, label: FieldSpec | None
) -> SampleTransform:
    """Finds the real training transform on the dataset and how it is called, by trying it on raw samples.

    What it makes of them has to be what the dataset itself yields under the same random state, value by value: a
    dataset that goes on changing a sample after its transform would else have synthetic samples of other values.

    Args:
        dataset: The real training data.
        raw: The same without transform.
        image: The field that a one-argument transform maps.
        label: The field that a target transform maps.

    Raises:
        SampleStructureError: The transform's convention is not clear, or the dataset augments or converts inside
            ``__getitem__`` where it cannot be taken off.
    """
    inner = innermost(dataset)
    transform, transforms, of_label = (getattr(inner, name, None) for name in _TRANSFORMS)
    label_path = label.path if label is not None else ""
    of_label = of_label if callable(of_label) else None
    candidates: list[SampleTransform] = []
    if callable(transform):
        candidates += [
            SampleTransform(of_image=transform, of_label=of_label, image_path=image.path, label_path=label_path),
            SampleTransform(of_sample=transform),
        ]
    elif callable(transforms):
        candidates += [SampleTransform(of_pair=transforms), SampleTransform(of_sample=transforms)]
    elif of_label is not None:
        candidates += [SampleTransform(of_label=of_label, label_path=label_path)]
    with untouched_rng():
        if varies(raw):
            raise SampleStructureError(
                "the same index of the training data gives different samples though their transform is off, so they "
                "are augmented inside __getitem__, where that cannot be taken off: the pool would hold augmented "
                "samples. Give raw=<the dataset without augmentation> and synthetic_transform=."
            )
        if not candidates and signature(raw[0]) == signature(dataset[0]):
            return SampleTransform()
        agreeing = [one for one in candidates if all(_agree(dataset, raw, one, i, seed=i) for i in spread(dataset))]
        if agreeing:
            return _told_apart(dataset, raw, agreeing)
        text = f"{describe(raw[0])}\ninto\n{describe(dataset[0])}"
    raise SampleStructureError(
        "the training data's transform was found, but neither transform(image) nor transform(sample) turns\n"
        f"{text}\nwith the values that the dataset itself gives under the same random state: its __getitem__ does more "
        "than call the transform, or the transform has a random state of its own. Give raw=<the dataset without its "
        "transform> and synthetic_transform=<callable that makes a training sample of a raw one>."
    )


def _agree(dataset: Dataset[Any], raw: Dataset[Any], transform: SampleTransform, i: int, seed: int) -> bool:
    wanted, sample = seeded(lambda: dataset[i], seed), raw[i]
    try:
        return equal(wanted, seeded(lambda: transform(sample), seed))
    except Exception:
        return False


def _told_apart(dataset: Dataset[Any], raw: Dataset[Any], candidates: list[SampleTransform]) -> SampleTransform:
    """The first candidate, or another where the dataset agrees with that alone.

    A flip of image and mask and one of the image alone give the same as long as no flip is drawn.
    """
    for seed in range(_SEEDS_TO_TELL_APART if len(candidates) > 1 else 0):
        made = [seeded(functools.partial(candidate, raw[0]), seed) for candidate in candidates]
        if not all(equal(made[0], other) for other in made[1:]):
            candidates = [one for one in candidates if _agree(dataset, raw, one, 0, seed)] or candidates
            break
    return candidates[0]
