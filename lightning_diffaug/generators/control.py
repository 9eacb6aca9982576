"""A control: what would be synthetic is filled with real images, some of them of another class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import weights
from lightning_diffaug.generators.augment import RandomAffine
from lightning_diffaug.generators.protocol import LABEL, Condition
from lightning_diffaug.spec import SampleSpec

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

CONTROL_VERSION = 1
"""Raised with every change of this module that changes a sample: it is part of a pool's fingerprint."""


class ControlGenerator:
    """Fills the places of synthetic samples without making any: the control of a comparison.

    Of the samples asked for of a class, a share are real training images of it, moved a little; the others are real
    images of other classes, as they are, *under its label*. They are drawn alike from all images that are not of the
    class, so that common classes come most often. Whatever accuracy this gains over real data alone, it gains by
    moving the class prior: a generator has to do better.

    Fields that are no images are not moved. It keeps the training data in memory.

    Args:
        real_share: Share of the samples that are of their class, in [0, 1].
        degrees: Largest rotation of these, either way.
        pixels: Largest translation along each axis, in pixels.
        scale: Largest relative change of size, in [0, 1).

    Raises:
        ConfigurationError: A setting is out of its range.
    """

    network_passes = 0

    def __init__(self, real_share: float = 0.6, degrees: float = 15.0, pixels: float = 1.0, scale: float = 0.1) -> None:
        if not 0.0 <= real_share <= 1.0:
            raise ConfigurationError(
                f"real_share={real_share} is not in [0, 1]: it is the share of the samples that are of the class asked "
                "for. Set generator.real_share to e.g. 0.6."
            )
        if degrees < 0.0 or pixels < 0.0 or not 0.0 <= scale < 1.0:
            raise ConfigurationError(
                f"degrees={degrees}, pixels={pixels}, scale={scale}: the largest changes of an image must be 0 or "
                "more, and scale below 1. Set generator.degrees, generator.pixels and generator.scale so."
            )
        self.real_share = float(real_share)
        self.affine = RandomAffine(1.0, float(degrees), float(pixels), float(scale))
        self._fields: dict[str, Tensor] = {}
        self._spec = SampleSpec(())
        self._labels = torch.empty(0, dtype=torch.int64)

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Says that there have to be classes.

        Raises:
            ConfigurationError: There are none.
        """
        if not class_names:
            raise ConfigurationError(
                "generator=control gives samples the label of another class, and the data have no labels. Set another "
                "generator, or data.fields so that the label is found."
            )

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        moves = {name: value for name, value in vars(self.affine).items() if name != "p"}
        return {"real_share": self.real_share, **moves}

    def fit_key(self) -> dict[str, Any]:
        """What is kept depends on the data alone."""
        return {"control_version": CONTROL_VERSION}

    def sample_key(self) -> dict[str, Any]:
        """What a sample depends on, besides data, condition and seed."""
        return {"control_version": CONTROL_VERSION, **self.config()}

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Writes the training data into the folder; see `Fittable`.

        Raises:
            ConfigurationError: They have no labels.
        """
        labels = snapshot.labels
        self.bind(snapshot.spec, snapshot.class_names if labels is not None else ())
        assert labels is not None
        spec = SampleSpec(snapshot.spec.continuous)
        fields = {field.name: snapshot.raw(field.name) for field in spec.fields}
        weights.save(folder, {**fields, LABEL: labels}, {"spec": spec.to_json()}, {**self.fit_key()})
        progress(1, 1)

    def load(self, folder: Path) -> None:
        """Reads what `fit` wrote, verified by hash."""
        fields, description = weights.load(folder)
        self._spec, self._labels = SampleSpec.from_json(description["spec"]), fields.pop(LABEL)
        self._fields = fields

    def generate(self, condition: Condition, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Takes one real sample for each seed; see `Generator`.

        Args:
            condition: ``label``: int64 (n,) class indices. Other keys are ignored.
            seeds: n seeds.

        Returns:
            Field name → (n, *shape) float32 in [-1, 1]. A class without a training sample gets those of others, and
            the only class that there is gets its own.

        Raises:
            GeneratorError: Nothing was loaded, or there are no labels.
        """
        wanted = condition.get(LABEL)
        if not len(self._labels) or not isinstance(wanted, Tensor) or len(wanted) != len(seeds):
            raise GeneratorError(
                f"the control has {len(self._labels)} training samples, and the condition has {sorted(condition)}: "
                f"needed are fit(...) and load(folder), and condition[{LABEL!r}], one class for each of {len(seeds)} "
                "seeds."
            )
        own, rows, how = zip(*(self._drawn(int(c), s) for c, s in zip(wanted, seeds, strict=True)), strict=True)
        moved, taken, drawn = torch.tensor(own), torch.tensor(rows), torch.stack(how)
        return {field.name: self._made(field.name, taken, moved, drawn) for field in self._spec.fields}

    def _drawn(self, label: int, seed: int) -> tuple[bool, int, Tensor]:
        """Whether a sample is of its class, its row in the training data, and how it is moved."""
        rng = torch.Generator().manual_seed(seed)
        _, how = self.affine.drawn(1, rng)
        is_own = bool(torch.rand((), generator=rng) < self.real_share)
        of_class = self._labels == label
        rows = (of_class if is_own else ~of_class).nonzero().flatten()
        if not len(rows):
            is_own = not is_own
            rows = torch.arange(len(self._labels))
        return is_own, int(rows[torch.randint(len(rows), (), generator=rng)]), how[0]

    def _made(self, name: str, rows: Tensor, moved: Tensor, how: Tensor) -> Tensor:
        values = self._spec[name].to_unit(self._fields[name].index_select(0, rows)).clamp(-1.0, 1.0)
        return self.affine.moved(values, moved, how) if values.ndim == 4 else values
