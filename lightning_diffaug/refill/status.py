"""What trainer and refill process tell each other: two small JSON files, replaced atomically.

The age of the status is the refill's heartbeat; the need says which slots the run waits for next.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from lightning_diffaug.pool.storage import Folder

STATUS = "status.json"
EXIT_CONFIGURATION = 2
"""Exit code of a refill process whose job names what cannot be made: a restart would not help."""
EXIT_STORAGE = 3
"""Exit code of a refill process that could not write, perhaps not even its status."""
EXIT_REJECTED = 4
"""Exit code of a refill process of whose samples too few are accepted: a restart would not help."""
_NEED = "need.json"
_BEAT_SECONDS = 1.0
_STEP_SECONDS = 0.25


@dataclass
class Status:
    """Progress of a run's refill, over restarts.

    Attributes:
        phase: ``"starting"``, ``"fit"``, ``"fill"`` or ``"idle"``.
        step: Step of the fit.
        total: Steps of the fit.
        generated: Samples made, rejected ones included.
        admitted: Samples that entered a published slot.
        rejections: Rejected samples by reason.
        slots: Slots published.
        generator_seconds: Seconds in which slots were filled.
        fit_seconds: Seconds of the fit; 0 where a fitted generator was found.
        failure: What went wrong last, or "".
        pool: Folder of the pool, once it is known.
        trying: The slot that is being made; still there when the process was killed over it.
        failures: Reasons of a slot's failed tries, by its number (as text, for JSON).
    """

    phase: str = "starting"
    step: int = 0
    total: int = 0
    generated: int = 0
    admitted: int = 0
    rejections: dict[str, int] = field(default_factory=dict)
    slots: int = 0
    generator_seconds: float = 0.0
    fit_seconds: float = 0.0
    failure: str = ""
    pool: str = ""
    trying: int | None = None
    failures: dict[str, list[str]] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Rejected samples."""
        return sum(self.rejections.values())

    @classmethod
    def read(cls, path: Path) -> Status:
        """The status last written; a new one where there is none."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, path: Path) -> None:
        """Replaces the file in one step."""
        _replace(path, dataclasses.asdict(self))


class Reporter:
    """Writes the status file, not more often than is useful."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0.0
        self.status = Status.read(path)

    def write(self) -> None:
        """Writes now."""
        self.status.write(self._path)
        self._written = time.monotonic()

    def beat(self) -> None:
        """Writes if the last time is a while ago."""
        if time.monotonic() - self._written > _BEAT_SECONDS:
            self.write()

    def fit_progress(self, step: int, total: int) -> None:
        """Progress of the fit."""
        self.status.phase, self.status.step, self.status.total = "fit", step, total
        if step in (1, 10, total) or time.monotonic() - self._written > _STEP_SECONDS:
            self.write()


@dataclass(frozen=True)
class Need:
    """The slots ``first … stop − 1`` that a run needs now or at its next epoch."""

    first: int = 0
    stop: int = 0

    @classmethod
    def read(cls, run_dir: Path) -> Need:
        """What the trainer said last; nothing before that."""
        try:
            return cls(**json.loads((run_dir / _NEED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, run_dir: Path) -> None:
        """Replaces the file in one step."""
        _replace(run_dir / _NEED, dataclasses.asdict(self))


def _replace(path: Path, state: dict[str, object]) -> None:
    Folder(path.parent).replace_bytes(path.name, json.dumps(state).encode())
