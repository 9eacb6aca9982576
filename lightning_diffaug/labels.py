"""The labels of the training samples, and the names of the classes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.structure import leaves
from lightning_diffaug.wrapping import innermost

log = logging.getLogger(__name__)

_LONG_PASS_SECONDS = 10.0


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
