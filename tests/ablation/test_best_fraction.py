from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_sweep import Planted, mixed, planted_runs

from lightning_diffaug.ablation.best_fraction import BestFraction, best_fractions
from lightning_diffaug.ablation.metric import chosen_metric
from lightning_diffaug.ablation.summary import summarise

FRACTIONS = (0, 0.1, 0.25, 0.5, 0.75, 1)
VAL = "val/acc_balanced_corrected"


def _peak(at: float, height: float = 0.2, **more: object) -> list[Planted]:
    return [mixed(f, -height * (f - at) ** 2, **more) for f in FRACTIONS]


def _best(arms: list[Planted], number: int = 0) -> list[BestFraction]:
    runs = planted_runs(arms, number)
    return best_fractions(summarise(runs), chosen_metric(runs))


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_a_planted_peak_is_within_the_interval_which_is_narrow(at: float) -> None:
    (found,) = _best([Planted("classical"), *_peak(at)])
    assert found.best == pytest.approx(at, abs=0.05)
    assert found.low is not None
    assert found.high is not None
    assert found.low - 0.02 <= at <= found.high + 0.02
    assert found.high - found.low < 0.2
    assert not found.flat
    assert f"is best at {found.best:.2g} (95% interval {found.low:.2g} to" in found.sentence


def test_the_fit_is_that_of_numpy_on_the_means_of_validation_scores() -> None:
    runs = planted_runs(_peak(0.4), 1)
    (found,) = best_fractions(summarise(runs), chosen_metric(runs))
    means = [np.mean([run.metrics[VAL] for run in runs if run.fraction == f]) for f in FRACTIONS]
    assert found.means == pytest.approx(means)
    a, b, _ = coefficients = np.polyfit(FRACTIONS, means, 2)
    assert found.best == pytest.approx(-b / (2 * a), abs=0.003)
    assert [score for _, score in found.curve] == pytest.approx(np.polyval(coefficients, [x for x, _ in found.curve]))


def test_the_interval_covers_the_planted_peak_as_often_as_it_says() -> None:
    found = [_best(_peak(0.4, 0.05, noise=0.01), number)[0] for number in range(60)]
    covered = sum(f.low <= 0.4 <= f.high for f in found if f.low is not None and f.high is not None)
    assert covered >= 53  # of 57


def test_scores_that_do_not_depend_on_the_fraction_are_flat() -> None:
    flat = [_best([mixed(f) for f in FRACTIONS], number)[0].flat for number in range(40)]
    assert sum(flat) >= 30
    (equal,) = _best([mixed(f, noise=0.0) for f in FRACTIONS])
    assert (equal.flat, equal.low, equal.high) == (True, 0.0, 1.0)
    assert "do not tell which fraction is best" in equal.sentence
    assert "Of the fractions that were run, 0 has the best mean" in equal.sentence, "the smallest of equal ones"


def test_the_optimum_of_the_fit_is_told_from_the_best_of_the_fractions_that_were_run() -> None:
    (found,) = _best(_peak(0.35))
    assert found.best == pytest.approx(0.35, abs=0.04)
    assert found.best not in FRACTIONS
    assert found.sentence.startswith("mixed: a quadratic fit to the validation scores")
    assert found.sentence.endswith("Of the fractions that were run, 0.25 has the best mean.")
    turned = replace(found, lower=True, means=tuple(1 - mean for mean in found.means))
    assert turned.sentence.endswith("0.25 has the best mean.")


@pytest.mark.parametrize(("gain", "at"), [(0.1, 1.0), (-0.1, 0.0)])
def test_the_best_is_never_beyond_the_fractions_of_the_sweep(gain: float, at: float) -> None:
    (found,) = _best([mixed(f, gain * f) for f in FRACTIONS])
    assert (found.best, found.unimodal) == (at, (at, at))


def test_a_curve_that_is_no_parabola_is_said() -> None:
    gains = dict(zip(FRACTIONS, (0.0, 0.3, 0.06, 0.05, 0.04, 0.03), strict=True))
    (found,) = _best([mixed(f, gain) for f, gain in gains.items()])
    assert found.unimodal == (0.1, 0.1)
    assert "a parabola does not fit well" in found.sentence


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ([mixed(0), mixed(0.5)], "2 fractions"),
        ([replace(arm, seeds=range(2)) for arm in _peak(0.3)], f"2 seeds have {VAL}"),
        ([replace(arm, without=("val/acc_balanced", VAL)) for arm in _peak(0.3)], "0 seeds have"),
        ([mixed(0.25, seeds=(0, 1, 2)), mixed(0.5, seeds=(3, 4, 5)), mixed(1)], "0 seeds have"),
    ],
)
def test_too_few_fractions_or_common_seeds_give_no_estimate_but_the_reason(arms: list[Planted], said: str) -> None:
    (found,) = _best(arms)
    assert (found.best, found.low, found.curve) == (None, None, ())
    assert said in found.sentence


def test_arms_without_fractions_have_none() -> None:
    assert _best([Planted("classical"), mixed(0.25), Planted("control", fraction=0.5, role="control")]) == []


def test_seeds_that_lack_a_fraction_are_left_out() -> None:
    arms = _peak(0.3)
    (found,) = _best([replace(arms[0], seeds=range(1, 5)), *arms[1:]])
    assert found.seeds == 4
