"""Fits a denoiser to the real training data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators.fit_checkpoint import FitCheckpoint
from lightning_diffaug.generators.fit_data import (
    ClassBalancedDraws,
    Conditions,
    FitBatches,
    HeldOutBatches,
    kept_aside,
    labels_of,
)
from lightning_diffaug.generators.fit_settings import FitSettings, learning_rate

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

__all__ = ["FIT_VERSION", "ClassBalancedDraws", "Fitted", "fit_denoiser", "learning_rate"]

FIT_VERSION = 4
"""Raised with every change that makes other weights from the same settings; part of the fit's fingerprint."""


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    Attributes:
        denoiser: The averaged weights, in eval mode, on the device of the fit; with `FitSettings.hold_out`, those of
            the check with the lowest loss.
        losses: Loss of each step.
        seconds: Wall time of this process.
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
    conditions: Conditions | None = None,
    checkpoint: Path | None = None,
    key: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fits a denoiser to fields of a snapshot.

    The same arguments give the same weights on one machine, also where the fit was interrupted and goes on from its
    checkpoint. The global random states are left as they were.

    Args:
        make_denoiser: Builds the network; see `Denoiser`. With ``augment_as="condition"`` it is told
            `augment.AUGMENT`, float32 (n, `augment.PARAMETERS`).
        snapshot: The real training data.
        names: Fields that are denoised together, joined along their channels.
        settings: The recipe.
        seed: Of the initial weights and of every draw.
        device: Where the network is fitted.
        progress: Called as ``progress(step, total)`` after each step, and again while the step's check goes on; the
            first is not 1 where a fit goes on.
        conditions: Row numbers → condition; None: the label, where there are labels.
        checkpoint: File from which an interrupted fit goes on; whoever gives it removes it, when the weights are on
            disk. None: there is none.
        key: What else the weights depend on, as plain values: what `make_denoiser` builds and `conditions` gives. A
            checkpoint of another key is not gone on from.

    Raises:
        GeneratorError: The data are empty, or the loss is not finite any more.
        ConfigurationError: A setting does not fit the data.
    """
    if not len(snapshot):
        raise GeneratorError(
            "there is no real training sample to fit the generator on. Check real.root and real.shots."
        )
    from lightning_diffaug.generators.fit_module import DenoiserFit  # these import Lightning, which takes seconds
    from lightning_diffaug.generators.fit_trainer import run

    started = time.perf_counter()
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # weights are initialised on the CPU
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        denoiser = make_denoiser()
    conditions = labels_of(snapshot) if conditions is None else conditions
    fitted_rows = held_out = None
    if settings.hold_out > 0.0:
        fitted_rows, aside = kept_aside(snapshot.labels, len(snapshot), settings.hold_out, seed)
        held_out = HeldOutBatches(snapshot, names, conditions, aside, settings.batch_size)
    draws = ClassBalancedDraws(snapshot.labels, len(snapshot), settings.class_balance, fitted_rows)
    module = DenoiserFit(denoiser, settings, rng)
    state = None
    if checkpoint is not None:
        known = {
            "version": FIT_VERSION,
            "settings": settings.key(),
            "seed": seed,
            "snapshot": snapshot.hash,
            "names": list(names),
            "weights": {name: list(value.shape) for name, value in denoiser.state_dict().items()},
            "given": dict(key or {}),
        }
        state = FitCheckpoint(checkpoint, known)
    batches = FitBatches(snapshot, names, conditions, draws, settings, rng)
    run(module, batches, held_out, device, progress, state)
    fitted = denoiser.to(device).eval().requires_grad_(False)
    return Fitted(fitted, module.losses, time.perf_counter() - started)
