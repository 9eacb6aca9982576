"""Gates against copies: of training samples, and of other samples in the slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.checks import as_set, check_field, check_moves, check_ratio
from lightning_diffaug.gates.encoders import ChosenEncoder
from lightning_diffaug.gates.nearest import SAME, Neighbours, apart, compared_field
from lightning_diffaug.spec import LABEL

if TYPE_CHECKING:
    from lightning_diffaug.gates.classifier_fit import FittedClassifier
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec


class NotCopy:
    """Rejects samples that are nearly one of the training samples, also if moved by a pixel or mirrored.

    A sample is a copy if its nearest training sample is nearer than `ratio` times the distance from that training
    sample to its own nearest one: the measure is what distance is usual just there. Where no other training sample
    differs from that one, only its equals are copies. With an `encoder` the same is asked of features, and either makes
    it a copy.

    Args:
        ratio: See above. At 1/3, honest samples are hardly ever taken for copies.
        shift: Movement along each axis that is seen through, in pixels.
        mirror: Whether mirrored copies are seen through.
        field: The field to compare; None: of those that are made the image, or the first continuous one.
        encoder: What features are compared beside pixels: None, ``"class"`` (the classifier of gate ``class``), a local
            folder, or a module; see `ChosenEncoder`.
        feature_ratio: As `ratio`, for features.
        device: Where a given encoder computes.

    Raises:
        ConfigurationError: A value is out of its range, or `encoder` is none.
    """

    name = "copy"
    judges_made = True
    unnamed = ("device",)

    def __init__(
        self,
        ratio: float = 1 / 3,
        shift: int = 1,
        mirror: bool = True,
        field: str | None = None,
        encoder: Any = None,
        feature_ratio: float = 1 / 3,
        device: str = "auto",
    ) -> None:
        self.ratio = check_ratio(ratio, self.name)
        self.feature_ratio = check_ratio(feature_ratio, self.name, "feature_ratio")
        check_moves(shift, mirror, self.name)
        self.shift, self.mirror, self.field, self.device = shift, mirror, field, device
        self._chosen = None if encoder is None else ChosenEncoder(encoder, field, device, "gates.copy.encoder")
        self.encoder = None if self._chosen is None else self._chosen.named
        self.asks = None if self._chosen is None else self._chosen.asks
        self._data: Callable[[Tensor], Tensor] | None = None
        self._measures: list[tuple[Neighbours, float]] = []

    @property
    def fitted(self) -> FittedClassifier | None:
        """The classifier whose features are compared, if there is one."""
        return None if self._chosen is None else self._chosen.fitted

    def model_key(self) -> Any:
        """Hash of the files of a given encoder."""
        return None if self._chosen is None else self._chosen.model_key()

    def check(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Looks at data and encoder before anything is made.

        Raises:
            ConfigurationError: The field is not there, the encoder cannot be made, or the classifier's features are
                asked for and the data have no classes.
        """
        check_field(spec, self.name, self.field)
        if self.asks is not None:
            self.asks.check(spec[compared_field(spec, self.field)].shape)
        if self.fitted is not None and LABEL not in spec:
            raise ConfigurationError(
                "gates.copy.encoder=class compares what a classifier sees, and the data have no classes. Set "
                f"{as_set(self.name, encoder='FOLDER')}, the local folder of a vision model, or gates.copy=true."
            )

    def bind(self, snapshot: Snapshot) -> None:
        """Learns the real training samples."""
        self._name = compared_field(snapshot.spec, self.field)
        self._data = partial(snapshot.unit, self._name)
        count = len(snapshot)
        self._measures = [(Neighbours(self._data, count, self.shift, self.mirror), self.ratio)]
        if self._chosen is not None:
            self._measures.append((Neighbours(self._data, count, encoder=self._chosen.encode), self.feature_ratio))

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Bool (n,): the row is no copy of a training sample."""
        assert self._data is not None, "bind(snapshot) comes first"
        x = samples[self._name]
        passed = torch.ones(len(x), dtype=torch.bool)
        for neighbours, ratio in self._measures:
            distance, index = neighbours.distances(x)
            passed &= apart(distance, neighbours.own(index, self._data), ratio)
        return passed


class Unique:
    """Rejects samples that nearly equal an earlier one of the slot.

    Args:
        ratio: How near two samples of a slot may be, as a share of the median distance between real neighbours.
        field: The field to compare; None: of those that are made the image, or the first continuous one.
    """

    name = "duplicate"
    judges_made = True

    def __init__(self, ratio: float = 0.2, field: str | None = None) -> None:
        self.ratio = check_ratio(ratio, self.name)
        self.field = field
        self.bound = 0.0
        """Root mean square difference up to which two samples are nearly equal."""

    def check(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Refuses a field that is not there, before anything is made."""
        check_field(spec, self.name, self.field)

    def bind(self, snapshot: Snapshot) -> None:
        """Learns how far real neighbours are apart."""
        name = compared_field(snapshot.spec, self.field)
        read = partial(snapshot.unit, name)
        some = read(torch.linspace(0, len(snapshot) - 1, min(len(snapshot), _CALIBRATION)).long())
        near, index = Neighbours(read, len(snapshot), shift=0, mirror=False).distances(some, at_least=SAME)
        there = near.isfinite().nonzero()[:, 0]
        # as samples of a slot are compared: at full size, of which neighbours may have seen an average
        usual = (some[there] - read(index[there])).flatten(1).square().mean(1).sqrt()
        self.bound = self.ratio * float(usual.median()) if len(usual) else 0.0

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
        near = torch.cdist(x, x) / x.shape[1] ** 0.5 <= max(self.bound, 1e-6)
        alone = torch.ones(len(x), dtype=torch.bool)
        for row in range(before, len(x)):  # a rejected row is no reason to reject another
            alone[row] = not bool((near[row, :row] & alone[:row]).any())
        return alone[before:]


_CALIBRATION = 512
