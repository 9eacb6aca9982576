"""What the refill process does: fit the generator if it is not fitted, then keep the run's window filled."""

from __future__ import annotations

import logging
import time
import traceback
from pathlib import Path

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.naming import build
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.refill.fill_slot import Recipe, fill_slot
from lightning_diffaug.refill.fitted import ensure_fitted, fit_seconds, fitted_folder
from lightning_diffaug.refill.job import Job
from lightning_diffaug.refill.status import Need, Status

log = logging.getLogger(__name__)

_IDLE_SECONDS = 0.1
_BEAT_SECONDS = 1.0
_SLOT_TRIES = 3


class Reporter:
    """Writes the status file, not more often than is useful."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0.0
        self.status = Status.read(path)

    def write(self) -> None:
        """Writes now."""
        self.status.write(self._path)
        self._written = time.monotonic()

    def beat(self) -> None:
        """Writes if the last time is a while ago."""
        if time.monotonic() - self._written > _BEAT_SECONDS:
            self.write()

    def fit_progress(self, step: int, total: int) -> None:
        """Progress of the fit."""
        self.status.phase, self.status.step, self.status.total = "fit", step, total
        if step in (1, 10, total) or time.monotonic() - self._written > 0.25:
            self.write()


def work(job: Job, reporter: Reporter) -> None:
    """Fits, then fills slots for as long as the process lives.

    Raises:
        GeneratorError: The fit failed, or no slot at all could be made.
    """
    reporter.status.phase, reporter.status.failure = "starting", ""
    reporter.write()
    generator = build(job.generator)
    weights = None
    fit_name = job.fit_fingerprint(generator)
    if fit_name is not None:
        folder = fitted_folder(Path(job.cache_dir), fit_name)
        absent = not folder.exists()
        weights = ensure_fitted(generator, folder, job.load_snapshot, reporter.fit_progress, job.run_id)
        if absent:
            reporter.status.fit_seconds += fit_seconds(folder)
    pool = job.create_pool(generator, weights)
    reporter.status.phase, reporter.status.pool = "fill", str(pool.folder)
    reporter.write()
    keep_filled(job, job.recipe(generator), pool, reporter)


def keep_filled(job: Job, recipe: Recipe, pool: SyntheticPool, reporter: Reporter) -> None:
    """Fills the slots that the run needs and `ahead` more, lowest first; sleeps while there are none."""
    failures: dict[int, int] = {}
    while True:
        slot = next_slot(job, pool, Need.read(Path(job.run_dir)), failures)
        if slot is None:
            reporter.status.phase = "idle"
            reporter.beat()
            time.sleep(_IDLE_SECONDS)
            continue
        reporter.status.phase = "fill"
        try:
            publish_slot(slot, recipe, pool, reporter, job.run_id)
            failures = {k: tries for k, tries in failures.items() if k != slot}
        except GeneratorError as error:
            failures[slot] = failures.get(slot, 0) + 1
            reporter.status.failure = str(error)
            reporter.write()
            log.error("slot %d, try %d: %s", slot, failures[slot], traceback.format_exc())
            if failures[slot] >= _SLOT_TRIES:
                raise
        if job.capacity is not None:
            pool.drop_beyond(job.capacity)


def next_slot(job: Job, pool: SyntheticPool, need: Need, failures: dict[int, int]) -> int | None:
    """The lowest missing slot of the needed ones and those ahead that nobody else is making.

    A slot that failed comes after the others, so that one bad slot blocks nothing.
    """
    if need.stop <= need.first:
        return None
    missing = [k for k in range(need.first, need.stop + job.ahead) if not pool.has(k)]
    for slot in sorted(missing, key=lambda k: (failures.get(k, 0), k)):
        if pool.claim(slot, job.run_id):
            return slot
    return None


def publish_slot(slot: int, recipe: Recipe, pool: SyntheticPool, reporter: Reporter, owner: str) -> None:
    """Makes a slot and publishes it; counts what was made."""

    def beat() -> None:
        reporter.beat()
        pool.beat(slot, owner)

    status, started = reporter.status, time.perf_counter()
    try:
        shard = fill_slot(slot, recipe, beat)
        published = pool.publish(slot, shard)
    finally:
        pool.release(slot, owner)
        status.generator_seconds += time.perf_counter() - started
    status.generated += shard.made["generated"]
    for reason, count in shard.made["rejections"].items():
        status.rejections[reason] = status.rejections.get(reason, 0) + count
    if published:
        status.admitted += len(shard.rows)
        status.slots += 1
    reporter.write()
