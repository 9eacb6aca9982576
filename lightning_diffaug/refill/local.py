"""The refill process of one node and its supervisor, which lives in the trainer and has no thread of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from lightning_diffaug.errors import ConfigurationError, PoolError
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.pool.storage import Folder
from lightning_diffaug.refill.fitted import remove_unfinished
from lightning_diffaug.refill.job import Job
from lightning_diffaug.refill.settings import RefillSettings
from lightning_diffaug.refill.status import EXIT_CONFIGURATION, EXIT_REJECTED, EXIT_STORAGE, STATUS, Need, Status

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_START_SECONDS = 120.0
_LONGEST_PAUSE = 60.0
_LONGEST_PATIENCE = 1800.0
_LAST_LINES = 12
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class LocalRefill:
    """Starts, watches, restarts and ends the refill process.

    Args:
        job: The run's order; written to its run folder.
        generator: The generator that the job names; only asked what it is called.
        settings: Bounds of supervision.

    Raises:
        ConfigurationError: This system has no process groups (Windows).
    """

    def __init__(self, job: Job, generator: Any, settings: RefillSettings) -> None:
        if not hasattr(os, "killpg"):
            raise ConfigurationError(
                f"refill={settings.mode} starts a process whose priority and end need a POSIX system, and this is "
                f"{sys.platform}. Run it on Linux or macOS (on Windows: in WSL), or set data.synthetic_fraction=0."
            )
        self._job = job
        self._generator = generator
        self._pool = job.find_pool(generator)
        self._settings = settings
        self._run_dir = Path(job.run_dir)
        self._status_path = self._run_dir / STATUS
        self._log_path = Path(settings.log_file) if settings.log_file else self._run_dir / "refill.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started = False
        self._restarts = 0
        self._slots_at_start = 0
        self._start_at = 0.0
        self._polled = 0.0
        self._patience = settings.hang_timeout
        self._stamp_at_start = self._sign_of_life = 0  # time stamps of the status
        self._seen_at = 0.0  # when it was seen here: by the monotonic clock, which no correction of the time moves
        self._final: Status | None = None
        self._need: Need | None = None
        self.gave_up = ""
        self.misconfigured = False

    @property
    def status(self) -> Status:
        """What the process last said."""
        return Status.read(self._status_path) if self._final is None else self._final

    @property
    def fit_cost(self) -> float:
        """Seconds that the generator's fit took, whichever run fitted it."""
        return self._job.fit_seconds(self._generator)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def pool(self) -> SyntheticPool | None:
        """The pool; None until the generator is fitted."""
        if self._pool is None and (folder := self.status.pool):
            self._pool = SyntheticPool.open(folder)
        return self._pool

    def need(self, first: int, stop: int) -> None:
        """Tells the process which slots are needed now or at the next epoch; it is started when there is work for it.

        Under ``refill=sync`` that is when one of them is missing: training waits for it anyway, and of the runs that
        share a pool those that find all they need start none.
        """
        if not self._started and self._settings.mode == "sync" and self._all_there(range(first, stop)):
            return
        need = Need(first, stop)
        if need != self._need:
            Folder(self._run_dir).create()
            need.write(self._run_dir)
            self._need = need
        if not self._started:
            self._started = True
            self._job.write(self._run_dir / "job.json")
            self._launch()

    def _all_there(self, slots: range) -> bool:
        pool = self.pool()
        return pool is not None and all(pool.has(k) for k in slots)

    def _launch(self) -> None:
        self._slots_at_start = self.status.slots
        environment = {
            **os.environ,
            **dict.fromkeys(_THREADS, str(self._job.threads)),
            # a user's module beside the script must be found, though the script itself is not run again
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        }
        for name in ("LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE"):  # it is no rank of the training
            environment.pop(name, None)
        command = [sys.executable, "-m", "lightning_diffaug.refill", str(self._run_dir / "job.json")]
        if threading.current_thread() is not threading.main_thread():
            command.append("--started-by-thread")  # the kernel would end it with the thread
        with self._open_log() as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the trainer alone, which then ends it in order
            )
        self._stamp_at_start = self._sign_of_life = self._status_stamp()
        self._seen_at = time.monotonic()

    def _open_log(self) -> BinaryIO:
        try:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            return self._log_path.open("ab")
        except OSError:  # a full disk: training goes on without a log
            return Path(os.devnull).open("wb")

    def poll(self) -> None:
        """Looks after the process; cheap enough for every batch."""
        now = time.monotonic()
        if now - self._polled < _POLL_SECONDS or self.gave_up or self._final is not None:
            return
        self._polled = now
        if self._process is None:
            if self._start_at and now >= self._start_at:
                self._start_at = 0.0
                self._launch()
            return
        code = self._process.poll()
        if code is not None:
            self._failed(f"ended with {self._meaning(code)}", code)
            return
        stamp = self._status_stamp()
        if stamp != self._sign_of_life:
            self._sign_of_life, self._seen_at = stamp, now
        silent = now - self._seen_at
        if silent > self._patience and (silent > _START_SECONDS or not self._starting()):
            if self.status.phase == "fill":  # a slow one would never get through
                self._patience = max(self._patience, min(2 * self._patience, _LONGEST_PATIENCE))
            self._failed(f"showed no progress for {silent:.0f} s (refill.hang_timeout={self._settings.hang_timeout:g})")

    def _status_stamp(self) -> int:
        with contextlib.suppress(OSError):
            return self._status_path.stat().st_mtime_ns
        return 0

    def _starting(self) -> bool:
        """Whether the process is still importing and loading: it can show no progress then."""
        return self.status.phase == "starting" or self._sign_of_life == self._stamp_at_start

    def _failed(self, how: str, code: int | None = None) -> None:
        self._end(orderly=False)  # what was being made shall count as failed
        status = self.status
        if status.slots > self._slots_at_start:
            self._restarts = 0
        said = status.failure or self._last_lines()
        misconfigured = code == EXIT_CONFIGURATION
        hopeless = misconfigured or code == EXIT_REJECTED
        if hopeless or self._restarts >= self._settings.max_restarts:
            vain = "a restart would not help" if hopeless else f"{self._restarts} restarts in a row did not help"
            self.gave_up, self.misconfigured = f"the refill process {how}, {vain}. It said: {said}", misconfigured
            goes_on = "Training goes on with the samples that are there (data.when_short says how). "
            log.error(
                "%s\n%s%s",
                self.gave_up,
                "" if misconfigured else goes_on,  # whether it does depends on whether there was a window yet
                f"Its log: {self._log_path}" if self._settings.log_file else "refill.log_file=<file> keeps its log.",
            )
            return
        pause = min(self._settings.backoff * 2**self._restarts, _LONGEST_PAUSE)
        self._restarts += 1
        log.warning(
            "the refill process %s; restart %d of at most %d in %.1f s. It said: %s",
            how, self._restarts, self._settings.max_restarts, pause, said,
        )  # fmt: skip
        self._start_at = time.monotonic() + pause

    def _last_lines(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(lines[-_LAST_LINES:]) or "nothing"
        return "nothing"

    def _end(self, orderly: bool = True) -> None:
        """Ends the process and whatever it started; an orderly end lets it remove what is half done."""
        if self._process is None:
            return
        if orderly and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):  # in native code, it does not listen
                self._process.wait(timeout=2.0)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def close(self) -> None:
        """Ends the process, whatever it does, and removes the run's own files; safe to call again."""
        self._end()
        self._start_at = 0.0
        if self._final is None:
            with contextlib.suppress(PoolError):
                if (pool := self.pool()) is not None:
                    SyntheticPool.open(pool.folder)  # which removes what a killed process left there
            remove_unfinished(Path(self._job.cache_dir))
            self._final = self.status
            shutil.rmtree(self._run_dir, ignore_errors=True)

    def _meaning(self, code: int) -> str:
        if code == EXIT_REJECTED:
            return f"exit code {code} (too few of its samples are accepted)"
        if code == EXIT_STORAGE:
            return f"exit code {code} (it cannot write to {self._job.cache_dir}: full disk, read-only?)"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"
