"""Where an epoch's window comes from: waits, decides what to do when the pool is short, gathers what is there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lightning_diffaug.errors import ConfigurationError, ShortWindowError
from lightning_diffaug.gates.remedies import advice
from lightning_diffaug.pool import EpochCache, Lease, Segment, SyntheticPool, UnavailableSlotsError, newest_window
from lightning_diffaug.pool.frozen import FrozenWindow
from lightning_diffaug.refill.progress import WaitDisplay
from lightning_diffaug.refill.protocol import Refill, Request, WhenShort
from lightning_diffaug.refill.status import Status

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
_BEAT_SECONDS = 5.0
_MOST_REJECTED = 0.5  # of what was made: above, more time for the generator is no remedy
_THIN = 0.25  # of the rows of a window's slots


class WindowSupply:
    """Freezes the windows of a run. Lives on the rank that decides (rank 0).

    The first window that a run freezes by itself (the first one after a resume too, unless the run was behind its
    demand) is waited for. What a later epoch
    does when its window is not there, ``when_short`` says. Under ``"reuse"`` it reads the last complete window, that
    is the newest one: as many consecutive slots as were asked for, all there, none of them beyond those asked for and
    none before the window read last. The refill meanwhile goes on where it is, rather than at the window asked for, so
    that with a generator slower than the demand windows slide on as fast as it makes slots. As long as no window was
    ever complete, the newest slots that are there are read.

    Args:
        refill: Who fills the pool.
        cache: The node's epoch cache.
        run_id: Name of the run.
        labelled: Whether samples have a class.
        when_short: What to do when the window lacks something.
        wait_timeout: Seconds that a first or waited-for window may take; the fit of a generator does not count.
        always_wait: Wait for every window until it is there or the refill gave up, however long a slot takes
            (``refill=sync``): a bound by the clock would make runs differ.
        last_complete: Slots of the last complete window, from a checkpoint.
        ahead: Slots beyond the needed ones that the refill makes: the lease keeps them, or a bounded pool would drop
            and make them for ever.
        behind: Of a checkpoint, see the attribute.
        read: Slots that the epoch of the checkpoint read.
        interrupt: Called while it waits; raises what is to end the wait.
    """

    def __init__(
        self,
        refill: Refill,
        cache: EpochCache,
        run_id: str,
        labelled: bool,
        when_short: WhenShort,
        wait_timeout: float,
        always_wait: bool,
        last_complete: Sequence[int] = (),
        ahead: int = 0,
        behind: int | None = None,
        read: Sequence[int] = (),
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self._refill = refill
        self._cache = cache
        self._run_id = run_id
        self._labelled = labelled
        self._when_short = when_short
        self._wait_timeout = wait_timeout
        self._always_wait = always_wait
        self._ahead = ahead
        self._interrupt = interrupt
        self._first = True
        self.behind = behind
        """First slot that the refill makes when the last epoch was short; None when it was not."""
        self._read = [] if behind is None else list(read)  # in that epoch
        self._lease: Lease | None = None
        self._held = range(0)
        self._beaten = 0.0
        self._said: set[str] = set()
        self._final: Status | None = None
        self.last_complete = list(last_complete)
        self.segments: list[Segment] = []

    # -- the epoch's window

    def freeze(self, request: Request) -> FrozenWindow:
        """Decides what an epoch reads, and gathers it into the epoch cache.

        Args:
            request: What the epoch asks for.

        Returns:
            The window; its segments are in `segments`.

        Raises:
            ShortWindowError: ``when_short=error`` and something is missing.
            ConfigurationError: The refill ended over a setting before the first window was there.
        """
        pinned = request.pinned
        slots: Sequence[int] = request.slots if pinned is None else pinned.slots
        first = min([*slots, request.slots.start if self.behind is None else self.behind])
        stop = max([*(k + 1 for k in slots), request.next_stop])
        self._refill.need(first, stop)
        again = [*self.last_complete, *self._read] if self._when_short in ("reuse", "wait") else []
        needed = range(min([first, *again]), stop + self._ahead)
        if not request.synthetic.any() and pinned is None:  # a later epoch may ask for some
            self.segments = []
            return FrozenWindow(available=[1.0] * len(request.synthetic))
        must_wait = (
            (self._first and self.behind is None)
            or self._always_wait
            or self._when_short == "wait"
            or pinned is not None
        )
        pool = self._wait(slots, must_wait, needed)
        if self._first and pinned is None and self.behind is not None and not self._has_read(pool):
            self.behind = None  # resumed with another pool, or one that was emptied: a first window like any other
            return self.freeze(request)
        present = self._gather(pool, slots) if pool is not None else []
        if must_wait and pool is not None and len(present) < len(slots):  # damage shows only now
            self._refill.need(first, stop)
            self._wait(slots, True, needed)
            present = self._gather(pool, slots)
        if pinned is not None and len(present) == len(slots):
            return pinned
        self._first = False
        return self._decide(pool, slots, present, request, first)

    def _has_read(self, pool: SyntheticPool | None) -> bool:
        return pool is None or all(pool.has(k) for k in self._read)

    def _decide(
        self, pool: SyntheticPool | None, slots: Sequence[int], present: list[int], request: Request, filled_from: int
    ) -> FrozenWindow:
        synthetic = request.synthetic
        whole = len(present) == len(slots)
        short = "" if whole else f"{len(slots) - len(present)} of the window's {len(slots)} slots are missing"
        if short and self._when_short == "error":
            raise ShortWindowError(self._explained(short))
        self.behind, self._read = None, []
        if whole:
            self.last_complete = list(slots)
        elif self._when_short in ("reuse", "wait"):
            present = self._read = [] if pool is None else self._gather_newest(pool, request.slots)
            self.behind = max([filled_from, *(k + 1 for k in present)])
        rows = self._rows_by_class(len(synthetic))
        absent = (synthetic > 0) & (rows == 0)
        if absent.any() and not short:
            short = f"the window has no sample of {int(absent.sum())} of the classes that it should serve"
            if self._when_short == "error":
                raise ShortWindowError(self._explained(short))
        share = 1.0 if whole or self._when_short != "real" else len(present) / len(slots)
        available = np.where(rows > 0, share, 0.0)
        available[synthetic == 0] = 1.0
        if short:
            self._say(short)
        elif pool is not None and synthetic.any():
            self._say_if_thin(int(rows.sum()), len(slots) * pool.header.slot_size)
        return FrozenWindow(present, available.tolist(), short)

    def _gather_newest(self, pool: SyntheticPool, wanted: range) -> list[int]:
        """Gathers the newest complete window up to `wanted`; where there is none, the newest slots that are there."""
        size, unusable = len(wanted), set[int]()
        while True:
            oldest = min(self.last_complete, default=0)
            there = [k for k in range(oldest, wanted.stop) if k not in unusable and pool.has(k)]
            complete = newest_window(there, size)
            newest = there[-size:] if complete is None else complete
            gathered = self._gather(pool, newest)
            if gathered == newest:
                self.last_complete = self.last_complete if complete is None else complete
                return newest
            unusable |= set(newest) - set(gathered)  # damaged, or dropped meanwhile

    def _rows_by_class(self, num_classes: int) -> np.ndarray[Any, Any]:
        counts = np.zeros(num_classes, np.int64)
        for segment in self.segments:
            if self._labelled:
                counts += np.bincount(segment.fields["label"].numpy(), minlength=num_classes)
            else:
                counts[0] += len(segment.slot)
        return counts

    # -- waiting and gathering

    def _wait(self, slots: Sequence[int], until_complete: bool, needed: range) -> SyntheticPool | None:
        """Waits for the pool and, if asked, for the slots; returns when there is no hope as well."""
        deadline, held = time.monotonic() + self._wait_timeout, None
        with WaitDisplay(len(slots)) as display:
            while True:
                self._refill.poll()
                pool = self._refill.pool()
                if pool is not None:
                    if held is None:
                        held = self._hold(pool, needed)
                    there = sum(pool.has(k) for k in slots)
                    if not until_complete:
                        return pool
                    display.slots(there)
                    if there == len(slots):
                        return pool
                else:
                    status = self._refill.status
                    display.fit(status)
                    if status.phase == "fit":  # a living fit is not the pool's delay
                        deadline = time.monotonic() + self._wait_timeout
                if self._refill.misconfigured and self._first:
                    raise ConfigurationError(self._refill.gave_up)
                self._say_failure()
                if self._refill.gave_up or (time.monotonic() > deadline and not (self._always_wait and until_complete)):
                    return pool
                self._interrupt()
                time.sleep(_LOOK_SECONDS)

    def _say_failure(self) -> None:
        """Says once, while training waits, what went wrong with a slot: it is tried again, and that may take long."""
        if "failure" in self._said or self._refill.gave_up:  # the status is a file
            return
        failure = self._refill.status.failure
        if failure:
            self._said.add("failure")
            log.warning(
                "training waits for its window, and a slot failed: %s. It is tried again until the refill gives up, or "
                "data.wait_timeout=%g s are over.",
                failure.rstrip(". "), self._wait_timeout,
            )  # fmt: skip

    def _hold(self, pool: SyntheticPool, needed: range) -> Lease:
        if self._lease is None:
            self._lease = pool.lease(self._run_id)
        if needed != self._held:  # else the beat of every few seconds says it
            self._lease.update(needed.start, needed.stop)
            self._held = needed
        return self._lease

    def _gather(self, pool: SyntheticPool, slots: Sequence[int]) -> list[int]:
        """Gathers the slots that are there and whole; returns them."""
        wanted = [k for k in slots if pool.has(k)]
        for _ in range(len(wanted) + 1):
            try:
                segments = self._cache.gather(pool, wanted)
                self._cache.prune(segments)
                self.segments = [segment for segment in segments if len(segment.slot)]  # all rejected: nothing to read
                return wanted
            except UnavailableSlotsError as error:
                wanted = [k for k in wanted if k not in error.damaged and k not in error.missing]
        self.segments = []
        return []

    # -- words

    def _explained(self, short: str) -> str:
        status = self._refill.status
        why = self._refill.gave_up or (f"last failure: {status.failure}" if status.failure else "")
        parts = [f"the pool is short: {short}.", why.rstrip(". ") + "." if why else ""]
        if status.rejections and status.rejected > _MOST_REJECTED * (status.admitted + status.rejected):
            parts.append(_of_rejections(status))
            if not self._refill.gave_up:
                parts.append(advice(status.rejections))
        elif not self._refill.gave_up:
            parts.append(
                "To have more in time, raise data.reuse, lower data.synthetic_fraction, or give the generator more "
                "room (refill.threads, refill.nice) or less work (generator.num_inference_steps)."
            )
        parts.append(f"data.when_short={self._when_short} says what happens.")
        return " ".join(filter(None, parts))

    def _say_if_thin(self, rows: int, wanted: int) -> None:
        """Once: a window that gates left nearly empty is whole, and its few samples are used again and again."""
        status = self._refill.status
        if rows >= _THIN * wanted or not status.rejections or "thin" in self._said:
            return
        self._said.add("thin")
        log.warning(
            "the window of %d samples holds %d, each of which is used so many times more (mix/reuse). %s %s",
            wanted, rows, _of_rejections(status), advice(status.rejections),
        )  # fmt: skip

    def _say(self, short: str) -> None:
        what = {
            "reuse": "the newest complete window is read, absent classes are real",
            "wait": "the wait was in vain, so the newest complete window is read, absent classes are real",
            "real": "the missing draws are real ones of the same class",
            "error": "",
        }[self._when_short]
        kind = short.split(" ", 1)[0] if short.startswith("the") else "slots"
        level = logging.DEBUG if kind in self._said else logging.WARNING
        self._said.add(kind)
        again = "" if level == logging.DEBUG else " Later epochs of the kind are counted without a word."
        log.log(level, "%s This epoch: %s. It is counted in mix/short_epochs.%s", self._explained(short), what, again)

    # -- life

    def poll(self) -> None:
        """Looks after the refill and keeps the lease alive; cheap enough for every batch."""
        self._refill.poll()
        if self._lease is not None and time.monotonic() - self._beaten > _BEAT_SECONDS:
            self._beaten = time.monotonic()
            self._lease.beat()

    @property
    def status(self) -> Status:
        """What was made so far, for this run."""
        return self._refill.status if self._final is None else self._final

    @property
    def fit_cost(self) -> float:
        """Seconds that the generator's fit took, whichever run fitted it."""
        return self._refill.fit_cost

    def pool(self) -> SyntheticPool | None:
        """The pool; None as long as its name is not known."""
        return self._refill.pool()

    def close(self) -> None:
        """Ends the refill and frees the window; safe to call again."""
        if self._final is None:
            self._refill.close()
            self._final = self._refill.status
        if self._lease is not None:
            self._lease.close()
            self._lease = None
        self._cache.close()


def _of_rejections(status: Status) -> str:
    gates = ", ".join(f"{gate} {count}" for gate, count in status.rejections.items())
    made = status.admitted + status.rejected
    if not status.admitted:
        return f"Of {made} samples made, every sample was rejected ({gates}), so more of them would not help."
    return f"Of {made} samples made, {status.rejected} were rejected ({gates})."
