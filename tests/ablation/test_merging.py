from __future__ import annotations

from pathlib import Path

import pytest
from written_sweep import Arm, write_sweep

from lightning_diffaug.ablation.failed import write_failed
from lightning_diffaug.ablation.merging import read_sweeps, short_names

ARMS = [Arm("real_only", 0.8), Arm("mixed", 0.85, 0.25, "synthetic")]


def test_one_sweep_is_read_as_it_is(tmp_path: Path) -> None:
    sweep = read_sweeps([write_sweep(tmp_path / "a", ARMS, seeds=1)])
    assert [(run.arm, run.task) for run in sweep.runs] == [("real_only", ""), ("mixed-0.25", "")]


def test_arms_of_several_sweeps_have_the_folders_name_before_theirs_and_are_of_one_task(tmp_path: Path) -> None:
    folders = [write_sweep(tmp_path / name, ARMS, seeds=1) for name in ("first", "second")]
    write_failed(folders[1] / "9", RuntimeError("gone"), [])
    sweep = read_sweeps(folders)
    assert [run.arm for run in sweep.runs] == [
        "first/real_only", "first/mixed-0.25", "second/real_only", "second/mixed-0.25",
    ]  # fmt: skip
    assert [run.family for run in sweep.runs][1::2] == ["first/mixed", "second/mixed"]
    assert {run.name for run in sweep.runs} == {"real_only", "mixed"}, "by which an arm's role is known"
    assert {run.task for run in sweep.runs} == {""}
    assert [failure.folder for failure in sweep.failures] == ["second/9"]


@pytest.mark.parametrize(
    "config", [{"real": {"shots": 10}}, {"real": {"root": "/other/images"}}, {"model": {"width": 8}}]
)
def test_sweeps_on_other_data_or_with_another_learner_are_other_tasks(tmp_path: Path, config: object) -> None:
    first = write_sweep(tmp_path / "first", ARMS, seeds=1)
    second = write_sweep(tmp_path / "second", ARMS, seeds=1, config=config)
    third = write_sweep(tmp_path / "third", ARMS, seeds=1)
    tasks = {run.arm: run.task for run in read_sweeps([first, second, third]).runs}
    assert tasks["first/mixed-0.25"] == tasks["third/real_only"] == "first + third"
    assert tasks["second/mixed-0.25"] == tasks["second/real_only"] == "second"


def test_sweeps_on_other_classes_are_other_tasks(tmp_path: Path) -> None:
    folders = [write_sweep(tmp_path / name, ARMS, seeds=1) for name in ("first", "second")]
    for path in folders[1].glob("*/classes.json"):
        path.write_text(path.read_text().replace('"9"', '"nine"'))
    assert {run.task for run in read_sweeps(folders).runs} == {"first", "second"}


@pytest.mark.parametrize(
    "config",
    [
        {"real": {"seed": 7, "augment": {"p": 1}}},
        {"model": {"loss": "logit_adjusted"}},
        {"model": {"mixing": "remix", "mixing_alpha": 0.2, "remix_kappa": 2.0, "remix_tau": 0.3}},
    ],
)
def test_what_an_arm_or_a_seed_sets_makes_no_other_task(tmp_path: Path, config: object) -> None:
    folders = [write_sweep(tmp_path / "a", ARMS, seeds=1), write_sweep(tmp_path / "b", ARMS, seeds=1, config=config)]
    assert {run.task for run in read_sweeps(folders).runs} == {""}


def test_tasks_within_a_sweep_stay_apart(tmp_path: Path) -> None:
    arms = [Arm("mixed", 0.8, 0.25, "synthetic", overrides=(f"real.shots={shots}",)) for shots in (5, 10)]
    one = write_sweep(tmp_path / "a", arms[:1], seeds=1, config={"real": {"shots": 5}})
    both = write_sweep(tmp_path / "b", arms, seeds=1)
    tasks = [run.task for run in read_sweeps([one, both]).runs]
    assert tasks[0] == "a"
    assert len(set(tasks)) >= 2


def test_names_are_as_long_as_it_takes_to_tell_folders_apart() -> None:
    assert short_names([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert short_names([Path("/x/1/run"), Path("/x/2/run")]) == ["1/run", "2/run"]
    assert short_names([Path("/x/a"), Path("/x/a")]) == ["a", "a"]
