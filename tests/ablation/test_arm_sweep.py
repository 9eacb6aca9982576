"""A real ablation on the command line: killed, started again, changed, refused."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
ARMS = (
    "ablation.arms=[real_only,{arm: oversampling, name: broken, real.shots: 0},"
    "{arm: mixed, data.synthetic_fraction: [0.25, 0.5]}]"
)


def start(folder: Path, cache: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, str(ROOT / "train.py"), "-m", "experiment=ablation", ARMS, "seed=0,1", "trainer.max_epochs=2",
        "generator=none", "+generator={_target_: planted.HeldBack}", "gates={copy: false, duplicate: false}",
        "data.window=64", "refill.nice=0", "ablation.equal_time_limit=0", "ablation.fidelity_seeds=0", "logger=none",
        "~callbacks.checkpoint",
        f"hydra.sweep.dir={folder}", f"paths.cache_dir={cache}", *overrides,
    ]  # fmt: skip
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    cache.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        command, cwd=cache, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=290)
    assert process.returncode == 0, said
    return said


def finished(folder: Path) -> dict[str, float]:
    """Folder of each finished run → when it was finished."""
    return {str(path.parent.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("*/*/metrics.json")}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "ablation" / "runs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(folder: Path) -> list[tuple[str, ...]]:
    keys = (
        "arm",
        "seed",
        "fraction",
        "test/acc",
        "test/acc_balanced_corrected",
        "test/auroc",
        "val/acc",
        "cost/samples",
    )
    return [tuple(row[key] for key in keys) for row in rows(folder)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The folder of a sweep that was killed in the middle; what was finished then."""
    root = tmp_path_factory.mktemp("killed")
    process = start(root / "sweep", root / "cache", "ablation.fidelity_seeds=1")
    children = []
    for _ in range(2400):
        time.sleep(0.05)
        if len(finished(root / "sweep")) >= 2 or process.poll() is not None:
            break
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    psutil.wait_procs(children, timeout=30)
    return root, finished(root / "sweep")


@pytest.fixture(scope="module")
def again(killed: tuple[Path, dict[str, float]]) -> tuple[Path, str]:
    """The same sweep, started again; what it said."""
    root, before = killed
    assert 2 <= len(before) < 6
    return root, finish(start(root / "sweep", root / "cache", "ablation.fidelity_seeds=1"))


