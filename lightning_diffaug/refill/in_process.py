"""Refill without a process: nobody fills, or the trainer itself does."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.refill.filler import Filler
from lightning_diffaug.refill.fitted import NO_SNAPSHOT
from lightning_diffaug.refill.job import Job
from lightning_diffaug.refill.status import STATUS, Reporter, Status
from lightning_diffaug.snapshot import Snapshot

log = logging.getLogger(__name__)


class NoRefill:
    """``refill=none``: what the pool holds is all there is.

    Args:
        job: Names the pool.
        generator: The generator that the job names; only asked what it is called.
    """

    misconfigured = False

    def __init__(self, job: Job, generator: Any) -> None:
        self._run_dir = Path(job.run_dir)
        self._pool = job.find_pool(generator)
        self.fit_cost = job.fit_seconds(generator)
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
    on disk could tell that another run's object is the same. A generator that fails is given up; training goes on.

    Args:
        job: Everything but the generator.
        generator: The live object.
        snapshot: The training data, for a generator that has to be fitted.
    """

    misconfigured = False  # need() raises

    def __init__(self, job: Job, generator: Any, snapshot: Callable[[], Snapshot | None]) -> None:
        self._job = job
        self._generator = generator
        self._reporter = Reporter(Path(job.run_dir) / STATUS)
        self._pool = job.create_pool(generator, None)
        self._filler: Filler | None = None
        self._snapshot = snapshot
        self.gave_up = ""

    @property
    def status(self) -> Status:
        """What was made so far."""
        return self._reporter.status

    @property
    def fit_cost(self) -> float:
        """Seconds of the fit, which is this run's own."""
        return self.status.fit_seconds

    def pool(self) -> SyntheticPool | None:
        """The run's own pool."""
        return self._pool

    def need(self, first: int, stop: int) -> None:
        """Makes the missing slots now.

        Raises:
            ConfigurationError: A setting is found to be wrong before any slot was made; later it only ends the filling.
        """
        if self.gave_up:
            return
        threads = torch.get_num_threads()
        try:
            with untouched_rng():
                torch.set_num_threads(self._job.threads)
                filler = self._ready()
                while filler.step(range(first, stop)):
                    pass
        except (GeneratorError, ConfigurationError) as error:
            if isinstance(error, ConfigurationError) and not self.status.slots:
                raise
            self.gave_up = str(error)
            log.error("%s\nTraining goes on with the samples that are there (data.when_short says how).", error)
        finally:
            torch.set_num_threads(threads)

    def _ready(self) -> Filler:
        """The filler, once the generator is fitted."""
        if self._filler is None:
            if hasattr(self._generator, "fit") and hasattr(self._generator, "load"):
                self._fit()
            job = self._job
            gates = job.make_gates()
            _, seconds = job.fit_gates(gates, self._reporter.fit_progress)
            self._reporter.status.fit_seconds += seconds
            recipe = job.recipe(self._generator, gates, self._pool)
            keeps = (job.capacity, 1.0, job.min_acceptance, job.keep_rejected)
            self._filler = Filler(recipe, self._pool, self._reporter, job.run_id, *keeps)
        return self._filler

    def _fit(self) -> None:
        data = self._snapshot()
        if data is None:
            raise ConfigurationError(NO_SNAPSHOT)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self._job.run_dir) as folder:
            try:
                self._generator.fit(data, Path(folder), self._reporter.fit_progress)
                self._generator.load(Path(folder))
            except ConfigurationError:
                raise
            except Exception as error:
                raise GeneratorError(f"the fit raised {type(error).__name__}: {error}") from error
        self._reporter.status.fit_seconds += time.perf_counter() - started

    def poll(self) -> None:
        """There is nothing to look after."""

    def close(self) -> None:
        """Removes the run's own files, and its pool with them."""
        shutil.rmtree(self._job.run_dir, ignore_errors=True)
