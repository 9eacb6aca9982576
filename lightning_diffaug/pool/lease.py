"""Who needs which slots: heartbeat files that expire by themselves."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass
from urllib.parse import quote, unquote

from lightning_diffaug.errors import PoolError
from lightning_diffaug.pool.process import machine_id, surely_dead
from lightning_diffaug.pool.storage import Folder

_log = logging.getLogger(__name__)
_FOLDER = "leases"


@dataclass(frozen=True)
class LeaseInfo:
    """A run that reads the pool.

    Attributes:
        run_id: The run.
        window: Slots ``first … last − 1`` that it needs; None before its first window: then it may need any.
        age: Seconds since its last heartbeat.
    """

    run_id: str
    window: range | None
    age: float

    def needs(self, slot: int) -> bool:
        """Whether ``slot`` must stay for this run."""
        return self.window is None or slot in self.window


class Lease:
    """Keeps the slots of a run's window from being dropped, as long as it beats.

    A lease that cannot be written (read-only pool, full disk) is said once and costs nothing else: a slot
    that is dropped and needed is made again.
    """

    def __init__(self, folder: Folder, run_id: str) -> None:
        self.run_id = run_id
        self._folder = folder
        self._name = f"{_FOLDER}/{quote(run_id, safe='')}.json"
        self._window: tuple[int, int] | None = None
        self._failed = False
        self.beat()

    def update(self, first: int, last: int) -> None:
        """The run now needs the slots ``first … last − 1``."""
        self._window = (first, last)
        self.beat()

    def beat(self) -> None:
        """Says that the run lives."""
        state = {"pid": os.getpid(), "machine": machine_id(), "window": self._window, "time": time.time()}
        try:
            self._folder.replace_bytes(self._name, json.dumps(state).encode())
        except PoolError as error:
            if not self._failed:
                _log.warning("Lease of run %s not written; its slots may be dropped early. %s", self.run_id, error)
            self._failed = True

    def close(self) -> None:
        """Gives all slots free; may be called again."""
        with contextlib.suppress(PoolError):  # it expires by itself
            self._folder.remove(self._name)


def live_leases(folder: Folder, timeout: float) -> list[LeaseInfo]:
    """Leases that beat within the last ``timeout`` seconds and whose process is not known to be dead."""
    found = []
    for name in folder.list(_FOLDER):
        if not name.endswith(".json"):
            continue
        try:
            state = json.loads(folder.path(f"{_FOLDER}/{name}").read_bytes())
            age = abs(time.time() - float(state["time"]))  # a clock far ahead must not keep it for ever
            window = None if state["window"] is None else range(*state["window"])
            dead = surely_dead(state["machine"], int(state["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # closed meanwhile, or foreign
        if age <= timeout and not dead:
            found.append(LeaseInfo(unquote(name.removesuffix(".json")), window, age))
    return found


def remove_expired(folder: Folder, timeout: float) -> None:
    """Removes lease files (of our form only) of dead processes, and those without a beat for ``timeout`` seconds."""
    for name in folder.list(_FOLDER):
        path = folder.path(f"{_FOLDER}/{name}")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, PoolError):
            state = json.loads(path.read_bytes())
            dead = surely_dead(state["machine"], int(state["pid"]))
            if name.endswith(".json") and (dead or time.time() - float(state["time"]) > timeout):
                folder.remove(f"{_FOLDER}/{name}")
