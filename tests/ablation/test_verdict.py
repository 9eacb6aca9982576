from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_sweep import Planted, mixed, planted_runs
from scipy import stats

from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.ablation.summary import summarise, write_runs
from lightning_diffaug.ablation.verdict import Verdict, judge_each

REAL = Planted("real_only", -0.08)
CLASSICAL = (Planted("classical", -0.01), Planted("classical_mixup"))
CONTROL = Planted("control", 0.0, fraction=0.25, role="control")
BASELINES = (REAL, *CLASSICAL)
HELPS = (*BASELINES, CONTROL, mixed(0, -0.01), mixed(0.1, 0.01), mixed(0.25, 0.03), mixed(0.5, 0.01))


def _judge(arms: Sequence[Planted], number: int = 0, metric: str | None = None) -> Verdict:
    (verdict,) = judge_each(summarise(planted_runs(arms, number)), metric)
    return verdict


def texts(verdict: Verdict, warn: bool | None = None) -> list[str]:
    """Its notes: all, those that warn, or those that do not."""
    return [note.text for note in verdict.notes if warn in (None, note.warns)]


def test_a_planted_gain_helps_and_the_sentence_says_how_much_at_which_fraction_and_against_what() -> None:
    verdict = _judge(HELPS)
    assert verdict.kind == "helps"
    assert (verdict.arm, verdict.fraction, verdict.corrected) == ("mixed-0.25", 0.25, True)
    assert (verdict.best_baseline, verdict.real_only, verdict.control) == (
        "classical_mixup",
        "real_only",
        "control-0.25",
    )
    assert re.match(
        r"Synthetic data help by \d\.\d ± \d\.\d points at fraction 0\.25 \(balanced accuracy, class prior corrected; "
        r"mixed-0\.25 against classical_mixup, the best arm without a generator on validation data; p .* "
        r"Against real data alone: \+1\d\.\d ± \d\.\d points\. Against control-0\.25,",
        verdict.sentence,
    )


