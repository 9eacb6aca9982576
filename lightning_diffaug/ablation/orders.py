"""What a sweep and its workers, processes of their own, say to each other."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know of the sweep. It crosses to the worker's process.

    Attributes:
        context: Hydra's context: the loader of configurations, and callbacks.
        config: The sweep's configuration.
        singletons: Hydra's global state.
        task: Import path of what makes a run of a configuration, module and name.
    """

    context: Any
    config: Any
    singletons: dict[Any, Any]
    task: tuple[str, str]


@dataclass(frozen=True)
class Order:
    """One run to be made.

    Attributes:
        number: Of the run in this sweep.
        overrides: Its overrides, those of Hydra too.
    """

    number: int
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What became of a run.

    Attributes:
        value: What the program returned.
        error: What it raised, with its traceback; "" where it did not raise.
    """

    value: Any
    error: str = ""


def found_task(path: tuple[str, str]) -> Callable[..., Any]:
    """The function of this import path, as it is below ``@hydra.main``."""
    module, name = path
    found = getattr(importlib.import_module(module), name)
    return getattr(found, "__wrapped__", found)  # type: ignore[no-any-return]
