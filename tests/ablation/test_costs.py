from __future__ import annotations

import numpy as np
import pytest
from planted_sweep import Planted, mixed, planted_runs
from scipy import stats

from lightning_diffaug.ablation.costs import ArmCosts, arm_costs
from lightning_diffaug.ablation.metric import chosen_metric
from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.ablation.summary import summarise

SPENT = {
    "cost/generator_seconds": 4.0, "cost/fit_seconds": 20.0, "cost/samples": 1024.0, "cost/passes_per_sample": 2.5,
    "train/seconds": 3.0, "train/wait_seconds": 1.0,
}  # fmt: skip
FREE = dict.fromkeys(SPENT, 0.0)


def _costs(runs: list[Run], corrected: bool = True) -> dict[str, ArmCosts]:
    found = arm_costs(summarise(runs), chosen_metric(runs), "real_only", corrected)
    return {costs.arm: costs for costs in found}


def _of(runs: list[Run], arm: str, key: str) -> list[float]:
    return [run.metrics[key] for run in runs if run.arm == arm]


@pytest.mark.parametrize(("corrected", "key"), [(True, "test/acc_balanced_corrected"), (False, "test/acc_balanced")])
def test_the_price_is_seconds_of_fit_and_generation_for_each_point_over_real_only(corrected: bool, key: str) -> None:
    runs = planted_runs([Planted("real_only", metrics=FREE), mixed(0.25, 0.06, corrected=0.02, metrics=SPENT)])
    costs = _costs(runs, corrected)["mixed-0.25"]
    gains = np.subtract(_of(runs, "mixed-0.25", key), _of(runs, "real_only", key))
    low, high = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert costs.price == pytest.approx(24 / (100 * gains.mean()))
    assert (costs.price_low, costs.price_high) == pytest.approx((24 / (100 * high), 24 / (100 * low)))
    assert (costs.generator_seconds, costs.fit_seconds, costs.samples) == (4.0, 20.0, 1024.0)
    assert (costs.passes_per_sample, costs.train_seconds, costs.wait_seconds) == (2.5, 3.0, 1.0)


def test_no_gain_has_no_price_and_an_uncertain_one_no_upper_bound() -> None:
    arms = [Planted("real_only"), mixed(0.25, -0.02, metrics=SPENT), mixed(0.5, 0.004, noise=0.02, metrics=SPENT)]
    found = _costs(planted_runs(arms, 1))
    loss, uncertain = found["mixed-0.25"], found["mixed-0.5"]
    assert loss.gain is not None
    assert (loss.price, loss.price_low, loss.price_high) == (None, None, None)
    assert uncertain.gain is not None
    assert uncertain.gain.mean > 0
    assert uncertain.price is not None
    assert uncertain.price_low is not None
    assert uncertain.price_low < uncertain.price
    assert uncertain.price_high is None


def test_arms_without_a_generator_or_without_figures_have_no_price() -> None:
    arms = [Planted("real_only", metrics=FREE), Planted("classical", 0.05, metrics=FREE), mixed(0.25, 0.05)]
    found = _costs(planted_runs(arms))
    assert found["real_only"].gain is None
    assert found["classical"].gain is not None
    assert found["classical"].price is None
    assert (found["mixed-0.25"].price, found["mixed-0.25"].samples) == (None, None)


def test_without_real_only_there_is_no_gain() -> None:
    costs = _costs(planted_runs([Planted("classical"), mixed(0.25, 0.05, metrics=SPENT)]))["mixed-0.25"]
    assert (costs.gain, costs.price, costs.fit_seconds) == (None, None, 20.0)
