"""How good synthetic samples are: measured against real data, with the level of real against real data beside."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_diffaug.fidelity.callback import FidelityReport
    from lightning_diffaug.fidelity.measuring import measure
    from lightning_diffaug.fidelity.of_run import fidelity_figures, measure_run
    from lightning_diffaug.fidelity.result import Fidelity, Figure
    from lightning_diffaug.fidelity.samples import Samples
    from lightning_diffaug.fidelity.settings import FidelitySettings

__all__ = [
    "Fidelity",
    "FidelityReport",
    "FidelitySettings",
    "Figure",
    "Samples",
    "fidelity_figures",
    "measure",
    "measure_run",
]

_HOMES = {
    "Fidelity": "result",
    "FidelityReport": "callback",
    "FidelitySettings": "settings",
    "Figure": "result",
    "Samples": "samples",
    "fidelity_figures": "of_run",
    "measure": "measuring",
    "measure_run": "of_run",
}


def __getattr__(name: str) -> Any:
    # lazily: a generator that needs one distance imports neither Lightning nor classifiers
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
