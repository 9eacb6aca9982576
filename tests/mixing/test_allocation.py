from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing.allocation import check_mode, epoch_draws, largest_remainder, quotas, targets
from lightning_diffaug.mixing.schedule import Constant, Linear

RARE = [5] * 5 + [80] * 5
FRACTIONS = [0, 0.01, 0.1, 0.25, "1/3", 0.5, 0.6, 0.75, 0.9, 0.99, 1]


def random_counts(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 10 ** int(rng.integers(1, 5)), int(rng.integers(1, 30)))
    if seed % 4 == 0:
        counts[0] = 0
    counts[-1] = max(counts[-1], 1)
    return counts


def water_level_by_bisection(counts, total, cap):
    """The definition, solved without the formula under test."""
    low, high = 0.0, float(counts.max() + total + 1)
    for _ in range(200):
        level = (low + high) / 2
        filled = np.minimum(np.maximum(level - counts, 0), cap)
        low, high = (level, high) if filled.sum() < total else (low, level)
    return filled


def test_the_contracts_check_rare_classes_get_half_and_common_ones_none():
    t = targets(RARE, 0.25, "replace", "classes", "deficit")
    assert epoch_draws(sum(RARE), 0.25, "replace") == (425, Fraction(1, 4))
    np.testing.assert_allclose(t.real + t.synthetic, 42.5)
    np.testing.assert_allclose(t.synthetic, [21.25] * 5 + [0] * 5, atol=1e-12)
    assert (t.synthetic[5:] == 0).all()
    assert t.real_per_class
    assert not t.cap_raised