def test_figures_of_a_verdict_agree_with_scipy_on_the_rows_of_runs_csv(tmp_path: Path) -> None:
    runs = planted_runs(HELPS, 3)
    write_runs(runs, tmp_path / "runs.csv")
    (verdict,) = judge_each(summarise(runs))
    with (tmp_path / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def of(arm: str, key: str) -> list[float]:
        return [float(row[key]) for row in sorted(rows, key=lambda row: int(row["seed"])) if row["arm"] == arm]

    val, test = "val/acc_balanced_corrected", "test/acc_balanced_corrected"
    baselines = ["real_only", "classical", "classical_mixup", "mixed-0"]
    candidates = ["mixed-0.1", "mixed-0.25", "mixed-0.5"]
    best = max(baselines, key=lambda arm: np.mean(of(arm, val)))
    assert verdict.best_baseline == best
    assert verdict.arm == max(candidates, key=lambda arm: np.mean(of(arm, val)))
    for reference in ("real_only", best, "control-0.25", "mixed-0"):
        tests = {arm: stats.ttest_rel(of(arm, test), of(reference, test)) for arm in candidates}
        for arm in {row["arm"] for row in rows} - {reference}:
            found = verdict.comparison(arm, reference)
            assert found is not None
            for difference, key in ((found.raw, "test/acc_balanced"), (found.corrected, test)):
                assert difference is not None
                values = np.subtract(of(arm, key), of(reference, key))
                expected = stats.ttest_rel(of(arm, key), of(reference, key))
                assert (difference.low, difference.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
                assert (difference.mean, difference.p) == pytest.approx((values.mean(), expected.pvalue))
                assert difference.effect == pytest.approx(_hedges_dz(values))
            assert (found.p_holm is not None) == (arm in candidates)
        for arm in candidates:
            found = verdict.comparison(arm, reference)
            assert found is not None
            assert found.p_holm == pytest.approx(_holm(arm, {a: float(t.pvalue) for a, t in tests.items()}))
    shown = re.search(r"help by (\S+) ± (\S+) points", verdict.sentence)
    assert shown is not None
    values = np.subtract(of("mixed-0.25", test), of(best, test))
    half = stats.sem(values) * stats.t.ppf(0.975, 4)
    assert shown.groups() == (f"{100 * values.mean():.1f}", f"{100 * half:.1f}")


def _hedges_dz(values: Any) -> float:
    m = len(values) - 1
    return float(values.mean() / values.std(ddof=1)) * math.gamma(m / 2) / (math.sqrt(m / 2) * math.gamma((m - 1) / 2))


def _holm(arm: str, ps: dict[str, float]) -> float:
    """By the definition: the least level at which the step-down method rejects."""
    order = sorted(ps, key=lambda name: ps[name])
    return max(min(1.0, (len(ps) - i) * ps[name]) for i, name in enumerate(order[: order.index(arm) + 1]))


def test_no_planted_gain_is_no_evidence_and_both_references_are_named() -> None:
    verdict = _judge((*BASELINES, CONTROL, mixed(0.25), mixed(0.5)), 1)
    assert verdict.kind == "no_evidence"
    assert verdict.sentence.startswith("No evidence that synthetic data help")
    assert "classical_mixup, the best arm without a generator" in verdict.sentence
    assert "minus real data alone +" in verdict.sentence


def test_a_gain_over_real_only_that_classical_augmentation_gives_too_does_not_help() -> None:
    verdict = _judge((*BASELINES, mixed(0.25, -0.02)))
    assert verdict.kind == "no_evidence"
    found = verdict.comparison("mixed-0.25", "real_only")
    assert found is not None
    assert found.gains
    assert verdict.sentence.startswith(
        "No evidence that synthetic data help, and classical_mixup is better: at fraction"
    )


def test_a_gain_that_goes_with_the_correction_is_a_shift_of_the_prior() -> None:
    verdict = _judge((*BASELINES, mixed(0.25, 0.03, corrected=0.0)))
    assert verdict.kind == "prior_shift"
    assert "shift of the class prior, which a loss term can give for nothing" in verdict.sentence
    assert "minus classical_mixup is +" in verdict.sentence


def test_a_gain_over_real_only_alone_that_goes_with_the_correction_is_a_shift_of_the_prior() -> None:
    arms = (replace(REAL, corrected=-0.01), *CLASSICAL, mixed(0.25, -0.01))
    verdict = _judge(arms)
    assert verdict.kind == "prior_shift"
    assert "minus real_only is +" in verdict.sentence
    assert "Against classical_mixup" in verdict.sentence


def test_a_shift_of_the_prior_is_called_so_where_the_best_fraction_is_0_or_the_corrected_score_falls() -> None:
    verdict = _judge((*BASELINES, mixed(0), mixed(0.25, 0.03, corrected=-0.005)), 1)
    assert (verdict.kind, verdict.best_is_zero) == ("prior_shift", True)
    assert "On validation data the best of the fractions is 0" in verdict.sentence
    assert _judge((*BASELINES, mixed(0), mixed(0.25, 0.03, corrected=-0.02))).kind == "prior_shift"


def _judged_with(kept: Sequence[float]) -> Verdict:
    """Of a raw gain of 0.02 in every seed, of which the correction leaves this in each."""
    runs = []
    for run in planted_runs((*BASELINES, mixed(0.25, 0.02, noise=0.0))):
        metrics = dict(run.metrics)
        if run.arm == "mixed-0.25":
            metrics["test/acc_balanced_corrected"] += kept[run.seed] - 0.02
        runs.append(replace(run, metrics=metrics))
    (verdict,) = judge_each(summarise(runs))
    return verdict


def test_a_gain_of_which_the_correction_leaves_most_is_no_shift() -> None:
    verdict = _judged_with((0.03, -0.01, 0.035, 0.015, 0.03))  # 0.02 ± 0.023
    assert verdict.kind == "no_evidence"
    assert "is not left when the class prior is corrected" in verdict.sentence


def test_a_correction_that_may_take_nothing_shows_no_shift() -> None:
    verdict = _judged_with((0.04, -0.03, 0.045, -0.02, -0.01))  # 0.005 ± 0.04: what is taken does not exclude 0
    found = verdict.comparison("mixed-0.25", "classical_mixup")
    assert found is not None
    assert found.taken is not None
    assert (found.gains_raw, found.gains, found.taken.above) == (True, False, False)
    assert verdict.kind == "no_evidence"


def test_a_control_that_gains_as_much_takes_the_credit() -> None:
    verdict = _judge((*BASELINES, replace(CONTROL, gain=0.03), mixed(0.25, 0.03)))
    assert verdict.kind == "prior_shift"
    assert "The gain is not the generator's: control-0.25" in verdict.sentence


def test_a_gain_that_cannot_be_told_from_a_noisy_control_is_no_evidence() -> None:
    control = replace(CONTROL, gain=0.0, noise=0.03)
    verdict = _judge((*BASELINES, control, mixed(0.25, 0.03)), 4)
    found = verdict.comparison("mixed-0.25", "control-0.25")
    assert found is not None
    assert found.deciding is not None
    assert found.deciding.mean > 0
    assert not found.deciding.above
    assert verdict.kind == "no_evidence"
    assert "cannot be told from what control-0.25 gains" in verdict.sentence


def test_without_a_control_or_with_few_seeds_of_it_that_is_noted() -> None:
    verdict = _judge((*BASELINES, mixed(0.25, 0.03)))
    assert (verdict.kind, verdict.control) == ("helps", None)
    assert any(note.startswith("No control arm") for note in texts(verdict, warn=True))
    null = _judge((*BASELINES, mixed(0.25)), 1)
    assert any(note.startswith("No control arm") for note in texts(null, warn=False))
    few = _judge((*BASELINES, replace(CONTROL, seeds=range(2)), mixed(0.25, 0.03)))
    assert (few.kind, few.control) == ("helps", "control-0.25")
    assert "Against control" not in few.sentence
    assert any("too few seeds in common with control-0.25" in note for note in texts(few))


def test_the_control_of_the_same_fraction_counts_else_it_is_noted() -> None:
    other = Planted("control", 0.02, fraction=0.5, role="control")
    both = _judge((*BASELINES, CONTROL, other, mixed(0.25, 0.03)))
    assert (both.control, both.kind) == ("control-0.25", "helps")
    verdict = _judge((*BASELINES, other, mixed(0.25, 0.04)))
    assert verdict.control == "control-0.5"
    assert any("fills another fraction" in note for note in texts(verdict))


def test_less_than_the_same_arm_at_fraction_0_harms() -> None:
    verdict = _judge((*BASELINES, mixed(0), mixed(0.25, -0.03), mixed(0.5, -0.05)))
    assert (verdict.kind, verdict.best_is_zero) == ("harms", True)
    assert "mixed-0.25 minus mixed-0, the same without them, is -" in verdict.sentence
    assert "the best of the fractions is 0" in verdict.sentence
    assert "Against real data alone it is +" in verdict.sentence


def test_less_than_real_only_harms() -> None:
    verdict = _judge((*BASELINES, mixed(0.25, -0.15)))
    assert verdict.kind == "harms"
    assert "mixed-0.25 minus real_only" in verdict.sentence


def test_the_best_fraction_0_is_no_evidence_whatever_test_data_say() -> None:
    verdict = _judge((*BASELINES, mixed(0, 0.0, val_gain=0.03), mixed(0.25, 0.03, val_gain=0.0)))
    assert (verdict.kind, verdict.best_is_zero) == ("no_evidence", True)
    assert "the best of the fractions on validation data is 0" in verdict.sentence
    assert verdict.arm == "mixed-0.25"


def test_arms_are_chosen_by_validation_data_not_by_test_data() -> None:
    arms = (
        Planted("lucky", 0.03, val_gain=-0.02), *BASELINES,
        mixed(0.1, 0.05, val_gain=0.0), mixed(0.25, 0.0, val_gain=0.05),
    )  # fmt: skip
    verdict = _judge(arms)
    assert (verdict.arm, verdict.best_baseline, verdict.kind) == ("mixed-0.25", "classical_mixup", "no_evidence")


@pytest.mark.parametrize(("seeds", "said"), [([0], "one seed"), ([0, 1], "2 seeds")])
def test_fewer_than_three_seeds_are_too_few(seeds: list[int], said: str) -> None:
    arms = [replace(arm, seeds=seeds) for arm in HELPS]
    verdict = _judge(arms)
    assert verdict.kind == "too_few"
    assert f"No verdict from {said}" in verdict.sentence
    assert "±" not in verdict.sentence


def test_seeds_of_which_none_is_common_are_too_few() -> None:
    verdict = _judge((Planted("classical"), mixed(0.25, 0.05, seeds=range(5, 10))))
    assert verdict.kind == "too_few"
    assert "no seed in common" in verdict.sentence


def test_arms_with_other_seeds_are_compared_over_the_common_ones() -> None:
    verdict = _judge((*BASELINES, mixed(0.25, 0.03, seeds=range(1, 8))))
    found = verdict.comparison("mixed-0.25", "classical_mixup")
    assert found is not None
    assert found.deciding is not None
    assert found.deciding.n == 4
    assert any("Arms with fewer seeds" in note for note in texts(verdict))


def test_an_arm_that_failed_on_most_seeds_is_not_chosen() -> None:
    lucky = Planted("lucky", 0.05, seeds=[2])
    verdict = _judge((*BASELINES, lucky, mixed(0.25, 0.03), mixed(0.5, 0.2, seeds=[0, 1])))
    assert (verdict.arm, verdict.best_baseline, verdict.kind) == ("mixed-0.25", "classical_mixup", "helps")
    for name in ("lucky", "mixed-0.5"):
        assert any("Left out of the choice" in note and name in note for note in texts(verdict, warn=True))


def test_without_corrected_scores_the_raw_ones_decide_and_that_is_said() -> None:
    keys = ("test/acc_balanced_corrected", "val/acc_balanced_corrected")
    arms = (REAL, replace(CLASSICAL[1], without=keys), mixed(0.25, 0.04, corrected=0.0))
    verdict = _judge(arms)
    assert (verdict.kind, verdict.corrected) == ("helps", False)
    assert "class prior NOT corrected" in verdict.sentence
    assert "may be a shift of it" in verdict.sentence
    assert any("corrected scores are missing in classical_mixup" in note for note in texts(verdict))


def test_auroc_needs_no_correction() -> None:
    (verdict,) = judge_each(summarise(planted_runs(HELPS, 0, "auroc")), "auroc")
    assert (verdict.kind, verdict.corrected) == ("helps", True)
    assert "macro AUROC, which no class prior moves" in verdict.sentence


def test_who_trained_longer_does_not_help_and_who_trained_less_does_not_harm() -> None:
    longer = _judge((*BASELINES, mixed(0.25, 0.03, steps=900)))
    assert longer.kind == "no_evidence"
    assert "trained longer (900 steps, classical_mixup 630)" in longer.sentence
    assert any("NOT equal (630 to 900)" in note for note in texts(longer))
    less = _judge((*BASELINES, mixed(0.25, -0.15, steps=300)))
    assert less.kind == "no_evidence"
    assert "trained fewer steps" in less.sentence


def test_unequal_steps_at_equal_epochs_were_asked_for_and_are_said() -> None:
    arms = [replace(arm, equal="epochs", steps=900 if arm.fraction else 630) for arm in HELPS]
    verdict = _judge(arms)
    assert verdict.kind == "helps"
    assert verdict.sentence.endswith("Equal in all arms: epochs, not optimiser steps.")


def test_an_arm_of_equal_wall_clock_time_stands_beside() -> None:
    timed = Planted("classical_mixup_time", 0.05, steps=2000, equal="wall_clock")
    verdict = _judge((*HELPS, timed))
    assert (verdict.kind, verdict.best_baseline, verdict.equal_time) == ("helps", "classical_mixup", timed.name)
    assert "classical_mixup_time trains 2000 steps: mixed-0.25 minus it is -" in verdict.sentence
    assert not any("NOT equal" in note for note in texts(verdict))


def test_an_arm_that_did_not_get_all_of_the_time_is_said() -> None:
    costs = {"train/seconds": 10.0, "cost/fit_seconds": 80.0, "cost/generator_seconds": 10.0}
    arms = [replace(arm, metrics=costs) if arm.fraction else arm for arm in HELPS]
    for seconds, said in (
        (40.0, "With 40 of the 100 seconds (ablation.equal_time_limit),"),
        (95.0, "With the same wall-clock time,"),
    ):
        timed = Planted("timed", steps=2000, equal="wall_clock", metrics={"train/seconds": seconds})
        assert said in _judge((*arms, timed)).sentence


def test_at_equal_wall_clock_time_real_data_alone_are_those_that_had_it() -> None:
    timed = Planted("real_only, equal time", 0.0, steps=2000)
    arms = [replace(arm, equal="wall_clock") for arm in (*BASELINES, timed, mixed(0.25, -0.02))]
    verdict = _judge(arms)
    assert verdict.real_only == timed.name
    assert _judge([arm for arm in arms if arm.name != timed.name]).real_only == "real_only"


def test_at_equal_wall_clock_time_it_is_said_which_arms_had_it_and_which_not_all_of_it() -> None:
    costs = {"train/seconds": 10.0, "cost/fit_seconds": 80.0, "cost/generator_seconds": 10.0}
    arms = [replace(arm, equal="wall_clock", metrics=costs if arm.fraction else {}) for arm in HELPS]
    others = "were given the wall-clock time of the best synthetic arm{}. The others trained 630 steps."
    for seconds, said in ((95.0, ""), (40.0, ", within ablation.equal_time_limit times their steps ({} 40 of 100 s")):
        name = "classical_mixup, equal time"
        timed = Planted(name, 0.005, steps=2000, equal="wall_clock", metrics={"train/seconds": seconds})
        verdict = _judge((*arms, timed))
        said = said.format(f"{name} had") + "econds)" * bool(said)
        assert (verdict.kind, verdict.best_baseline) == ("helps", name)
        assert verdict.sentence.endswith(others.format(said))
        assert not any("wall-clock time" in note for note in texts(verdict)), "once is enough"
    assert "NOT equal in wall-clock time" in _judge(arms).sentence


def test_a_run_that_diverged_has_no_score_and_is_named() -> None:
    runs = [
        replace(run, metrics={**run.metrics, "test/loss": math.nan if run.folder == "mixed-0.25/seed-3" else 0.5})
        for run in planted_runs(HELPS)
    ]
    (verdict,) = judge_each(summarise(runs))
    assert verdict.kind == "helps"
    found = verdict.comparison("mixed-0.25", "classical_mixup")
    assert found is not None
    assert found.deciding is not None
    assert found.deciding.n == 4
    assert "1 of 40 runs diverged, and have no score: mixed-0.25 (seed 3)." in texts(verdict, warn=True)


def test_equal_values_everywhere_are_no_evidence() -> None:
    arms = [replace(arm, noise=0.0, gain=0.0) for arm in HELPS]
    verdict = _judge(arms)
    assert (verdict.kind, verdict.best_is_zero) == ("no_evidence", True)
    found = verdict.comparison("mixed-0.1", "real_only")
    assert found is not None
    assert found.deciding is not None
    assert found.deciding.p == 1.0


def test_one_and_the_same_difference_on_three_seeds_is_not_certainty() -> None:
    arms = [replace(arm, noise=0.0, seeds=range(3)) for arm in (*BASELINES, mixed(0.25, 0.002))]
    assert _judge(arms).kind == "no_evidence"


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (BASELINES, "no arm with synthetic data"),
        ((mixed(0.25),), "no arm without a generator"),
        ((CONTROL, mixed(0.25)), "no arm without a generator"),
        ((), None),
    ],
)
def test_where_there_is_nothing_to_compare_the_sentence_says_so(arms: Sequence[Planted], said: str | None) -> None:
    verdicts = judge_each(summarise(planted_runs(arms)))
    assert [verdict.kind for verdict in verdicts] == (["not_judged"] if said else [])
    assert all(said in verdict.sentence for verdict in verdicts if said)


