"""One run's mix: where it stands, the window of the epoch, what was drawn, and the state from which it resumes."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lightning_diffaug.mixing.dataset import BatchIndex
from lightning_diffaug.mixing.plan import EpochPlan
from lightning_diffaug.mixing.progress import MixProgress
from lightning_diffaug.mixing.sampler import MixSampler
from lightning_diffaug.pool import EpochCache, SyntheticPool, open_segment
from lightning_diffaug.pool.frozen import FrozenWindow, WindowRows
from lightning_diffaug.ranks import Ranks
from lightning_diffaug.refill.protocol import Refill, Request
from lightning_diffaug.refill.status import Status
from lightning_diffaug.refill.supply import WindowSupply

log = logging.getLogger(__name__)

_MANY_USES = 4.0
_MUCH_UNDRAWN = 1 / 3


@dataclasses.dataclass
class _Epoch:
    """The epoch under way."""

    number: int
    window: FrozenWindow
    rows: WindowRows
    plan: EpochPlan
    batches: int  # of the epoch, that were trained on
    counted_from: int = 0  # batches before are counted already


class MixRun:
    """Drives the mix of one fit. It is the loader's `Course`.

    Args:
        sampler: Which sample comes next.
        supply: Where windows come from; None on ranks that do not decide.
        helper: The refill of a further node, on its leading rank; else None.
        cache: This node's epoch cache, which the node's leading rank fills.
        ranks: This process among the ranks.
        trainer: The Trainer that runs the fit, or None.
        state: What `state` gave in the run that is resumed, or None.
        private: Name of the run whose own the pool is; None for a shared pool.
    """

    def __init__(
        self,
        sampler: MixSampler,
        supply: WindowSupply | None,
        helper: Refill | None,
        cache: EpochCache,
        ranks: Ranks,
        trainer: Any,
        state: dict[str, Any] | None,
        private: str | None = None,
    ) -> None:
        self._sampler = sampler
        self._supply = supply
        self._helper = helper
        self._cache = cache
        self._ranks = ranks
        self.trainer = trainer
        self._resumed = state
        self._private = private
        if state is not None and state["mix"] != sampler.digest():
            log.warning(
                "the checkpoint was written with another mix (a setting of it, the training data's classes, the batch "
                "size, number of ranks or trainer.limit_train_batches differs), so this run does not go on as that one "
                "would have."
            )
        self._resumed_pool: str = "" if state is None else state["pool"]
        self._epoch: _Epoch | None = None
        self._recorded_epoch: int | None = None
        # first slot that is filled in a run that is behind its demand; checkpoints of older versions do not say
        self._behind: int | None = None if state is None else state.get("behind")
        self._pool_said = False
        self._finished = MixProgress.empty(len(sampler.counts))
        self._uses_said: set[int] = set()
        self._undrawn_said = False
        self.wait_seconds = 0.0
        self.trained = False
        self._status_at_first_batch = Status()
        # what is dropped without close(), in a notebook or at the end of a script, leaves nothing behind either
        ends = [part.close for part in (supply, helper) if part is not None]
        if helper is not None:
            ends.append(cache.close)
        self._finalizer = weakref.finalize(self, _end, os.getpid(), ends)

    # -- the loader's side

    def __len__(self) -> int:
        return len(self._sampler)

    def set_epoch(self, epoch: int) -> None:
        """Records an epoch's number; the window is frozen at the first batch, when it counts."""
        self._recorded_epoch = epoch

    def begin(self) -> tuple[int, Iterator[BatchIndex]]:
        """Freezes the window of the epoch that begins; the number of the next batch, and the batches from it on.

        An epoch that is begun again (a look beside the loop) keeps its window.
        """
        number, start = self._position()
        if self._epoch is None or self._epoch.number != number:
            self._epoch = self._begun(number, start)
        epoch = self._epoch
        return start, self._sampler.batches(epoch.plan, epoch.rows, number, self._ranks.rank, start)

    def _begun(self, number: int, start: int) -> _Epoch:
        previous, resumed = self._epoch, self._resumed
        self._resumed = None
        if previous is not None:
            self._finished = self._progress_of(previous)
        pinned = None
        if resumed is not None:
            again = number == resumed["epoch"]
            self._finished = MixProgress.from_state(resumed["finished" if again else "so_far"])
            pinned = FrozenWindow(**resumed["window"]) if again else None
        window, rows = self._freeze(number, pinned)
        lost = pinned is not None and window != pinned
        if resumed is not None and lost:  # what was drawn before came from another plan
            self._finished = MixProgress.from_state(resumed["so_far"])
        if pinned is None or not pinned.short:
            self._finished.short_epochs += bool(window.short)
        self._finished.offer(rows.slot, rows.by_class)
        if self._private is not None:
            self._warn_of_undrawn_classes(number, rows)
        plan = self._sampler.plan(number, rows, window.available)
        return _Epoch(number, window, rows, plan, start, counted_from=start if lost else 0)

    def _position(self) -> tuple[int, int]:
        """Epoch and batch where the run stands: the Trainer's where there is one."""
        trainer = self.trainer
        if trainer is not None and trainer.training:
            return trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if self._recorded_epoch is not None:
            number, self._recorded_epoch = self._recorded_epoch, None
            return number, 0
        return (0 if self._epoch is None else self._epoch.number + 1), 0

    def real_before(self, number: int) -> int:
        """Real draws of this rank in the epoch, before batch `number`."""
        assert self._epoch is not None
        part = self._epoch.plan.rank_slice(self._ranks.rank, 0, self._sampler.drawn(number))
        return int((part.window_row < 0).sum())

    def drew(self, number: int) -> None:
        """Counts batch `number`, which is about to be trained on, and looks after the refill."""
        assert self._epoch is not None
        self._epoch.batches = number + 1
        if self._supply is not None:
            if not self.trained:
                self._status_at_first_batch = self._supply.status
            self._supply.poll()
        if self._helper is not None:
            self._helper.poll()
        self.trained = True

    # -- the window

    def _freeze(self, number: int, pinned: FrozenWindow | None) -> tuple[FrozenWindow, WindowRows]:
        started = time.perf_counter()
        request = self._request(number, pinned)
        nothing_asked = FrozenWindow(available=[1.0] * len(self._sampler.counts))
        window, paths, pool, behind = nothing_asked, list[str](), "", None
        if self._helper is not None:
            self._helper.need(request.slots.start if self._behind is None else self._behind, request.next_stop)
        if self._supply is not None:
            window = self._supply.freeze(request)
            behind = self._supply.behind
            paths = [str(segment.path) for segment in self._supply.segments]
            found = self._supply.pool()
            pool = "" if found is None else str(found.folder)
            name = "" if found is None else found.fingerprint
            if pinned is not None and name != self._resumed_pool:
                log.warning(
                    "the run is resumed with another pool (%s; it was %s): a setting of the generator, its weights or "
                    "the training data changed, so the rest of the epoch is not what it would have been.",
                    name or "none", self._resumed_pool or "none",
                )  # fmt: skip
            if pool and not self._pool_said:
                self._pool_said = True
                log.info("the pool of synthetic samples is %s", pool)
        window, paths, pool, self._behind = self._ranks.agree((window, paths, pool, behind))
        if self._helper is not None and window.slots:
            self._cache.prune(self._cache.gather(SyntheticPool.open(pool), window.slots))
        self._ranks.wait()  # the node's segments are there
        segments = [open_segment(path) for path in paths]
        self.wait_seconds += time.perf_counter() - started
        rows = WindowRows.of(segments, len(self._sampler.counts), self._sampler.labelled)
        return window, rows

    def _request(self, number: int, pinned: FrozenWindow | None) -> Request:
        sampler = self._sampler
        wanted = sampler.targets(number).synthetic
        return Request(sampler.slots(number), sampler.slots(number + 1).stop, wanted, pinned)

    # -- what was drawn

    def _progress_of(self, epoch: _Epoch) -> MixProgress:
        drawn = self._sampler.drawn
        made = epoch.plan.made(drawn(epoch.batches), drawn(epoch.counted_from))
        return self._finished.plus(made, self._sampler.fraction(epoch.number))

    @property
    def progress(self) -> MixProgress:
        """All draws so far, of all ranks; those of the checkpoint where nothing was left to train."""
        if self._epoch is not None:
            return self._progress_of(self._epoch)
        return self._finished if self._resumed is None else MixProgress.from_state(self._resumed["so_far"])

    @property
    def status(self) -> Status:
        """What the refill made for this run."""
        return Status() if self._supply is None else self._supply.status

    @property
    def fit_cost(self) -> float:
        """Seconds that the generator's fit took, whichever run fitted it; 0 on ranks that do not decide."""
        return 0.0 if self._supply is None else self._supply.fit_cost

    @property
    def pool(self) -> SyntheticPool | None:
        """The pool, on the rank that decides; None as long as its name is not known."""
        return None if self._supply is None else self._supply.pool()

    @property
    def epoch(self) -> int | None:
        """The epoch under way, or that of the checkpoint; None before the first."""
        if self._epoch is not None:
            return self._epoch.number
        return None if self._resumed is None else int(self._resumed["epoch"])

    @property
    def resumes_own_pool(self) -> bool:
        """Whether nothing was drawn yet since the resume of a run that has a pool of its own."""
        return self._resumed is not None and self._private is not None and self._resumed.get("private") == self._private

    def asked_stop(self, epoch: int) -> int:
        """End of the slots that are asked for until the end of an epoch: of the next one's window."""
        return self._sampler.slots(epoch + 1).stop

    @property
    def window_slots(self) -> list[int]:
        """Slots of the window that was frozen last."""
        return [] if self._epoch is None else self._epoch.window.slots

    @property
    def slots_used(self) -> list[int]:
        """Slots of the windows that the schedule has asked for so far; by it, so that a resume changes none."""
        epochs = range(0 if self.epoch is None else self.epoch + 1)
        return sorted({slot for epoch in epochs for slot in self._sampler.slots(epoch)})

    @property
    def window_by_class(self) -> list[int]:
        """Rows of each class in the window that was frozen last; [] before the first."""
        return [] if self._epoch is None else [len(rows) for rows in self._epoch.rows.by_class]

    @property
    def window_by_age(self) -> dict[int, int]:
        """Rows of the window that was frozen last, by the epochs since the schedule let their slot in.

        The ages follow from the schedule alone, so that they are the same after a resume.
        """
        epoch, ages = self._epoch, Counter[int]()
        if epoch is not None:
            for slot, rows in zip(*np.unique(epoch.rows.slot, return_counts=True), strict=True):
                ages[epoch.number - self._sampler.entered(int(slot), epoch.number)] += int(rows)
        return dict(ages)

    @property
    def generated_while_training(self) -> int:
        """Samples made since the first batch."""
        return self.status.generated - self._status_at_first_batch.generated if self.trained else 0

    def warn_of_many_uses(self) -> None:
        """Says once for each class when its pooled samples are used far more often than `reuse` intends.

        Not in a run that was short of samples: then that is the cause, and it was said.
        """
        progress, reuse = self.progress, self._sampler.settings.reuse
        if progress.short_epochs:
            return
        many = {c: uses for c, uses in enumerate(progress.reuse_by_class) if uses > _MANY_USES * reuse}
        new = [f"{c} ({uses:.0f})" for c, uses in many.items() if c not in self._uses_said]
        self._uses_said |= set(many)
        if new:
            log.warning(
                "uses of each pooled sample so far, by class: %s, and data.reuse asks for %g: these classes have few "
                "rows in the window. Raise data.window, or their share with data.planner.",
                ", ".join(new), reuse,
            )  # fmt: skip

    def _warn_of_undrawn_classes(self, number: int, rows: WindowRows) -> None:
        """Says once when, with feedback, much of a window is of classes of which no synthetic sample is drawn."""
        synthetic = self._sampler.targets(number).synthetic
        counts = np.array([len(of_class) for of_class in rows.by_class])
        undrawn = counts[synthetic == 0].sum() / max(counts.sum(), 1)
        if self._undrawn_said or synthetic.sum() == 0 or undrawn <= _MUCH_UNDRAWN:
            return
        self._undrawn_said = True
        if self._ranks.leads:
            log.warning(
                "%.0f%% of the window is of classes of which no synthetic sample is drawn: feedback says what the "
                "window holds, and data.allocation which classes are drawn. Set data.allocation=as_real, or a "
                "data.planner that makes only classes that are drawn, such as {fill: %d}.",
                100 * undrawn, max(self._sampler.counts),
            )  # fmt: skip

    # -- state and end

    def state(self) -> dict[str, Any] | None:
        """Plain values from which the run goes on; the same on every rank."""
        epoch = self._epoch
        if epoch is None:
            return self._resumed
        return {
            "epoch": epoch.number,
            "window": dataclasses.asdict(epoch.window),
            "finished": self._finished.state(),
            "so_far": self._progress_of(epoch).state(),
            "last_complete": [] if self._supply is None else list(self._supply.last_complete),
            "behind": self._behind,
            "mix": self._sampler.digest(),
            "pool": "" if self.pool is None else self.pool.fingerprint,
            "private": self._private,
        }

    def close(self) -> None:
        """Ends the refill; safe to call again."""
        self._finalizer()


def _end(owner: int, ends: list[Callable[[], None]]) -> None:
    if os.getpid() == owner:  # a forked loader worker has copies of all this
        for end in ends:
            end()
