"""Processes that make runs of a sweep side by side; whatever ends the sweep ends all of them."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TextIO

from hydra.core.utils import JobReturn, JobStatus

from lightning_diffaug.ablation.failed import write_failed
from lightning_diffaug.ablation.orders import Answer, Order, Setup
from lightning_diffaug.ablation.schedule import Schedule, TrainingSet
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger("HYDRA")  # whose launcher says the same of a run

_LOOK_SECONDS = 0.5
_END_SECONDS = 15.0


class WorkerEndedError(RuntimeError):
    """The process of a run ended before the run did."""


@dataclass(frozen=True)
class Task:
    """A run to be made.

    Attributes:
        number: Of the run in this sweep.
        overrides: Its overrides, those of Hydra too.
        folder: Where it writes.
    """

    number: int
    overrides: tuple[str, ...]
    folder: Path

    @property
    def said(self) -> list[str]:
        """Its overrides without those of Hydra and of the sweep."""
        return [text for text in self.overrides if not text.startswith(("hydra.", "ablation.workers="))]


class _Lines:
    """Hands on what a worker prints, in whole lines: those of several do not get into each other."""

    def __init__(self, source: IO[bytes], target: TextIO) -> None:
        self._source, self._target, self._rest = source, target, b""
        self.open = True

    def fileno(self) -> int:
        return self._source.fileno()

    def close(self) -> None:
        self._source.close()

    def hand_on(self) -> None:
        """What is there now; to be called when there is something."""
        found = os.read(self.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + found).split(b"\n")
        if not found:
            lines, self._rest, self.open = [self._rest] if self._rest else [], b"", False
        for line in lines:  # of a progress bar, which draws over itself, its last state
            self._target.write(line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace") + "\n")
        self._target.flush()


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    channel: Connection
    lines: list[_Lines]
    task: Task | None = None
    answers: bool = True  # its end of the connection is open
    results: list[JobReturn] = field(default_factory=list)

    def give(self, task: Task) -> None:
        self.task = task
        self.send(bytes(ForkingPickler.dumps(Order(task.number, task.overrides))))

    def send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended, which is noticed anyway
            self.channel.send_bytes(message)

    def receive(self) -> None:
        try:
            answer = self.channel.recv()
            assert self.task is not None
            self.results.append(_record(self.task, answer))
            self.task = None
        except (EOFError, OSError):
            self.answers = False

    @property
    def gone(self) -> bool:
        """Whether its process has ended, and all that it said was read."""
        if self.process.poll() is None:
            return False
        while self.answers and self.channel.poll():
            self.receive()
        return True


def _record(task: Task, answer: Answer) -> JobReturn:
    """Hydra's record of a run, as far as it crosses to another process."""
    done = JobReturn(overrides=task.said, status=JobStatus.FAILED if answer.error else JobStatus.COMPLETED)
    done.return_value = RuntimeError(answer.error) if answer.error else answer.value
    return done


class Workers:
    """Worker processes, each begun when there is a run for it; as a context manager it ends them all.

    Args:
        setup: What they need to know.
        count: How many there are at most.
    """

    def __init__(self, setup: Setup, count: int) -> None:
        try:
            self._setup = bytes(ForkingPickler.dumps(setup))
        except Exception as error:
            raise ConfigurationError(
                f"ablation.workers={count}: the sweep's settings cannot be handed to another process ({error}); a "
                "callback of hydra.callbacks may hold something open. Set ablation.workers=1."
            ) from error
        self.count = count
        self._workers: dict[int, _Worker] = {}
        self._worked = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = list(self._workers.values())
        self._workers.clear()
        try:
            for worker in left:
                if kind is None:
                    worker.channel.close()
                    worker.answers = False
                else:
                    worker.process.terminate()
            deadline = time.monotonic() + _END_SECONDS
            while any(worker.process.poll() is None for worker in left) and time.monotonic() < deadline:
                _listen(left)
        finally:
            for worker in left:
                _kill(worker)

    def run(self, sets: Sequence[TrainingSet[Task]]) -> list[JobReturn]:
        """Makes all runs.

        A run whose process is killed leaves ``failed.json``; the other runs are made by a new process.

        Returns:
            Hydra's record of each run that was made, in the order in which they ended.

        Raises:
            WorkerEndedError: The first of the workers ended before any run did: none of them can be made.
        """
        schedule = Schedule(sets)
        results: list[JobReturn] = []
        while True:
            for place in range(self.count):
                worker = self._workers.get(place)
                if (worker is None or worker.task is None) and (task := schedule.next(place)) is not None:
                    log.info("\t#%d : %s", task.number, " ".join(task.said))
                    if worker is None:
                        worker = self._workers[place] = _started(self._setup)
                    worker.give(task)
            if not any(worker.task is not None for worker in self._workers.values()):
                return results
            _listen(list(self._workers.values()))
            for place, worker in list(self._workers.items()):
                gone = worker.gone
                self._worked = self._worked or bool(worker.results)
                results += worker.results
                worker.results.clear()
                if gone:
                    del self._workers[place]
                    self._lose(worker)

    def _lose(self, worker: _Worker) -> None:
        """Notes what a worker was at when it ended."""
        _kill(worker)
        if worker.task is None:
            return
        code = worker.process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        error = WorkerEndedError(
            f"the process of this run ended with {how} (was it killed, or the machine out of memory?). Started again, "
            "the sweep makes this run anew; ablation.workers says how many are made side by side."
        )
        write_failed(worker.task.folder, error, worker.task.said)
        if not self._worked and code >= 0:
            raise error
        log.error("the run %s failed, the sweep goes on: %s", " ".join(worker.task.said), error)


def _started(setup: bytes) -> _Worker:
    ours, theirs = multiprocessing.Pipe()
    environment = {
        **os.environ,
        # a user's module beside the script must be found, though the script itself is not run again
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "lightning_diffaug.ablation.worker", str(theirs.fileno()), str(os.getpid())]
    if threading.current_thread() is not threading.main_thread():
        command.append("--started-by-thread")  # the kernel would end it with the thread
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C reaches the sweep alone, which then ends the workers in order
    )
    theirs.close()
    assert process.stdout is not None
    assert process.stderr is not None
    worker = _Worker(process, ours, [_Lines(process.stdout, sys.stdout), _Lines(process.stderr, sys.stderr)])
    worker.send(setup)
    return worker


def _listen(workers: Sequence[_Worker]) -> None:
    """Waits a moment for what workers say, and hands it on."""
    spoken: list[Any] = [lines for worker in workers for lines in worker.lines if lines.open]
    answers = {worker.channel: worker for worker in workers if worker.answers}
    if not spoken and not answers:
        time.sleep(_LOOK_SECONDS / 10)
    for ready in wait([*spoken, *answers], timeout=_LOOK_SECONDS):
        if isinstance(ready, _Lines):
            ready.hand_on()
        else:
            answers[ready].receive()  # type: ignore[index]


def _kill(worker: _Worker) -> None:
    """Ends a worker at once, with what it started in its session, and hands on its last words."""
    with contextlib.suppress(OSError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    for lines in worker.lines:
        while lines.open and wait([lines.fileno()], timeout=0):
            lines.hand_on()
        lines.close()
    worker.channel.close()


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Makes of SIGTERM an exit that ends workers in order, as Ctrl-C does; in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: Any) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