@pytest.mark.parametrize(
    ("mode", "balance", "allocation"),
    list(product(["replace", "append"], ["none", "classes"], ["as_real", "deficit"])),
)
def test_totals_are_what_the_contract_says_for_any_data(mode, balance, allocation):
    for seed, fraction in product(range(20), FRACTIONS):
        if mode == "append" and fraction == 1:
            continue
        n = random_counts(seed)
        draws, exact = epoch_draws(int(n.sum()), fraction, mode)
        t = targets(n, fraction, mode, balance, allocation)
        assert (t.synthetic >= 0).all()
        assert (t.real >= 0).all()
        assert (t.synthetic[n == 0] == 0).all()
        np.testing.assert_allclose(t.synthetic.sum(), float(exact * draws), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose((t.real + t.synthetic).sum(), draws, rtol=1e-9)
        if mode == "append":
            np.testing.assert_allclose(t.real, n)
        elif balance == "classes":
            np.testing.assert_allclose((t.real + t.synthetic)[n > 0], draws / (n > 0).sum(), rtol=1e-9)
        else:
            np.testing.assert_allclose(t.real, float(1 - exact) * n, rtol=1e-9)
        assert t.real_per_class == (mode == "replace" and balance == "classes")


@pytest.mark.parametrize("max_class_share", [0.3, 0.75, 1])
@pytest.mark.parametrize("balance", ["none", "classes"])
def test_deficit_fills_the_classes_that_lack_and_keeps_the_cap(balance, max_class_share):
    for seed, fraction in product(range(24), FRACTIONS):
        n = random_counts(seed).astype(float)
        f = float(Fraction(str(fraction)))
        t = targets(n, fraction, "replace", balance, "deficit", max_class_share)
        total = f * n.sum()
        assert t.cap_raised == (f > max_class_share)
        if f >= max_class_share:
            # The cap is raised alike for all: each class has the share f.
            both = (t.real + t.synthetic)[n > 0]
            np.testing.assert_allclose(t.synthetic[n > 0], f * both, rtol=1e-9)
            continue
        if balance == "classes":
            cap = np.where(n > 0, max_class_share * n.sum() / (n > 0).sum(), 0)
        elif max_class_share == 1:
            cap = np.where(n > 0, np.inf, 0)
        else:
            cap = (1 - f) * n * max_class_share / (1 - max_class_share)
        assert (t.synthetic <= cap * (1 + 1e-9)).all()
        to_top = np.minimum(np.maximum(n.max() - n, 0), cap)
        if total <= to_top.sum():
            expected = water_level_by_bisection(n, total, cap)
            np.testing.assert_allclose(t.synthetic, expected, rtol=1e-6, atol=1e-6)
        elif np.isfinite(cap).all():
            # What is left goes to all in proportion to the room under the cap.
            rest, room = t.synthetic - to_top, cap - to_top
            np.testing.assert_allclose(rest, room * rest.sum() / room.sum(), rtol=1e-6, atol=1e-6)
        else:
            rest = t.synthetic - to_top
            np.testing.assert_allclose(rest, n * rest.sum() / n.sum(), rtol=1e-6, atol=1e-6)


def test_deficit_equals_as_real_on_balanced_data():
    for mode, balance, fraction in product(["replace", "append"], ["none", "classes"], FRACTIONS[:-1]):
        a, b = (targets([40] * 7, fraction, mode, balance, kind) for kind in ("as_real", "deficit"))
        np.testing.assert_allclose(a.synthetic, b.synthetic, rtol=1e-12)
        np.testing.assert_allclose(a.real, b.real, rtol=1e-12)


def test_as_real_follows_the_data():
    t = targets([10, 30, 60], 0.5)
    np.testing.assert_allclose(t.synthetic, [5, 15, 30])
    np.testing.assert_allclose(t.real, [5, 15, 30])


def test_as_real_that_meets_a_balanced_total_hands_on_the_rest_and_says_so():
    t = targets([10, 10, 100], 0.5, "replace", "classes", "as_real")
    assert t.clipped
    np.testing.assert_allclose(t.synthetic, [10, 10, 40])
    np.testing.assert_allclose(t.real + t.synthetic, 40)
    assert not targets([10, 10, 100], 0.25, "replace", "classes", "as_real").clipped
    assert not targets([40, 40, 40], 1, "replace", "classes", "as_real").clipped


def test_append_levels_the_totals_as_far_as_it_reaches_and_says_what_remains():
    t = targets([10, 20, 90], 0.25, "append", "classes", "as_real")
    np.testing.assert_allclose(t.synthetic, [25, 15, 0])
    assert t.imbalance == pytest.approx(90 - 160 / 3)
    level = targets([10, 20, 90], 0.75, "append", "classes", "deficit")
    np.testing.assert_allclose(level.real + level.synthetic, 160)
    assert level.imbalance == 0
    assert targets([10, 20, 90], 0.25, "append", "none").imbalance == 0


def test_append_has_every_real_sample_once_and_a_whole_number_of_synthetic_ones():
    assert epoch_draws(100, 0.25, "append") == (133, Fraction(33, 133))
    for total, fraction in product([1, 7, 425, 10**7], FRACTIONS[:-1]):
        draws, exact = epoch_draws(total, fraction, "append")
        assert (1 - exact) * draws == total
        assert abs(draws - total / (1 - Fraction(str(fraction)))) <= Fraction(1, 2)


def test_append_refuses_a_fraction_of_1_and_a_schedule():
    with pytest.raises(ConfigurationError, match=r"data\.synthetic_fraction=1 with data\.mode=append"):
        targets(RARE, 1, "append")
    with pytest.raises(ConfigurationError, match=r"data\.mode=append"):
        check_mode(Constant(1), "append")
    with pytest.raises(ConfigurationError, match=r"Set data\.mode=replace"):
        check_mode(Linear(0.5, 0, 3), "append")
    check_mode(Linear(0.5, 0, 3), "replace")
    check_mode(Constant(1), "replace")
    check_mode(Linear(0.5, 0.5, 3), "append")


def test_shares_by_class_are_proportions_by_name_then_index():
    t = targets([40, 40, 40], 0.25, allocation={"cat": 3, 2: 1}, class_names=("cat", "dog", "eel"))
    np.testing.assert_allclose(t.synthetic, [22.5, 0, 7.5])
    by_name = targets([40, 40, 40], 0.25, allocation={0: 1}, class_names=("2", "1", "0"))
    np.testing.assert_allclose(by_name.synthetic, [0, 0, 30])
    level = targets([40, 40, 40], 0.25, "replace", "classes", {1: 1})
    np.testing.assert_allclose(level.real, [40, 10, 40])


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        ({"dog": 1}, r"names the class 'dog'.*cat, 1, empty"),
        ({3: 1}, r"names the class 3"),
        ({"cat": -1}, r"data\.allocation\.cat=-1 is not a share"),
        ({"cat": float("nan")}, r"data\.allocation\.cat=nan is not a share"),
        ({"cat": float("inf")}, r"data\.allocation\.cat=inf is not a share"),
        ({"cat": "much"}, r"data\.allocation\.cat='much' is not a share"),
        ({"cat": True}, r"data\.allocation\.cat=True is not a share"),
        ({"cat": 1, 0: 1}, r"names the class 'cat' twice"),
        ({"empty": 1}, r"asks for synthetic samples of 'empty', which has no real training sample"),
        ({"cat": 0}, r"gives no class a share above 0"),
        ({}, r"gives no class a share above 0"),
        ("surplus", r"data\.allocation='surplus' is unknown.*as_real or deficit"),
    ],
)
def test_a_wrong_allocation_is_refused_with_its_key(allocation, message):
    for balance in ("none", "classes"):
        with pytest.raises(ConfigurationError, match=message) as caught:
            targets([40, 40, 0], 0.25, "replace", balance, allocation, class_names=("cat", "1", "empty"))
        assert "data.allocation" in str(caught.value)
    with pytest.raises(ConfigurationError, match=message):
        quotas([40, 40, 0], allocation, class_names=("cat", "1", "empty"))


