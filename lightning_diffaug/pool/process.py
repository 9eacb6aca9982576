"""Which process wrote a file, and whether it still lives."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import socket
from pathlib import Path


@functools.cache
def machine_id() -> str:
    """Names the set of processes among which a process id is unique: host, boot and PID namespace."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:  # not Linux: the host's name has to do
        pass
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def surely_dead(machine: str, pid: int) -> bool:
    """Whether process ``pid`` of ``machine`` is known to have ended; False when that cannot be told here."""
    if machine != machine_id() or os.name == "nt" or pid <= 0:  # os.kill(pid, 0) terminates on Windows
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    with contextlib.suppress(OSError):  # not Linux
        # A zombie has ended too: in a container there may be nobody who collects it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] in ("Z", "X")
    return False
