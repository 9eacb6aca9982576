from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from omegaconf import OmegaConf

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing.schedule import (
    Constant,
    Cosine,
    Linear,
    Piecewise,
    StopAfter,
    as_fraction,
    as_schedule,
    carried_draws,
)


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        (0, Fraction(0)),
        (1, Fraction(1)),
        (0.0, Fraction(0)),
        (0.1, Fraction(1, 10)),
        (0.3, Fraction(3, 10)),
        ("0.25", Fraction(1, 4)),
        ("1/3", Fraction(1, 3)),
        (1e-3, Fraction(1, 1000)),
        (np.float32(0.1), Fraction(1, 10)),
        (np.float64(0.7), Fraction(7, 10)),
        (np.int64(1), Fraction(1)),
        (Fraction(33, 133), Fraction(33, 133)),
    ],
)
def test_a_fraction_is_exactly_the_number_that_was_written(value, exact):
    assert as_fraction(value) == exact
    assert as_schedule(value)(0) == as_schedule(value)(10**6) == exact


def test_a_third_as_a_float_is_a_third():
    assert as_fraction(1 / 3) == Fraction(1, 3)


@pytest.mark.parametrize("value", [-0.1, 1.0001, 2, -1, "25", Fraction(-1, 3), 10**400])
def test_a_fraction_outside_0_to_1_is_refused_with_its_key(value):
    with pytest.raises(ConfigurationError, match=r"not in \[0, 1\].*data\.synthetic_fraction"):
        as_schedule(value)


@pytest.mark.parametrize("value", [True, False, None, "many", "1/0", float("nan"), float("inf"), [0.5], 1j, Linear])
def test_what_is_not_a_number_is_refused_with_its_key(value):
    with pytest.raises(ConfigurationError, match=r"data\.synthetic_fraction.*is not a finite number"):
        as_schedule(value)


def test_linear_goes_in_equal_steps_and_stays():
    schedule = Linear(0.5, 0, 20)
    assert [schedule(e) for e in (0, 1, 10, 20, 21, 1000)] == [
        Fraction(1, 2),
        Fraction(19, 40),
        Fraction(1, 4),
        0,
        0,
        0,
    ]


def test_cosine_is_half_way_in_the_middle_and_slow_at_both_ends():
    schedule = Cosine(0.2, 0.8, 10)
    assert schedule(0) == Fraction(1, 5)
    assert schedule(5) == Fraction(1, 2)
    assert schedule(10) == schedule(50) == Fraction(4, 5)
    steps = np.diff([float(schedule(e)) for e in range(11)])
    assert (steps > 0).all()
    assert steps[0] < steps[4] / 3
    assert steps[9] < steps[4] / 3


def test_piecewise_holds_each_value_until_the_next():
    schedule = Piecewise({10: 0.25, 0: 0.5, 30: 0})
    assert [float(schedule(e)) for e in (0, 9, 10, 29, 30, 99)] == [0.5, 0.5, 0.25, 0.25, 0, 0]


