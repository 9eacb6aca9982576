from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lightning_diffaug.ablation.statistics import paired_difference, t_interval


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
    assert found.n == 4
    assert found.mean == pytest.approx(np.mean([first[seed] - second[seed] for seed in common]))


def test_no_common_seed_gives_no_difference() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
