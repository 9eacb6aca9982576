"""Labels of training samples as probabilities of the classes, real and synthetic ones alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import get_worker_info

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.sample import describe, leaves
from lightning_diffaug.spec import LABEL, SOFT_LABEL, LabelValue, SampleSpec
from lightning_diffaug.wrapping import with_leaf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SoftLabels:
    """Puts float32 (C,) probabilities in the place of the label, once a sample's transforms are done.

    Attributes:
        path: Path of the label in a sample.
        classes: Number of classes.
        class_index: Class of each real sample, int64 (n,); None for a stream, whose labels are looked up.
        number_of: The user's label → class index.
    """

    path: str
    classes: int
    class_index: np.ndarray[Any, Any] | None
    number_of: Mapping[LabelValue, int]

    @classmethod
    def of(
        cls,
        spec: SampleSpec,
        label_values: Sequence[LabelValue],
        class_index: np.ndarray[Any, Any] | None,
        sample: Any,
    ) -> SoftLabels:
        """For samples like this one.

        Args:
            spec: The fields of a sample.
            label_values: The user's label of each class index.
            class_index: Class of each real sample; None for a stream.
            sample: A real training sample, transformed.

        Raises:
            ConfigurationError: Samples have no label that could be replaced.
        """
        label = spec.get(LABEL)
        found = None if label is None else leaves(sample).get(label.path)
        if label is None or found is None or not (isinstance(found, str) or np.ndim(found) == 0):
            raise ConfigurationError(
                "data.soft_labels=true puts probabilities in the place of a sample's label, and the training samples "
                f"have none there:\n{describe(sample)}\nSet data.soft_labels=false, or let the dataset have an integer "
                "label, after its transform where it was before."
            )
        return cls(label.path, len(label_values), class_index, {value: i for i, value in enumerate(label_values)})

    def of_real(self, samples: Sequence[Any], indices: Sequence[int]) -> list[Any]:
        """Real samples, each with all of the probability on its class.

        Args:
            samples: Transformed.
            indices: Of the samples in the training data.
        """
        if self.class_index is not None:
            numbers = self.class_index[list(indices)].tolist()
        else:
            numbers = [self._number(leaves(sample)[self.path]) for sample in samples]
        return self._with(samples, self._one_hot(torch.tensor(numbers, dtype=torch.int64)))

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
            return self._with(samples, self._one_hot(fields[LABEL]))
        if soft.shape[1:] != (self.classes,):
            raise SampleStructureError(
                f"the pool's soft labels are of {tuple(soft.shape[1:])} classes and the training data have "
                f"{self.classes}: the planner (data.planner) made them so. Set data.soft_labels=false, or correct it."
            )
        return self._with(samples, soft)

    def _number(self, label: Any) -> int:
        return self.number_of[label.item() if hasattr(label, "item") else label]

    def _one_hot(self, numbers: Tensor) -> Tensor:
        return functional.one_hot(numbers, self.classes).float()

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
