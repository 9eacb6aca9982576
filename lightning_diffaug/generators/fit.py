"""Fits a denoiser to the real training data: the recipe, in plain PyTorch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators.augment import RandomAffine
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.protocol import LABEL
from lightning_diffaug.generators.schedulers import ForwardProcess

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

FIT_VERSION = 2
"""Raised with every change that makes other weights from the same settings; part of the fit's fingerprint."""


class ClassBalancedDraws:
    """Draws sample indices with weights ∝ (1 / class count)^b, with replacement, at any number of samples.

    First the class is drawn, then a sample in it: a draw costs no pass over the samples, and there is no
    limit on their number (`torch.multinomial` has one at 2^24).

    Args:
        labels: int64 (n,) class indices; None is one class.
        n: Number of samples.
        balance: The exponent b in [0, 1].
    """

    def __init__(self, labels: Tensor | None, n: int, balance: float) -> None:
        labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
        self._order = torch.argsort(labels, stable=True)
        self._counts = torch.bincount(labels)
        self._offsets = self._counts.cumsum(0) - self._counts
        weights = self._counts.double().pow(1.0 - balance)
        self._class_weights = torch.where(self._counts > 0, weights, 0.0)

    def __call__(self, size: int, rng: torch.Generator) -> Tensor:
        """Indices of `size` samples, int64."""
        classes = torch.multinomial(self._class_weights, size, replacement=True, generator=rng)
        # float64: a float32 in [0, 1) cannot address more than 2^24 samples of one class.
        u = torch.rand(size, generator=rng, dtype=torch.float64)
        return self._order[self._offsets[classes] + (u * self._counts[classes]).long()]


def learning_rate(step: int, settings: FitSettings) -> float:
    """Learning rate of a step as a share of the peak: linear warm-up, then a cosine down to `lr_final`."""
    warmup = min(settings.warmup_steps, settings.steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, settings.steps - 1 - warmup)
    return settings.lr_final + (1.0 - settings.lr_final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    Attributes:
        denoiser: The averaged weights, in eval mode, on the device of the fit.
        losses: Loss of each step.
        seconds: Wall time.
    """

    denoiser: nn.Module
    losses: list[float]
    seconds: float


def fit_denoiser(
    make_denoiser: Callable[[], nn.Module],
    snapshot: Snapshot,
    names: Sequence[str],
    settings: FitSettings,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> Fitted:
    """Fits a denoiser to fields of a snapshot.

    The same arguments give the same weights on one machine. The global random states are left as they were.

    Args:
        make_denoiser: Builds the network; its label condition has one more index than there are classes, for
            "none".
        snapshot: The real training data.
        names: Fields that are denoised together, joined along their channels.
        settings: The recipe.
        seed: Of the initial weights and of every draw.
        device: Where the network is fitted.
        progress: Called as ``progress(step, total)`` after each step.

    Raises:
        GeneratorError: The data are empty, or the loss is not finite any more.
    """
    if not len(snapshot):
        raise GeneratorError(
            "there is no real training sample to fit the generator on. Check real.root and real.shots."
        )
    started = time.perf_counter()
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # weights are initialised on the CPU
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        denoiser = make_denoiser().to(device)
    null = len(snapshot.class_names)
    process = ForwardProcess(settings.prediction_type)
    draws = ClassBalancedDraws(snapshot.labels, len(snapshot), settings.class_balance)
    augment = RandomAffine(
        settings.augment_p, settings.augment_degrees, settings.augment_pixels, settings.augment_scale
    )
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    average = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(denoiser, multi_avg_fn=average)
    losses: list[float] = []
    for step in range(settings.steps):
        rows = draws(settings.batch_size, rng)
        x_0 = torch.cat([snapshot.unit(name, rows) for name in names], dim=1)
        x_0 = augment(x_0, rng)
        condition = {}
        if snapshot.labels is not None:
            dropped = torch.rand(len(rows), generator=rng) < settings.condition_dropout
            condition[LABEL] = torch.where(dropped, null, snapshot.labels[rows]).to(device)
        t = process.timesteps(len(rows), rng)
        x_t, target = process.noised(x_0, torch.randn(x_0.shape, generator=rng), t)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * learning_rate(step, settings)
        loss = functional.mse_loss(denoiser(x_t.to(device), t.to(device), condition), target.to(device))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(denoiser.parameters(), settings.grad_clip)
        optimizer.step()
        averaged.update_parameters(denoiser)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise GeneratorError(
                f"the loss of the generator's fit is {losses[-1]} at step {step + 1} of {settings.steps}, "
                f"so its weights are useless. Lower generator.fit.lr (now {settings.lr}) or "
                f"generator.fit.grad_clip (now {settings.grad_clip}), and check that the data are finite."
            )
        progress(step + 1, settings.steps)
    fitted = averaged.module.eval().requires_grad_(False)
    return Fitted(fitted, losses, time.perf_counter() - started)
