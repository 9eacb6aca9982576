"""Which samples go where: fixed stratified splits and the few-shot selection, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from lightning_diffaug.errors import ConfigurationError

# Stream numbers keep draws that share a seed independent of each other.
_SPLIT, _RARE, _SHOTS, _GROUPS = 0, 1, 2, 3


def _rng(seed: int, *stream: int) -> np.random.RandomState:
    # RandomState, because its streams are frozen: a split must not move with the version of numpy.
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, *stream])))


def _members(targets: npt.NDArray[np.int64], label: int) -> npt.NDArray[np.int64]:
    return np.flatnonzero(targets == label).astype(np.int64)


def stratified_split(
    targets: Sequence[int], shares: Sequence[float], seed: int = 0, classes: Sequence[str] | None = None
) -> list[list[int]]:
    """Splits indices into parts that hold every class in the same proportion.

    Unlike scikit-learn's splitter it also serves classes of a handful of samples: every part gets at
    least one sample of each class, and the first part takes the rounding.

    Args:
        targets: class index of each sample.
        shares: share of each part, each in (0, 1); the sum is 1.
        seed: the split is a pure function of ``targets``, ``shares`` and this.
        classes: class names, for the error.

    Returns:
        One ascending list of indices per share.

    Raises:
        ConfigurationError: a class has fewer samples than there are parts.
    """
    check_shares(shares)
    labels = np.asarray(targets, dtype=np.int64)
    parts: list[list[int]] = [[] for _ in shares]
    for label in np.unique(labels).tolist():
        order = _rng(seed, _SPLIT, label).permutation(_members(labels, label))
        if len(order) < len(shares):
            name = label if classes is None else classes[label]
            raise ConfigurationError(
                f"class {name} has {len(order)} sample(s), too few for {len(shares)} parts with at least "
                "one each. Add samples to the class, or give each part a folder of its own in real.root"
            )
        sizes = [max(1, round(share * len(order))) for share in shares]
        while sum(sizes[1:]) >= len(order):
            sizes[int(np.argmax(sizes[1:])) + 1] -= 1
        bounds = np.cumsum([len(order) - sum(sizes[1:]), *sizes[1:]])[:-1]
        for part, chosen in zip(parts, np.split(order, bounds), strict=True):
            part.extend(chosen.tolist())
    return [sorted(part) for part in parts]


def grouped_split(groups: Sequence[str], shares: Sequence[float], seed: int = 0) -> list[list[int]]:
    """Splits indices so that no group (a speaker, a place, a source) is in two parts.

    Groups are taken in an order drawn by `seed`, each to the part that lacks most; so every part gets one.

    Args:
        groups: the group of each sample.
        shares: share of each part, each in (0, 1); the sum is 1.
        seed: the split is a pure function of ``groups``, ``shares`` and this.

    Returns:
        One ascending list of indices per share.

    Raises:
        ConfigurationError: there are fewer groups than parts, or the shares are none.
    """
    check_shares(shares)
    names = sorted(set(groups))
    if len(names) < len(shares):
        raise ConfigurationError(
            f"there are {len(names)} groups of samples ({', '.join(names[:5])}), too few for {len(shares)} parts that "
            "share none. Add some (or, where real.group names them, set it so that it tells more apart), or give each "
            "part a folder of its own in real.root"
        )
    members: dict[str, list[int]] = {name: [] for name in names}
    for i, group in enumerate(groups):
        members[group].append(i)
    parts: list[list[int]] = [[] for _ in shares]
    for name in _rng(seed, _SPLIT).permutation(names).tolist():
        # an empty part first, however small its share
        part = min(range(len(parts)), key=lambda i: (bool(parts[i]), len(parts[i]) / shares[i]))
        parts[part].extend(members[name])
    return [sorted(part) for part in parts]


def drawn_groups(names: Sequence[str], count: int, seed: int) -> list[str]:
    """So many of the names, drawn by `seed`; a smaller count is a subset of a larger one."""
    drawn: list[str] = _rng(seed, _GROUPS).permutation(sorted(names)).tolist()
    return drawn[:count]


def check_shares(shares: Sequence[float], three: bool = False) -> None:
    """Refuses shares that are none.

    Args:
        shares: share of each part.
        three: whether there have to be three of them.

    Raises:
        ConfigurationError: they are not positive, or their sum is not 1.
    """
    if (three and len(shares) != 3) or any(not 0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ConfigurationError(
            f"real.split={list(shares)} does not hold {'three ' if three else ''}positive shares with the sum 1: it is "
            "how one folder is divided into training, validation and test. Set real.split to e.g. [0.7,0.1,0.2]"
        )


def resolve_rare(rare_classes: int | Sequence[int | str], class_names: Sequence[str], seed: int) -> list[int]:
    """Class indices that are to be rare.

    Args:
        rare_classes: how many (drawn by ``seed``; a smaller count is a subset of a larger one), or which:
            class indices or names.
        class_names: all classes, in the order of their indices.
        seed: draws the classes when a count is given.

    Returns:
        Ascending class indices.

    Raises:
        ConfigurationError: unknown class, or a count that is not in [0, number of classes].
    """
    total = len(class_names)
    if isinstance(rare_classes, int):
        if not 0 <= rare_classes <= total:
            raise ConfigurationError(
                f"real.rare_classes={rare_classes} is not in [0, {total}]: it is how many of the {total} classes "
                "are made rare. Set real.rare_classes to a count in that range or to a list of classes"
            )
        return sorted(_rng(seed, _RARE).permutation(total)[:rare_classes].tolist())
    names = {name: index for index, name in enumerate(class_names)}
    chosen: set[int] = set()
    for entry in rare_classes:
        index = names.get(entry, -1) if isinstance(entry, str) else entry
        if not 0 <= index < total:
            raise ConfigurationError(
                f"rare_classes holds {entry!r}, which is no class: known are the indices 0..{total - 1} and "
                f"the names {list(class_names)[:20]}. Set real.rare_classes to some of these"
            )
        chosen.add(index)
    return sorted(chosen)


def few_shot(
    targets: Sequence[int],
    num_classes: int,
    shots: int | None,
    rare: Sequence[int],
    rare_shots: int | None,
    seed: int,
) -> list[int]:
    """Indices that remain when every class is capped.

    A smaller cap keeps a subset of what a larger one keeps with the same seed.

    Args:
        targets: class index of each sample.
        num_classes: number of classes.
        shots: most samples kept of any class; None keeps all.
        rare: indices of the rare classes.
        rare_shots: most samples kept of a rare class (never more than ``shots``); None: as ``shots``.
        seed: which samples are kept.

    Returns:
        Ascending indices.
    """
    labels = np.asarray(targets, dtype=np.int64)
    kept: list[int] = []
    for label in range(num_classes):
        members = _members(labels, label)
        caps = [len(members), shots, rare_shots if label in rare else None]
        cap = min(cap for cap in caps if cap is not None)
        kept.extend(_rng(seed, _SHOTS, label).permutation(members)[:cap].tolist())
    return sorted(kept)


def minority_classes(counts: Sequence[int]) -> list[int]:
    """Classes below half the median count: what ``acc_rare`` is over when no class was made rare."""
    return [index for index, count in enumerate(counts) if count < median(counts) / 2]
