"""Gates against copies: of training samples, and of other samples in the slot."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.nearest import Neighbours, compared_field

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot


def check_ratio(ratio: float, gate: str) -> float:
    """A distance ratio, checked.

    Raises:
        ConfigurationError: It is not in (0, 1).
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < 1:
        raise ConfigurationError(
            f"gates.{gate}.ratio={ratio} is not between 0 and 1: it is how near a sample may come, as a share of the "
            f"distance between real neighbours. Set gates.{gate}.ratio to e.g. 0.33."
        )
    return float(ratio)


class NotCopy:
    """Rejects samples that are nearly one of the training samples, also if moved by a pixel or mirrored.

    A sample is a copy if its nearest training sample is nearer than `ratio` times the distance from that training
    sample to its own nearest one: the measure is what distance is usual just there.

    Args:
        ratio: See above. At 1/3, honest samples are hardly ever taken for copies.
        shift: Movement along each axis that is seen through, in pixels.
        mirror: Whether mirrored copies are seen through.
        field: The field to compare; None: the image, or the first continuous one.
    """

    name = "copy"

    def __init__(self, ratio: float = 1 / 3, shift: int = 1, mirror: bool = True, field: str | None = None) -> None:
        self.ratio = check_ratio(ratio, self.name)
        self.shift, self.mirror, self.field = shift, mirror, field
        self._snapshot: Snapshot | None = None
        self._neighbours: Neighbours | None = None

    def bind(self, snapshot: Snapshot) -> None:
        """Learns the real training samples."""
        self._snapshot, self._name = snapshot, compared_field(snapshot.spec, self.field)
        self._neighbours = Neighbours(snapshot.unit(self._name), self.shift, self.mirror)

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Bool (n,): the row is no copy of a training sample."""
        assert self._neighbours is not None
        assert self._snapshot is not None
        distance, index = self._neighbours.distances(samples[self._name])
        usual = self._neighbours.own(index, partial(self._snapshot.unit, self._name))
        return distance >= self.ratio * usual


class Unique:
    """Rejects samples that nearly equal an earlier one of the slot.

    Args:
        ratio: How near two samples of a slot may be, as a share of the median distance between real neighbours.
        field: The field to compare; None: the image, or the first continuous one.
    """

    name = "duplicate"

    def __init__(self, ratio: float = 0.2, field: str | None = None) -> None:
        self.ratio = check_ratio(ratio, self.name)
        self.field = field
        self._bound = 0.0

    def bind(self, snapshot: Snapshot) -> None:
        """Learns how far real neighbours are apart."""
        name = compared_field(snapshot.spec, self.field)
        some = torch.linspace(0, len(snapshot) - 1, min(len(snapshot), _CALIBRATION)).long()
        real = Neighbours(snapshot.unit(name), shift=0, mirror=False)
        usual = real.own(some, partial(snapshot.unit, name))
        usual = usual[usual.isfinite()]
        self._bound = self.ratio * float(usual.median()) if len(usual) else 0.0

    def __call__(
        self,
        samples: Mapping[str, Tensor],
        condition: Mapping[str, Any],
        admitted: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Bool (n,): no row before it, and none that the slot holds already, is nearly the same."""
        name = compared_field(samples, self.field)
        x, before = samples[name].flatten(1), 0
        if admitted and len(admitted[name]):
            x, before = torch.cat((admitted[name].flatten(1), x)), len(admitted[name])
        near = torch.cdist(x, x) / x.shape[1] ** 0.5 <= max(self._bound, 1e-6)
        alone = torch.ones(len(x), dtype=torch.bool)
        for row in range(before, len(x)):  # a rejected row is no reason to reject another
            alone[row] = not bool((near[row, :row] & alone[:row]).any())
        return alone[before:]


_CALIBRATION = 512