def test_runs_without_the_metric_are_not_judged() -> None:
    (verdict,) = judge_each(summarise(planted_runs(HELPS, metric="f1")))
    assert (verdict.kind, verdict.sentence) == ("not_judged", "Nothing to judge: no run has test/acc_balanced.")


def test_without_validation_scores_nothing_is_chosen_by_test_data() -> None:
    keys = ("val/acc_balanced", "val/acc_balanced_corrected")
    arms = [replace(arm, without=keys) for arm in HELPS]
    verdict = _judge(arms)
    assert (verdict.kind, verdict.arm, verdict.best_baseline) == ("not_judged", None, None)
    assert "arms are not chosen by test data" in verdict.sentence
    one = _judge([arms[2], arms[6]])
    assert (one.kind, one.arm, one.best_baseline) == ("helps", "mixed-0.25", "classical_mixup")
    assert "the only arm without a generator" in one.sentence


def test_real_only_as_the_best_baseline_is_named_once() -> None:
    verdict = _judge((REAL, mixed(0.25, 0.03)))
    assert (verdict.kind, verdict.best_baseline, verdict.real_only) == ("helps", "real_only", "real_only")
    assert "Against real data alone" not in verdict.sentence
    assert any("is the only arm without a generator" in note for note in texts(verdict))


