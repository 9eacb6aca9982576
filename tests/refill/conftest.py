from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from refill_toys import job_for

from lightning_diffaug.refill.local import LocalRefill
from lightning_diffaug.refill.settings import RefillSettings

Start = Callable[..., LocalRefill]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the refill process of a generator; ends it with the test."""
    started = []

    def begin(generator: Any, job: dict[str, Any] | None = None, **settings: Any) -> LocalRefill:
        settings = {"backoff": 0.05, "max_restarts": 1, **settings}
        refill = LocalRefill(
            job_for(generator, tmp_path, ahead=2, **(job or {})), generator, RefillSettings(**settings)
        )
        started.append(refill)
        refill.need(0, 0)
        return refill

    yield begin
    for refill in started:
        refill.close()