def test_stop_after_is_real_only_from_its_epoch_on():
    schedule = StopAfter(0.25, 3)
    assert [float(schedule(e)) for e in range(5)] == [0.25, 0.25, 0.25, 0, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "constant", "value": 0}, Constant(0)),
        ({"name": "linear", "start": 0.5, "end": 0, "epochs": 20}, Linear(0.5, 0, 20)),
        ({"name": "cosine", "start": 0, "end": 1, "epochs": "7"}, Cosine(0, 1, 7)),
        ({"name": "piecewise", "values": {"0": 0.5, "10": 0}}, Piecewise({0: 0.5, 10: 0})),
        ({"name": "stop_after", "value": 0.5, "epoch": 8.0}, StopAfter(0.5, 8)),
    ],
)
def test_a_mapping_makes_the_schedule_it_names_also_from_omegaconf(settings, expected):
    assert as_schedule(settings) == expected
    assert as_schedule(OmegaConf.create(settings)) == expected
    assert as_schedule(expected) is expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "quadratic"}, r"data\.synthetic_fraction\.name='quadratic'.*linear"),
        ({"start": 0.5}, r"data\.synthetic_fraction\.name=None"),
        ({"name": ["linear"]}, r"data\.synthetic_fraction\.name"),
        ({"name": "linear", "start": 0.5}, r"takes start, end, epochs.*given start"),
        ({"name": "constant", "value": 0.5, "epochs": 3}, r"takes value.*given value, epochs"),
        ({"name": "linear", "start": 1.5, "end": 0, "epochs": 3}, r"start=1\.5 is not in \[0, 1\]"),
        ({"name": "linear", "start": 0.5, "end": -1, "epochs": 3}, r"end=-1 is not in \[0, 1\]"),
        ({"name": "linear", "start": 0.5, "end": 0, "epochs": 0}, r"epochs=0 is not a whole number"),
        ({"name": "cosine", "start": 0.5, "end": 0, "epochs": 2.5}, r"epochs=2\.5 is not a whole number"),
        ({"name": "stop_after", "value": 0.5, "epoch": -1}, r"epoch=-1 is not a whole number"),
        ({"name": "stop_after", "value": 0.5, "epoch": None}, r"epoch=None is not a whole number"),
        ({"name": "piecewise", "values": {5: 0.5}}, r"no entry for epoch 0"),
        ({"name": "piecewise", "values": {}}, r"no entry for epoch 0"),
        ({"name": "piecewise", "values": {0: 2}}, r"values\[0\]=2 is not in \[0, 1\]"),
        ({"name": "piecewise", "values": 0.5}, r"not a mapping"),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_key(settings, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        as_schedule(settings)
    assert "data.synthetic_fraction" in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "constant"),
    [
        (Constant(0), True),
        (Linear(0.5, 0, 3), False),
        (Linear(0.5, "1/2", 3), True),
        (Cosine(0, 0.1, 3), False),
        (Cosine(0, 0.0, 3), True),
        (Piecewise({0: 0.5}), True),
        (Piecewise({0: 0.5, 3: 0.5}), True),
        (Piecewise({0: 0.5, 3: 0}), False),
        (StopAfter(0.5, 3), False),
        (StopAfter(0.5, 0), True),
        (StopAfter(0, 3), True),
    ],
)
def test_constant_means_the_same_in_every_epoch(schedule, constant):
    assert schedule.is_constant is constant
    assert (len({schedule(e) for e in range(10)}) == 1) is constant


@pytest.mark.parametrize(
    "schedule",
    [
        Constant("1/3"),
        Linear(0.37, 0.91, 7),
        Cosine(0.1, "2/3", 11),
        Piecewise({0: 0.1, 3: 1}),
        StopAfter(0.3, 4),
    ],
)
def test_carried_draws_are_the_exact_sum_of_the_epochs_before(schedule):
    total = Fraction(0)
    for epoch in range(25):
        assert carried_draws(schedule, epoch, 53) == total
        total += schedule(epoch) * 53


@pytest.mark.parametrize("schedule", [Linear("1/7", 0.91, 97), Cosine(0.123456789, "2/3", 89)])
def test_the_denominator_of_a_carried_sum_stays_small_over_many_epochs(schedule):
    # Planning uses int64 as long as denominator × draws fits in it.
    assert carried_draws(schedule, 300, 10**7).denominator <= 7 * 10**9


def test_every_schedule_stays_within_0_and_1():
    rng = np.random.default_rng(0)
    for _ in range(200):
        start, end = rng.integers(0, 101, 2) / 100
        epochs = int(rng.integers(1, 50))
        for schedule in (Linear(start, end, epochs), Cosine(start, end, epochs)):
            values = [schedule(e) for e in range(epochs + 3)]
            assert min(values) >= as_fraction(min(start, end))
            assert max(values) <= as_fraction(max(start, end))
            assert values[0] == as_fraction(start)
            assert values[-1] == values[epochs] == as_fraction(end)


def test_extremes_are_the_smallest_and_largest_fraction_of_any_epoch():
    for schedule in (
        Constant(0.3), Linear(0.1, 0.9, 7), Linear(1, 0, 3), Cosine(0.8, "1/3", 9), Piecewise({0: 0.5, 3: 1, 9: 0.1}),
        StopAfter(0.4, 2), StopAfter(0.4, 0),
    ):  # fmt: skip
        values = [schedule(epoch) for epoch in range(12)]
        assert schedule.extremes == (min(values), max(values))
