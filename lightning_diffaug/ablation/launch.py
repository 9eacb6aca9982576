"""Has the runs of a sweep made: by Hydra's launcher one after the other, or by workers side by side."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.singleton import Singleton

from lightning_diffaug.ablation.cores import side_by_side
from lightning_diffaug.ablation.orders import Setup, found_task
from lightning_diffaug.ablation.schedule import TrainingSet, most_side_by_side
from lightning_diffaug.ablation.workers import Task, Workers, sigterm_as_exit
from lightning_diffaug.errors import ConfigurationError

__all__ = ["Launch", "Task"]

log = logging.getLogger(__name__)


class Launch:
    """What a sweep has its runs made by; as a context manager it ends what it started.

    Args:
        sweeper: Hydra's sweeper, set up.

    Raises:
        ConfigurationError: ``ablation.workers`` and another launcher of Hydra both say how many runs there are at once.
    """

    def __init__(self, sweeper: Any) -> None:
        self._sweeper = sweeper
        self._path = _path_of(sweeper.launcher)
        self._asked = sweeper.config.ablation.get("workers")
        self._workers: Workers | None = None
        self.results: list[Any] = []
        if self._path is None and self._asked is not None and self._asked != 1:
            raise ConfigurationError(
                f"ablation.workers={self._asked}: workers take the place of Hydra's basic launcher, and import the "
                f"program; here the launcher is {type(sweeper.launcher).__name__}, or the program cannot be imported. "
                "Set ablation.workers=1, or leave hydra/launcher as it is."
            )

    def __enter__(self) -> Launch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._workers is not None:
            self._workers.__exit__(kind, error, trace)
            self._workers = None

    def run(self, tasks: Sequence[Task], sets: Sequence[TrainingSet[Task]]) -> None:
        """Makes the runs; Hydra's record of each is added to `results`.

        Args:
            tasks: All, in order.
            sets: The same by training set.

        Raises:
            Exception: What a run raised that left no ``failed.json``.
        """
        if not tasks:
            return
        count = 1 if self._path is None else side_by_side(self._sweeper.config, most_side_by_side(sets))
        if count == 1:
            batch = [_noted(task, count).overrides for task in tasks]
            self.results += self._sweeper.launcher.launch([list(one) for one in batch], tasks[0].number)
        else:
            self._run_side_by_side(sets, count)
        for result in self.results:
            _ = result.return_value  # raises what a run raised

    def _run_side_by_side(self, sets: Sequence[TrainingSet[Task]], count: int) -> None:
        noted = [
            TrainingSet([_noted(task, count) for task in one.sharing], [_noted(task, count) for task in one.free])
            for one in sets
        ]
        log.info("%d runs, %d side by side (ablation.workers)", sum(len(s.sharing) + len(s.free) for s in sets), count)
        with sigterm_as_exit():
            try:
                self.results += self._ready(count).run(noted)
            except KeyboardInterrupt:
                log.warning("interrupted. Started again, the sweep goes on where it was")
                sys.exit(130)

    def _ready(self, count: int) -> Workers:
        """The workers; those of an earlier call where they are as many."""
        if self._workers is None or self._workers.count < count:
            self.__exit__(None, None, None)
            assert self._path is not None
            sweeper = self._sweeper
            singletons = Singleton.get_state()["instances"]
            self._workers = Workers(Setup(sweeper.hydra_context, sweeper.config, singletons, self._path), count)
        return self._workers


def _noted(task: Task, count: int) -> Task:
    """The task whose run knows, and writes with its settings, how many are made side by side."""
    return Task(task.number, (f"ablation.workers={count}", *task.overrides), task.folder)


def _path_of(launcher: Any) -> tuple[str, str] | None:
    """Import path of what makes a run; None where another process cannot import it, or launches by itself."""
    task = launcher.task_function if type(launcher) is BasicLauncher else None
    if task is None or task.__module__ == "__main__":
        return None
    path = (task.__module__, task.__qualname__)
    try:
        found = found_task(path)
    except (ImportError, AttributeError):
        return None
    return path if found is inspect.unwrap(task) else None
