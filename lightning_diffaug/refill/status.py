"""What trainer and refill process tell each other: two small JSON files, replaced atomically.

The age of the status is the refill's heartbeat; the need says which slots the run waits for next.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

STATUS = "status.json"
_NEED = "need.json"


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
    part = path.with_suffix(f".{os.getpid()}.tmp")
    part.write_text(json.dumps(state), encoding="utf-8")
    part.replace(path)


def age(path: Path) -> float:
    """Seconds since the file was written; infinite where there is none."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return float("inf")
