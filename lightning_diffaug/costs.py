"""What a run's synthetic samples cost, whoever paid: runs that share a pool each used what one of them made."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lightning_diffaug.errors import PoolError

if TYPE_CHECKING:
    from lightning_diffaug.run import MixRun

log = logging.getLogger(__name__)

SAMPLES, GENERATION, FIT, PASSES = (
    f"cost/{key}" for key in ("samples", "generator_seconds", "fit_seconds", "passes_per_sample")
)


def costs(run: MixRun | None) -> dict[str, float]:
    """The costs of the pooled samples that the windows of a run held.

    Args:
        run: The run, after its fit; None where nothing was mixed.

    Returns:
        ``cost/samples``: distinct pooled samples. ``cost/generator_seconds``: of making the slots that they are in.
        ``cost/fit_seconds``: of the generator's fit. ``cost/passes_per_sample``: passes of the generator's network for
        each draw that was trained on, real ones included; absent for a generator that does not count them. All absent
        where the pool is not there any more (it went with the run).
    """
    if run is None or not run.progress.synthetic:
        return dict.fromkeys((SAMPLES, GENERATION, FIT, PASSES), 0.0)
    pool = run.pool
    if pool is None or not pool.folder.is_dir():
        log.info("what the samples cost is not counted: their pool went with the run.")
        return {}
    samples, seconds = 0, 0.0
    passes: int | None = 0
    for slot in run.slots_used:
        try:
            found = pool.summary(slot)
        except (PoolError, FileNotFoundError):  # dropped by a bounded pool
            continue
        samples += found.n
        seconds += float(found.made.get("seconds", 0.0))
        counted = found.made.get("network_passes")
        passes = None if passes is None or counted is None else passes + int(counted)
    figures = {SAMPLES: float(samples), GENERATION: seconds, FIT: run.fit_cost}
    return figures if passes is None else figures | {PASSES: passes / run.progress.draws}