def test_one_generator_of_all_seeds_is_said() -> None:
    def config(seed: int, generator: int) -> dict[str, Any]:
        return {"real": {"shots": 10, "seed": seed, "augment": None}, "generator": {"seed": generator}}

    def judged(configs: Sequence[dict[str, Any]]) -> Verdict:
        runs = planted_runs(HELPS)
        (verdict,) = judge_each(summarise([replace(run, config=configs[run.seed]) for run in runs]))
        return verdict

    assert judged([config(0, 0)] * 5).sentence.endswith(
        "conditional on one generator: all seeds share it, and generator.seed varies it."
    )
    for configs in ([config(seed, 0) for seed in range(5)], [config(0, seed) for seed in range(5)]):
        verdict = judged(configs)
        assert not verdict.one_generator
        assert "one generator" not in verdict.sentence


def test_seeds_that_draw_no_training_images_share_one_generator() -> None:
    def shares(**real: Any) -> bool:
        runs = planted_runs((*BASELINES, mixed(0.25, 0.03)))
        configs = [{"real": {**real, "seed": seed}, "generator": {"seed": 0}} for seed in range(5)]
        return judge_each(summarise([replace(run, config=configs[run.seed]) for run in runs]))[0].one_generator

    assert shares(shots=None, rare_classes=0, rare_shots=None)
    assert shares(shots=None, rare_classes=None)
    assert shares(shots="auto", root="/own/pairs")
    assert not shares(shots="auto", root=None)
    assert not shares(shots=None, rare_classes=2)
    assert not shares(shots=10, rare_classes=0)
    assert shares(shots=None, voices=None)
    assert not shares(shots=None, voices=4)
    assert not shares(), "of other data it is not known what their seed does"


