"""Refill without a process: nobody fills, or the trainer itself does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.refill.job import Job
from lightning_diffaug.refill.status import STATUS, Status
from lightning_diffaug.refill.worker import Reporter, publish_slot
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.wrapping import untouched_rng


class NoRefill:
    """``refill=none``: what the pool holds is all there is.

    Args:
        job: Names the pool.
        generator: The generator that the job names; only asked what it is called.
    """

    def __init__(self, job: Job, generator: Any) -> None:
        self._run_dir = Path(job.run_dir)
        self._pool = job.find_pool(generator)
        self.status = Status(phase="idle")
        self.gave_up = "refill=none: nothing is made."
        if self._pool is None:
            self.gave_up = (
                "refill=none, and the generator is not fitted, so that there is no pool: run once with refill=local."
            )

    def pool(self) -> SyntheticPool | None:
        """The pool, if it can be named."""
        return self._pool

    def need(self, first: int, stop: int) -> None:
        """Nobody makes what is needed."""

    def poll(self) -> None:
        """There is nothing to look after."""

    def close(self) -> None:
        """Removes the run's own files."""
        shutil.rmtree(self._run_dir, ignore_errors=True)


class InProcessRefill:
    """Fills the needed slots in the trainer's own process, with the user's live object.

    For ``refill=sync`` with a generator that has no import path. Its pool is the run's own and goes with it: nothing
    on disk could tell that another run's object is the same.

    Args:
        job: Everything but the generator.
        generator: The live object.
        snapshot: The training data, for a generator that has to be fitted.
    """

    def __init__(self, job: Job, generator: Any, snapshot: Callable[[], Snapshot | None]) -> None:
        self._job = job
        self._reporter = Reporter(Path(job.run_dir) / STATUS)
        self._recipe = job.recipe(generator)
        self._failures: dict[int, int] = {}
        self.gave_up = ""
        if hasattr(generator, "fit") and hasattr(generator, "load"):
            with untouched_rng(), tempfile.TemporaryDirectory(dir=job.run_dir) as folder:
                data = snapshot()
                assert data is not None
                generator.fit(data, Path(folder), self._reporter.fit_progress)
                generator.load(Path(folder))
        self._pool = job.create_pool(generator, None)

    @property
    def status(self) -> Status:
        """What was made so far."""
        return self._reporter.status

    def pool(self) -> SyntheticPool | None:
        """The run's own pool."""
        return self._pool

    def need(self, first: int, stop: int) -> None:
        """Makes the missing slots now; a generator that raises is given up."""
        threads = torch.get_num_threads()
        try:
            with untouched_rng():
                torch.set_num_threads(self._job.threads)
                for slot in range(first, stop):
                    if not self.gave_up and not self._pool.has(slot):
                        publish_slot(slot, self._recipe, self._pool, self._reporter, self._job.run_id)
        except GeneratorError as error:
            self.gave_up = str(error)
        finally:
            torch.set_num_threads(threads)

    def poll(self) -> None:
        """There is nothing to look after."""

    def close(self) -> None:
        """Removes the run's own files, and its pool with them."""
        shutil.rmtree(self._job.run_dir, ignore_errors=True)
