"""Pipelines that are adapted to the real training data: what textual inversion and LoRA fine-tuning share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import pipeline_model as models
from lightning_diffaug.generators.fit_checkpoint import FitCheckpoint
from lightning_diffaug.generators.pipeline import PipelineGenerator
from lightning_diffaug.generators.pipeline_fit import (
    AdaptSettings,
    LatentLoss,
    RealBatches,
    check_adaptable,
    check_parts,
    descend,
    picture_size,
)
from lightning_diffaug.generators.pipeline_settings import WITHOUT_PROMPT

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec

FIT_VERSION = 1
"""Raised with every change that makes other weights from the same settings; part of the fit's fingerprint."""

_LAST = 50


@dataclass(frozen=True)
class Learning:
    """What a fit changes and how.

    Attributes:
        parameters: What is learned.
        loss: Draws a batch and computes its loss.
        save: Writes what was learned into a file.
    """

    parameters: Sequence[nn.Parameter]
    loss: Callable[[], Tensor]
    save: Callable[[Path], None]


class AdaptedPipelineGenerator(PipelineGenerator, ABC):
    """A pipeline with a small part that is fitted to the real training data, once, and kept.

    Args:
        fit: Fields of `AdaptSettings`.
        seed: Of the fit, from 0.
        **settings: As `PipelineGenerator`.

    Raises:
        ConfigurationError: A setting is out of its range.
    """

    KIND: ClassVar[str]
    """Names the method in fingerprints."""
    METHOD: ClassVar[str]
    """Names it in messages."""
    FILE: ClassVar[str]
    """The safetensors file that is kept."""
    DEFAULT: ClassVar[AdaptSettings]
    FIT_KEYS: ClassVar[tuple[str, ...]]
    """Fields of `AdaptSettings` that have a meaning here."""

    def __init__(self, *, fit: Mapping[str, Any] | None = None, seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        if self._settings["task"] in WITHOUT_PROMPT:
            raise ConfigurationError(
                f"task={self._settings['task']!r}: {self.METHOD} is of pictures and the prompts that go with them. Set "
                "generator.task=text-to-image, or generator=pipeline."
            )
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigurationError(f"seed={seed!r} is no whole number from 0. Set generator.seed to one.")
        self.fit_settings = AdaptSettings.of(fit, self.DEFAULT, self.FIT_KEYS)
        self.seed = seed
        self._fitted: Path | None = None

    def _fit_config(self) -> dict[str, Any]:
        return {name: value for name, value in self.fit_settings.to_json().items() if name in self.FIT_KEYS}

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {**super().config(), "fit": self._fit_config(), "seed": self.seed}

    def fit_key(self) -> dict[str, Any]:
        """What the fitted part depends on, besides the data."""
        return {
            "adaptation": self.KIND,
            "fit_version": FIT_VERSION,
            "seed": self.seed,
            "fit": {name: value for name, value in self._fit_config().items() if name != "checkpoint_every"},
            **self._base_key(),
        }

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """As `PipelineGenerator.bind`.

        Raises:
            ConfigurationError: The model cannot be adapted so, or see there.
        """
        super().bind(spec, class_names)
        folder = models.local(self._settings["model"])
        if folder is not None:
            index = models.check_index(folder)
            there = [name for name, part in index.items() if isinstance(part, list) and part[0] is not None]
            check_parts(there, index["_class_name"], self.METHOD)

    def fit(
        self,
        snapshot: Snapshot,
        folder: Path,
        progress: Callable[[int, int], None],
        checkpoint: Path | None = None,
    ) -> None:
        """Fits to the snapshot and writes the result; see `Fittable`.

        Args:
            snapshot: The real training data.
            folder: An existing, empty folder.
            progress: Called as ``progress(step, total)`` after each step.
            checkpoint: From which an interrupted fit goes on, and ends as if it had not been.

        Raises:
            ConfigurationError: The model or the data do not suit the method.
            GeneratorError: The fit diverged.
        """
        self.bind(snapshot.spec, snapshot.class_names)
        settings, rng = self.fit_settings, torch.Generator().manual_seed(self.seed)
        pipe = self._loaded(torch.float32).to(self._device())
        check_adaptable(pipe, self.METHOD)
        for part in (pipe.vae, pipe.unet, pipe.text_encoder):
            part.requires_grad_(False)
        size = picture_size(pipe, self._settings["size"])
        batches = RealBatches(snapshot, self._prompts, size, settings, rng)
        learning = self._learning(pipe, batches, LatentLoss(pipe, rng), rng, progress)
        about = {**self.fit_key(), "snapshot": snapshot.hash}
        kept = None if checkpoint is None else FitCheckpoint(checkpoint, about)
        losses = descend(learning.parameters, learning.loss, settings, progress, rng, kept)
        learning.save(folder / self.FILE)
        last = losses[-_LAST:]
        about |= {"loss": sum(last) / len(last)}
        (folder / "fit.json").write_text(json.dumps(about, indent=2, sort_keys=True), encoding="utf-8")

    @abstractmethod
    def _learning(
        self,
        pipe: Any,
        batches: RealBatches,
        loss: LatentLoss,
        rng: torch.Generator,
        progress: Callable[[int, int], None],
    ) -> Learning:
        """Adds what is learned to a pipeline whose own weights are frozen."""

    def load(self, folder: Path) -> None:
        """Makes `generate` ready with what `fit` wrote.

        Raises:
            GeneratorError: The folder lacks it.
        """
        if not (folder / self.FILE).is_file():
            raise GeneratorError(
                f"{folder} holds no {self.FILE}, so the {self.METHOD} is not whole. Remove it, to fit again."
            )
        self._fitted, self._run = folder, None

    def _prepare(self, pipe: Any) -> None:
        if self._fitted is None:
            raise GeneratorError(f"there was no {self.METHOD} yet. Call fit(...) and load(folder) first.")
        self._add_fitted(pipe, self._fitted / self.FILE)

    @abstractmethod
    def _add_fitted(self, pipe: Any, file: Path) -> None:
        """Adds what was fitted to a pipeline that is about to be used."""
