"""Captions of scikit-learn's digits: what each image shows, measured on it, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

DIGITS = (
    ("zero", "nought"), ("one", "1"), ("two", "2"), ("three", "3"), ("four", "4"), ("five", "5"), ("six", "6"),
    ("seven", "7"), ("eight", "8"), ("nine", "9"),
)  # fmt: skip
"""Words for each digit."""

ATTRIBUTES = {
    "weight": (("thin", "light", "faint"), ("medium-weight", "regular", "normal"), ("bold", "heavy", "thick")),
    "width": (("narrow", "slim", "slender"), ("medium-width", "ordinary", "standard"), ("wide", "broad", "stretched")),
    "slant": (
        ("leaning left", "slanted left", "tilted left"),
        ("upright", "straight", "vertical"),
        ("leaning right", "slanted right", "tilted right"),
    ),
    "balance": (("top-heavy",), ("balanced", "even"), ("bottom-heavy",)),
}
"""Attribute → its three levels, from low to high → words for that level; no word stands in two places."""

TEMPLATES = (
    "{weight} {width} {digit}, {slant} and {balance}",
    "the digit {digit}: {weight}, {width}, {slant}, {balance}",
    "{slant}, {balance}, {weight} and {width}: the number {digit}",
    "handwritten {digit}, {width} and {weight}, {balance}, {slant}",
    "this {digit} is {weight} and {width}, it is {balance} and {slant}",
    "{balance} and {slant}, {digit} in {width}, {weight} writing",
)
"""Ways of saying it."""

# The terciles of all 1,797 digits.
_BOUNDS = {"weight": (0.288, 0.321), "width": (1.195, 1.326), "slant": (-0.093, 0.012), "balance": (3.323, 3.624)}


def measured(images: Tensor) -> dict[str, Tensor]:
    """The attributes of images, as numbers.

    Args:
        images: (n, 1, 8, 8) of ink in [0, 1], 1 black on white paper.

    Returns:
        ``weight``: mean ink; ``width``: standard deviation of the ink along x, in pixels; ``slant``: pixels
        that the ink moves right for each pixel upwards (the covariance of x and -y over the variance of y);
        ``balance``: mean of y, in pixels from the top. Each float32 (n,).
    """
    ink = images[:, 0].to(torch.float32)
    mass = ink.sum((1, 2)).clamp_min(1e-6)
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in ink.shape[1:]), indexing="ij")

    def mean(values: Tensor) -> Tensor:
        return (ink * values).sum((1, 2)) / mass

    dx, dy = x - mean(x)[:, None, None], y - mean(y)[:, None, None]
    return {
        "weight": ink.mean((1, 2)),
        "width": mean(dx**2).sqrt(),
        "slant": -mean(dx * dy) / mean(dy**2).clamp_min(1e-6),
        "balance": mean(y),
    }


def levels(images: Tensor) -> Tensor:
    """Level (0, 1 or 2) of each of `ATTRIBUTES`, in their order.

    Args:
        images: As of `measured`.

    Returns:
        int64 (n, 4).
    """
    found = measured(images)
    return torch.stack([torch.bucketize(found[name], torch.tensor(_BOUNDS[name])) for name in ATTRIBUTES], dim=1)


def caption(digit: int, level: Sequence[int], seed: int) -> str:
    """A caption that is true of an image.

    Args:
        digit: What it shows.
        level: Of each of `ATTRIBUTES`.
        seed: Draws template and words; the same for ever.
    """
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, 3])))

    def one(words: Sequence[str]) -> str:
        return words[int(rng.randint(len(words)))]

    template = one(TEMPLATES)
    chosen = {name: one(of[at]) for (name, of), at in zip(ATTRIBUTES.items(), level, strict=True)}
    return template.format(digit=one(DIGITS[digit]), **chosen)


def said(text: str) -> tuple[int, ...] | None:
    """What a caption says of an image: the digit and the level of each of `ATTRIBUTES`.

    Args:
        text: A caption in the words of `caption`.

    Returns:
        Five numbers, -1 for what it does not say; None where it contradicts itself.
    """
    kinds = (DIGITS, *ATTRIBUTES.values())
    found = []
    for levels_of in kinds:
        there = {at for at, words in enumerate(levels_of) if any(_names(text, word) for word in words)}
        if len(there) > 1:
            return None
        found.append(there.pop() if there else -1)
    return tuple(found)


def _names(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None
