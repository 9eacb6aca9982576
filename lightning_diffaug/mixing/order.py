"""Random orders that are a pure function of seed, epoch, purpose and class."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from lightning_diffaug.mixing.apportion import IntArray


class Stream(IntEnum):
    """What a random stream is for."""

    ROUNDING = 0
    REAL = 1
    REAL_SPREAD = 2
    WINDOW = 3
    SYNTHETIC_SPREAD = 4
    SUBSTITUTE = 5
    BY_DRAW = 6


@dataclass(frozen=True)
class Keys:
    """Random streams keyed by seed, epoch, purpose and class: disjoint counters of one Philox key."""

    seed: int
    epoch: int

    def rng(self, stream: Stream, c: int = 0) -> np.random.Generator:
        """The stream of one purpose and class, from its front."""
        key = np.array([self.seed % 2**64, self.epoch], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, c, stream], np.uint64)))

    def cycles(self, stream: Stream, values: IntArray, length: int, c: int = 0) -> IntArray:
        """The values without replacement, in a new random order whenever they are used up."""
        if length == 0:
            return values[:0]
        rounds = -(-length // values.size)
        shuffled = self.rng(stream, c).permuted(np.tile(values, (rounds, 1)), axis=1).ravel()
        return shuffled[:length]

    def spread(self, stream: Stream, counts: IntArray, jitter: bool = True) -> IntArray:
        """Order that spreads the draws, listed by class, evenly: draw j of class c at (j + u) / counts_c."""
        u = [self.rng(stream, c).random(int(k)) if jitter and k else np.full(k, 0.5) for c, k in enumerate(counts)]
        places = [(np.arange(k) + v) / max(int(k), 1) for v, k in zip(u, counts, strict=True)]
        # Each class's places ascend, which the stable sort makes use of.
        return np.argsort(np.concatenate(places), kind="stable")


@dataclass(frozen=True)
class RealOrder:
    """In which order the real samples come.

    Attributes:
        keys: Of the epoch.
        members: Indices of the real samples of each class; one array of all for unlabelled data.
        shuffle: Whether in random order, else in that of the data.
        labelled: Whether the classes are the user's.
    """

    keys: Keys
    members: list[IntArray]
    shuffle: bool
    labelled: bool

    @cached_property
    def class_of(self) -> IntArray:
        """Class of each real index, −1 where there is no sample."""
        flat = np.concatenate(self.members)
        classes = np.full(int(flat.max()) + 1, -1, np.int64)
        classes[flat] = np.repeat(np.arange(len(self.members)), [m.size for m in self.members])
        return classes

    def of_class(self, c: int, length: int, stream: Stream = Stream.REAL) -> IntArray:
        """The first draws of one class."""
        if self.shuffle:
            return self.keys.cycles(stream, self.members[c], length, c + 1)
        return np.resize(self.members[c], length)

    def of_all(self, length: int, further: IntArray) -> tuple[IntArray, list[IntArray]]:
        """The first draws of all samples, and as many further ones of each class as asked for, (C,)."""
        everything = np.flatnonzero(self.class_of >= 0)
        wanted = length if self.labelled else length + int(further.sum())
        rounds = -(-wanted // everything.size) * everything.size
        stream = self.keys.cycles(Stream.REAL, everything, rounds) if self.shuffle else np.resize(everything, rounds)
        if not self.labelled:
            return stream[:length], [stream[length:wanted]]
        if not further.any():
            return stream[:length], [stream[:0]] * len(self.members)
        # First those of the class that this round has not come to, then the class anew.
        left = stream[length:]
        classes = self.class_of[left]
        ends = np.cumsum(np.bincount(classes, minlength=len(self.members)))[:-1]
        unused = np.split(left[np.argsort(classes, kind="stable")], ends)
        return stream[:length], [
            np.concatenate([own[:k], self.of_class(c, max(k - own.size, 0), Stream.SUBSTITUTE)])
            for c, (own, k) in enumerate(zip(unused, further.tolist(), strict=True))
        ]
