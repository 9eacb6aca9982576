"""Quotas by a rule: how much of what is made is of each class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_diffaug.errors import ConfigurationError

FloatArray: TypeAlias = npt.NDArray[np.float64]

RULES = ("fill", "temperature", "shares")
UNIFORM, FIELD = "uniform", "field"
_KEY = "data.planner"
_EXAMPLES = "{fill: 100}, {temperature: 2} or {shares: {<class>: 0.7, …}}, each with or without uniform: 0.1"


def is_rule(planner: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a rule; else it is shares by class. A class called like a rule goes into `shares`."""
    return any(str(key) in (*RULES, UNIFORM, FIELD) for key in planner)


def rule_quotas(
    rule: Mapping[Any, Any], counts: FloatArray, by_class: Callable[[Mapping[Any, Any], str], FloatArray]
) -> FloatArray:
    """The share of each class.

    Args:
        rule: One of ``fill``, ``temperature`` and ``shares``, and perhaps ``uniform``, the part in [0, 1] of what is
            made that all classes share equally. ``field`` is not looked at.
        counts: Real samples of each class, (C,). A class without any gets none.
        by_class: Makes of ``{class: share}`` (and its key, for errors) shares of sum 1.

    Returns:
        Shares of sum 1, (C,).

    Raises:
        ConfigurationError: The rule is none, or gives no class anything.
    """
    unknown = [key for key in rule if str(key) not in (*RULES, UNIFORM, FIELD)]
    if unknown:
        raise ConfigurationError(
            f"{_KEY}.{unknown[0]} stands beside {', '.join(str(key) for key in rule if key not in unknown)}, which "
            f"makes {_KEY} a rule, and is no part of one. Set {_KEY} to {_EXAMPLES}; a class goes into {_KEY}.shares."
        )
    named = [name for name in RULES if name in rule]
    if len(named) != 1:
        raise ConfigurationError(
            f"{_KEY}={dict(rule)} has {' and '.join(named) or 'no rule'}: one is needed. Set {_KEY} to {_EXAMPLES}."
        )
    name, value = named[0], rule[named[0]]
    if name == "shares":
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{_KEY}.shares={value!r} is no mapping. Set it to {{class: share}}.")
        quotas = by_class(value, f"{_KEY}.shares")
    else:
        quotas = (fill if name == "fill" else temper)(counts, value)
    uniform = _number(rule.get(UNIFORM, 0.0))
    if not 0 <= uniform <= 1:
        raise ConfigurationError(
            f"{_KEY}.uniform={rule[UNIFORM]!r} is not in [0, 1]: it is the part of what is made that all classes share "
            f"equally. Set {_KEY}.uniform to e.g. 0.1."
        )
    present = counts > 0
    mixed: FloatArray = (1 - uniform) * quotas + uniform * present / present.sum()
    return mixed


def fill(counts: FloatArray, target: Any) -> FloatArray:
    """In proportion to what each class lacks to `target` real samples: max(target − n_c, 0), as shares of sum 1.

    Raises:
        ConfigurationError: The target is no number above 0, or no class lacks anything.
    """
    wanted = _number(target)
    if not 0 < wanted < math.inf:
        raise ConfigurationError(
            f"{_KEY}.fill={target!r} is no number above 0: it is how many samples each class shall have. Set "
            f"{_KEY}.fill to e.g. {int(counts.max())}."
        )
    lacks = np.where(counts > 0, np.maximum(wanted - counts, 0.0), 0.0)
    if lacks.sum() == 0:
        raise ConfigurationError(
            f"{_KEY}.fill={target}: no class lacks anything, the smallest has {int(counts[counts > 0].min())} real "
            f"samples, so nothing would be made. Set {_KEY}.fill to more, such as {int(counts.max())} (the largest "
            f"class has them; where all are alike, more), or {_KEY}=uniform."
        )
    shares: FloatArray = lacks / lacks.sum()
    return shares


def temper(counts: FloatArray, temperature: Any) -> FloatArray:
    """Shares in proportion to n_c^(1/T): T = 1 as in the data, T = inf uniform, T < 1 sharper than the data.

    Raises:
        ConfigurationError: The temperature is not in (0, inf].
    """
    given = _number(temperature)
    if not given > 0:
        raise ConfigurationError(
            f"{_KEY}.temperature={temperature!r} is not in (0, inf]: shares are in proportion to the real samples to "
            f"the power 1/temperature. Set {_KEY}.temperature to 1 (as in the data), inf (uniform) or between."
        )
    present = counts > 0
    scaled = np.zeros(counts.size)
    scaled[present] = (counts[present] / counts.max()) ** (1.0 / given)
    shares: FloatArray = scaled / scaled.sum()
    return shares


def _number(value: Any) -> float:
    """A number, also as YAML's text for one (``1e3``, ``inf``, ``.inf``); NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(str(value).replace(".inf", "inf"))
    except ValueError:
        return math.nan
