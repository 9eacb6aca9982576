"""What the refill process does: fit the generator if it is not fitted, then keep the run's window filled."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_diffaug.generators.device import tell_trainer_devices
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.refill.filler import Filler
from lightning_diffaug.refill.fitted import ensure_fitted, fitted_folder
from lightning_diffaug.refill.job import Job
from lightning_diffaug.refill.status import Need, Reporter

_IDLE_SECONDS = 0.1


def work(job: Job, reporter: Reporter) -> None:
    """Fits, then fills slots for as long as the process lives.

    Raises:
        ConfigurationError: The job names what cannot be imported or made.
        GeneratorError: The fit failed, or no slot at all can be made.
        PoolError: The cache folder cannot be written.
    """
    status = reporter.status
    status.phase, status.failure = "starting", ""
    reporter.write()
    generator = build(job.generator)
    tell_trainer_devices(generator, job.trainer_devices)
    if hasattr(generator, "find_fitted"):  # it learns from another, which is kept like any fitted generator
        generator.find_fitted = lambda other, progress: _fitted(job, other, name_of(other), progress)
    weights, seconds = _fitted(job, generator, job.generator, reporter.fit_progress)
    status.fit_seconds += seconds
    pool = job.create_pool(generator, weights)
    status.pool = str(pool.folder)
    keep_filled(job, Filler(job.recipe(generator), pool, reporter, job.run_id, job.capacity, job.duty), reporter)


def _fitted(
    job: Job, generator: Any, name: dict[str, Any], progress: Callable[[int, int], None]
) -> tuple[str | None, float]:
    """Fits the generator if it is not fitted, loads it; the hash of its weights, and the seconds that it took."""
    fit_name = job.fit_fingerprint(generator, name)
    if fit_name is None:
        return None, 0.0
    folder = fitted_folder(Path(job.cache_dir), fit_name)
    return ensure_fitted(generator, folder, job.load_snapshot, progress, job.run_id)


def keep_filled(job: Job, filler: Filler, reporter: Reporter) -> None:
    """Fills the slots that the run needs and `ahead` more, lowest first; sleeps while there are none."""
    while True:
        need = Need.read(Path(job.run_dir))
        if need.stop > need.first and filler.step(range(need.first, need.stop + job.ahead)):
            continue
        if reporter.status.phase != "idle":
            reporter.status.phase = "idle"
            reporter.write()
        reporter.beat()
        time.sleep(_IDLE_SECONDS)
