"""Progressive distillation: a student learns to do in one step what its teacher does in two, again and again.

Salimans & Ho (2022), "Progressive Distillation for Fast Sampling of Diffusion Models", algorithm 2.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.generators.distill_settings import DistillSettings
from lightning_diffaug.generators.fit import Fitted
from lightning_diffaug.generators.fit_data import ClassBalancedDraws, Conditions, FitBatches, labels_of
from lightning_diffaug.generators.fit_module import DenoiserFit
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.fit_trainer import run
from lightning_diffaug.generators.schedulers import TRAIN_TIMESTEPS, ForwardProcess, make_scheduler, set_timesteps

if TYPE_CHECKING:
    from lightning_diffaug.generators.fit_checkpoint import FitCheckpoint
    from lightning_diffaug.snapshot import Snapshot


class Halving(DenoiserFit):
    """Fits a student whose DDIM step takes the place of two of its teacher's.

    Args:
        student: Starts as a copy of the teacher.
        teacher: Called without gradients.
        steps: Steps of the student's whole reverse process; the teacher takes twice as many.
        settings: The recipe.
        rng: CPU generator of every draw.
        clip: Whether predicted samples are clipped to [-1, 1], as the sampler does with data and not with latents.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        steps: int,
        settings: FitSettings,
        rng: torch.Generator,
        clip: bool,
    ) -> None:
        super().__init__(student, settings, rng)
        self._teacher = (teacher,)  # in a tuple: it is no part of what is fitted, averaged or moved
        self._steps = steps
        self._clip = clip
        process = ForwardProcess(settings.prediction_type)
        scheduler = make_scheduler("ddim", settings.prediction_type, 2 * steps)
        times = [*set_timesteps(scheduler, 2 * steps, torch.device("cpu")).tolist(), -1]
        levels = [process.level(t) for t in times]
        self._grid = torch.tensor(
            [[float(t), level.signal, level.noise] for t, level in zip(times, levels, strict=True)]
        )

    def loss(self, x_0: Tensor, noise: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Mean squared error to the prediction whose one step ends where two of the teacher's do.

        The error of v weighs that of the sample by SNR + 1 (section 4 of the paper); a predicted sample's is weighed
        by max(SNR, 1).

        Args:
            x_0: (n, *shape) clean samples.
            noise: (n, *shape) standard normal.
            t: (n,) timesteps, which choose a step of the student.
            condition: n entries for each name.
        """
        noise, step = noise.to(x_0.device), (t * self._steps) // TRAIN_TIMESTEPS
        grid = self._grid[torch.stack((2 * step, 2 * step + 1, 2 * step + 2))].to(x_0.device)
        grid = grid.view(3, len(x_0), 3, *[1] * (x_0.ndim - 1))
        (at, signal, sigma), (_, end_signal, end_sigma) = grid[0].unbind(1), grid[2].unbind(1)
        x_t = signal * x_0 + sigma * noise
        with torch.no_grad():
            x = self._teachers_step(x_t, grid[0], grid[1], condition)
            x = self._teachers_step(x, grid[1], grid[2], condition)
            ratio = end_sigma / sigma
            target = (x - ratio * x_t) / (end_signal - ratio * signal)
            if self.settings.prediction_type == "v_prediction":
                target = signal * (x_t - signal * target) / sigma - sigma * target
        errors = functional.mse_loss(self.denoiser(x_t, at.flatten(), condition).float(), target, reduction="none")
        if self.settings.prediction_type == "sample":
            errors = errors * (signal / sigma).square().clamp(min=1.0)
        return errors.mean()

    def _teachers_step(self, x_t: Tensor, here: Tensor, there: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """A step of DDIM (Song et al. 2021, eq. 12, eta 0)."""
        at, signal, sigma = here.unbind(1)
        _, next_signal, next_sigma = there.unbind(1)
        x_0 = self._teacher[0](x_t, at.flatten(), condition).float()
        if self.settings.prediction_type == "v_prediction":
            x_0 = signal * x_t - sigma * x_0
        if self._clip:
            x_0 = x_0.clamp(-1.0, 1.0)
        stepped: Tensor = next_signal * x_0 + next_sigma * (x_t - signal * x_0) / sigma
        return stepped


def distill_denoiser(
    teacher: nn.Module,
    distill: DistillSettings,
    snapshot: Snapshot,
    names: Sequence[str],
    settings: FitSettings,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None],
    conditions: Conditions | None = None,
    clip: bool = True,
    done: Callable[[int, nn.Module], None] = lambda steps, student: None,
    checkpoint: FitCheckpoint | None = None,
) -> Fitted:
    """Distills a fitted denoiser, halving by halving.

    The same arguments give the same weights on one machine. The global random states are left as they were.

    Args:
        teacher: The fitted denoiser, on its device.
        distill: Number of steps, and the recipe of each halving.
        snapshot: The real training data.
        names: Fields that are denoised together.
        settings: The recipe of the fit, for all that `distill` does not say.
        seed: Of every draw.
        device: Where it is done.
        progress: Called as ``progress(step, total)`` after each optimiser step.
        conditions: Row numbers → condition; None: the label, where there are labels.
        clip: See `Halving`.
        done: Given the steps and the network of each student.
        checkpoint: Where each student is kept, from the last of which an interrupted distillation goes on; it stays.

    Raises:
        GeneratorError: The loss is not finite any more.
    """
    started, losses = time.perf_counter(), list[float]()
    conditions = labels_of(snapshot) if conditions is None else conditions
    recipe = replace(
        settings, steps=distill.fit_steps, lr=distill.lr, hold_out=0.0, patience=None, min_snr=None,
        checkpoint_every=None,
    )  # fmt: skip
    draws = ClassBalancedDraws(snapshot.labels, len(snapshot), settings.class_balance)
    rng = torch.Generator().manual_seed(seed)
    found = None if checkpoint is None else checkpoint.load("cpu")
    kept: list[dict[str, Tensor]] = [] if found is None else found["students"]
    if found is not None:
        rng.set_state(found["rng"])
        losses = found["losses"]
    for halving, steps in enumerate(distill.halvings):
        student = copy.deepcopy(teacher).train().requires_grad_(True)
        if halving < len(kept):
            student.load_state_dict(kept[halving])
            teacher = student.eval().requires_grad_(False)
            done(steps, teacher)
            continue
        module = Halving(student, teacher, steps, recipe, rng, clip)
        batches = FitBatches(snapshot, names, conditions, draws, recipe, rng)
        run(
            module, batches, None, device, partial(_further, progress, halving * distill.fit_steps, distill.total), None
        )
        teacher = student.to(device).eval().requires_grad_(False)
        losses += module.losses
        done(steps, teacher)
        if checkpoint is not None and settings.checkpoint_every is not None:
            kept.append({name: value.cpu() for name, value in teacher.state_dict().items()})
            checkpoint.save({"students": kept, "losses": losses, "rng": rng.get_state()})
    return Fitted(teacher, losses, time.perf_counter() - started)


def _further(progress: Callable[[int, int], None], before: int, total: int, step: int, of: int) -> None:
    progress(before + step, total)
