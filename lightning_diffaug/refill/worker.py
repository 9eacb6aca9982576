"""What the refill process does: fit the generator if it is not fitted, then keep the run's window filled."""

from __future__ import annotations

import time
from pathlib import Path

from lightning_diffaug.generators.device import tell_trainer_devices
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.refill.filler import Filler
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
    progress = reporter.fit_progress
    if hasattr(generator, "find_fitted"):  # it learns from another, which is kept like any fitted generator
        generator.find_fitted = lambda other, progress: job.ensure_fitted(other, name_of(other), progress)
    weights, seconds = job.ensure_fitted(generator, job.generator, progress)
    gates = job.make_gates()
    gate_weights, gate_seconds = job.fit_gates(gates, progress)
    status.fit_seconds += seconds + gate_seconds
    pool = job.create_pool(generator, weights, gate_weights)
    status.pool = str(pool.folder)
    recipe = job.recipe(generator, gates, pool)
    keeps = (job.capacity, job.duty, job.min_acceptance, job.keep_rejected)
    keep_filled(job, Filler(recipe, pool, reporter, job.run_id, *keeps), reporter)


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
