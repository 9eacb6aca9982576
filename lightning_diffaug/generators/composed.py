"""DiffuseMix: half a real sample beside half of what was made of it, with a fractal blended in (Islam et al. 2024)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import fractals as pictures
from lightning_diffaug.generators.pipeline_model import identity
from lightning_diffaug.generators.protocol import LABEL, OF_START, START, Condition
from lightning_diffaug.generators.remote_image import MODES
from lightning_diffaug.generators.sources import real_samples
from lightning_diffaug.naming import build, defined_at, name_of
from lightning_diffaug.spec import IMAGE

if TYPE_CHECKING:
    from lightning_diffaug.spec import FieldSpec, SampleSpec

HALVES = ("left", "right", "top", "bottom")
COMPOSE_VERSION = 1
"""Raised with every change of this module that changes a sample: it is part of a pool's fingerprint."""


class ComposedGenerator:
    """Composes the samples of another generator with the real samples that they started from.

    ``A = (1 - λ) H + λ F`` with ``H = M R + (1 - M) G`` (Islam et al. 2024, "DiffuseMix", CVPR; arXiv 2405.14881): of
    the real sample R a half is kept, the other half is of the generated sample G; then a fractal F is blended in, into
    the image alone. Which half, and which fractal, follow from a sample's seed.

    For the rest it is the generator that it wraps: fitted weights are found and kept under that one's own fingerprint.
    A generator that starts from noise is composed with a real sample of the class.

    Args:
        generator: The generator: an object, or its name (``{_target_: …}``).
        kept_halves: Of the real sample, those that one is drawn from: ``left``, ``right`` (columns), ``top``,
            ``bottom`` (rows). [] keeps none.
        fractal_weight: λ, in [0, 1); 0 blends none in.
        fractals: Folder of pictures to blend in; None: Julia sets, made by the seed.

    Raises:
        ConfigurationError: A setting is out of its range, or does not go with the generator.
    """

    def __init__(
        self,
        generator: Any,
        kept_halves: Sequence[str] = HALVES,
        fractal_weight: float = 0.2,
        fractals: str | None = None,
    ) -> None:
        if isinstance(kept_halves, str) or len(set(kept_halves)) < len(kept_halves) or {*kept_halves} - {*HALVES}:
            raise ConfigurationError(
                f"kept_halves={kept_halves!r} is no list of some of {', '.join(HALVES)}: of the real sample one of "
                "these is kept. Set generator.kept_halves to e.g. [left, right, top, bottom], or to []."
            )
        number = isinstance(fractal_weight, (int, float)) and not isinstance(fractal_weight, bool)
        if not (number and 0.0 <= fractal_weight < 1.0):
            raise ConfigurationError(
                f"fractal_weight={fractal_weight} is not in [0, 1): it is the share of a fractal in a sample. Set "
                "generator.fractal_weight to e.g. 0.2."
            )
        self._generator = build(name_of(generator)) if isinstance(generator, Mapping) else generator
        if self._generator is None:
            raise ConfigurationError("generator=None: there is nothing to compose. Set generator.generator.")
        self.kept_halves = [half for half in HALVES if half in kept_halves]  # one name for one set
        self.fractal_weight = float(fractal_weight)
        self.fractals = None if fractals is None else str(fractals)
        if self.kept_halves and getattr(self._generator, "source", None) == "edit":
            raise ConfigurationError(
                "source=edit starts from real samples of other classes, and half of one would be kept under a wrong "
                "label. Set generator.generator.source to image, or generator.kept_halves=[]."
            )
        # That there are none is said at the door.
        self._files = pictures.pictures(self.fractals) if self.fractals is not None and self.fractal_weight else []
        self._fields: dict[str, FieldSpec] = {}
        self._image: str | None = None

    def __getattr__(self, name: str) -> Any:
        # What else there is of the protocol is the wrapped generator's, and what it has not got is not there.
        if name == "_generator":
            raise AttributeError(name)  # a copy that is not made yet
        return getattr(self._generator, name)

    @property
    def composed_of(self) -> Any:
        """The wrapped generator."""
        return self._generator

    @property
    def fitted(self) -> Any:
        """What is fitted, kept and found under its own name: the wrapped generator."""
        return getattr(self._generator, "fitted", self._generator)

    @property
    def source(self) -> str:
        """Where samples start, for the planner; one that starts from noise needs a real sample here."""
        source = str(getattr(self._generator, "source", "noise"))
        return "image" if source == "noise" and self.kept_halves else source

    @property
    def on_progress(self) -> Callable[[], None]:
        """The wrapped generator's."""
        told: Callable[[], None] = self._generator.on_progress
        return told

    @on_progress.setter
    def on_progress(self, told: Callable[[], None]) -> None:
        self._generator.on_progress = told

    @property
    def objected(self) -> Tensor | None:
        """What the wrapped generator's safety checker objects to, of the last call."""
        return getattr(self._generator, "objected", None)

    @property
    def trainer_devices(self) -> Sequence[int]:
        """The wrapped generator's."""
        devices: Sequence[int] = self._generator.trainer_devices
        return devices

    @trainer_devices.setter
    def trainer_devices(self, devices: Sequence[int]) -> None:
        self._generator.trainer_devices = devices

    @property
    def find_fitted(self) -> Any:
        """The wrapped generator's."""
        return self._generator.find_fitted

    @find_fitted.setter
    def find_fitted(self, find: Any) -> None:
        self._generator.find_fitted = find

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {
            "generator": name_of(self._generator, "generator.generator"),
            "kept_halves": self.kept_halves,
            "fractal_weight": self.fractal_weight,
            "fractals": self.fractals,
        }

    def sample_key(self) -> dict[str, Any]:
        """What a sample depends on, besides weights, condition and seed."""
        key: dict[str, Any] = {"compose_version": COMPOSE_VERSION, "kept_halves": self.kept_halves}
        key["fractal_weight"] = self.fractal_weight
        if self._files:
            key["fractals"] = [identity(str(path), None, "generator.fractals")["sha256"] for path in self._files]
        try:
            name = name_of(self._generator)
        except ConfigurationError:  # a live object, whose pool is the run's own
            return key
        of = getattr(self._generator, "sample_key", None)
        return {**key, "generator": {"class": defined_at(name), "settings": of() if of else name}}

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Learns what the samples are; so does the wrapped generator.

        Args:
            spec: The fields of a sample.
            class_names: Class names in order; () for data without labels.

        Raises:
            ConfigurationError: The settings do not suit the data.
        """
        if hasattr(self._generator, "bind"):
            self._generator.bind(spec, class_names)
        given = getattr(self._generator, "given", ())
        self._fields = {field.name: field for field in spec.continuous if field.name not in given}
        shapes = {name: field.shape for name, field in self._fields.items()}
        axes = 3 if {"top", "bottom"} & {*self.kept_halves} else 2
        if self.kept_halves and not all(len(shape) >= axes for shape in shapes.values()):
            raise ConfigurationError(
                f"kept_halves={self.kept_halves} are halves of the last {axes - 1} axes, and the samples have the "
                f"shapes {shapes}, channels first. Set generator.kept_halves to [left, right] for (C, length), or []."
            )
        self._image = IMAGE if IMAGE in shapes else next(iter(shapes)) if len(shapes) == 1 else None
        if self.fractal_weight and (self._image is None or not _is_image(shapes[self._image])):
            raise ConfigurationError(
                f"fractal_weight={self.fractal_weight} blends into the image (C, H, W) of 1, 3 or 4 channels, and the "
                f"samples have {shapes}. Name it in data.fields, or set generator.fractal_weight=0."
            )

    def generate(self, condition: Condition, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Makes one sample for each seed; see `Generator`.

        Args:
            condition: What the wrapped generator takes; with `kept_halves` also ``start``, the real samples in [-1, 1],
                a tensor (n, *shape) of the fields joined along their channels, or one for each field.
            seeds: n seeds.

        Returns:
            Field name → n samples, float32 in [-1, 1].

        Raises:
            GeneratorError: `bind` was not called, or the condition does not fit.
            ConfigurationError: Real samples are of another class than what is made of them, or a picture is broken.
        """
        if not self._fields:
            raise GeneratorError("the generator does not know the data yet. Call bind(spec, class_names) first.")
        made = getattr(self._generator, "generate", self._generator)(condition, seeds)
        if isinstance(made, Tensor):
            made = {next(iter(self._fields)): made}
        samples = {name: value.detach().to("cpu", torch.float32) for name, value in made.items()}
        rngs = [_rng(seed) for seed in seeds]
        if self.kept_halves and seeds:
            samples |= self._concatenated(samples, condition, rngs)
        image = self._image
        if self.fractal_weight and seeds and image is not None and image in samples:
            fractals = self._blended(rngs, self._fields[image].shape)
            samples[image] = torch.lerp(samples[image], fractals, self.fractal_weight)
        return samples

    def _concatenated(
        self, samples: Mapping[str, Tensor], condition: Condition, rngs: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        was = condition.get(OF_START + LABEL)
        if was is not None and not torch.equal(torch.as_tensor(was), torch.as_tensor(condition[LABEL])):
            raise ConfigurationError(
                "the planner starts from real samples of other classes, and half of one would be kept under a wrong "
                "label. Set generator.kept_halves=[], or a planner that starts from the class's own samples."
            )
        channels = {name: field.shape[0] for name, field in self._fields.items()}
        trailing = next(iter(self._fields.values())).shape[1:]
        joined = real_samples(condition, START, channels, (len(rngs), sum(channels.values()), *trailing))
        real = dict(zip(channels, torch.split(joined, list(channels.values()), dim=1), strict=True))
        chosen = [self.kept_halves[int(torch.randint(len(self.kept_halves), (), generator=rng))] for rng in rngs]
        kept = torch.stack([half(name, trailing) for name in chosen]).unsqueeze(1)
        return {name: torch.where(kept, real[name], value) for name, value in samples.items() if name in real}

    def _blended(self, rngs: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
        if not self._files:
            return pictures.julia(rngs, shape)
        chosen = [self._files[int(torch.randint(len(self._files), (), generator=rng))] for rng in rngs]
        return torch.stack([pictures.read(path, shape) for path in chosen])


def half(name: str, size: Sequence[int]) -> Tensor:
    """Which half is kept: bool (*size), the first `floor(length / 2)` columns or rows, or the others."""
    axis = -1 if name in ("left", "right") else -2
    first = torch.arange(size[axis]) < size[axis] // 2
    kept = first if name in ("left", "top") else ~first
    return (kept if axis == -1 else kept.unsqueeze(-1)).expand(*size)


def _rng(seed: int) -> torch.Generator:
    """Random numbers of a sample's seed that are none of its noise."""
    digest = hashlib.blake2b(int(seed).to_bytes(8, "little"), digest_size=8, person=b"compose").digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _is_image(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[0] in MODES
