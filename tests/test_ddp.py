"""Two CPU processes under strategy="ddp": one window, disjoint positions, one refill process, a clean end."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from lightning_diffaug.pool.plans import Plans

_SUPPORT = Path(__file__).parent / "support"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What both ranks wrote, of the whole run and of the one resumed in the middle of its second epoch."""
    root = tmp_path_factory.mktemp("ddp")
    path = os.pathsep.join([str(_SUPPORT), str(_SUPPORT.parent.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(_SUPPORT / "ddp_run.py"), str(root)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    written = {
        name: [json.loads((root / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]
        for name in ("whole", "resumed", "feedback")
    }
    left = [
        command
        for process in psutil.process_iter(["cmdline"])
        if str(root) in (command := " ".join(process.info["cmdline"] or []))
    ]
    assert not left, left
    assert not list((root / "cache" / "runs").iterdir())
    assert not list((root / "cache" / "epoch_cache").iterdir())
    plans = Plans(next((root / "feedback" / "pools").iterdir()))
    written["plans"] = [{"epoch": plan.epoch, "loss": plans.samples(plan)["loss"].tolist()} for plan in plans.all()]
    return written


def _epochs(rank: dict[str, Any]) -> list[list[dict[str, Any]]]:
    batches = rank["batches"]
    assert len(batches) == 6
    return [batches[:3], batches[3:]]


def _drawn(batches: list[dict[str, Any]], *keys: str) -> list[tuple[int, ...]]:
    rows = [row for batch in batches for row in zip(*(batch[key] for key in keys), strict=True)]
    return [row for row in rows if row[0] >= 0]


def test_ranks_share_one_window(ranks: dict[str, list[dict[str, Any]]]) -> None:
    for number, (first, second) in enumerate(zip(*map(_epochs, ranks["whole"]), strict=True)):
        slots = {slot for batches in (first, second) for (slot,) in _drawn(batches, "slot")}
        # 12 synthetic draws an epoch over both ranks, each used once: slots 0, 1, then 1, 2
        assert slots == {number, number + 1}


def test_ranks_draw_disjoint_positions(ranks: dict[str, list[dict[str, Any]]]) -> None:
    for first, second in zip(*map(_epochs, ranks["whole"]), strict=True):
        for keys in (("real_index",), ("slot", "row")):
            a, b = _drawn(first, *keys), _drawn(second, *keys)
            assert len(a) == len(b) == 6
            assert len(set(a) | set(b)) == 12


def test_every_rank_has_the_exact_share_in_every_batch(ranks: dict[str, list[dict[str, Any]]]) -> None:
    for rank in ranks["whole"]:
        assert [sum(batch["is_synthetic"]) for batch in rank["batches"]] == [2] * 6


def test_ranks_augment_differently(ranks: dict[str, list[dict[str, Any]]]) -> None:
    first, second = (rank["batches"][0]["images"] for rank in ranks["whole"])
    assert not {value % 1 for value in first} & {value % 1 for value in second}


def test_one_refill_process_serves_the_node(ranks: dict[str, list[dict[str, Any]]]) -> None:
    assert [rank["refills"] for rank in ranks["whole"]] == [1, 0]


def test_figures_count_all_ranks(ranks: dict[str, list[dict[str, Any]]]) -> None:
    for rank in ranks["whole"]:
        assert rank["figures"]["mix/achieved_fraction"] == 0.5
        assert rank["figures"]["mix/short_epochs"] == 0
        assert sum(rank["figures"][f"mix/draws_class_{c}"] for c in range(3)) == 48


def test_resumed_ranks_equal_uninterrupted_ones(ranks: dict[str, list[dict[str, Any]]]) -> None:
    for whole, resumed in zip(ranks["whole"], ranks["resumed"], strict=True):
        assert resumed["batches"] == whole["batches"][4:]
        assert resumed["figures"] == pytest.approx(whole["figures"])


def test_ranks_ask_the_learner_together_and_agree(ranks: dict[str, list[dict[str, Any]]]) -> None:
    first, second = ranks["feedback"]
    assert first["logged"] == second["logged"]
    assert first["logged"]["feedback/loss_class_1"] > first["logged"]["feedback/loss_class_0"]
    assert [plan["epoch"] for plan in ranks["plans"]] == [0, 1], "one plan for each epoch, of whichever rank"
    for plan in ranks["plans"]:
        assert len(plan["loss"]) == 24
        assert all(math.isfinite(value) for value in plan["loss"]), "each sample was looked at by one of them"
