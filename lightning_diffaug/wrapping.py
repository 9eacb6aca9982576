"""What the user's own data say: the facts of their train loader, their samples without transform, their labels."""

from __future__ import annotations

import copy
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.probing import equal, seeded, signature, spread, varies
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.sample import describe, leaves
from lightning_diffaug.spec import FieldSpec

log = logging.getLogger(__name__)

_LONG_PASS_SECONDS = 10.0
_SEEDS_TO_TELL_APART = 64  # a change drawn with probability 0.1 is missed by one in a thousand
_TRANSFORMS = ("transform", "transforms", "target_transform")
_LOADER_OPTIONS = (
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
)


# The loader -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoaderFacts:
    """What the wrapped train loader says about batches.

    Attributes:
        dataset: The real training data, as the loader had it.
        batch_size: Samples a batch, of one rank.
        drop_last: Whether an incomplete last batch is dropped.
        shuffle: Whether real samples come in a shuffled order.
        collate_fn: Makes a batch of a list of samples.
        options: Further arguments of `torch.utils.data.DataLoader` (workers, pinning …).
    """

    dataset: Dataset[Any]
    batch_size: int
    drop_last: bool
    shuffle: bool
    collate_fn: Callable[[list[Any]], Any]
    options: dict[str, Any]


def loader_facts(loader: Any) -> LoaderFacts:
    """Reads the facts off the wrapped module's own train loader.

    Raises:
        ConfigurationError: It is not one DataLoader, or it batches in a way that a mix cannot keep.
    """
    if not isinstance(loader, DataLoader):
        raise ConfigurationError(
            f"train_dataloader() of the wrapped DataModule returns a {type(loader).__name__}: the mix is made for one "
            "torch DataLoader, because the share of each batch would be undefined over several. Wrap one loader's "
            "DataModule (real=...), and combine loaders outside."
        )
    if loader.batch_size is None:
        if loader.batch_sampler is None:
            raise ConfigurationError(
                "the wrapped train loader has batch_size=None (its dataset makes whole batches), so single samples "
                "cannot be mixed. Give real=<DataModule whose dataset yields single samples>."
            )
        raise ConfigurationError(
            f"the wrapped train loader has a batch sampler of its own ({type(loader.batch_sampler).__name__}), which "
            "the mix would override. Let it use batch_size= and shuffle=; for class-balanced batches set "
            "data.balance=classes."
        )
    if not isinstance(loader.batch_sampler, (BatchSampler, type(None))):
        raise ConfigurationError(f"batch sampler {type(loader.batch_sampler).__name__} of real= cannot be mixed.")
    dataset, shuffle = loader.dataset, True
    if isinstance(dataset, IterableDataset) or isinstance(loader.sampler, SequentialSampler):
        shuffle = False
    elif isinstance(loader.sampler, DistributedSampler):
        shuffle = loader.sampler.shuffle
    elif type(loader.sampler) is SubsetRandomSampler:
        dataset = Subset(dataset, list(loader.sampler.indices))
    elif type(loader.sampler) is not RandomSampler or loader.sampler.replacement or loader.sampler._num_samples:
        raise ConfigurationError(
            f"the wrapped train loader draws by {type(loader.sampler).__name__} with settings of its own, which the "
            "mix would override without a word. Use shuffle=True there; for class-balanced draws set "
            "data.balance=classes."
        )
    options = {name: getattr(loader, name) for name in _LOADER_OPTIONS}
    options["pin_memory"] &= torch.accelerator.is_available()  # else torch warns, and pins nothing
    return LoaderFacts(dataset, loader.batch_size, loader.drop_last, shuffle, loader.collate_fn, options)


# Samples without transform --------------------------------------------------------------------------


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


