"""Which runs of a sweep are made side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_diffaug.ablation.cores import side_by_side, usable_cores
from lightning_diffaug.ablation.schedule import Schedule, TrainingSet, most_side_by_side
from lightning_diffaug.ablation.settings import check_settings
from lightning_diffaug.errors import ConfigurationError

SETS = [TrainingSet(["a1", "a2"], ["a3", "a4"]), TrainingSet(["b1"], []), TrainingSet([], ["c1"])]


def test_runs_that_share_a_pool_are_one_workers_and_one_without_work_helps_with_the_others() -> None:
    schedule = Schedule(SETS)
    order = [(worker, schedule.next(worker)) for worker in (0, 1, 1, 1, 0, 1, 0)]
    assert order == [(0, "a1"), (1, "b1"), (1, "c1"), (1, "a4"), (0, "a2"), (1, "a3"), (0, None)]


def test_every_run_is_handed_out_once_whoever_asks() -> None:
    for workers in (1, 2, 3, 4):
        schedule, found, place = Schedule(SETS), [], 0
        misses = 0
        while misses < workers:
            task = schedule.next(place % workers)
            place, misses = place + 1, misses + 1 if task is None else 0
            found += [] if task is None else [task]
        assert sorted(found) == ["a1", "a2", "a3", "a4", "b1", "c1"]


def test_no_more_are_made_at_a_time_than_can_be() -> None:
    assert most_side_by_side(SETS) == (1 + 2) + 1 + 1


def config(**values: object) -> object:
    plain = {"threads": 1, "refill": {"mode": "sync", "threads": 1}, "trainer": {"accelerator": "cpu"}, "ablation": {}}
    return OmegaConf.create({**plain, **values})


def test_as_many_as_the_cores_have_threads_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_diffaug.ablation.cores.usable_cores", lambda: 8)
    assert side_by_side(config(), 99) == 8
    assert side_by_side(config(), 3) == 3
    assert side_by_side(config(threads=3), 99) == 2
    assert side_by_side(config(refill={"mode": "local", "threads": 1}), 99) == 4
    assert side_by_side(config(real={"num_workers": 1}), 99) == 4
    assert side_by_side(config(trainer={"accelerator": "gpu"}), 99) == 1
    assert side_by_side(config(ablation={"workers": 5}), 99) == 5
    assert side_by_side(config(ablation={"workers": 5}), 0) == 1


def test_a_containers_quota_counts(tmp_path: Path) -> None:
    have = usable_cores(tmp_path)
    assert have >= 1
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == have


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "two"])
def test_what_is_no_number_of_workers_is_refused(workers: object) -> None:
    plain = OmegaConf.load(Path(__file__).parents[2] / "conf" / "train.yaml").ablation
    with pytest.raises(ConfigurationError, match=r"ablation\.workers"):
        check_settings({**plain, "workers": workers})
