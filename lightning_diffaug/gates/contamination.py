"""The gate against near-copies of validation and test samples, and the measure by which they are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.gates.checks import check_field, check_moves, check_ratio
from lightning_diffaug.gates.nearest import Neighbours, apart, compared_field

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec


class NotHeldOut:
    """Rejects samples that are nearly a validation or test sample, also if moved by a pixel or mirrored.

    Meant for generators that were trained on data that nobody knows: a pretrained model may have seen the test set.
    It lets held-out data decide what is trained on, so a run says that it was on.

    A sample is a copy if its nearest held-out sample is nearer than `ratio` times the distance from that one to its own
    nearest real sample, held out or of training: the measure is what distance is usual just there.

    Args:
        ratio: See above.
        shift: Movement along each axis that is seen through, in pixels.
        mirror: Whether mirrored copies are seen through.
        field: The field to compare; None: of those that are made the image, or the first continuous one.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    name = "contamination"
    judges_made = True

    def __init__(self, ratio: float = 1 / 3, shift: int = 1, mirror: bool = True, field: str | None = None) -> None:
        self.ratio = check_ratio(ratio, self.name)
        check_moves(shift, mirror, self.name)
        self.shift, self.mirror, self.field = shift, mirror, field
        self._training: Neighbours | None = None
        self._held_out: Neighbours | None = None
        self._snapshot: Snapshot | None = None

    def check(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Refuses a field that is not there, before anything is made."""
        check_field(spec, self.name, self.field)

    def bind(self, snapshot: Snapshot) -> None:
        """Learns the real training samples, which say what distance is usual."""
        self._name = compared_field(snapshot.spec, self.field)
        self._training = Neighbours(partial(snapshot.unit, self._name), len(snapshot), self.shift, self.mirror)

    def bind_held_out(self, snapshot: Snapshot) -> None:
        """Learns the samples whose copies are looked for."""
        self._snapshot = snapshot
        read = partial(snapshot.unit, compared_field(snapshot.spec, self.field))
        self._held_out = Neighbours(read, len(snapshot), self.shift, self.mirror)

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Bool (n,): the row is no copy of a held-out sample."""
        assert self._training is not None, "bind(snapshot) comes first"
        assert self._held_out is not None, "and bind_held_out(snapshot)"
        assert self._snapshot is not None
        read = partial(self._snapshot.unit, self._name)
        distance, index = self._held_out.distances(samples[self._name])
        usual = torch.minimum(self._held_out.own(index, read), self._training.own(index, read))
        return apart(distance, usual, self.ratio)
