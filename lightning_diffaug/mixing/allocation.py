"""How many draws each class gets, as real numbers; ``largest_remainder`` rounds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing.apportion import (
    FloatArray,
    fill_deficit,
    largest_remainder,
    proportional,
    water_fill,
)
from lightning_diffaug.mixing.schedule import Schedule, as_fraction

Mode: TypeAlias = Literal["replace", "append"]
Balance: TypeAlias = Literal["none", "classes"]
Allocation: TypeAlias = Literal["as_real", "deficit"] | Mapping[Any, float]

__all__ = [
    "Allocation",
    "Balance",
    "Mode",
    "Targets",
    "check_mode",
    "class_shares",
    "epoch_draws",
    "largest_remainder",
    "quotas",
    "targets",
]

REFERENCE_FRACTION = 0.25  # The planner's quotas must not depend on the fraction: one pool serves a sweep.
UNIFORM_SHARE = 0.1


@dataclass(frozen=True)
class Targets:
    """Draws of one epoch per class, before rounding.

    Attributes:
        real: Real draws R_c, (C,). Expected values where ``real_per_class`` is False.
        synthetic: Synthetic draws S_c, (C,).
        real_per_class: Whether each class draws its own R_c; otherwise real draws follow the data.
        labelled: Whether the classes are the user's; otherwise C = 1 stands for all samples.
        cap_raised: Whether the fraction itself exceeds ``max_class_share``, so that the cap was raised
            alike for all.
        clipped: Whether ``as_real`` met the total of a class under ``balance=classes``, so that the others
            took what it could not.
        imbalance: ``append`` with ``balance=classes``: draws above the level N/C that remain; else 0.
    """

    real: FloatArray
    synthetic: FloatArray
    real_per_class: bool
    labelled: bool = True
    cap_raised: bool = False
    clipped: bool = False
    imbalance: float = 0.0


def epoch_draws(total_real: int, fraction: Any, mode: Mode) -> tuple[int, Fraction]:
    """Draws N of an epoch, and the exact share of them that is synthetic.

    ``replace``: N = Σ n_c and f. ``append``: N = Σ n_c / (1 − f), rounded (half to even), and
    (N − Σ n_c) / N, so that every real sample comes exactly once.

    Args:
        total_real: Σ n_c, at least 1.
        fraction: f in [0, 1].
        mode: ``replace`` or ``append``.

    Raises:
        ConfigurationError: If f = 1 with ``append``, or there is no real sample.
    """
    f = as_fraction(fraction)
    _one_of("data.mode", mode, ("replace", "append"))
    if total_real < 1:
        raise ConfigurationError(
            "The training data has no sample, so an epoch has no draw. Check the data set given as real "
            "(real.root, real.shots)."
        )
    if mode == "replace":
        return total_real, f
    if f == 1:
        raise ConfigurationError(
            "data.synthetic_fraction=1 with data.mode=append: no number of synthetic samples added to the "
            "real ones makes all of them synthetic. Set data.mode=replace, or lower data.synthetic_fraction."
        )
    draws = round(total_real / (1 - f))
    return draws, Fraction(draws - total_real, draws)


def check_mode(schedule: Schedule, mode: Mode) -> None:
    """Refuses a schedule of the fraction, and f = 1, with ``append``.

    Raises:
        ConfigurationError: As said, or for an unknown mode.
    """
    if _one_of("data.mode", mode, ("replace", "append")) == "replace":
        return
    if not schedule.is_constant:
        raise ConfigurationError(
            f"data.synthetic_fraction={schedule} changes over the epochs, and with data.mode=append the "
            "length of an epoch would too. Set data.mode=replace, or data.synthetic_fraction to one number."
        )
    epoch_draws(1, schedule(0), mode)


def targets(
    counts: npt.ArrayLike,
    fraction: Any,
    mode: Mode = "replace",
    balance: Balance = "none",
    allocation: Allocation = "as_real",
    max_class_share: float = 0.75,
    *,
    class_names: Sequence[str] = (),
    labelled: bool = True,
) -> Targets:
    """Real and synthetic draws of each class in an epoch.

    A class without a real sample takes no part: it counts in no level and gets no draw.

    Args:
        counts: Real samples n_c of each class, (C,); ``[n]`` for unlabelled data.
        fraction: f in [0, 1].
        mode: ``replace``: an epoch has as many draws as there are real samples; ``append``: synthetic ones
            are added.
        balance: ``none``: real draws follow the data; ``classes``: each class gets N/C draws in all (with
            ``append`` as far as S levels them, whatever the allocation).
        allocation: ``as_real``, ``deficit``, or shares by class (its name or, failing that, its index).
        max_class_share: Cap of ``deficit`` on S_c / (R_c + S_c), in [0, 1].
        class_names: For the keys of ``allocation`` and for errors.
        labelled: Whether each sample has one label.

    Raises:
        ConfigurationError: For a combination that cannot be met; the text names the key to change.
    """
    n = _counts(counts)
    _one_of("data.balance", balance, ("none", "classes"))
    if not isinstance(allocation, Mapping):
        _one_of("data.allocation", allocation, ("as_real", "deficit"), " or shares by class")
    if not labelled and (balance != "none" or allocation != "as_real"):
        raise ConfigurationError(
            f"data.balance={balance} with data.allocation={allocation} needs one label a sample, and the "
            "training data has none. Set data.balance=none and data.allocation=as_real, or give labels=."
        )
    if not 0 <= max_class_share <= 1:
        raise ConfigurationError(
            f"data.max_class_share={max_class_share} is not in [0, 1]: it is the largest share of a class's "
            "draws that data.allocation=deficit makes synthetic. Set data.max_class_share to e.g. 0.75."
        )
    draws, f = epoch_draws(int(n.sum()), fraction, mode)
    present = n > 0
    shares = class_shares(allocation, n, class_names) if isinstance(allocation, Mapping) else None
    total = float(f * draws)

    if mode == "append" and balance == "classes":
        synthetic = water_fill(n, total, np.where(present, np.inf, 0.0))
        above = np.maximum(n + synthetic - draws / present.sum(), 0.0)[present].sum()
        return Targets(n, synthetic, real_per_class=False, labelled=labelled, imbalance=_tidy(float(above)))

    per_class = balance == "classes"
    real = n if mode == "append" else float(1 - f) * n
    level = np.where(present, draws / present.sum(), 0.0)
    cap_raised = clipped = False
    if shares is not None:
        synthetic = total * shares
        if per_class:
            _check_room(synthetic, level, n, class_names)
    elif allocation == "deficit":
        asked = float(as_fraction(fraction))  # Not f, which append's whole N may have moved above the cap.
        cap_raised = asked > max_class_share
        if asked >= max_class_share:
            synthetic = float(f) * level if per_class else total * n / n.sum()
        elif per_class:
            synthetic = fill_deficit(n, total, max_class_share * level, level)
        else:
            odds = max_class_share / (1 - max_class_share) if max_class_share < 1 else math.inf
            synthetic = fill_deficit(n, total, np.where(present, real * odds if odds < math.inf else np.inf, 0.0), n)
    else:
        synthetic = total * n / n.sum()
        if per_class:
            clipped = bool((synthetic > level * (1 + 1e-12)).any())
            synthetic = proportional(n, total, level)
    if per_class:
        real = np.maximum(level - synthetic, 0.0)
    return Targets(real, synthetic, per_class, labelled, cap_raised, clipped)


def quotas(
    counts: npt.ArrayLike,
    allocation: Allocation = "as_real",
    max_class_share: float = 0.75,
    *,
    class_names: Sequence[str] = (),
) -> FloatArray:
    """The share of each class in what is generated (the planner's ``auto``).

    The allocation's shares at a reference fraction of .25 under ``balance=classes``, mixed with 10 % uniform,
    so that every class that has a real sample exists in the pool. It depends on data and allocation alone.

    Args:
        counts: Real samples n_c of each class, (C,).
        allocation: As of ``targets``.
        max_class_share: As of ``targets``.
        class_names: As of ``targets``.

    Returns:
        Shares that sum to 1, (C,).

    Raises:
        ConfigurationError: As of ``targets``.
    """
    n = _counts(counts)
    if isinstance(allocation, Mapping):
        shares = class_shares(allocation, n, class_names)
    elif _one_of("data.allocation", allocation, ("as_real", "deficit"), " or shares by class") == "as_real":
        shares = n / n.sum()
    else:
        synthetic = targets(n, REFERENCE_FRACTION, "replace", "classes", allocation, max_class_share).synthetic
        shares = synthetic / synthetic.sum()
    present = (n > 0) / (n > 0).sum()
    mixed: FloatArray = (1 - UNIFORM_SHARE) * shares + UNIFORM_SHARE * present
    return mixed


def class_shares(
    given: Mapping[Any, float], counts: npt.ArrayLike, class_names: Sequence[str] = (), key: str = "data.allocation"
) -> FloatArray:
    """``{class: share}`` as shares that sum to 1.

    Args:
        given: Shares by class: its name or, failing that, its index.
        counts: Real samples n_c of each class, (C,).
        class_names: As of ``targets``.
        key: The setting that they come from, for errors.

    Returns:
        (C,).

    Raises:
        ConfigurationError: A class is unknown or has no real sample, a share is negative, or all are 0.
    """
    n = _counts(counts)
    names = [str(name) for name in class_names] or [str(c) for c in range(n.size)]
    shares = np.full(n.size, np.nan)
    for name, value in given.items():
        text = str(name)
        if text in names:  # A name first: a class called "3" need not have index 3.
            c = names.index(text)
        elif text.isdecimal() and int(text) < n.size:
            c = int(text)
        else:
            raise ConfigurationError(
                f"{key} names the class {name!r}, which the training data does not have: "
                f"{_listed(names)}. Change that key of {key}."
            )
        share = _number(value)
        if not 0 <= share < math.inf:
            raise ConfigurationError(f"{key}.{name}={value!r} is not a share of at least 0. Set {key}.{name} to one.")
        if not np.isnan(shares[c]):
            raise ConfigurationError(
                f"{key} names the class {names[c]!r} twice (also as {name!r}). Remove one of them."
            )
        if share > 0 and n[c] == 0:
            raise ConfigurationError(
                f"{key}.{name}={value} asks for synthetic samples of {names[c]!r}, which has no "
                f"real training sample to learn from or to stand in. Remove it from {key}."
            )
        shares[c] = share
    shares = np.nan_to_num(shares, nan=0.0)
    if shares.sum() <= 0:
        raise ConfigurationError(
            f"{key}={dict(given)} gives no class a share above 0, so the synthetic draws have "
            f"no class. Set at least one of them, or {key}=as_real."
        )
    normalised: FloatArray = shares / shares.sum()
    return normalised


def _check_room(synthetic: FloatArray, level: FloatArray, n: FloatArray, class_names: Sequence[str]) -> None:
    over = np.flatnonzero(synthetic > level * (1 + 1e-9))
    if over.size:
        names = [str(name) for name in class_names] or [str(c) for c in range(n.size)]
        c = int(over[0])
        raise ConfigurationError(
            f"data.allocation gives {_listed([names[i] for i in over])} more than a class's total: "
            f"{synthetic[c]:.1f} synthetic draws of {level[c]:.1f} for {names[c]!r}. "
            f"Lower data.allocation.{names[c]} or data.synthetic_fraction, or set data.balance=none."
        )


def _counts(counts: npt.ArrayLike) -> FloatArray:
    n = np.asarray(counts, np.float64)
    if n.ndim != 1 or n.sum() < 1 or (n < 0).any():
        raise ConfigurationError(
            f"The real samples per class are {_listed(n.tolist())}: there must be at least one sample. "
            "Check the data set given as real (real.root, real.shots)."
        )
    return n


def _number(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(Fraction(str(value)))
    except (ValueError, ZeroDivisionError):
        return math.nan


def _one_of(key: str, value: Any, known: tuple[str, ...], more: str = "") -> Any:
    if value not in known:
        raise ConfigurationError(f"{key}={value!r} is unknown. Set {key} to {' or '.join(known)}{more}.")
    return value


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(map(str, values[:20]))
    return shown if len(values) <= 20 else f"{shown}, … ({len(values)})"


def _tidy(value: float) -> float:
    return 0.0 if value < 1e-6 else value
