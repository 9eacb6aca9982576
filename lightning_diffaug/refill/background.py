"""Manners of a background process: low priority, and no life of its own after its parent's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1


def become_background(parent_pid: int, nice: int, thread_bound: bool) -> None:
    """Lowers the priority of this process and ties its life to the parent's.

    It ends in order on SIGTERM. A watching thread ends it when the parent process is gone; on Linux the kernel does so
    too, also while native code holds the interpreter.

    Args:
        parent_pid: The trainer's process.
        nice: Niceness to add, 0 … 19.
        thread_bound: Whether it was started by another than the trainer's main thread: the kernel's signal would
            come when that thread ends, so it is not asked for.
    """
    with contextlib.suppress(OSError):
        os.nice(nice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then closes us
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # KeyboardInterrupt: what is half done is removed
    if sys.platform == "linux" and not thread_bound:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(parent_pid,), daemon=True, name="parent-watch").start()


def _end_with(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(0.5)
    os._exit(0)
