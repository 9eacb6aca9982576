from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from lightning_diffaug.mixing.allocation import epoch_draws, targets
from lightning_diffaug.mixing.plan import EpochPlan

RARE = [5] * 5 + [80] * 5
FRACTIONS = [0, 0.01, 0.1, 0.25, "1/3", 0.5, 0.9, 0.999, 1]


def members_of(counts, seed=0):
    """Real indices of each class, interleaved as in a shuffled data set."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    return [np.flatnonzero(labels == c) for c in range(len(counts))]


def window_of(num_classes, rows):
    labels = np.arange(rows) % num_classes
    return [np.flatnonzero(labels == c) for c in range(num_classes)]


def make(counts=RARE, fraction=0.25, mode="replace", balance="classes", allocation="deficit", **settings):
    draws, exact = epoch_draws(sum(counts), fraction, mode)
    settings = {"seed": 0, "epoch": 0, "draws": draws, "window_rows": window_of(len(counts), 200), **settings}
    t = targets(counts, fraction, mode, balance, allocation, labelled=settings.pop("labelled", True))
    members = members_of(counts)
    return EpochPlan.build(fraction=exact, targets=t, **{"members": members, **settings})


def labels_of(members):
    labels = np.empty(sum(m.size for m in members), np.int64)
    for c, own in enumerate(members):
        labels[own] = c
    return labels


def same(a, b):
    return all((getattr(a, k) == getattr(b, k)).all() for k in ("real_index", "window_row", "cls"))


def test_the_contracts_check_in_whole_draws():
    for epoch in range(20):
        plan = make(epoch=epoch, carried=Fraction(425, 4) * epoch)
        made = plan.made(425)
        both = made.real_by_class + made.synthetic_by_class
        assert made.draws == both.sum() == 425
        assert made.synthetic == math.floor(Fraction(425, 4) * (epoch + 1)) - math.floor(Fraction(425, 4) * epoch)
        assert set(both) == {42, 43}
        assert set(made.synthetic_by_class[:5]) <= {21, 22}
        assert (made.synthetic_by_class[5:] == 0).all()


def test_every_position_is_either_real_or_synthetic_and_of_its_class():
    members, rows = members_of(RARE), window_of(10, 200)
    for balance, allocation, fraction in product(["none", "classes"], ["as_real", "deficit"], FRACTIONS):
        plan = make(RARE, fraction, "replace", balance, allocation, world_size=5, draws=85)
        synthetic = plan.window_row >= 0
        assert ((plan.real_index >= 0) ^ synthetic).all()
        assert (plan.cls[~synthetic] == labels_of(members)[plan.real_index[~synthetic]]).all()
        assert (plan.cls[synthetic] == labels_of(rows)[plan.window_row[synthetic]]).all()
        assert plan.real_index.dtype == plan.window_row.dtype == plan.cls.dtype == np.int64


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_the_share_is_exact_in_every_batch_on_every_rank_and_over_epochs(world_size):
    rng = random.Random(world_size)
    for _ in range(40):
        f = Fraction(rng.choice([*FRACTIONS, rng.randint(0, 10**9) / 10**9]))
        f = f.limit_denominator(10**9)
        draws, batch = rng.randint(1, 120), rng.randint(1, 40)
        carried, total, per_rank = Fraction(0), 0, [0] * world_size
        for epoch in range(5):
            t = targets(RARE, f, "replace", "classes", "as_real")
            plan = EpochPlan.build(
                seed=1,
                epoch=epoch,
                draws=draws,
                fraction=f,
                targets=t,
                members=members_of(RARE),
                window_rows=window_of(10, 200),
                world_size=world_size,
                carried=carried,
            )
            for rank in range(world_size):
                for start in range(0, draws, batch):
                    stop = min(start + batch, draws)
                    n = int((plan.rank_slice(rank, start, stop).window_row >= 0).sum())
                    assert math.floor(f * (stop - start)) <= n <= math.ceil(f * (stop - start))
                    per_rank[rank] += n
                    # The remainder is carried: never more than one off in all, however long it goes on.
                    assert abs(per_rank[rank] - (carried + f * stop)) < 1
            total += plan.made(draws).synthetic
            carried += f * draws
            assert total == math.floor(world_size * carried)


def test_a_batch_that_divides_evenly_has_exactly_its_share():
    plan = make([64] * 10, 0.25, draws=640)
    for start in range(0, 640, 64):
        assert (plan.rank_slice(0, start, start + 64).window_row >= 0).sum() == 16


def test_huge_denominators_and_carried_sums_are_still_exact():
    f = Fraction(123456789, 10**9 - 7)
    carried = Fraction(10**40 + 1, 999999937)  # Beyond int64, with a denominator of its own.
    t = targets([500], f)
    settings = {"seed": 0, "epoch": 0, "fraction": f, "targets": t, "window_rows": [np.arange(9)]}
    plan = EpochPlan.build(**settings, draws=500, members=[np.arange(500)], world_size=3, carried=carried)
    for rank, stop in product(range(3), range(0, 501, 25)):
        phase = carried + Fraction(rank, 3)
        expected = math.floor(phase + f * stop) - math.floor(phase)
        assert (plan.rank_slice(rank, 0, stop).window_row >= 0).sum() == expected


def test_append_draws_each_real_sample_exactly_once_in_every_epoch():
    for balance, shuffle, fraction in product(["none", "classes"], [True, False], FRACTIONS[:-1]):
        draws, exact = epoch_draws(425, fraction, "append")
        for epoch in range(3):
            plan = make(RARE, fraction, "append", balance, epoch=epoch, carried=exact * draws * epoch, shuffle=shuffle)
            real = plan.real_index[plan.real_index >= 0]
            assert sorted(real.tolist()) == list(range(425))
    draws = epoch_draws(425, 0.25, "append")[0]
    assert draws % 7 == 0
    plan = make(RARE, 0.25, "append", world_size=7, draws=draws // 7)
    assert sorted(plan.real_index[plan.real_index >= 0].tolist()) == list(range(425))


def test_without_balance_the_real_order_of_a_fraction_is_a_prefix_of_that_of_0():
    for shuffle in (True, False):
        whole = make(RARE, 0, balance="none", shuffle=shuffle).real_index
        assert sorted(whole.tolist()) == list(range(425))
        for fraction in FRACTIONS[1:]:
            order = make(RARE, fraction, balance="none", shuffle=shuffle).real_index
            order = order[order >= 0]
            assert (order == whole[: order.size]).all()


def test_with_balance_each_classes_real_order_is_a_prefix_of_that_of_0():
    whole = make(RARE, 0)
    for fraction in FRACTIONS[1:]:
        plan = make(RARE, fraction)
        for c in range(10):
            order, reference = (p.real_index[(p.cls == c) & (p.real_index >= 0)] for p in (plan, whole))
            assert (order == reference[: order.size]).all()


def test_classes_without_synthetic_draws_keep_their_relative_order_whatever_the_fraction():
    def common(plan):
        return plan.real_index[plan.cls >= 5]

    whole = common(make(RARE, 0))
    for fraction in (0.01, 0.1, 0.25, "1/3"):
        plan = make(RARE, fraction)
        assert plan.planned[5:].sum() == 0
        assert (common(plan) == whole).all()


def test_real_samples_of_a_class_come_again_only_when_all_are_used_up():
    plan = make(RARE, 0.25)
    for c in range(10):
        own = members_of(RARE)[c]
        order = plan.real_index[(plan.cls == c) & (plan.real_index >= 0)]
        for start in range(0, order.size, own.size):
            part = order[start : start + own.size]
            assert len(set(part.tolist())) == part.size
    # Each round has an order of its own.
    first = plan.real_index[(plan.cls == 0) & (plan.real_index >= 0)][:20].reshape(4, 5)
    assert len({tuple(row) for row in first.tolist()}) > 1


def test_more_draws_than_samples_go_on_with_a_new_permutation():
    plan = make([30], 0, balance="none", draws=70)
    assert sorted(plan.real_index[:30].tolist()) == sorted(plan.real_index[30:60].tolist()) == list(range(30))
    assert (plan.real_index[:30] != plan.real_index[30:60]).any()
    assert len(set(plan.real_index[60:].tolist())) == 10


def test_classes_of_one_size_have_orders_of_their_own():
    members, rows = members_of([40, 40]), window_of(2, 20)
    plan = make([40, 40], 0.25, allocation="as_real", window_rows=rows)
    for column, own in ((plan.real_index, members), (plan.window_row, rows)):
        first, second = (np.searchsorted(own[c], column[(plan.cls == c) & (column >= 0)])[:10] for c in (0, 1))
        assert (first != second).any()


def test_orders_differ_by_seed_and_epoch_and_repeat_with_them():
    base = make()
    assert same(base, make())
    for other in (make(seed=1), make(epoch=1), make(seed=2**40), make(seed=-1)):
        assert (base.real_index != other.real_index).mean() > 0.5
        assert (base.window_row != other.window_row).any()


def test_the_global_random_state_is_neither_read_nor_moved():
    np.random.seed(0)
    random.seed(0)
    before = np.random.get_state()[1].copy(), random.getstate()
    first = make()
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]
    np.random.seed(1)
    random.seed(1)
    assert same(first, make())


def test_without_shuffle_real_samples_come_in_the_order_of_the_data_in_every_epoch():
    plan = make(RARE, 0, balance="none", shuffle=False)
    assert plan.real_index.tolist() == list(range(425))
    assert same(*(make([40] * 4, 0, epoch=e, shuffle=False) for e in (0, 3)))
    balanced = [make(RARE, 0.25, epoch=e, shuffle=False) for e in (0, 4)]
    for c in range(10):
        for p in balanced:
            order = p.real_index[(p.cls == c) & (p.real_index >= 0)]
            assert (order == np.resize(members_of(RARE)[c], order.size)).all()


def test_ranks_share_out_the_positions_and_slices_are_views():
    plan = make(RARE, 0.25, world_size=4, draws=106)
    parts = [plan.rank_slice(r, 0, 106) for r in range(4)]
    assert (np.stack([p.real_index for p in parts], 1).ravel() == plan.real_index).all()
    assert (np.stack([p.window_row for p in parts], 1).ravel() == plan.window_row).all()
    assert (np.stack([p.cls for p in parts], 1).ravel() == plan.cls).all()
    piece = plan.rank_slice(2, 17, 40)
    assert (piece.real_index == parts[2].real_index[17:40]).all()
    assert piece.real_index.base is not None
    assert plan.rank_slice(0, 5, 5).cls.size == 0
    for bad in ((4, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 107), (0, 5, 4)):
        with pytest.raises(ValueError, match="not within"):
            plan.rank_slice(*bad)


def test_without_replacement_over_ranks_when_draws_equal_samples():
    plan = make([40] * 10, 0, balance="none", world_size=4, draws=100)
    parts = [set(plan.rank_slice(r, 0, 100).real_index.tolist()) for r in range(4)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 400


def test_made_counts_the_first_draws_of_all_ranks():
    plan = make(RARE, 0.25, world_size=4, draws=106)
    for t in (0, 1, 50, 106):
        made = plan.made(t)
        parts = [plan.rank_slice(r, 0, t) for r in range(4)]
        cls, row = np.concatenate([p.cls for p in parts]), np.concatenate([p.window_row for p in parts])
        assert made.draws == 4 * t
        assert made.synthetic == (row >= 0).sum() == made.synthetic_by_class.sum()
        for c in range(10):
            assert made.real_by_class[c] == ((cls == c) & (row < 0)).sum()
            assert made.synthetic_by_class[c] == ((cls == c) & (row >= 0)).sum()
    with pytest.raises(ValueError, match="not within"):
        plan.made(107)


def test_window_rows_of_a_class_are_used_evenly_when_there_are_fewer_than_draws():
    plan = make(RARE, 0.25, window_rows=window_of(10, 43))
    uses = np.bincount(plan.window_row[plan.window_row >= 0], minlength=43)
    assert uses.sum() == plan.made(425).synthetic
    for rows in window_of(10, 43):
        assert uses[rows].max() - uses[rows].min() <= 1


def test_window_rows_come_in_another_order_each_epoch():
    orders = [make(RARE, 0.25, epoch=e) for e in (0, 1)]
    first, second = (p.window_row[(p.cls == 0) & (p.window_row >= 0)][:20] for p in orders)
    assert sorted(first.tolist()) == sorted(second.tolist()) == window_of(10, 200)[0].tolist()
    assert (first != second).any()


@pytest.mark.parametrize("balance", ["none", "classes"])
def test_a_substituted_draw_keeps_its_position_and_class(balance):
    full = make(RARE, 0.25, balance=balance)
    for missing in ([0], [1, 7], range(10)):
        available = np.ones(10)
        available[list(missing)] = 0
        plan = make(RARE, 0.25, balance=balance, available=available)
        assert (plan.cls == full.cls).all()
        lost = np.isin(full.cls, list(missing)) & (full.window_row >= 0)
        assert (plan.real_index[lost] >= 0).all()
        assert (plan.window_row[~lost] == full.window_row[~lost]).all()
        assert (plan.real_index[~lost] == full.real_index[~lost]).all()
        labels = labels_of(members_of(RARE))
        assert (labels[plan.real_index[lost]] == full.cls[lost]).all()
        assert plan.substituted.sum() == lost.sum() == full.made(425).synthetic - plan.made(425).synthetic
        assert (plan.planned == full.planned).all()


def test_a_class_without_a_row_in_the_window_is_served_by_real_samples():
    rows = window_of(10, 200)
    rows = [rows[0][:0], *rows[1:]]
    plan = make(RARE, 0.25, window_rows=rows)
    made = plan.made(425)
    assert plan.planned[0] > 0
    assert made.synthetic_by_class[0] == 0
    assert made.real_by_class[0] in (42, 43)
    empty = make(RARE, 0.25, window_rows=[r[:0] for r in rows])
    assert empty.made(425).synthetic == 0
    assert (empty.window_row == -1).all()


def test_a_partly_available_class_is_substituted_to_the_rounding_and_evenly():
    plan = make([2000, 2000], 0.5, allocation="as_real", window_rows=window_of(2, 64), available=[0.3, 1])
    assert plan.planned.tolist() == [1000, 1000]
    assert plan.substituted.tolist() == [700, 0]
    full = make([2000, 2000], 0.5, allocation="as_real", window_rows=window_of(2, 64))
    lost = (full.window_row >= 0) & (plan.window_row < 0)
    for part in np.array_split(lost, 8):
        assert abs(part.sum() - 700 / 8) < 25


@pytest.mark.parametrize(("share", "served"), [(0.05, 0), (0.1, 1), (0.3, 2), (0.5, 3), (0.9, 5), (0.95, 5)])
def test_what_the_window_serves_is_rounded_to_the_nearest(share, served):
    plan = make([20], 0.25, balance="none", allocation="as_real", window_rows=window_of(1, 9), available=[share])
    assert plan.planned.tolist() == [5]
    assert plan.made(20).synthetic == served


def test_substitutes_are_the_samples_that_the_epoch_has_not_used_yet():
    for counts, labelled in (([200], False), ([40, 160], True)):
        num_classes = len(counts)
        plan = make(
            counts,
            0.25,
            balance="none",
            allocation="as_real",
            labelled=labelled,
            available=np.zeros(num_classes),
            window_rows=window_of(num_classes, 30),
        )
        uses = np.bincount(plan.real_index, minlength=200)
        # The real order does not know how many of each class it comes to, so a few repeat with labels.
        assert (uses > 1).sum() <= (12 if labelled else 0)
        assert plan.substituted.sum() == 50
    balanced = make([100, 100], 0.25, available=[0, 0], window_rows=window_of(2, 30))
    assert sorted(balanced.real_index.tolist()) == list(range(200))


def test_data_without_labels_is_planned_as_one_class():
    plan = make([300], 0.25, balance="none", allocation="as_real", labelled=False)
    assert (plan.cls == -1).all()
    made = plan.made(300)
    assert made.real_by_class.tolist() == [225]
    assert made.synthetic_by_class.tolist() == [75]
    assert len(set(plan.real_index[plan.real_index >= 0].tolist())) == 225


def test_all_synthetic_and_all_real_epochs():
    synthetic = make(RARE, 1)
    assert (synthetic.real_index == -1).all()
    assert set(synthetic.made(425).synthetic_by_class) == {42, 43}
    real = make(RARE, 0, window_rows=[np.empty(0, np.int64)] * 10)
    assert (real.window_row == -1).all()
    assert set(real.made(425).real_by_class) == {42, 43}


def test_classes_are_spread_evenly_over_the_epoch():
    plan = make([1000] * 4, 0.25, allocation="as_real")
    for part in np.array_split(plan.cls, 20):
        assert np.abs(np.bincount(part, minlength=4) - 50).max() <= 10


def test_by_draw_has_the_share_on_average_only():
    counts = [100] * 10
    shares = []
    for epoch in range(100):
        plan = make(counts, 0.25, epoch=epoch, exact=False)
        made = plan.made(1000)
        shares.append(made.synthetic)
        assert set(made.real_by_class + made.synthetic_by_class) == {100}
    # 100,000 draws: the mean is within four standard errors, the spread that of a binomial.
    assert abs(np.mean(shares) - 250) < 4 * math.sqrt(1000 * 0.25 * 0.75 / 100)
    assert 9 < np.std(shares) < 19
    for fraction, synthetic in ((0, 0), (1, 1000)):
        assert make(counts, fraction, exact=False).made(1000).synthetic == synthetic


def test_by_draw_also_plans_where_a_class_is_all_synthetic():
    for epoch in range(20):
        plan = make([10, 10, 100], 0.6, balance="classes", allocation="as_real", epoch=epoch, exact=False)
        assert set(plan.made(120).real_by_class + plan.made(120).synthetic_by_class) == {40}


def test_a_class_without_real_samples_gets_no_draw():
    plan = make([50, 0, 50], 0.25, window_rows=window_of(3, 30))
    assert (plan.cls != 1).all()
    assert plan.made(100).draws == 100


def test_an_epoch_of_no_or_one_draw():
    assert make(RARE, 0.25, draws=0).real_index.size == 0
    assert make(RARE, 0.25, draws=1).made(1).draws == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": [np.arange(9)]}, "do not match"),
        ({"window_rows": [np.arange(9)]}, "do not match"),
        ({"available": [1.0]}, "one share"),
        ({"available": [1.5] * 10}, "one share"),
        ({"available": [float("nan")] * 10}, "one share"),
        ({"world_size": 0}, "world_size=0"),
        ({"draws": -1}, "draws=-1"),
        ({"members": [np.empty(0, np.int64)] * 10}, "no class has a real sample"),
        ({"members": [np.empty(0, np.int64), *members_of(RARE)[1:]]}, "class 0 has targets"),
    ],
)
def test_contradicting_inputs_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_several_pseudo_classes_are_refused():
    t = replace(targets([5, 5], 0.25), labelled=False)
    with pytest.raises(ValueError, match="one pseudo-class"):
        EpochPlan.build(
            seed=0,
            epoch=0,
            draws=10,
            fraction=0.25,
            targets=t,
            members=members_of([5, 5]),
            window_rows=window_of(2, 4),
        )


def seconds(build, rounds):
    times = []
    for _ in range(rounds):
        start = time.process_time()  # of this process alone, however busy the machine is
        build()
        times.append(time.process_time() - start)
    return min(times)


def test_planning_takes_no_time_that_training_would_notice():
    # Generous bounds: measured 0.6 ms, and 0.2 s.
    assert seconds(make, 30) < 0.01
    big = [100_000] * 10
    members = [np.arange(c, 10**6, 10) for c in range(10)]
    assert seconds(lambda: make(big, 0.25, members=members, world_size=4, draws=250_000), 2) < 3
    plan = make(big, 0.25, members=members)
    assert seconds(lambda: plan.rank_slice(0, 500_000, 500_064), 100) < 1e-3
