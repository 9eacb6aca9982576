"""Choices that follow from where they are made alone: the same on any machine, with any version of any library."""

from __future__ import annotations

import functools
import hashlib
import struct

import numpy as np
from numpy.typing import NDArray

_PERSON = b"real"
_KEPT = 256


def draw(seed: int, slot: int, row: int, what: int) -> float:
    """A number in [0, 1).

    Args:
        seed: Of the choices.
        slot: Slot number.
        row: Row in the slot.
        what: Which of the row's choices it is.
    """
    return (_digest(seed, slot, row, what) >> 11) / 2**53


@functools.lru_cache(maxsize=_KEPT)
def permutation(seed: int, which: int, turn: int, n: int) -> NDArray[np.int64]:
    """A random order of 0 … n - 1, int64 (n,), not to be written to.

    Its numbers are sorted by a hash (splitmix64, Steele et al. 2014).

    Args:
        seed: Of the choices.
        which: What is ordered.
        turn: How often it was gone through before.
        n: How many there are.
    """
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(_digest(seed, which, turn, -1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        order = np.argsort(z ^ (z >> np.uint64(31)), kind="stable").astype(np.int64)
    order.setflags(write=False)
    return order


def _digest(*place: int) -> int:
    packed = struct.pack(f"<{len(place)}q", *place)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8, person=_PERSON).digest(), "little")