def with_leaf(sample: Any, path: str, change: Callable[[Any], Any]) -> Any:
    """The sample with one leaf changed; containers on the way are copied."""
    if not path:
        return change(sample)
    name, _, rest = path.partition(".")
    if isinstance(sample, Mapping):
        key = next(key for key in sample if str(key) == name)
        made: Any = copy.copy(sample)  # a defaultdict or a user's own stays one
        made[key] = with_leaf(sample[key], rest, change)
        return made
    if isinstance(sample, (tuple, list)):
        items = list(sample)
        items[int(name)] = with_leaf(items[int(name)], rest, change)
        return type(sample)(*items) if hasattr(sample, "_fields") else type(sample)(items)
    changed = copy.copy(sample)
    object.__setattr__(changed, name, with_leaf(getattr(sample, name), rest, change))
    return changed


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


# Labels ---------------------------------------------------------------------------------------------


def find_labels(
    dataset: Dataset[Any],
    labels: Sequence[int | str] | Tensor | None,
    path: str | None,
) -> list[int | str] | None:
    """The label of every training sample.

    They come from `labels`, from the dataset's ``targets`` or ``labels``, or from one pass over the samples, in each
    run: no name of a dataset that is had without reading it changes with its content, so none could vouch for labels
    that were kept.

    Args:
        dataset: The training data without transform.
        labels: The user's own list, or None.
        path: Path of the label in a sample; None for data without labels.

    Returns:
        n labels, or None.

    Raises:
        ConfigurationError: `labels` has another length than the data.
    """
    if labels is None and path is not None:
        labels = _stored_labels(dataset)
        if labels is None:
            began, n = time.monotonic(), len(dataset)  # type: ignore[arg-type]
            labels = [_label_value(leaves(dataset[i])[path]) for i in range(n)]
            if (seconds := time.monotonic() - began) > _LONG_PASS_SECONDS:
                log.warning(
                    "reading the labels of %d training samples one by one took %.0f s, as it does in each run. Give "
                    "labels=, or keep them in an attribute targets of the dataset.",
                    n, seconds,
                )  # fmt: skip
    if labels is None:
        return None
    values = [_label_value(value) for value in labels]
    if len(values) != len(dataset):  # type: ignore[arg-type]
        raise ConfigurationError(
            f"labels has {len(values)} entries for {len(dataset)} training samples; "  # type: ignore[arg-type]
            "give one label for each sample in labels=."
        )
    return values


def _label_value(leaf: Any) -> int | str:
    if isinstance(leaf, str):
        return leaf
    value = leaf.item() if hasattr(leaf, "item") else leaf
    if isinstance(value, bool) or not isinstance(value, int):
        raise SampleStructureError(
            f"a label is {leaf!r} ({type(leaf).__name__}): one integer or string for each sample is needed. Give "
            "labels=, or leave the label out of fields= (then data.balance=none and data.allocation=as_real)."
        )
    return value


def _stored_labels(dataset: Dataset[Any]) -> Sequence[Any] | None:
    """Labels that a dataset keeps beside its samples, through Subset and ConcatDataset."""
    if isinstance(dataset, Subset):
        inner = _stored_labels(dataset.dataset)
        return None if inner is None else [inner[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [_stored_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [v for part in parts if part is not None for v in part]
    for name in ("targets", "labels"):
        stored: Literal[None] | Any = getattr(dataset, name, None)
        if stored is None or callable(stored) or isinstance(stored, (str, dict)):
            continue
        flat = stored.tolist() if hasattr(stored, "tolist") else stored
        if len(flat) == len(dataset) and all(isinstance(v, (int, str, np.integer)) for v in flat[:100]):  # type: ignore[arg-type]
            return list(flat)
    return None


def class_names(dataset: Dataset[Any], values: Sequence[int | str]) -> list[str]:
    """Names of the classes: those in the dataset's ``classes`` that the values index, else the values as text."""
    names = getattr(innermost(dataset), "classes", None)
    if isinstance(names, (list, tuple)):
        found = [names[value] for value in values if isinstance(value, int) and 0 <= value < len(names)]
        if len(found) == len(values):
            return [str(name) for name in found]
    return [str(value) for value in values]
