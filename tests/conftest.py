"""What holds for every test: helpers on the path, a cache folder of its own, nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = "1"  # of scripts that tests start too: threads that wait for each other take a core
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background jobs, and all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A user's generator lives in an importable module: the refill process gets this process's path.
sys.path.insert(0, str(Path(__file__).parent / "support"))
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # what a benchmark measures, a test holds it to

import torch

_HARMLESS = (
    # Lightning's advice to users, which says nothing about the mix.
    "ignore:.*does not have many workers.*",
    "ignore:'pin_memory' argument is set as true but no accelerator is found",  # by LightningDataModule.from_datasets
    "ignore:.*number of training batches.*smaller than the logging interval.*",
    "ignore:.*LeafSpec.*is deprecated.*:FutureWarning",
    "ignore:.*LeafSpec.*is deprecated.*:DeprecationWarning",
)
# Python's and torch's own helpers, which live as long as the interpreter.
_INTERPRETERS_OWN = ("resource_tracker", "torch_shm_manager", "multiprocessing.forkserver")


def pytest_configure(config: pytest.Config) -> None:
    for line in _HARMLESS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and a cache folder that goes with the test."""
    monkeypatch.setenv("LIGHTNING_DIFFAUG_CACHE", str(tmp_path / "default_cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _has_children() -> bool:
    """Linux's own short list of this process's children; elsewhere, maybe."""
    try:
        return any(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    except OSError:  # a thread that ended meanwhile
        return True


def _children() -> dict[int, str]:
    found: dict[int, str] = {}
    if not _has_children():  # the usual case, without a look at every process of the machine
        return found
    for child in psutil.Process().children(recursive=True):
        try:
            command = " ".join(child.cmdline()) or child.name()
        except psutil.Error:
            continue  # it ended meanwhile
        if child.is_running() and not any(name in command for name in _INTERPRETERS_OWN):
            found[child.pid] = command
    return found


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves a child process or a thread that would keep the interpreter alive."""
    children, threads = set(_children()), _threads()
    yield
    deadline = time.monotonic() + 15.0
    while True:
        left = {pid: command for pid, command in _children().items() if pid not in children}
        running = _threads() - threads
        if not left and not running:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: processes {left}, threads {running}")
        time.sleep(0.02)
