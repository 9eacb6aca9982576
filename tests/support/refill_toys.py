"""Generators that fail in every way, importable by the refill process, and the jobs that name them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.naming import name_of
from lightning_diffaug.pool.process import machine_id
from lightning_diffaug.refill.job import Job
from lightning_diffaug.refill.recipe import row_seed
from lightning_diffaug.refill.status import STATUS, Need, Reporter, Status
from lightning_diffaug.refill.worker import work
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

SHAPE = (1, 4, 4)
SLOT = 8
CLASSES = ("a", "b", "c")
SPEC = SampleSpec(
    (
        FieldSpec("image", "0", "tensor", "uint8", SHAPE, 0.0, 255.0, "chw"),
        FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0),
    )
)


def drawn(condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
    """Samples that follow from seed and label alone."""
    labels = condition.get("label", torch.zeros(len(seeds)))
    return torch.stack(
        [
            torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) * 0.5 - 0.5 * float(label)
            for seed, label in zip(seeds, labels, strict=True)
        ]
    )


class Steady:
    """Works. Uses the global random states, as a careless user's code does; may be slow.

    Args:
        seconds: Time that a pass takes.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        time.sleep(self.seconds)
        return drawn(condition, seeds)


class Spinning:
    """Computes for `seconds` of processor time a pass, in steps between which it says how far it is.

    Args:
        seconds: Processor time of a pass.
        steps: Steps of a pass.
    """

    def __init__(self, seconds: float = 0.1, steps: int = 5) -> None:
        self.seconds = seconds
        self.steps = steps
        self.busy = self.rested = 0.0
        self.on_progress: Callable[[], None] = lambda: None

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        for _ in range(self.steps):
            began, end = time.perf_counter(), time.process_time() + self.seconds / self.steps
            while time.process_time() < end:
                pass
            ended = time.perf_counter()
            self.on_progress()
            self.busy += ended - began
            self.rested += time.perf_counter() - ended
        return drawn(condition, seeds)


class Lazy:
    """Loads what it needs when it is told to, until a file changes: until somebody shows life meanwhile.

    Args:
        watched: The file.
        how: ``"raise"`` or ``"setting"``: how loading fails; "": it does not.
    """

    def __init__(self, watched: str = "", how: str = "") -> None:
        self.watched = watched
        self.how = how
        self.calls: list[str] = []
        self.seconds = self.ready_at = 0.0

    def ready(self) -> None:
        self.calls.append("ready")
        began = time.perf_counter()
        if self.how:
            Faulty(self.how).generate({}, [0])
        before = Path(self.watched).stat().st_mtime_ns
        until(lambda: Path(self.watched).stat().st_mtime_ns != before)
        self.ready_at = time.perf_counter()
        self.seconds = self.ready_at - began

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        self.calls.append("generate")
        return drawn(condition, seeds)


