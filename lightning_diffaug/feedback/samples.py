"""Training samples as the learner is asked about them: raw, converted as training has them, not augmented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.probing import seeded
from lightning_diffaug.real import RealTraining
from lightning_diffaug.real_transform import fitting_transform
from lightning_diffaug.sample import leaf_to_tensor
from lightning_diffaug.spec import LABEL, FieldSpec
from lightning_diffaug.structure import leaves


class LearnerSamples:
    """The raw training samples, as batches of the wrapped module's structure.

    They go through the conversion without augmentation: the wrapped module's ``eval_transform``, or what pooled samples
    go through with ``augment_synthetic=False``. Where neither is known, through what pooled samples go through, each
    sample under a random state of its own that never changes.

    Args:
        real: The wrapped module.
        data: What is known of the training data.

    Raises:
        ConfigurationError: There are no samples by index.
    """

    def __init__(self, real: Any, data: RealTraining) -> None:
        if data.raw is None:
            raise ConfigurationError(
                "data.feedback asks the learner about training samples by their index, and the training data are a "
                "stream without one. Give raw=<map-style dataset>, or set feedback=none."
            )
        self._data = data
        self._raw = data.raw
        self.image: FieldSpec = data.spec.continuous[0]
        with_eval = fitting_transform(getattr(real, "eval_transform", None), self.image.path, self._raw[0], data)
        self._transform: Callable[[Any], Any] | None = with_eval or data.synthetic_transform

    def __len__(self) -> int:
        return len(self._raw)  # type: ignore[arg-type]

    def batch(self, indices: Sequence[int]) -> Any:
        """The collated batch of these samples, on the CPU. Sets the global random states."""
        return self._data.facts.collate_fn([seeded(partial(self._sample, i), i) for i in indices])

    def _sample(self, i: int) -> Any:
        return self.converted(self._raw[i])

    def converted(self, sample: Any) -> Any:
        """A raw sample as training has it."""
        return sample if self._transform is None else self._transform(sample)

    def made(self, image: Tensor) -> Any:
        """The collated batch of raw images (n, *shape) in the stored dtype, with the first sample's other fields."""
        fields = {self.image.name: image}
        for field in self._data.spec.tensors:
            if field.name == LABEL:
                fields[LABEL] = torch.zeros(len(image), dtype=torch.int64)
            elif field.name != self.image.name:
                fields[field.name] = self.raw(field, [0]).expand(len(image), *field.shape)
        samples = self._data.adapter.samples(fields, lambda: [(0, row) for row in range(len(image))])
        return self._data.facts.collate_fn([self.converted(sample) for sample in samples])

    def raw(self, field: FieldSpec, indices: Sequence[int]) -> Tensor:
        """A field of raw samples as it is stored, (n, *shape)."""
        return torch.stack([leaf_to_tensor(leaves(self._raw[i])[field.path], field) for i in indices])

    def image_of(self, batch: Any) -> Tensor:
        """The images of a batch.

        Raises:
            ConfigurationError: They are not where they are in a sample.
        """
        found = leaves(batch).get(self.image.path)
        if not isinstance(found, Tensor):
            raise ConfigurationError(
                f"data.feedback looks for the images of a batch where a sample has them (path {self.image.path!r}), "
                "and there is no tensor: the loader's collate_fn puts them elsewhere. Give the LightningModule a "
                "method feedback_scores(batch) that returns {loss: (n,)}, or set feedback.scores."
            )
        return found

    @property
    def batch_size(self) -> int:
        """Of the wrapped module's training loader."""
        return self._data.facts.batch_size

    @property
    def columns(self) -> list[int]:
        """The logit of each class, as `RealTraining.columns` has it."""
        return self._data.columns

    @property
    def class_index(self) -> np.ndarray[Any, Any] | None:
        """Class of each sample, int64 (n,)."""
        return self._data.class_index

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._data.class_names


def chosen(n: int, class_index: np.ndarray[Any, Any] | None, most: int | None, seed: Sequence[int]) -> list[int]:
    """Which of n samples are looked at: at most so many, drawn by the seed, the classes as evenly as they reach.

    Args:
        n: Samples.
        class_index: Class of each, int64 (n,); None without labels.
        most: Bound; None: all.
        seed: Of the draw.

    Returns:
        Indices, ascending.
    """
    if most is None or n <= most:
        return list(range(n))
    order = np.random.default_rng(list(seed)).permutation(n)
    if class_index is not None:  # the first of each class, then the second of each …
        rank = np.empty(n, np.int64)
        classes = class_index[order]
        for c in np.unique(classes):
            members = np.flatnonzero(classes == c)
            rank[members] = np.arange(len(members))
        order = order[np.argsort(rank, kind="stable")]
    return sorted(order[:most].tolist())
