"""What fills the pool and how, and what of it does not go together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_diffaug.conditions.real_guided_settings import RealGuided
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.feedback.settings import FeedbackSettings
from lightning_diffaug.mixing.sampler import MixSettings
from lightning_diffaug.refill.protocol import WhenShort
from lightning_diffaug.refill.settings import RefillSettings


@dataclass(frozen=True)
class PoolSettings:
    """What fills the pool and how; each as `DiffAugDataModule` says."""

    generator: Any
    planner: Any
    text: Any
    real_guided: RealGuided
    gates: Any
    refill: RefillSettings
    when_short: WhenShort
    wait_timeout: float
    capacity: int | None
    pool_seed: int
    cache_dir: Path
    keep_rejected: int = 0
    feedback: FeedbackSettings | None = None

    def __post_init__(self) -> None:
        if self.when_short not in ("reuse", "wait", "real", "error"):
            raise ConfigurationError(
                f"data.when_short={self.when_short!r} is none of reuse, wait, real, error: it says what happens when "
                "the window lacks samples. Set data.when_short=reuse to read the newest complete window."
            )
        if type(self.keep_rejected) is not int or self.keep_rejected < 0:
            raise ConfigurationError(
                f"data.keep_rejected={self.keep_rejected!r} is not a whole number from 0: it is how many rejected "
                "samples of each reason are kept for each slot. Set data.keep_rejected to e.g. 8, or to 0 for none."
            )
        if self.real_guided.choose == "misclassified" and self.feedback is None:
            raise ConfigurationError(
                "data.real_guided.choose=misclassified varies what the learner gets wrong, and nothing asks it. Set "
                "feedback=classes (with feedback.strength=0 classes keep their quotas), or data.real_guided.choose to "
                "uniform."
            )
        if not self.wait_timeout >= 0:
            raise ConfigurationError(
                f"data.wait_timeout={self.wait_timeout} is below 0: it is how many seconds a window may take. Set "
                "data.wait_timeout to 300."
            )


def check_feedback(pool: PoolSettings, mix: MixSettings) -> None:
    """Refuses feedback that no slot would ever follow."""
    if pool.refill.mode == "none":
        raise ConfigurationError(
            "refill=none makes no slot, so none can follow data.feedback, whose pool is this run's own and begins "
            "empty. Set refill=sync or refill=local, or feedback=none."
        )
    if math.isinf(mix.reuse):
        raise ConfigurationError(
            "data.reuse=inf freezes the pool at its first window, so that no slot is made that could follow "
            "data.feedback. Set data.reuse to e.g. 8, or feedback=none."
        )


def check_learner(pool: PoolSettings, generator: Any, gates: Sequence[Any]) -> None:
    """Refuses parts that need the learner's weights where they are not handed over."""
    if pool.feedback is not None and pool.feedback.hand_over:
        return
    parts = [("generator", "generator.feedback_scale=0", generator)]
    parts += [(key := f"gates.{getattr(gate, 'name', '')}", f"{key}=false", gate) for gate in gates]
    for key, off, part in parts:
        if getattr(part, "needs_learner", False):
            raise ConfigurationError(
                f"{key} asks the learner itself, whose weights the refill process does not get. Set feedback=practice "
                f"(feedback.hand_over=true), or {off}."
            )


def check_device(named: Mapping[str, Any] | None, key: str = "generator") -> None:
    """Refuses a device that is not there, where the generator, or gate, has that setting; no device is touched.

    The refill process alone would find it out late, and with a full pool nobody would.
    """
    if isinstance(wrapped := (named or {}).get("generator"), Mapping):
        check_device(wrapped, key)
    wanted = (named or {}).get("device")
    if not isinstance(wanted, str) or wanted == "auto":
        return
    try:
        device = torch.device(wanted)
        count = torch.get_device_module(device).device_count()
    except RuntimeError as error:
        raise ConfigurationError(
            f"{key}.device={wanted} is no device that torch computes on ({str(error).splitlines()[0]}). Set "
            f"{key}.device to auto, cpu, or a GPU such as cuda:0."
        ) from error
    if (device.index or 0) >= count:
        raise ConfigurationError(
            f"{key}.device={wanted} is not there: torch finds {count} devices of the kind {device.type} on this "
            f"machine. Set {key}.device to auto or cpu."
        )
