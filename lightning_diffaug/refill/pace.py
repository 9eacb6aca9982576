"""How much of the time a generator may compute (``refill.duty``), so that it does not crowd out a trainer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_NAP_SECONDS = 0.1
_LONGEST_REST = 5.0


class Pace:
    """Rests after work, so that work takes no more than a share of the time.

    Work of w seconds is followed by ``w (1 / duty - 1)`` seconds of sleep, in naps between which the process shows
    life and can be ended. Time in which nothing was to be done counts as neither.

    Args:
        duty: Share of the time, in (0, 1]; 1 never rests.
        clock: Seconds that pass.
        sleep: Lets them pass.
    """

    def __init__(
        self,
        duty: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rest_per_second = 1.0 / duty - 1.0
        self._clock = clock
        self._sleep = sleep
        self._since = clock()
        self._owed = 0.0
        self._thread = threading.get_ident()
        self.rested = 0.0

    def start(self) -> None:
        """Work begins."""
        self._since = self._clock()

    def breathe(self, beat: Callable[[], None]) -> None:
        """Rests within work, at most a few seconds: who made a pause here may have a deadline. The rest stays owed.

        Args:
            beat: Called before each nap.
        """
        self._rest(_LONGEST_REST, beat)

    def settle(self, beat: Callable[[], None]) -> None:
        """Rests for all that is owed."""
        self._rest(float("inf"), beat)

    def _rest(self, most: float, beat: Callable[[], None]) -> None:
        # a thread that only shows life while the work goes on in native code must not take that time off the clock
        if self._rest_per_second == 0.0 or threading.get_ident() != self._thread:
            return
        began = self._clock()
        self._owed += (began - self._since) * self._rest_per_second
        end, now = began + min(self._owed, most), began
        while now < end:
            beat()
            self._sleep(min(_NAP_SECONDS, end - now))
            now = self._clock()
        self._owed -= now - began  # below 0 where a nap was too long: it counts for the next
        self.rested += now - began
        self._since = now
