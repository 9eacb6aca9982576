from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lightning_diffaug.report import write_classes

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes what one run of the sweep ``tmp_path / "sweep"`` leaves."""

    def write(
        number: int,
        seed: int = 0,
        fraction: Any = 0.25,
        arm: str | None = None,
        overrides: Sequence[str] = (),
        rare: Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
        **metrics: float,
    ) -> Path:
        folder = tmp_path / "sweep" / str(number)
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
        of_run = {"seed": seed, "arm_name": arm, "data": {"synthetic_fraction": fraction}} | dict(config or {})
        OmegaConf.save(OmegaConf.create(of_run), folder / "config.yaml")
        if rare is not None:
            write_classes(["0", "1", "2", "3"], [9, 9, 9, 9], [int(name) for name in rare], folder)
        figures = {"train/steps": 630.0, "generator/seconds": 0.0, "generator/fit_seconds": 0.0}
        figures |= {"mix/requested_fraction": fraction if isinstance(fraction, (int, float)) else 0.4}
        figures |= {f"test/{key}": value for key, value in metrics.items()}
        (folder / "metrics.json").write_text(json.dumps(figures))
        return folder

    return write
