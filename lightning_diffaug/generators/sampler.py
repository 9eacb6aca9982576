"""A fitted denoiser with all that sampling from it takes: from conditions and seeds to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d

from lightning_diffaug.conditions.planner import take
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.codec import Codec
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.denoisers import FittedDenoiser, check_condition
from lightning_diffaug.generators.inversion import invert
from lightning_diffaug.generators.learner_guidance import LearnerGuidance
from lightning_diffaug.generators.loop import OnStep, sample
from lightning_diffaug.generators.protocol import LABEL, MASK, NEGATIVE, OF_START, OTHER, START, WEIGHT, Condition
from lightning_diffaug.generators.rows import batches, in_order, strengths
from lightning_diffaug.generators.schedulers import ForwardProcess, check_threshold, make_scheduler
from lightning_diffaug.generators.sources import INVERTED, between, first_timestep, real_samples, renamed


def check_extras(
    scheduler: str,
    prediction_type: str,
    controls: Controls,
    threshold: float | None,
    negative_label: int | None,
    latent: bool,
) -> None:
    """Refuses settings that have no effect, or not the one they should have, with the others.

    Raises:
        ConfigurationError: See above.
    """
    label = negative_label
    if label is not None and (isinstance(label, bool) or not isinstance(label, int) or label < 0):
        raise ConfigurationError(
            f"negative_label={label!r} is no class index: guidance moves away from this class. Set "
            "generator.negative_label to 0, 1, … in the order of the classes, or to null."
        )
    if label is not None and controls.guidance_scale == 1.0:
        raise ConfigurationError(
            f"negative_label={label} has no effect without guidance. Set generator.guidance_scale above 1, or "
            "generator.negative_label=null."
        )
    if threshold is not None:
        check_threshold(scheduler, prediction_type, threshold)
    if threshold is not None and latent:
        raise ConfigurationError(
            f"threshold={threshold} is for values in [-1, 1], and latents are not. Set generator.threshold=null, or "
            "generator.codec=null."
        )
    if controls.eta > 0.0 and scheduler != "ddim":
        raise ConfigurationError(f"eta={controls.eta} is for DDIM. Set generator.scheduler=ddim, or generator.eta=0.")


def check_negative_label(label: int | None, class_names: Sequence[str]) -> None:
    """Refuses a class to move away from that the data do not have.

    Raises:
        ConfigurationError: See above.
    """
    if label is not None and label >= len(class_names):
        have = f"{len(class_names)} classes, 0 to {len(class_names) - 1}" if class_names else "no labels"
        raise ConfigurationError(
            f"negative_label={label} is no class of the data, which have {have}: guidance moves away from this class. "
            f"Set generator.negative_label to {'one of them, or to ' * bool(class_names)}null."
        )


@dataclass(frozen=True)
class Sampler:
    """Samples from a denoiser, from noise or from real samples.

    Attributes:
        denoiser: On its device, in eval mode.
        prediction_type: What it predicts.
        scheduler: Name of the solver.
        controls: How the reverse process is run; a row of a condition may have a strength of its own.
        fields: Channels of each field of a sample, in the order in which they are joined.
        shape: Shape of one sample, fields joined.
        codec: Between samples and what is denoised, or None.
        source: Where samples start, one of `controls.SOURCES`.
        inversion_steps: Steps of an inversion.
        threshold: Quantile of dynamic thresholding, or None.
        negative_label: Class that guidance moves away from, or None.
        own_strengths: Whether each row has to have a strength.
    """

    denoiser: FittedDenoiser
    prediction_type: str
    scheduler: str
    controls: Controls
    fields: Mapping[str, int]
    shape: tuple[int, ...]
    codec: Codec | None = None
    source: str = "noise"
    inversion_steps: int = 20
    threshold: float | None = None
    negative_label: int | None = None
    own_strengths: bool = False

    def __call__(
        self,
        condition: Condition,
        seeds: Sequence[int],
        batch_size: int,
        on_step: OnStep | None = None,
        guide: LearnerGuidance | None = None,
    ) -> Tensor:
        """One sample for each seed, fields joined along their channels.

        Args:
            condition: n entries for each name; see `DiffusionGenerator.generate`.
            seeds: n seeds.
            batch_size: Most samples denoised at a time.
            on_step: Told about each step.
            guide: The learner that samples are guided by, or None.

        Raises:
            GeneratorError: The condition does not fit.
        """
        self._checked(condition, len(seeds))
        if not seeds:
            return torch.empty(0, *self.shape)
        own = None
        if self.source != "noise":
            own = strengths(condition, len(seeds), self.own_strengths)
        each = [self.controls] * len(seeds) if own is None else [replace(self.controls, strength=s) for s in own]
        # A run has one first step: a row's sample is the same whatever the strengths of the others.
        together = list(batches([(one.steps(), one.strength == 1.0) for one in each], batch_size))
        parts = [
            self._batch(take(condition, rows), [seeds[i] for i in rows], each[rows[0]], on_step, guide)
            for rows in together
        ]
        return in_order(parts, together)

    def _batch(
        self,
        condition: Condition,
        seeds: Sequence[int],
        controls: Controls,
        on_step: OnStep | None,
        guide: LearnerGuidance | None,
    ) -> Tensor:
        n, device = len(seeds), next(iter(self.denoiser.parameters())).device
        scheduler = make_scheduler(
            self.scheduler,
            self.prediction_type,
            controls.num_inference_steps,
            # Clipping would leave the path that an inversion came along.
            clip=self.codec is None and self.source not in INVERTED,
            threshold=self.threshold,
        )
        wanted = self._checked(condition, n)
        start, noise = self._beginning(scheduler, controls, condition, wanted, n, device)
        kept = kept_latents = None
        if start is not None and MASK in condition:
            kept = torch.as_tensor(condition[MASK]) > 0.5
            kept_latents = kept if self.codec is None else whole(kept, self.denoiser.shape[1:])
        negative = self._negative(condition, n)
        x = sample(
            self.denoiser, scheduler, self.denoiser.shape, wanted, seeds, controls, start, kept_latents,
            noise, negative, self.codec, device, on_step, guide,
        )  # fmt: skip
        return x if kept is None else torch.where(kept, self._real(condition, START, n), x)

    def _checked(self, condition: Condition, n: int) -> dict[str, Tensor]:
        return check_condition(self.denoiser.conditions, condition, n)

    def _real(self, condition: Condition, key: str, n: int) -> Tensor:
        return real_samples(condition, key, self.fields, (n, *self.shape))

    def _beginning(
        self,
        scheduler: Any,
        controls: Controls,
        condition: Condition,
        wanted: Condition,
        n: int,
        device: torch.device,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Start and noise of a run, in the denoiser's space; None: there is no start, the noise is the seeds'."""
        if self.source == "noise":
            return None, None

        def encoded(key: str) -> Tensor:
            x = self._real(condition, key, n).to(device)
            return x if self.codec is None else self.codec.encode(x)

        start = encoded(START)
        if self.source == "image":
            return start, None
        process, until = ForwardProcess(self.prediction_type), first_timestep(scheduler, controls, device)
        to = {name: value.to(device) for name, value in wanted.items()}
        if self.source == "interpolate":
            weight = torch.as_tensor(condition.get(WEIGHT, torch.full((n,), 0.5)))
            pair = (start, encoded(OTHER))
            return between(self.denoiser, process, pair, weight, to, until, self.inversion_steps)
        if until is None:
            return start, torch.zeros_like(start)
        was = self._checked({**wanted, **renamed(condition, OF_START)}, n)
        was = {name: value.to(device) for name, value in was.items()}
        return start, invert(self.denoiser, process, start, was, until, self.inversion_steps)

    def _negative(self, condition: Condition, n: int) -> Condition | None:
        """What guidance moves away from; None for the null condition."""
        known = self.denoiser.conditions
        given = {name: value for name, value in renamed(condition, NEGATIVE).items() if name in known}
        if self.negative_label is not None:
            given.setdefault(LABEL, torch.full((n,), self.negative_label))
        return self._checked({**condition, **given}, n) if given else None


def whole(kept: Tensor, size: Sequence[int]) -> Tensor:
    """A mask of latents, bool (n, 1, *size): a latent is kept where all that it stands for is."""
    pool = (adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d)[len(size) - 1]
    changed = (~kept).float().amax(1, keepdim=True)
    made_anew: Tensor = pool(changed, tuple(size)) > 0.5
    return ~made_anew