def test_shares_above_a_balanced_total_are_refused_with_the_remedies():
    with pytest.raises(ConfigurationError, match=r"more than a class's total: 60\.0 .* of 40\.0 for 'eel'.*") as caught:
        targets([40, 40, 40], 0.5, "replace", "classes", {"eel": 1}, class_names=("cat", "dog", "eel"))
    for key in ("data.allocation.eel", "data.synthetic_fraction", "data.balance=none"):
        assert key in str(caught.value)
    targets([40, 40, 40], "1/3", "replace", "classes", {2: 1})


@pytest.mark.parametrize(("balance", "allocation"), [("classes", "as_real"), ("none", "deficit"), ("none", {0: 1})])
def test_data_without_labels_takes_only_the_data_as_it_is(balance, allocation):
    with pytest.raises(ConfigurationError, match=r"data\.balance=none and data\.allocation=as_real"):
        targets([100], 0.25, "replace", balance, allocation, labelled=False)
    t = targets([100], 0.25, labelled=False)
    assert not t.labelled
    np.testing.assert_allclose(t.synthetic, [25])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "add"}, r"data\.mode='add' is unknown. Set data\.mode to replace or append"),
        ({"balance": "class"}, r"data\.balance='class' is unknown"),
        ({"max_class_share": 1.5}, r"data\.max_class_share=1\.5 is not in \[0, 1\]"),
        ({"max_class_share": float("nan")}, r"data\.max_class_share=nan"),
        ({"fraction": 2}, r"data\.synthetic_fraction"),
        ({"counts": []}, r"at least one sample"),
        ({"counts": [0, 0]}, r"at least one sample"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        targets(**{"counts": RARE, "fraction": 0.25, **settings})


def test_quotas_are_the_shares_at_a_quarter_with_a_tenth_uniform():
    np.testing.assert_allclose(quotas(RARE, "deficit"), [0.19] * 5 + [0.01] * 5)
    np.testing.assert_allclose(quotas([10, 30, 60], "as_real"), 0.9 * np.array([0.1, 0.3, 0.6]) + 0.1 / 3)
    np.testing.assert_allclose(quotas([10, 30, 60], {2: 2}), [0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3])


def test_quotas_reach_every_class_that_has_real_samples():
    for seed, allocation in product(range(40), ["as_real", "deficit"]):
        n = random_counts(seed)
        shares = quotas(n, allocation)
        assert shares.sum() == pytest.approx(1)
        assert (shares[n > 0] >= 0.1 / (n > 0).sum() - 1e-12).all()
        assert (shares[n == 0] == 0).all()


def test_largest_remainder_keeps_the_sum_and_stays_within_one_of_the_quota():
    rng = np.random.default_rng(0)
    for _ in range(500):
        size = int(rng.integers(1, 40))
        reals, total = rng.random(size) * rng.integers(0, 2, size), int(rng.integers(0, 2000))
        reals[0] += 0.1
        whole = largest_remainder(reals, total, rng.permutation(size))
        assert whole.dtype == np.int64
        assert whole.sum() == total
        assert np.abs(whole - reals * total / reals.sum()).max() < 1
        assert (whole[reals == 0] == 0).all()


def test_largest_remainder_breaks_ties_by_order_also_where_floats_are_not_exact():
    thirds = np.array([0.1 + 0.2, 0.3, 0.9 / 3])  # Equal but for the last bits.
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        assert largest_remainder(thirds, 4, order)[order[0]] == 2
    assert largest_remainder([42.5] * 10, 425, range(10)).tolist() == [43] * 5 + [42] * 5


def test_rounding_favours_no_class_over_many_orders():
    rng = np.random.default_rng(0)
    mean = np.mean([largest_remainder([21.25] * 5, 106, rng.permutation(5)) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(mean, 21.2, atol=0.03)


def test_largest_remainder_respects_upper_bounds():
    assert largest_remainder([3, 1, 1], 10, [0, 1, 2], upper=[4, 4, 4]).tolist() == [4, 3, 3]
    assert largest_remainder([1, 0], 10, [0, 1], upper=[7, 5]).tolist() == [7, 3]
    rng = np.random.default_rng(1)
    for _ in range(300):
        size = int(rng.integers(1, 20))
        upper = rng.integers(0, 50, size)
        total = int(rng.integers(0, upper.sum() + 1))
        whole = largest_remainder(rng.random(size) + 1e-3, total, rng.permutation(size), upper)
        assert whole.sum() == total
        assert (whole <= upper).all()
        assert (whole >= 0).all()


@pytest.mark.parametrize(
    ("reals", "total", "upper"),
    [([0.0, 0.0], 1, None), ([-1.0, 2.0], 1, None), ([1.0], 2, [1]), ([1.0], -1, None)],
)
def test_largest_remainder_refuses_what_has_no_solution(reals, total, upper):
    with pytest.raises(ValueError, match="cannot be rounded"):
        largest_remainder(reals, total, range(len(reals)), upper)