def test_a_test_set_that_was_scored_twice_is_noted() -> None:
    assert any("scored once in each run" in note for note in texts(_judge(HELPS)))
    twice = replace(CLASSICAL[0], metrics={"test/evaluations": 2.0})
    (said,) = [note for note in texts(_judge((*HELPS, twice))) if "more than once in 5 of" in note]
    assert "interrupted after its test and made again" in said
    assert "too good if anything was chosen by them" in said
    without = [replace(arm, without=("test/evaluations",)) for arm in HELPS]
    assert any("not recorded" in note for note in texts(_judge(without)))


def test_tasks_of_one_sweep_are_judged_apart() -> None:
    def of(task: str, arms: Sequence[Planted], number: int) -> list[Run]:
        return [
            replace(run, arm=f"{run.arm} ({task})", family=f"{run.family} ({task})", task=task)
            for run in planted_runs(arms, number)
        ]

    null = (*BASELINES, mixed(0.25, -0.02), mixed(0.5, -0.02))
    runs = of("real.shots=5", HELPS, 0) + of("real.shots=10", null, 0)
    few, many = judge_each(summarise(runs))
    assert (few.kind, few.task, few.arm) == ("helps", "real.shots=5", "mixed-0.25 (real.shots=5)")
    assert (many.kind, many.task) == ("no_evidence", "real.shots=10")


def test_a_sweep_without_effect_seldom_helps() -> None:
    null = (Planted("real_only"), Planted("classical"), *(mixed(f) for f in (0.25, 0.5, 0.75)))
    kinds = [_judge(null, number).kind for number in range(200)]
    assert kinds.count("helps") <= stats.binom.ppf(0.999, 200, 0.05)


def test_a_shift_of_the_prior_is_called_so_and_seldom_help() -> None:
    shift = (Planted("real_only"), *(mixed(f, 0.03, corrected=0.0) for f in (0.25, 0.5)))
    kinds = [_judge(shift, number).kind for number in range(100)]
    assert kinds.count("helps") <= stats.binom.ppf(0.999, 100, 0.05)
    assert kinds.count("prior_shift") > 80