def test_a_killed_sweep_goes_on_where_it_was(killed: tuple[Path, dict[str, float]], again: tuple[Path, str]) -> None:
    root, before = killed
    after = finished(root / "sweep")
    assert len(after) == 6
    assert {name: after[name] for name in before} == before, "finished runs were left alone"
    assert f"{len(before)} of 8 runs are finished already" in again[1]
    assert [(row["arm"], row["seed"]) for row in rows(root / "sweep")] == [
        (arm, seed) for arm in ("real_only", "mixed-0.25", "mixed-0.5") for seed in "01"
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same sweep, not interrupted, from an empty cache, its runs made one after the other."""
    root = tmp_path_factory.mktemp("whole")
    finish(start(root / "sweep", root / "cache", "ablation.workers=1"))
    return root / "sweep"


def test_killed_and_resumed_side_by_side_equals_uninterrupted_one_by_one_from_an_empty_cache(
    again: tuple[Path, str], whole: Path
) -> None:
    assert figures(whole) == figures(again[0] / "sweep")
    assert all(row["test/evaluations"] == "1.0" for row in rows(whole))
    assert finished(whole).keys() == finished(again[0] / "sweep").keys(), "of the same names"


def test_the_samples_of_one_seed_are_measured_and_it_is_no_other_arm(again: tuple[Path, str]) -> None:
    measured = sorted(str(path.parent.name) for path in (again[0] / "sweep").glob("mixed*/*/fidelity.json"))
    assert measured == ["seed-0", "seed-0"]
    page = (again[0] / "sweep" / "ablation" / "report.html").read_text()
    assert "Fidelity" in page


def test_one_run_of_a_training_set_fills_the_pool_and_all_know_what_it_cost(whole: Path) -> None:
    mixed = [row for row in rows(whole) if row["arm"].startswith("mixed")]
    for seed in "01":
        made = [float(row["pool/generated"]) for row in mixed if row["seed"] == seed]
        assert sorted(made)[0] == 0, made
        assert sorted(made)[1] > 0, made
    assert all(float(row["cost/generator_seconds"]) > 0 for row in mixed)
    assert all(float(row["cost/samples"]) >= 64 for row in mixed)


def test_a_failing_arm_is_listed_and_tried_again(again: tuple[Path, str]) -> None:
    folder = again[0] / "sweep"
    failed = sorted(folder.glob("broken*/seed-*/failed.json"))
    assert len(failed) == 2
    assert "real.shots" in json.loads(failed[0].read_text())["error"]
    assert "broken" in (folder / "ablation" / "comparison.md").read_text()
    assert "2 runs failed" in again[1]


def test_a_changed_setting_is_a_new_arm_and_the_old_runs_stay(again: tuple[Path, str]) -> None:
    root, _ = again
    before = finished(root / "sweep")
    finish(start(root / "sweep", root / "cache", "ablation.arms=[real_only]", "seed=0", "model.width=8"))
    after = finished(root / "sweep")
    assert before.items() <= after.items()
    (new,) = after.keys() - before.keys()
    assert [row["folder"] for row in rows(root / "sweep")] == [new]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "lightning_diffaug.ablation.worker" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def test_a_worker_that_is_killed_loses_its_run_alone_and_an_interrupt_ends_all(tmp_path: Path) -> None:
    process = start(tmp_path / "sweep", tmp_path / "cache", "seed=0,1,2,3", "ablation.workers=2")
    sweep, killed = psutil.Process(process.pid), None
    for _ in range(2400):
        time.sleep(0.05)
        workers = [child for child in sweep.children() if is_worker(child)]
        if killed is None and len(workers) == 2 and finished(tmp_path / "sweep"):
            killed = workers[0]
            killed.kill()
        lost = [path for path in tmp_path.glob("sweep/*/*/failed.json") if "SIGKILL" in path.read_text()]
        if lost and len(workers) == 2:
            break
    family = sweep.children(recursive=True)
    assert killed not in workers, "another goes on"
    assert len(lost) == 1
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "goes on where it was" in said
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_generators_vary_with_the_seed_and_an_arm_with_another_one_keeps_its_own(tmp_path: Path) -> None:
    arms = "ablation.arms=[control,{arm: mixed, name: own, generator.fit.lr: 0.001}]"
    brief = ["generator.fit.steps=2", "generator.num_inference_steps=2", "trainer.max_epochs=1", "data.window=64"]
    process = subprocess.Popen(
        [
            sys.executable, str(ROOT / "train.py"), "-m", "experiment=ablation", arms, "seed=0,1", *brief,
            "data.synthetic_fraction=0.25", "generator.seed=${seed}", "gates={copy: false, duplicate: false}",
            "ablation.equal_time_limit=0", "ablation.fidelity_seeds=0", "logger=none", "~callbacks.checkpoint",
            f"hydra.sweep.dir={tmp_path / 'sweep'}", f"paths.cache_dir={tmp_path / 'cache'}",
        ],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    finish(process)
    assert sorted((row["arm"], row["seed"]) for row in rows(tmp_path / "sweep")) == [
        ("control-0.25", "0"), ("control-0.25", "1"), ("own-0.25", "0"), ("own-0.25", "1"),
    ]  # fmt: skip
    seeds = [OmegaConf.load(path).generator.seed for path in (tmp_path / "sweep").glob("own*/*/config.yaml")]
    assert sorted(seeds) == [0, 1]


def test_more_steps_are_not_given_to_arms_with_longer_epochs(tmp_path: Path) -> None:
    arms = "ablation.arms=[real_only,{arm: mixed, data.synthetic_fraction: 0.5, data.mode: append}]"
    finish(start(tmp_path / "sweep", tmp_path / "cache", arms, "seed=0"))
    assert [row["steps"] for row in rows(tmp_path / "sweep")] == ["14.0", "14.0"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer=ddp", "trainer.devices"),
        ("ablation.arms=[nonsense]", "ablation.arms"),
        ("ablation.arms=[]", "ablation.arms"),
        ("ablation.metric=nonsense", "ablation.metric"),
        ("ablation.equal=nonsense", "ablation.equal"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(override: str, said: str, tmp_path: Path) -> None:
    process = start(tmp_path / "sweep", tmp_path / "cache", override)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert said in output
    assert "Traceback" not in output
    assert not finished(tmp_path / "sweep")
    assert not list((tmp_path / "sweep").glob("*/*"))


def test_a_second_sweep_in_a_folder_is_refused(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "sweep").mkdir()
    with (tmp_path / "sweep" / ".sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(tmp_path / "sweep", tmp_path / "cache")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "hydra.sweep.dir" in output
