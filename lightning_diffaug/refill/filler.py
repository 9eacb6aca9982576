"""Fills slots one after the other, and tells a slot that cannot be made from a generator that does not work."""

from __future__ import annotations

import logging
import time
from itertools import count

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.pool import Shard, SyntheticPool
from lightning_diffaug.refill.acceptance import Acceptance
from lightning_diffaug.refill.aside import KeepRejected
from lightning_diffaug.refill.fill_slot import empty_slot, fill_slot, make_ready
from lightning_diffaug.refill.pace import Pace
from lightning_diffaug.refill.recipe import Recipe
from lightning_diffaug.refill.status import Reporter

log = logging.getLogger(__name__)

_TRIES = 3
_KILLED = "the process ended while the slot was being made"


class Filler:
    """Makes the missing slots of a run, lowest first.

    A slot that failed is tried again after the others, so that it blocks nothing. If it failed three times (over
    restarts), a further slot is made as a witness: when that works, the slot itself is at fault and is published empty,
    with its reason. When it does not, nothing is published: it is the generator that fails.

    Args:
        recipe: What to make and how.
        pool: Where to.
        reporter: Keeps what was made and what failed.
        owner: Name of the run.
        capacity: Slots that the pool may hold, or None.
        duty: Share of the time in which the generator may compute, in (0, 1].
        min_acceptance: Share of the samples made below which filling ends, in [0, 1).
        keep_rejected: Rejected samples of each reason that are kept for each slot.
    """

    def __init__(
        self,
        recipe: Recipe,
        pool: SyntheticPool,
        reporter: Reporter,
        owner: str,
        capacity: int | None = None,
        duty: float = 1.0,
        min_acceptance: float = 0.0,
        keep_rejected: int = 0,
    ) -> None:
        self._recipe = recipe
        self._pool = pool
        self._reporter = reporter
        self._owner = owner
        self._capacity = capacity
        self._pace = Pace(duty)
        self._keep_rejected = keep_rejected
        self._acceptance = Acceptance(pool, min_acceptance)
        self._failed_in_a_row = 0
        self._generator_ready = False
        if (killed_over := reporter.status.trying) is not None:
            self._note(killed_over, _KILLED)

    def step(self, slots: range) -> bool:
        """Makes one of the slots that is missing and that nobody else makes.

        Returns:
            False when there is none.

        Raises:
            GeneratorError: The generator fails whatever it is to make.
            TooFewAcceptedError: The gates reject nearly all that it makes.
            PoolError: The pool cannot be written.
        """
        missing = [k for k in slots if not self._pool.has(k)]
        for slot in sorted(missing, key=lambda k: (len(self._reasons(k)), k)):
            if self._pool.claim(slot, self._owner):
                break
        else:
            return False
        try:
            self._acceptance.check(slot)
            self._make_ready(slot)
            if len(self._reasons(slot)) < _TRIES:
                self._make(slot)
            elif self._make(next(k for k in count(slots.stop) if not self._reasons(k))):
                self._leave_empty(slot)
        finally:
            self._pool.release(slot, self._owner)
        if self._capacity is not None:
            self._pool.drop_beyond(self._capacity)
        return True

    def _make_ready(self, slot: int) -> None:
        """Before the first slot: what the generator loads is no work by which it is measured, and no slot's fault."""
        if not self._generator_ready:
            self._reporter.status.phase = "starting"
            self._reporter.write()
            make_ready(self._recipe, lambda: self._alive(slot))
            self._generator_ready = True

    def _reasons(self, slot: int) -> list[str]:
        return self._reporter.status.failures.get(str(slot), [])

    def _note(self, slot: int, reason: str) -> None:
        status = self._reporter.status
        status.failures.setdefault(str(slot), []).append(reason)
        status.failure, status.trying = f"slot {slot}: {reason}", None
        self._reporter.write()
        tries = len(self._reasons(slot))
        log.error("slot %d, try %d: %s", slot, tries, reason, exc_info=tries == 1 and reason != _KILLED)

    def _make(self, slot: int) -> bool:
        """Makes and publishes a slot; False when the generator failed."""
        status, started, rested = self._reporter.status, time.perf_counter(), self._pace.rested
        status.phase, status.trying = "fill", slot
        self._reporter.write()
        self._pace.start()
        try:
            aside = KeepRejected(self._pool, slot, self._keep_rejected) if self._keep_rejected else None
            shard = fill_slot(slot, self._recipe, lambda: self._beat(slot), aside)
            shard.made["seconds"] -= self._pace.rested - rested
            self._publish(slot, shard)
            if aside is not None:
                aside.publish()
        except GeneratorError as error:
            self._note(slot, str(error))
            self._failed_in_a_row += 1
            if self._failed_in_a_row > _TRIES:
                raise
            return False
        finally:  # not reached when the process is killed: then the slot counts as failed
            status.trying = None
            status.generator_seconds += time.perf_counter() - started - (self._pace.rested - rested)
            self._pool.release(slot, self._owner)
        self._failed_in_a_row = 0
        status.failures.pop(str(slot), None)
        self._reporter.write()
        self._pace.settle(self._reporter.beat)
        return True

    def _beat(self, slot: int) -> None:
        self._alive(slot)
        self._pace.breathe(lambda: self._alive(slot))

    def _alive(self, slot: int) -> None:
        self._reporter.beat()
        self._pool.beat(slot, self._owner)

    def _leave_empty(self, slot: int) -> None:
        reason = self._reasons(slot)[-1]
        log.error("slot %d failed %d times and others do not: it is left empty", slot, len(self._reasons(slot)))
        self._publish(slot, empty_slot(self._recipe, reason))
        self._reporter.write()

    def _publish(self, slot: int, shard: Shard) -> None:
        status = self._reporter.status
        self._acceptance.made(slot, shard.made)
        status.generated += shard.made["generated"]
        for reason, rejected in shard.made["rejections"].items():
            status.rejections[reason] = status.rejections.get(reason, 0) + rejected
        self._reporter.write()  # first: a process that is killed behind the publication has counted what it made
        if self._pool.publish(slot, shard):
            status.admitted += shard.n
            status.slots += 1
