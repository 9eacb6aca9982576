from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lightning_diffaug.ablation.failed import write_failed
from lightning_diffaug.ablation.runs import read_sweep

WriteRun = Callable[..., Path]


def _arms(tmp_path: Path) -> list[str]:
    return [run.arm for run in read_sweep(tmp_path / "sweep").runs]


def test_arms_of_a_sweep_of_the_fraction_are_named_by_it(tmp_path: Path, write_run: WriteRun) -> None:
    for number, fraction in enumerate((0, 0.5, 1)):
        write_run(number, fraction=fraction, overrides=[f"data.synthetic_fraction={fraction}"])
    assert _arms(tmp_path) == ["real", "mixed-0.5", "mixed-1"]
    assert [run.fraction for run in read_sweep(tmp_path / "sweep").runs] == [0, 0.5, 1]


def test_a_named_arm_has_its_fraction_behind_its_name_where_it_is_synthetic(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(0, fraction=0, arm="classical", overrides=["arm=classical", "seed=0"])
    write_run(1, fraction=0.25, arm="mixed", overrides=["arm=mixed", "seed=0"])
    write_run(2, fraction=0.25, arm="mixed", seed=1, overrides=["arm=mixed", "seed=1"])
    assert _arms(tmp_path) == ["classical", "mixed-0.25", "mixed-0.25"]
    assert [run.name for run in read_sweep(tmp_path / "sweep").runs] == ["classical", "mixed", "mixed"]


def test_runs_that_differ_in_another_setting_are_not_seeds_of_one_arm(tmp_path: Path, write_run: WriteRun) -> None:
    common = ["trainer.max_epochs=2"]
    write_run(0, overrides=["data.reuse=1", *common])
    write_run(1, overrides=["data.reuse=8", *common])
    write_run(2, overrides=["+data.reuse=8", "seed=1", *common], seed=1)
    write_run(3, overrides=common)
    reuse_8 = "mixed-0.25 (data.reuse=8)"
    assert _arms(tmp_path) == ["mixed-0.25 (data.reuse=1)", reuse_8, reuse_8, "mixed-0.25"]


def test_a_schedule_is_named_and_counts_with_the_mean_fraction_asked_for(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(0, fraction={"name": "linear", "start": 0.5, "end": 0.3, "epochs": 9})
    (run,) = read_sweep(tmp_path / "sweep").runs
    assert (run.arm, run.fraction) == ("mixed-linear", 0.4)


def test_runs_come_in_the_order_of_their_numbers(tmp_path: Path, write_run: WriteRun) -> None:
    for number in (10, 9, 2):
        write_run(number)
    assert [run.folder for run in read_sweep(tmp_path / "sweep").runs] == ["2", "9", "10"]


def test_generator_seconds_are_fit_and_generation(tmp_path: Path, write_run: WriteRun) -> None:
    folder = write_run(0)
    figures = {"generator/seconds": 3.5, "generator/fit_seconds": 20.0, "train/steps": 14.0, "test/acc": 0.5}
    (folder / "metrics.json").write_text(json.dumps(figures))
    (run,) = read_sweep(tmp_path / "sweep").runs
    assert (run.generator_seconds, run.steps) == (23.5, 14.0)


def test_failed_stopped_and_damaged_runs_are_listed_with_their_reason(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(0)
    again = write_run(1)  # has figures of an earlier sweep in this folder
    write_failed(again, ValueError("no such scheduler"), ["generator.scheduler=x"])
    (write_run(2, overrides=["seed=2"]) / "metrics.json").unlink()
    (write_run(3) / "metrics.json").write_text('{"test/acc": 0.')
    (write_run(4) / "config.yaml").unlink()
    sweep = read_sweep(tmp_path / "sweep")
    assert [run.folder for run in sweep.runs] == ["0"]
    failed = {failure.folder: failure for failure in sweep.failures}
    assert list(failed) == ["1", "2", "3", "4"]
    assert failed["1"].error == "ValueError: no such scheduler"
    assert failed["1"].overrides == ("generator.scheduler=x",)
    assert "stopped before its end" in failed["2"].error
    assert failed["2"].overrides == ("seed=2",)
    assert "cannot be read" in failed["3"].error
    assert "config.yaml" in failed["4"].error


def test_runs_in_named_subfolders_are_found_and_nothing_else_is_a_run(tmp_path: Path, write_run: WriteRun) -> None:
    sweep = tmp_path / "sweep"
    write_run(0).rename(sweep / "x")
    (sweep / "mixed").mkdir()
    (sweep / "x").rename(sweep / "mixed" / "seed0")
    (sweep / "mixed" / "seed0" / "adapter").mkdir()
    (sweep / "mixed" / "seed0" / "adapter" / "config.yaml").write_text("a file of the run's own")
    (sweep / "ablation").mkdir()
    (sweep / "ablation" / "metrics.json").write_text("{}")
    found = read_sweep(sweep)
    assert [run.folder for run in found.runs] == ["mixed/seed0"]
    assert found.failures == ()


def test_a_fraction_0_beside_others_of_its_name_is_the_point_0_of_that_family(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(0, fraction=0, arm="classical")
    for number, fraction in enumerate((0, 0.25, 1), start=1):
        write_run(number, fraction=fraction, arm="mixed", overrides=[f"data.synthetic_fraction={fraction}"])
    runs = read_sweep(tmp_path / "sweep").runs
    assert [run.arm for run in runs] == ["classical", "mixed-0", "mixed-0.25", "mixed-1"]
    assert [run.family for run in runs] == ["classical", "mixed", "mixed", "mixed"]
    assert [run.role for run in runs] == ["baseline", "baseline", "synthetic", "synthetic"]


def test_real_and_mixed_of_a_plain_sweep_of_fractions_are_one_family(tmp_path: Path, write_run: WriteRun) -> None:
    for number, fraction in enumerate((0, 0.5)):
        write_run(number, fraction=fraction, overrides=[f"data.synthetic_fraction={fraction}"])
    assert [run.family for run in read_sweep(tmp_path / "sweep").runs] == ["mixed", "mixed"]


def test_a_run_says_its_role_what_is_equal_its_config_and_its_folder(tmp_path: Path, write_run: WriteRun) -> None:
    folder = write_run(0, config={"ablation": {"role": "control", "equal": "epochs"}}, rare=["1"])
    write_run(1, config={"ablation": {"role": None, "equal": None}})
    control, mixed = read_sweep(tmp_path / "sweep").runs
    assert (control.role, control.equal, control.path) == ("control", "epochs", folder.absolute())
    assert control.config["ablation"] == {"role": "control", "equal": "epochs"}
    assert (control.rare, control.train_counts) == (("1",), (9, 9, 9, 9))
    assert (mixed.role, mixed.equal) == ("synthetic", "steps")


def test_other_data_make_another_task_and_another_augmentation_does_not(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(0, overrides=["real.shots=5", "real.augment.p=0.5", "data.reuse=1"])
    write_run(1, overrides=["real.shots=10", "real.augment.p=0.8", "data.reuse=2"])
    first, second = read_sweep(tmp_path / "sweep").runs
    assert (first.task, second.task) == ("real.shots=5", "real.shots=10")
    assert first.family == "mixed (real.shots=5, real.augment.p=0.5, data.reuse=1)"
