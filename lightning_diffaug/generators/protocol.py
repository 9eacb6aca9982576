"""What a generator is: an object that turns conditions and seeds into samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec

Condition: TypeAlias = Mapping[str, Any]
"""Name → batch: a tensor ``(n, …)`` or a list of n values, one for each sample asked for."""

LABEL = "label"
"""Key of the class index, int64 ``(n,)``."""

START = "start"
"""Key of the real samples to vary: float32 ``(n, *shape)`` in [-1, 1], or field name → such a tensor.

Several continuous fields are joined along their channels in the order of the spec.
"""

MASK = "mask"
"""Key of what is kept of `START`: bool or float ``(n, 1 or C, …)``, 1 where a value is kept exactly, 0 where it is
made anew. Without `START` it has no such meaning."""

OTHER = "other"
"""Key of second real samples, in the form of `START`, to interpolate to."""

WEIGHT = "weight"
"""Key of where between `START` (0) and `OTHER` (1) a sample lies: float32 ``(n,)``."""

OF_START = "start_"
"""Prefix of what the real samples are: ``start_label`` is the class of `START`, where `LABEL` asks for another."""

NEGATIVE = "negative_"
"""Prefix of what is to be avoided under guidance: ``negative_label`` is a class, as int64 ``(n,)``."""


@runtime_checkable
class Generator(Protocol):
    """Anything with a ``generate`` method: a diffusion model, a GAN, a simulator, a client of a server."""

    def generate(self, condition: Condition, seeds: Sequence[int]) -> Mapping[str, Tensor] | Tensor:
        """Makes one sample for each seed.

        Args:
            condition: What each sample shall be; every value has n entries.
            seeds: n seeds, each in [0, 2^63). The same seed and condition give the same sample (within
                rounding where the batch is another one); the global random states are neither read nor
                changed.

        Returns:
            Field name → n samples; continuous fields are float32 in [-1, 1], or not finite where a sample
            failed. A bare tensor stands for the only continuous field of the data. For a field that is a text, n texts
            that were made; without them a sample's text is its prompt.
        """
        ...


@runtime_checkable
class Bindable(Generator, Protocol):
    """A generator that has to know the data before it can generate."""

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Learns what the samples are, and checks that the settings suit them.

        Called in the trainer's process before anything is fitted or made, so that what is wrong is said there, and
        again where samples are made; cheap, therefore, and without effect when it is repeated. The generator's names
        (``config``, ``fit_key``, ``sample_key``) do not depend on it.

        Args:
            spec: The fields of a sample.
            class_names: Class names in order; () for data without labels.

        Raises:
            ConfigurationError: The settings do not suit the data, or what they name is missing.
        """
        ...


@runtime_checkable
class Lazy(Generator, Protocol):
    """A generator that loads what it samples with (networks, weights) only when there is something to sample."""

    def ready(self) -> None:
        """Loads it, without a sample being made.

        Called once, in the process that samples, before its first slot: the time counts neither as generation nor for
        ``refill.duty``. `generate` works without it too.
        """
        ...


@runtime_checkable
class Reporting(Generator, Protocol):
    """A generator whose passes take long: it shows that work goes on."""

    on_progress: Callable[[], None]
    """Set before each slot, and called within `generate`: a process that shows nothing for ``refill.hang_timeout``
    seconds is taken for hung. Where ``refill.duty`` is below 1, a call may rest for some seconds."""


@runtime_checkable
class Counting(Generator, Protocol):
    """A generator that counts what it computes, for the costs of a run."""

    network_passes: int
    """Passes of its network so far, one for each sample in a batch."""


@runtime_checkable
class Checked(Generator, Protocol):
    """A generator that has its own safety checker."""

    objected: Tensor | None
    """What it objects to among the samples of the last call, bool (n,); None: nothing. They are counted as such."""


@runtime_checkable
class Fittable(Generator, Protocol):
    """A generator that learns from the real training data before it can generate."""

    def fit_key(self) -> dict[str, Any]:
        """Plain settings that the fitted weights depend on; they name the fit."""
        ...

    def sample_key(self) -> dict[str, Any]:
        """Plain settings that change a sample but not the fitted weights; they name the pool."""
        ...

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Fits to the snapshot and writes the result.

        Args:
            snapshot: The real training data.
            folder: An existing, empty folder; gets safetensors and JSON only.
            progress: Called as ``progress(step, total)`` after every step.

        A generator whose fit can be interrupted takes a further keyword, ``checkpoint: Path | None = None``: a file
        outside of `folder` that it may replace (in one step) as it goes, and goes on from if it is there. Whoever
        calls removes it, and files named after it: when what was written is safe, or the fit failed with a
        `GeneratorError`.
        """
        ...

    def load(self, folder: Path) -> None:
        """Makes `generate` ready with what `fit` wrote."""
        ...

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values: ``type(self)(**self.config())`` is the same generator."""
        ...
