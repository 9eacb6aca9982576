"""Which worker makes which run: those that share a pool one after the other, the others wherever there is time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingSet(Generic[T]):
    """The runs of one training set.

    Attributes:
        sharing: Those with synthetic samples, in order: the first fits the generator and fills the pool.
        free: Those without, which wait for nobody.
    """

    sharing: Sequence[T]
    free: Sequence[T]


def most_side_by_side(sets: Sequence[TrainingSet[T]]) -> int:
    """How many runs can be made at a time: one of each training set that needs its pool, and all that need none."""
    return sum(bool(one.sharing) + len(one.free) for one in sets)


class Schedule(Generic[T]):
    """Hands out runs.

    A worker keeps to one training set until its runs are done, then begins with the next. When none is left it helps
    the others with runs that need no pool. So no two workers ever fit the same generator, or fill the same pool.

    Args:
        sets: All training sets; each is begun in this order.
    """

    def __init__(self, sets: Sequence[TrainingSet[T]]) -> None:
        self._waiting = deque((deque(one.sharing), deque(one.free)) for one in sets)
        self._own: dict[int, tuple[deque[T], deque[T]]] = {}

    def next(self, worker: int) -> T | None:
        """What a worker, which makes nothing now, is to make next; None where nothing is left for it."""
        sharing, free = self._own.get(worker, (None, None))
        while not sharing and not free and self._waiting:
            sharing, free = self._own[worker] = self._waiting.popleft()
        if sharing:
            return sharing.popleft()
        if free:
            return free.popleft()
        most = max((free for _, free in self._own.values()), key=len, default=None)
        return most.pop() if most else None
