"""Plans: what the learner said for the slots from a number on. Immutable entries in the folder of a run's own pool."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_diffaug.errors import DamagedShardError, PoolError
from lightning_diffaug.pool.fingerprint import checksum_of, fingerprint, plain, tensors_digest
from lightning_diffaug.pool.storage import Folder

_log = logging.getLogger(__name__)
PLANS, SCORERS = "plans", "scorers"
_NAME = re.compile(r"\d{9,}\.json")
_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """One entry.

    Attributes:
        from_slot: The first slot that it holds for.
        epoch: At whose end it was written, from 0.
        content: Plain values; floats that JSON lacks are text.
        samples: Digest of the file with values of single samples, or None.
        scorer: Digest of the file with the learner's weights, or None.
    """

    from_slot: int
    epoch: int
    content: dict[str, Any] = field(default_factory=dict, compare=False)
    samples: str | None = None
    scorer: str | None = None


class Plans:
    """The plans in a pool's folder. A slot is made by the last one with ``from_slot`` up to its number.

    Args:
        folder: The pool's folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Folder(folder)
        self._read: dict[str, Plan] = {}
        self._unreadable: set[str] = set()

    def all(self) -> list[Plan]:
        """All whole entries, ascending; a damaged one is set aside, and one that cannot be read left out; said once.

        Raises:
            OSError: The folder cannot be read.
        """
        names = [name for name in self._folder.list(PLANS) if _NAME.fullmatch(name)]
        for name in names:
            if name not in self._read:
                with contextlib.suppress(FileNotFoundError):
                    self._load(name)
        return sorted((self._read[name] for name in names if name in self._read), key=lambda plan: plan.from_slot)

    def at(self, slot: int) -> Plan | None:
        """The plan that holds for a slot; None before the first."""
        return next((plan for plan in reversed(self.all()) if plan.from_slot <= slot), None)

    def read_before(self, slot: int) -> Plan | None:
        """`at`, of the entries that were read already: the folder is not looked at."""
        held = [plan for plan in self._read.values() if plan.from_slot <= slot]
        return max(held, key=lambda plan: plan.from_slot, default=None)

    def of_epoch(self, epoch: int) -> Plan | None:
        """The plan that was written at an epoch's end."""
        return next((plan for plan in self.all() if plan.epoch == epoch), None)

    def write(
        self,
        from_slot: int,
        epoch: int,
        content: Mapping[str, Any],
        samples: Mapping[str, Tensor],
        scorer: str | None = None,
    ) -> Plan:
        """Writes an entry, unless one for that slot is there; returns the one that is.

        Args:
            from_slot: No slot from this number on may be made or claimed yet.
            epoch: At whose end it is written.
            content: Plain values.
            samples: Values of single samples, (n,) each; {} for none.
            scorer: What `put_scorer` returned.

        Raises:
            PoolError: The folder cannot be written.
        """
        digest = self._put(PLANS, samples, {}) if samples else None
        state = {
            "version": _VERSION, "from_slot": from_slot, "epoch": epoch, "samples": digest, "scorer": scorer,
            "content": plain(dict(content), "plan"),
        }  # fmt: skip
        text = json.dumps({**state, "checksum": checksum_of(state)}, indent=1, sort_keys=True)
        name = f"{from_slot:09d}.json"
        self._folder.put_bytes_if_absent(f"{PLANS}/{name}", text.encode())
        self.all()
        if name not in self._read:
            raise PoolError(f"the plan {name} in {self._folder.root} was removed as soon as it was there.")
        return self._read[name]

    def samples(self, plan: Plan) -> dict[str, Tensor]:
        """Values of single samples.

        Raises:
            FileNotFoundError: The file is gone.
            DamagedShardError: It is not what was written; it is set aside.
        """
        return {} if plan.samples is None else self._get(PLANS, plan.samples)[0]

    # -- the learner's weights

    def put_scorer(self, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
        """Stores weights under their digest, once; returns it.

        Raises:
            PoolError: The folder cannot be written.
        """
        return self._put(SCORERS, tensors, meta)

    def scorer(self, plan: Plan) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Weights and what was said of them.

        Raises:
            FileNotFoundError: The file is gone.
            DamagedShardError: It is not what was written; it is set aside.
        """
        return self._get(SCORERS, plan.scorer or "none")

    def remove_scorers(self, first_needed: int, has: Callable[[int], bool]) -> list[str]:
        """Removes weights that no slot refers to any more; returns their digests.

        A slot refers to those of its plan as long as it is in the pool, or may be made: from `first_needed` on.

        Args:
            first_needed: First slot that the run needs.
            has: Whether a slot is in the pool.
        """
        plans, kept, dropped = self.all(), set[str](), set[str]()
        for number, plan in enumerate(plans):
            stop = plans[number + 1].from_slot if number + 1 < len(plans) else None
            if plan.scorer is None:
                continue
            over = stop is not None and stop <= first_needed and not any(map(has, range(plan.from_slot, stop)))
            (dropped if over else kept).add(plan.scorer)
        return [digest for digest in sorted(dropped - kept) if self._folder.remove(_file(SCORERS, digest))]

    # -- files

    def _load(self, name: str) -> None:
        path = self._folder.path(f"{PLANS}/{name}")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            self._left_out(name, f"cannot be read ({error})")
            return
        try:
            state = json.loads(data)
            checksum = state.pop("checksum")
            if checksum != checksum_of(state) or state.pop("version") != _VERSION:
                raise ValueError("its checksum or version is another")
            self._read[name] = Plan(**state)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            try:
                moved = self._folder.set_aside(f"{PLANS}/{name}")
            except (OSError, PoolError) as failure:
                self._left_out(name, f"is damaged ({error}) and cannot be set aside ({failure})")
            else:
                self._left_out(name, f"is damaged ({error}) and set aside as {moved}")

    def _left_out(self, name: str, why: str) -> None:
        if name not in self._unreadable:
            path = self._folder.path(f"{PLANS}/{name}")
            _log.error("the plan %s %s: the slots that it holds for follow the plan before.", path, why)
        self._unreadable.add(name)

    def _put(self, sub: str, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
        own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}  # none share memory
        digest = _digest(own, meta)
        self._folder.put_if_absent(_file(sub, digest), lambda path: save_file(own, path, metadata=dict(meta)))
        return digest

    def _get(self, sub: str, digest: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        path = self._folder.path(_file(sub, digest))
        if not path.is_file():
            raise FileNotFoundError(f"{path} is gone")
        try:
            with safe_open(str(path), framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            whole = _digest(tensors, meta) == digest
        except Exception as error:
            raise self._damaged(sub, digest, str(error)) from error
        if not whole:
            raise self._damaged(sub, digest, "its content is not the one that its name says")
        return tensors, meta

    def _damaged(self, sub: str, digest: str, why: str) -> DamagedShardError:
        moved = self._folder.set_aside(_file(sub, digest))
        return DamagedShardError(f"{_file(sub, digest)} is damaged ({why}); it is set aside as {moved}")


def _file(sub: str, digest: str) -> str:
    return f"{sub}/{digest}.safetensors"


def _digest(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
    return fingerprint({"tensors": tensors_digest(tensors), "meta": dict(meta)}, 32)
