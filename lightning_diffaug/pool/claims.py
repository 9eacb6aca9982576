"""Who is making which slot: advice that spares double work, never a lock."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_diffaug.errors import PoolError
from lightning_diffaug.pool.process import machine_id, surely_dead
from lightning_diffaug.pool.storage import Folder

_FOLDER = "claims"
_SUFFIX = ".claim"


@dataclass(frozen=True)
class Claim:
    """``owner`` said ``age`` seconds ago (``inf``: it is dead) that it is making ``slot``."""

    slot: int
    owner: str
    age: float


class Claims:
    """The claims of a pool; one of a dead process, or older than ``timeout`` seconds, counts for nothing."""

    def __init__(self, folder: Folder, timeout: float) -> None:
        self._folder = folder
        self._timeout = timeout

    def take(self, slot: int, owner: str) -> bool:
        """Claims ``slot``; True when it is now (or was) the owner's, False when another live owner has it."""
        if self._folder.put_bytes_if_absent(_name(slot), _state(owner), durable=False):
            return True
        claim = self.get(slot)
        if claim is not None and claim.owner != owner and claim.age <= self._timeout:
            return False
        # Released, ours, or stale. Two owners that take over together both win: a duplicate is harmless.
        self._folder.replace_bytes(_name(slot), _state(owner))
        return True

    def renew(self, slot: int, owner: str) -> bool:
        """The owner's heartbeat; False when the claim is another's by now."""
        claim = self.get(slot)
        if claim is not None and claim.owner != owner:
            return False
        self._folder.replace_bytes(_name(slot), _state(owner))
        return True

    def release(self, slot: int, owner: str) -> None:
        """Gives the claim back, if it is (still) the owner's."""
        claim = self.get(slot)
        if claim is not None and claim.owner == owner:
            self._folder.remove(_name(slot))

    def get(self, slot: int) -> Claim | None:
        """The claim on ``slot``, stale or not; one that cannot be read counts as stale."""
        try:
            state = json.loads(self._folder.path(_name(slot)).read_bytes())
            # A restarted worker need not wait for the claim of the one that was killed.
            dead = surely_dead(str(state["machine"]), int(state["pid"]))
            age = float("inf") if dead else abs(time.time() - float(state["time"]))
            return Claim(slot, str(state["owner"]), age)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return Claim(slot, "", float("inf"))

    def live(self) -> dict[int, Claim]:
        """Claims that count, by slot."""
        return {claim.slot: claim for claim in self._all() if claim.age <= self._timeout}

    def remove_stale(self) -> None:
        """Removes claims that count for nothing."""
        for claim in self._all():
            if claim.age > self._timeout and claim.owner:
                with contextlib.suppress(PoolError):
                    self._folder.remove(_name(claim.slot))

    def _all(self) -> Iterator[Claim]:
        for name in self._folder.list(_FOLDER):
            number = name.removesuffix(_SUFFIX)
            if name == f"{number}{_SUFFIX}" and number.isdecimal() and (claim := self.get(int(number))) is not None:
                yield claim


def _name(slot: int) -> str:
    return f"{_FOLDER}/{slot}{_SUFFIX}"


def _state(owner: str) -> bytes:
    state = {"owner": owner, "time": time.time(), "machine": machine_id(), "pid": os.getpid()}
    return json.dumps(state).encode()
