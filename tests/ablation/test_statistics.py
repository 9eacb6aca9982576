from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lightning_diffaug.ablation.statistics import bootstrap_interval, holm, paired_difference, t_interval


@pytest.mark.parametrize("n", [3, 5, 20])
@pytest.mark.parametrize("confidence", [0.95, 0.9])
def test_t_interval_is_that_of_a_one_sample_t_test(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(0.9, 0.02, n).tolist()
    found = t_interval(values, confidence)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert (found.n, found.mean) == (n, pytest.approx(np.mean(values)))
    assert found.half_width == pytest.approx((high - low) / 2)


def test_t_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    covered = 0
    for values in draws.tolist():
        found = t_interval(values)
        assert found.half_width is not None
        covered += abs(found.mean) <= found.half_width
    assert covered / len(draws) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("values", [[0.9], [0.9, 0.8]])
def test_fewer_than_three_values_give_a_mean_without_an_interval(values: list[float]) -> None:
    found = t_interval(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.low, found.high, found.half_width) == (None, None, None)


def test_equal_values_give_an_interval_without_width() -> None:
    found = t_interval([0.5, 0.5, 0.5])
    assert (found.low, found.high) == (0.5, 0.5)


def test_no_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        t_interval([])


def test_paired_difference_is_that_of_a_paired_t_test_over_the_common_seeds() -> None:
    rng = np.random.default_rng(1)
    first = {seed: float(rng.normal(0.9, 0.1)) for seed in (4, 0, 1, 2, 3)}
    second = {seed: first[seed] - 0.02 + float(rng.normal(0, 0.01)) for seed in (1, 2, 3, 4)} | {9: 0.1}
    found = paired_difference(first, second)
    assert found is not None
    common = [1, 2, 3, 4]
    test = stats.ttest_rel([first[seed] for seed in common], [second[seed] for seed in common])
    low, high = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.p == pytest.approx(test.pvalue, rel=1e-9)
    assert found.n == 4
    assert found.mean == pytest.approx(np.mean([first[seed] - second[seed] for seed in common]))


def test_no_common_seed_gives_no_difference() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_the_effect_size_is_that_of_hedges_which_bias_leaves_alone() -> None:
    values = np.random.default_rng(0).normal(0.5, 1, (4000, 5))
    effects = [paired_difference(dict(enumerate(row)), dict.fromkeys(range(5), 0.0)) for row in values.tolist()]
    found = [d.effect for d in effects if d is not None and d.effect is not None]
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)
    assert np.mean(values.mean(axis=1) / values.std(axis=1, ddof=1)) > 0.58, "without the correction"


def test_fewer_than_three_pairs_have_neither_interval_nor_p_value() -> None:
    found = paired_difference({0: 0.5, 1: 0.7}, {0: 0.4, 1: 0.5})
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(0.15), 2)
    assert (found.low, found.high, found.p, found.effect) == (None, None, None, None)
    assert not found.above
    assert not found.below


def test_differences_that_are_all_0_are_no_difference() -> None:
    found = paired_difference({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.5, 1: 0.7, 2: 0.9})
    assert found is not None
    assert (found.low, found.high, found.p, found.effect) == (0.0, 0.0, 1.0, None)


@pytest.mark.parametrize(("n", "p"), [(3, 0.25), (6, 0.03125)])
def test_differences_of_one_value_have_the_p_value_of_the_test_of_signs(n: int, p: float) -> None:
    found = paired_difference({s: 0.1 * s + 0.01 for s in range(n)}, {s: 0.1 * s for s in range(n)})
    assert found is not None
    assert (found.p, found.effect) == (p, None)
    assert p == stats.binomtest(n, n).pvalue
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))


def test_holm_multiplies_the_least_p_value_by_the_number_of_tests_and_keeps_the_order() -> None:
    assert holm([0.04, None, 0.01, 0.03]) == pytest.approx([0.06, None, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.01, 0.012]) == pytest.approx([0.02, 0.02]), "never below that of a smaller one"
    assert holm([]) == []


def test_holm_keeps_the_rate_of_any_false_rejection() -> None:
    ps = np.random.default_rng(0).uniform(size=(4000, 5))
    wrong = sum(any(p is not None and p < 0.05 for p in holm(row)) for row in ps.tolist())
    assert wrong / 4000 == pytest.approx(0.05, abs=0.012)


def test_bootstrap_interval_is_that_of_scipy_and_repeats() -> None:
    values = np.random.default_rng(2).gamma(2, size=20).tolist()
    found = bootstrap_interval(values, np.median, seed=3)
    expected = stats.bootstrap(
        (values,), np.median, n_resamples=2000, method="BCa", random_state=np.random.default_rng(3)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.median(values))
    assert bootstrap_interval(values, np.median, seed=3) == found
    assert bootstrap_interval(values, np.median, seed=4) != found


def test_bootstrap_of_equal_values_has_no_width_and_of_two_no_interval() -> None:
    same = bootstrap_interval([0.5] * 4)
    assert (same.low, same.high) == (0.5, 0.5)
    assert bootstrap_interval([0.5, 0.7]).low is None
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([])
