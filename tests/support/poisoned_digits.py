"""The benchmark's poisoned generator, by a name: a run can use it, and keeps what it made."""

from __future__ import annotations

from pathlib import Path

from poisoned import PoisonedGenerator, digits, fitted


class PoisonedDigits(PoisonedGenerator):
    """Fitted in the folder `cache`."""

    def __init__(self, cache: str, steps: int) -> None:
        data = digits()
        super().__init__(fitted(data.train, Path(cache), steps), data)
        self.cache, self.steps = cache, steps
