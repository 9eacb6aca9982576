"""The part of a real sample that is made anew."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_diffaug.conditions.draws import draw


def box_mask(size: Sequence[int], share: float, seed: int, slot: int, row: int) -> Tensor:
    """A random box: 0 in it, which is made anew, and 1 elsewhere, which is kept.

    Args:
        size: Lengths of the sample's axes behind its channels.
        share: Share of the area that the box has, in (0, 1).
        seed: Of the choices.
        slot: Slot number.
        row: Row in the slot.

    Returns:
        float32 (1, *size).
    """
    mask, box = torch.ones(1, *size), [slice(None)]
    for axis, length in enumerate(size):
        # Equal shares of the axes; the later ones make up for the rounding of the earlier.
        extent = max(1, round(length * share ** (1.0 / (len(size) - axis))))
        share = min(share * length / extent, 1.0)
        first = int(draw(seed, slot, row, 3 + axis) * (length - extent + 1))
        box.append(slice(first, first + extent))
    mask[tuple(box)] = 0.0
    return mask
