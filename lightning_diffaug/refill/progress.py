"""What a user sees while training waits for the first window."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from lightning_diffaug.bars import bar
from lightning_diffaug.refill.status import Status

_SHOW_AFTER = 0.5
_LONG_FIT_SECONDS = 600.0


class WaitDisplay:
    """One progress bar at a time on standard error: the fit's steps, then the window's slots.

    Args:
        slots: Slots waited for.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._started = time.monotonic()
        self._bar: Any = None
        self._what = ""
        self._fit_started: tuple[float, int] | None = None
        self._estimated = False

    def __enter__(self) -> WaitDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def fit(self, status: Status) -> None:
        """Shows the fit's progress, or that the refill process is starting."""
        if status.phase != "fit" or not status.total:
            return
        self._show("fitting the generator", "step", status.step, status.total)
        self._estimate(status)

    def slots(self, there: int) -> None:
        """Shows how many slots of the window are there."""
        if time.monotonic() - self._started > _SHOW_AFTER:
            self._show("filling the first window", "slot", there, self._slots)

    def _show(self, what: str, unit: str, done: int, total: int) -> None:
        if what != self._what:
            if self._bar is not None:
                self._bar.update(self._bar.total - self._bar.n)
                self._bar.close()
            self._bar = bar(what, unit, total)
            self._what = what
        self._bar.update(done - self._bar.n)

    def _estimate(self, status: Status) -> None:
        """Says after ten steps how long the fit takes, if it is long."""
        if self._estimated or not status.step:
            return
        if self._fit_started is None:
            self._fit_started = (time.monotonic(), status.step)
            return
        began, step = self._fit_started
        if status.step - step < 10:
            return
        self._estimated = True
        seconds = (time.monotonic() - began) / (status.step - step) * status.total
        if seconds > _LONG_FIT_SECONDS:
            tqdm.write(
                f"The fit will take about {seconds / 60:.0f} minutes on this machine (once: it is kept). Shorter: "
                "generator.fit.steps, generator.fit.channels, real.size; faster: refill.threads, generator.device.",
                file=sys.stderr,
            )
