"""What the supply of windows and those who fill the pool say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.pool.frozen import FrozenWindow
from lightning_diffaug.refill.status import Status

WhenShort = Literal["reuse", "wait", "real", "error"]


class Refill(Protocol):
    """Who fills the pool: the local process, the trainer itself, or nobody."""

    gave_up: str
    misconfigured: bool
    """Whether it gave up over a setting: that is the user's to change, no fault of a generator."""

    @property
    def status(self) -> Status:
        """What was done so far."""
        ...

    @property
    def fit_cost(self) -> float:
        """Seconds that the generator's fit took, whichever run fitted it; 0 where there is none."""
        ...

    def pool(self) -> SyntheticPool | None:
        """The pool; None as long as its name is not known, because the generator is still being fitted."""
        ...

    def need(self, first: int, stop: int) -> None:
        """Says which slots are needed now or at the next epoch."""
        ...

    def poll(self) -> None:
        """Looks after the filling; called often."""
        ...

    def close(self) -> None:
        """Ends it; safe to call again."""
        ...


@dataclass(frozen=True)
class Request:
    """What an epoch asks of the pool.

    Attributes:
        slots: The window's slots.
        next_stop: End of the next epoch's window.
        synthetic: Synthetic draws of each class, (C,).
        pinned: The window that a checkpoint of this epoch froze, or None.
    """

    slots: range
    next_stop: int
    synthetic: np.ndarray[Any, Any]
    pinned: FrozenWindow | None = None
