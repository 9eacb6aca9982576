"""P6 and P8: a crash or an end at any instant loses at most what was in the making, and leaves no process."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from refill_toys import SLOT, Faulty, Fitted, Steady, job_for, need, status, until, worker
from training_toys import Recorder

from lightning_diffaug import DiffAugDataModule, SyntheticPool
from lightning_diffaug.refill.fill_slot import fill_slot

SUPPORT = Path(__file__).parent.parent / "support"
Launch = Callable[..., subprocess.Popen[bytes]]

pytestmark = pytest.mark.faults


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts a training script in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(name: str, **settings: Any) -> subprocess.Popen[bytes]:
        out = tmp_path / name
        out.mkdir()
        settings = {"cache": str(tmp_path / "cache"), "out": str(out), "epochs": 500, "seconds": 0.05, **settings}
        (out / "settings.json").write_text(json.dumps(settings))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parent.parent)])}
        with (out / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(SUPPORT / "train_script.py"), str(out / "settings.json")],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()


def _started(process: subprocess.Popen[bytes], out: Path) -> dict[str, int]:
    until(lambda: (out / "started.json").exists() or process.poll() is not None, 200)
    assert process.poll() is None, (out / "log").read_text()
    return json.loads((out / "started.json").read_text())  # type: ignore[no-any-return]


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _left(cache: Path) -> list[str]:
    """Everything of runs that is in the cache: run folders, epoch caches, leases, claims, half-done files."""
    folders = [*cache.glob("runs/*"), *cache.glob("epoch_cache/*")]
    return [str(path.relative_to(cache)) for path in folders + _traces(cache)]


def _traces(cache: Path) -> list[Path]:
    patterns = ("pools/*/leases/*", "pools/*/claims/*", "**/.tmp-*", "generators/.fit-*", "generators/claims/*")
    return [path for pattern in patterns for path in cache.glob(pattern)]


def test_kill_9_of_the_refill_process_in_a_loop_while_it_fills(tmp_path: Path) -> None:
    job = job_for(Steady(0.005), tmp_path, ahead=0)
    need(job, 400)
    delays, seen, kills = random.Random(0), 0, 0
    while kills < 20 or seen <= 20:  # a slow disk needs more of them
        kills += 1
        with worker(job):  # killed at the end of the block
            until(lambda: status(job).pool)
            time.sleep(delays.uniform(0.02, 0.25))
        pool = SyntheticPool.open(status(job).pool)
        slots = pool.slots()
        assert len(slots) >= seen, "nothing that was there is lost"
        seen = len(slots)
    assert pool.verify() == {}
    recipe = job.recipe(Steady())
    for k in slots:
        shard = pool.read(k)
        assert shard.n == SLOT
        assert shard.content == fill_slot(k, recipe).content
    missing = set(range(slots[-1])) - set(slots)
    assert len(missing) <= kills, "at most the slot in the making at each kill"
    left = [path for path in _traces(tmp_path) if path.relative_to(tmp_path).parts[0] != "runs"]  # ends with the run
    assert left == [], "what the killed ones left was removed when the pool was opened"


@pytest.mark.parametrize(
    ("generator", "window"),
    [(Steady(0.2), 16), (Faulty("native", range(1, 12)), 8)],
    ids=["filling", "hung in native code"],
)
def test_kill_9_of_the_trainer_leaves_no_orphan_and_the_next_run_cleans_up(
    generator: Any, window: int, launch: Launch, tmp_path: Path, mixed: Any, train: Any
) -> None:
    named = {"_target_": f"refill_toys.{type(generator).__name__}", **vars(generator)}
    process = launch("killed", generator=named, window=window)
    pids = _started(process, tmp_path / "killed")
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert pids["refill"] in family
    process.kill()
    process.wait()
    until(lambda: all(_gone(pid) for pid in family), 30)
    cache = tmp_path / "cache"
    assert len(list(cache.glob("runs/*"))) == len(list(cache.glob("epoch_cache/*"))) == 1
    assert len(list(cache.glob("pools/*/leases/*"))) == 1
    (pool,) = cache.glob("pools/*")
    before = {k: SyntheticPool.open(pool).read(k).content for k in SyntheticPool.open(pool).slots()}
    assert before

    train(mixed(named, "none", window=window), 1)
    assert _left(cache) == []
    assert {k: SyntheticPool.open(pool).read(k).content for k in before} == before


def test_kill_9_of_the_trainer_during_the_fit_is_cleaned_up(launch: Launch, tmp_path: Path) -> None:
    process = launch("killed", generator={"_target_": "refill_toys.Fitted", "seconds": 60.0})
    cache = tmp_path / "cache"
    until(lambda: list(cache.glob("generators/.fit-*")) or process.poll() is not None, 200)
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert family
    process.kill()
    process.wait()
    until(lambda: all(_gone(pid) for pid in family), 30)
    mix = DiffAugDataModule(_real(), Fitted(), 0.5, refill="none", cache_dir=cache)
    mix.train_dataloader()
    mix.close()
    assert [name for name in _left(cache) if "claims" not in name] == []


def _real() -> Any:
    from training_toys import RealModule

    return RealModule()


@pytest.mark.parametrize(
    ("sent", "fitting"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM while it waits for the fit"],
)
def test_ctrl_c_and_sigterm_end_everything(sent: signal.Signals, fitting: bool, launch: Launch, tmp_path: Path) -> None:
    process = launch("ended", generator={"_target_": "refill_toys.Fitted", "seconds": 60.0 if fitting else 0.0})
    cache = tmp_path / "cache"
    if fitting:
        until(lambda: list(cache.glob("generators/.fit-*")) or process.poll() is not None, 200)
        time.sleep(0.5)
    else:
        _started(process, tmp_path / "ended")
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert family
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    assert process.wait(timeout=60) == (1 if sent == signal.SIGINT else 0), "as Lightning has it"
    assert all(_gone(pid) for pid in family), (tmp_path / "ended" / "log").read_text()
    assert _left(cache) == []
    assert not (tmp_path / "ended" / "report.json").exists()


def test_two_runs_at_once_share_one_fit_and_one_pool_and_agree(launch: Launch, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    generator = {"_target_": "refill_toys.Fitted", "diary": str(diary), "seconds": 1.0, "pause": 0.15}
    processes = [launch(name, generator=generator, epochs=6, seconds=0.02) for name in ("one", "two")]
    for name, process in zip(("one", "two"), processes, strict=True):
        assert process.wait(timeout=200) == 0, (tmp_path / name / "log").read_text()
    one, two = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    assert len(diary.read_text().splitlines()) == 1
    cache = tmp_path / "cache"
    assert len([path for path in cache.glob("generators/*") if path.name != "claims"]) == 1
    (folder,) = cache.glob("pools/*")
    pool = SyntheticPool.open(folder)
    assert pool.verify() == {}
    shared = set(one["seen"]) & set(two["seen"])
    assert len(shared) > 40
    assert all(one["seen"][place] == two["seen"][place] for place in shared)
    generated = [report["figures"]["pool/generated"] for report in (one, two)]
    rows = pool.info().rows
    assert rows <= sum(generated) <= 1.3 * rows, "claims spare double work"
    assert min(generated) > 0.15 * rows, "both took part"
    for report in (one, two):
        assert report["figures"]["mix/achieved_fraction"] == 0.5
        assert report["figures"]["mix/short_epochs"] == 0
    assert _left(cache) == []


class Breaks(Recorder):
    """Raises at its third step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if len(self.seen["train"]) == 2:
            raise ArithmeticError("the learner is broken")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_in_training_step_leaves_nothing(workers: int, mixed: Any, train: Any, tmp_path: Path) -> None:
    mix = mixed(Steady(0.05))
    mix.real.loader["num_workers"] = workers
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(ArithmeticError):
        train(mix, 2, model=Breaks())
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert _left(tmp_path / "cache") == []
    mix.close()


def test_workers_that_cannot_be_ended_do_not_keep_the_refill_process(mixed: Any, tmp_path: Path) -> None:
    mix = mixed(Steady())
    loader = mix.train_dataloader()

    def fails() -> None:
        raise OSError("a worker is gone")

    loader.close = fails
    with pytest.raises(OSError, match="a worker is gone"):
        mix.close()
    assert _left(tmp_path / "cache") == []


@pytest.mark.parametrize("refill", ["local", "sync", "none"])
def test_a_run_that_ends_leaves_only_pool_and_generator(refill: str, mixed: Any, train: Any, tmp_path: Path) -> None:
    train(mixed(Fitted(), {"mode": refill}), 2)
    cache = tmp_path / "cache"
    assert _left(cache) == []
    assert {path.name for path in cache.iterdir()} <= {"runs", "epoch_cache", "pools", "generators", "snapshots"}


def test_a_run_with_a_live_object_leaves_nothing_at_all(mixed: Any, train: Any, tmp_path: Path) -> None:
    steady = Steady()
    train(mixed(lambda condition, seeds: steady.generate(condition, seeds), "sync"), 2)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
