"""How many runs of a sweep the machine makes side by side."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use: those of its affinity, within the quota of its container.

    Args:
        cgroup: Where the system shows the quota (Linux).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        if (both := cgroup / "cpu.max").is_file():
            quota, period = both.read_text().split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        if int(quota) > 0:  # "max" and -1 are none
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def side_by_side(config: Any, most: int) -> int:
    """How many runs are made at a time.

    Args:
        config: The sweep's configuration; ``ablation.workers`` says it, or is null.
        most: As many as can be.

    Returns:
        From 1 to `most`. With null: as many as the cores have threads for, on the CPU; on a GPU one.
    """
    asked = config.ablation.get("workers")
    if asked is None:
        asked = usable_cores() // _threads(config) if config.trainer.get("accelerator") == "cpu" else 1
    return max(1, min(int(asked), most))


def _threads(config: Any) -> int:
    """Threads that compute in one run. The refill process adds its own where training does not wait for it."""
    refill = config.get("refill") or {}
    training, filling = _number(config.get("threads"), 1), _number(refill.get("threads"), 1)
    loading = _number((config.get("real") or {}).get("num_workers"), 0)
    return training + filling + loading if refill.get("mode") == "local" else max(training, filling) + loading


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= otherwise else otherwise
