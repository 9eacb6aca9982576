from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_diffaug.pool import PoolHeader, Shard, SyntheticPool

SLOT_SIZE = 8


def shard_of(slot: int, n: int = SLOT_SIZE, shape: tuple[int, ...] = (1, 4, 4), **made: object) -> Shard:
    """A shard whose content is a function of the slot, as the pool promises."""
    random = torch.Generator().manual_seed(slot)
    return Shard(
        fields={
            "image": torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=random),
            "label": torch.arange(slot, slot + n) % 3,
        },
        strings={"prompt": [f"größe {slot}/{i}" * (i % 3) for i in range(n)]},
        rows=[{"seed": slot * 1000 + i, "condition": {"label": i}, "scores": [0.5, i / 3]} for i in range(n)],
        rejected=[{"row": n, "reason": "not finite"}],
        made=dict(made),
    )


@pytest.fixture
def make_shard() -> Callable[..., Shard]:
    return shard_of


@pytest.fixture
def header() -> PoolHeader:
    return PoolHeader("f" * 24, {"seed": 0, "model": {"steps": 10}}, SLOT_SIZE, {"fields": [{"name": "image"}]})


@pytest.fixture
def pool(tmp_path: Path, header: PoolHeader) -> SyntheticPool:
    return SyntheticPool.create(tmp_path / "pool", header)


@pytest.fixture
def forked() -> Callable[[Callable[[], object]], int]:
    """Runs a function in a forked child and returns the child's process id; it exits with 0, or 1 when it raised."""

    def start(function: Callable[[], object]) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about the threads of torch
            pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)

    return start
