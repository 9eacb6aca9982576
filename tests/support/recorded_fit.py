"""The default generator, whose fit tells at which step it began."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.snapshot import Snapshot


class RecordedFit(DiffusionGenerator):
    """Writes its first step behind the others in `diary`.

    Args:
        diary: The file.
        **settings: Of the generator.
    """

    def __init__(self, diary: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.diary = diary

    def config(self) -> dict[str, Any]:
        return {"diary": self.diary, **super().config()}

    def fit(
        self,
        snapshot: Snapshot,
        folder: Path,
        progress: Callable[[int, int], None],
        checkpoint: Path | None = None,
    ) -> None:
        told = False

        def recording(step: int, total: int) -> None:
            nonlocal told
            if not told:
                with Path(self.diary).open("a") as diary:
                    diary.write(f"{step}\n")
            told = True
            progress(step, total)

        super().fit(snapshot, folder, recording, checkpoint)