class Told:
    """Writes to a file which GPUs training computes on."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.trainer_devices: Sequence[int] = ()

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        Path(self.path).write_text(str(list(self.trainer_devices)))
        return drawn(condition, seeds)


class Faulty:
    """Fails in one way, always or for some slots.

    Args:
        how: ``"raise"``, ``"setting"`` (one is wrong), ``"nan"``, ``"shape"``, ``"nothing"``, ``"exit"``, ``"quit"``
            (without unwinding), ``"kill"`` (-9), ``"sleep"`` or ``"native"`` (sleeps in native code that no signal
            handler interrupts).
        slots: In which slots of `SLOT` rows; None: always.
        seconds: Time that a pass takes which does not fail.
    """

    def __init__(self, how: str, slots: Sequence[int] | None = None, seconds: float = 0.0) -> None:
        self.how = how
        self.slots = list(slots) if slots is not None else None
        self.seconds = seconds

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Any:
        time.sleep(self.seconds)
        samples = drawn(condition, seeds)
        if self.slots is not None:
            bad = {row_seed(0, slot, row, a) for slot in self.slots for row in range(64) for a in range(8)}
            if seeds[0] not in bad:
                return samples
        if self.how == "raise":
            raise ValueError("the toy is broken")
        if self.how == "setting":
            raise ConfigurationError("Set generator.how to another one.")
        if self.how == "exit":
            sys.exit(7)
        if self.how == "quit":
            os._exit(7)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "sleep":
            time.sleep(600)
        if self.how == "native":
            ctypes.PyDLL(None).sleep(600)  # holds the interpreter, as a hung CUDA call does
        return {"nan": samples * float("nan"), "shape": samples[:, :, :2], "nothing": None}[self.how]


class FullDisk:
    """Its process can write no file above `limit` bytes, like one on a full disk; the samples are good."""

    def __init__(self, limit: int = 1200) -> None:
        self.limit = limit

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))
        return drawn(condition, seeds)


class Server:
    """Starts a process of its own, as one that talks to a local server does; its id goes to `pid_file`."""

    def __init__(self, pid_file: str) -> None:
        self.pid_file = pid_file

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        if not Path(self.pid_file).exists():
            Path(self.pid_file).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        return drawn(condition, seeds)


class Fitted:
    """Learns the mean of the training images; every fit leaves a line in `diary`.

    Args:
        diary: A file that gets a line for each fit, or "".
        seconds: Time that the fit takes, in 20 steps.
        broken: Whether the fit raises.
        pause: Time that a pass takes.
    """

    def __init__(self, diary: str = "", seconds: float = 0.0, broken: bool = False, pause: float = 0.0) -> None:
        self.pause = pause
        self.diary = diary
        self.seconds = seconds
        self.broken = broken
        self.mean = 0.0

    def fit_key(self) -> dict[str, Any]:
        return {"learns": "mean"}

    def sample_key(self) -> dict[str, Any]:
        return {}

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        if self.diary:
            with Path(self.diary).open("a") as diary:
                diary.write(f"{os.getpid()}\n")
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        for step in range(20):
            time.sleep(self.seconds / 20)
            progress(step + 1, 20)
        if self.broken:
            raise ArithmeticError("the loss is not finite")
        from safetensors.torch import save_file

        save_file({"mean": snapshot.unit("image").mean().reshape(1)}, folder / "mean.safetensors")

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.mean = float(load_file(folder / "mean.safetensors")["mean"])

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        time.sleep(self.pause)
        return (drawn(condition, seeds) * 0.1 + self.mean).clamp(-1, 1)


def function(condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
    """A generator that is a plain function."""
    return drawn(condition, seeds)


def snapshot(n: int = 12) -> Snapshot:
    """Training images of three classes."""
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, *SHAPE).contiguous() * 10
    return Snapshot(SPEC, {"image": images, "label": torch.arange(n) % 3}, CLASSES, (0, 1, 2))


def job_for(generator: Any, root: Path, /, **changes: Any) -> Job:
    """A job that fills slots of `SLOT` rows under ``root``."""
    run_dir = root / "runs" / f"run-{machine_id()}-{os.getpid()}"
    run_dir.mkdir(parents=True, exist_ok=True)
    data = snapshot() if hasattr(generator, "fit_key") else None
    plain: dict[str, Any] = {
        "generator": name_of(generator),
        "planner": {"_target_": "lightning_diffaug.conditions.QuotaPlanner", "shares": [2.0, 1.0, 1.0]},
        "gates": [{"_target_": "lightning_diffaug.gates.Finite"}, {"_target_": "lightning_diffaug.gates.InRange"}],
        "spec": SPEC.to_json(),
        "class_names": list(CLASSES),
        "snapshot": None if data is None else str(data.save(root / "snapshots")),
        "snapshot_hash": None if data is None else data.hash,
        "slot_size": SLOT,
        "pool_seed": 0,
        "attempts": 2,
        "cache_dir": str(root),
        "run_dir": str(run_dir),
        "run_id": "run",
        "parent_pid": os.getpid(),
        "nice": 0,  # tests do not wait for an idle machine
    }
    return Job(**{**plain, **changes})


@contextlib.contextmanager
def worker(job: Job) -> Iterator[int]:
    """The refill's work in a forked process, which starts at once; ends it by kill -9. Gives its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about the threads of torch
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            reporter = Reporter(Path(job.run_dir) / STATUS)
            try:
                work(job, reporter)
            except Exception as error:
                reporter.status.failure = f"{type(error).__name__}: {error}"
                reporter.write()
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def need(job: Job, stop: int, first: int = 0) -> None:
    """What the trainer says it needs."""
    Need(first, stop).write(Path(job.run_dir))


def status(job: Job) -> Status:
    """What the refill says it did."""
    return Status.read(Path(job.run_dir) / STATUS)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits for a condition and gives its value; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(0.02)
    return value


def watched(refill: Any, condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Waits for a condition as training does: polls the refill."""

    def look() -> Any:
        refill.poll()
        return condition()

    return until(look, seconds)
