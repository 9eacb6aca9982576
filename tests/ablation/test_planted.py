"""A planted effect is found, and planted nulls are not: real sweeps, real training, generators of which it is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_diffaug.ablation.report import Report, write_report
from lightning_diffaug.ablation.summary import summarise
from lightning_diffaug.ablation.verdict import HARMS, HELPS, NO_EVIDENCE, PRIOR_SHIFT, judge_each

ROOT = Path(__file__).parents[2]
SEEDS = 4
ARMS = """ablation.arms=[oversampling,
    {arm: mixed, name: held_back, generator._target_: planted.HeldBack, data.synthetic_fraction: 0.5},
    {arm: mixed, name: noise, generator._target_: planted.Noise, data.synthetic_fraction: 0.25},
    {arm: mixed, name: mislabelled, generator._target_: planted.HeldBack, data.synthetic_fraction: 0.12,
     +generator.instead: [[0, 2, 4, 6, 8]]}]""".replace("\n", "")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Oversampling beside three generators: little training, so that the class prior still matters."""
    root = tmp_path_factory.mktemp("planted")
    command = [
        sys.executable, str(ROOT / "train.py"), "-m", "experiment=ablation", ARMS, f"seed=range({SEEDS})",
        "generator=none", "gates={copy: false, duplicate: false, blank: false}", "augment=none", "trainer.max_epochs=8",
        "real.rare_classes=[1,3,5,7,9]", "refill.nice=0", "ablation.equal_time_limit=0", "ablation.fidelity_seeds=0",
        "ablation.metric=acc_rare",  # where a shift of the prior shows most
        "logger=none",
        "~callbacks.checkpoint", f"hydra.sweep.dir={root / 'sweep'}", f"paths.cache_dir={root / 'cache'}",
    ]  # fmt: skip
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=290)
    assert ended.returncode == 0, ended.stderr
    return root / "sweep"


def report(sweep: Path, generator: str) -> Report:
    """The report of the sweep as if this had been its only generator."""
    path = sweep / "jobs.json"
    whole = path.read_text()
    jobs = json.loads(whole)
    jobs["folders"] = [name for name in jobs["folders"] if name.startswith(("oversampling", generator))]
    assert len(jobs["folders"]) == 2 * SEEDS
    try:
        path.write_text(json.dumps(jobs))
        return write_report(sweep)
    finally:
        path.write_text(whole)


def test_held_back_real_samples_help(sweep: Path) -> None:
    found = report(sweep, "held_back")
    (verdict,) = judge_each(summarise(found.sweep.runs))
    assert verdict.kind == HELPS
    assert "Synthetic data help by" in found.text
    assert "Synthetic data help by" in (found.folder / "report.html").read_text()


def test_noise_does_not_help(sweep: Path) -> None:
    found = report(sweep, "noise")
    (verdict,) = judge_each(summarise(found.sweep.runs))
    assert verdict.kind in (NO_EVIDENCE, HARMS)
    assert "Synthetic data help" not in found.text


def test_mislabelled_images_of_common_classes_are_a_shift_of_the_class_prior(sweep: Path) -> None:
    found = report(sweep, "mislabelled")
    (verdict,) = judge_each(summarise(found.sweep.runs))
    assert verdict.kind == PRIOR_SHIFT, verdict.sentence
    assert "shift of the class prior" in found.text
