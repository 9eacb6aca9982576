"""The fast variant of the default generator: distilled to one, two, four or eight steps."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import distill_fidelity as fidelity
from lightning_diffaug.generators.diffusion import DiffusionGenerator
from lightning_diffaug.generators.distill_settings import DISTILL_VERSION, PREDICTIONS, DistillSettings
from lightning_diffaug.generators.fit import Fitted
from lightning_diffaug.generators.fit_checkpoint import FitCheckpoint
from lightning_diffaug.generators.fit_data import Conditions, labels_of
from lightning_diffaug.generators.fit_settings import FitSettings

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


class DistilledGenerator(DiffusionGenerator):
    """Samples in few steps, from a student of the denoiser that `DiffusionGenerator` fits with the same settings.

    The teacher is fitted first, or found: it is the same that the undistilled generator uses. Beside the student's
    weights, ``fidelity.json`` says what was lost (`distill_fidelity.measure`).

    Args:
        distill: `DistillSettings`, or its fields by name.
        scheduler: ``"ddim"``, whose steps the student has learned.
        num_inference_steps: None, or ``distill.steps``.
        **settings: See `DiffusionGenerator`.

    Attributes:
        find_fitted: Loads the fitted weights of a generator, fitting it where they are absent; None: the teacher is
            fitted here, and kept no longer than the distillation takes.

    Raises:
        ConfigurationError: A setting is unknown, out of its range, or not one that a student can be sampled with.
    """

    def __init__(
        self,
        distill: Mapping[str, Any] | DistillSettings | None = None,
        scheduler: str = "ddim",
        num_inference_steps: int | None = None,
        **settings: Any,
    ) -> None:
        self.distill = DistillSettings.of(distill)
        steps = self.distill.steps
        if num_inference_steps not in (None, steps):
            raise ConfigurationError(
                f"num_inference_steps={num_inference_steps} is not distill.steps={steps}, which the student learns to "
                "sample with. Set generator.distill.steps."
            )
        if scheduler != "ddim":
            raise ConfigurationError(
                f"scheduler={scheduler!r} is not ddim, whose steps a distilled generator learns. Set "
                "generator.scheduler=ddim."
            )
        super().__init__(scheduler=scheduler, num_inference_steps=steps, **settings)
        if self.source not in ("noise", "image"):
            raise ConfigurationError(
                f"source={self.source!r} inverts real samples in many steps, which a distilled generator has not "
                "learned. Set generator.source to noise or image, or generator=diffusion."
            )
        if self.fit_settings.prediction_type not in PREDICTIONS:
            raise ConfigurationError(
                f"prediction_type={self.fit_settings.prediction_type!r} cannot be distilled: at the first step there "
                f"is nothing but noise. Set generator.fit.prediction_type to one of {', '.join(PREDICTIONS)}."
            )
        self.find_fitted: Callable[[DiffusionGenerator, Progress], object] | None = None
        self._teacher: DiffusionGenerator | None = None
        self._students: dict[int, nn.Module] = {}
        self._conditions_of: Conditions = lambda rows: {}

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {**super().config(), "distill": self.distill.to_json()}

    def fit_key(self) -> dict[str, Any]:
        """What the student's weights depend on, besides the data."""
        return {**super().fit_key(), "distill": self.distill.key(), "distill_version": DISTILL_VERSION}

    def teacher(self) -> DiffusionGenerator:
        """The generator that is distilled: the default one with the same fit, as it is usually sampled."""
        shared = ("codec", "codecs", "conditions", "seed", "batch_size", "device", "fit")
        own = super().config()
        teacher = DiffusionGenerator(dtype="float32", channels_last=False, **{name: own[name] for name in shared})
        teacher.trainer_devices = self.trainer_devices
        return teacher

    def fit(self, snapshot: Snapshot, folder: Path, progress: Progress, checkpoint: Path | None = None) -> None:
        """Fits or finds the teacher, distills it, and writes the student's weights and what was lost.

        Args:
            snapshot: The real training data.
            folder: An existing, empty folder.
            progress: Called as ``progress(step, total)``; the teacher's steps come first, where it is fitted.
            checkpoint: From which an interrupted fit of the teacher goes on, where it is fitted here; an interrupted
                distillation goes on from its last student, which lies beside.

        Raises:
            ConfigurationError: The samples do not suit the denoiser.
            GeneratorError: Fit or distillation diverged.
        """
        first = self.fit_settings.steps
        total = first + self.distill.total

        def teaching(step: int, of: int) -> None:
            progress(step, total if of else 0)  # 0 of 0 says that another run is at it

        teacher = self.teacher()
        if self.find_fitted is not None:
            self.find_fitted(teacher, teaching)
        else:
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                teacher.fit(snapshot, Path(temporary), teaching, checkpoint)
                teacher.load(Path(temporary))
        self._teacher, self._students = teacher, {}
        try:
            super().fit(snapshot, folder, lambda step, of: progress(first + step, total), checkpoint)
            if self.distill.samples:
                record = fidelity.measure(
                    teacher.sampler, self._students, self._codecs.snapshot(snapshot), self._conditions_of,
                    self.distill.samples, self.batch_size, self.seed, lambda: progress(total, total),
                )  # fmt: skip
                fidelity.write(folder, record)
                log.info("what the distillation lost:\n%s", fidelity.table(record))
        finally:
            self._teacher, self._students = None, {}

    def load(self, folder: Path) -> None:
        """As `DiffusionGenerator.load`; says where what was lost was measured otherwise than it is asked for now."""
        super().load(folder)
        measured, asked = fidelity.samples(folder), self.distill.samples
        if asked and measured != asked:
            log.info(
                "what the distillation in %s lost was measured on %d samples, not on distill.samples=%d: it is "
                "measured once, in the fit. Remove the folder to distill and measure anew.",
                folder, measured, asked,
            )  # fmt: skip

    def _fit_denoiser(
        self,
        make_denoiser: Callable[[], nn.Module],
        snapshot: Snapshot,
        names: list[str],
        settings: FitSettings,
        seed: int,
        device: torch.device,
        progress: Progress,
        conditions: Conditions | None = None,
        checkpoint: Path | None = None,
        key: Mapping[str, Any] | None = None,
    ) -> Fitted:
        from lightning_diffaug.generators.distill import distill_denoiser  # imports Lightning

        assert self._teacher is not None
        self._conditions_of = conditions or labels_of(snapshot)
        network: Any = self._teacher.sampler.denoiser
        kept = None
        if checkpoint is not None:
            file = checkpoint.with_name(f"{checkpoint.name}.students")  # the teacher's has the other name
            kept = FitCheckpoint(file, {**(key or {}), "seed": seed, "snapshot": snapshot.hash, "names": names})
        return distill_denoiser(
            network, self.distill, snapshot, names, settings, seed, device, progress, conditions,
            clip=self.codec is None, done=self._students.__setitem__, checkpoint=kept,
        )  # fmt: skip
