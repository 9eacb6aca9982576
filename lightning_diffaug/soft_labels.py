"""Labels of training samples as probabilities of the classes, real and synthetic ones alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import get_worker_info

from lightning_diffaug.columns import columns_of, label_of
from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.spec import LABEL, SOFT_LABEL, LabelValue, SampleSpec
from lightning_diffaug.structure import describe, leaves, with_leaf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SoftLabels:
    """Puts float32 (C,) probabilities in the place of the label, once a sample's transforms are done.

    Their columns are those of the labels that samples have after their transform, see `columns.columns_of`. The pool's
    own soft labels are over class indices, and are mapped to them.

    Attributes:
        path: Path of the label in a sample.
        columns: Column of each class index.
        column_of: Label of a transformed sample → column.
    """

    path: str
    columns: tuple[int, ...]
    column_of: Mapping[LabelValue, int]

    @classmethod
    def of(cls, spec: SampleSpec, labels: Sequence[LabelValue] | None, sample: Any) -> SoftLabels:
        """For samples like this one.

        Args:
            spec: The fields of a sample.
            labels: The label of each class index after a sample's transform; None: not an integer or string each.
            sample: A real training sample, transformed.

        Raises:
            ConfigurationError: Samples have no label that could be replaced.
        """
        label = spec.get(LABEL)
        found = None if label is None else leaves(sample).get(label.path)
        if label is None or not labels or found is None or label_of(found) is None:
            raise ConfigurationError(
                "data.soft_labels=true puts probabilities in the place of a sample's label, and the training samples "
                f"have none there:\n{describe(sample)}\nSet data.soft_labels=false, or let the dataset have an integer "
                "label, after its transform where it was before."
            )
        columns = columns_of(labels)
        return cls(label.path, tuple(columns), dict(zip(labels, columns, strict=True)))

    @property
    def width(self) -> int:
        """Columns, C."""
        return max(self.columns) + 1

    def of_real(self, samples: Sequence[Any]) -> list[Any]:
        """Samples, each with all of the probability on its label.

        Args:
            samples: Transformed.

        Raises:
            SampleStructureError: A label is of no known class.
        """
        columns = torch.tensor([self._column(leaves(sample)[self.path]) for sample in samples], dtype=torch.int64)
        return self._with(samples, functional.one_hot(columns, self.width).float())

    def of_synthetic(self, samples: Sequence[Any], fields: Mapping[str, Tensor]) -> list[Any]:
        """Pooled samples, each with the soft label that was stored with it, else as `of_real`.

        Args:
            samples: Transformed.
            fields: What the pool has of them.

        Raises:
            SampleStructureError: A stored label has another number of classes.
        """
        soft = fields.get(SOFT_LABEL)
        if soft is None:
            return self.of_real(samples)
        if soft.shape[1:] != (len(self.columns),):
            raise SampleStructureError(
                f"the pool's soft labels are of {tuple(soft.shape[1:])} classes and the training data have "
                f"{len(self.columns)}: the planner (data.planner) made them so. Set data.soft_labels=false, or correct "
                "it."
            )
        placed = torch.zeros(len(soft), self.width).index_add_(1, torch.tensor(self.columns), soft)
        return self._with(samples, placed)

    def _column(self, leaf: Any) -> int:
        label = label_of(leaf)
        column = None if label is None else self.column_of.get(label)
        if column is None:
            known = ", ".join(map(repr, list(self.column_of)[:10])) + (", …" if len(self.column_of) > 10 else "")
            raise SampleStructureError(
                f"a training sample has the label {leaf!r} after its transform, and the classes of the training data "
                f"have {known} after theirs, so no column of its probabilities is known. Let raw= and labels= (of a "
                "stream: raw=) have all classes with the labels that samples have, give a synthetic_transform= that "
                "makes the same labels, or set data.soft_labels=false."
            )
        return column

    def _with(self, samples: Sequence[Any], labels: Tensor) -> list[Any]:
        def put(sample: Any, label: Tensor) -> Any:
            return with_leaf(sample, self.path, lambda _: label)

        return [put(sample, label) for sample, label in zip(samples, labels.unbind(0), strict=True)]


class Unused:
    """Says once that the pool's soft labels go unused; in a loader's worker the first of them does."""

    def __init__(self) -> None:
        self._said = False

    def say(self, fields: Mapping[str, Tensor]) -> None:
        """To be called with each batch's fields."""
        if self._said or SOFT_LABEL not in fields:
            return
        self._said = True
        worker = get_worker_info()
        if worker is None or worker.id == 0:
            log.warning(
                "The pool's samples have soft labels, and training takes the class that was asked for. Set "
                "data.soft_labels=true to train on them."
            )
