"""Figures of what was drawn, over epochs and resumes."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing.plan import Made
from lightning_diffaug.mixing.progress import MixProgress

MADE = Made(10, 4, np.array([4, 2]), np.array([1, 3]))


def test_draws_add_up() -> None:
    once = MixProgress.empty(2).plus(MADE, Fraction(1, 2))
    twice = once.plus(MADE, Fraction(1, 4))
    assert (twice.draws, twice.synthetic) == (20, 8)
    assert (twice.real_by_class, twice.synthetic_by_class) == ([8, 4], [2, 6])
    assert twice.achieved_fraction == pytest.approx(0.4)
    assert twice.requested_fraction == pytest.approx((0.5 + 0.25) / 2)
    assert once.draws == 10  # the earlier figures are as they were


def test_nothing_drawn_is_no_division_by_zero() -> None:
    empty = MixProgress.empty(2)
    assert (empty.requested_fraction, empty.achieved_fraction, empty.reuse) == (0, 0, 0)
    assert empty.reuse_by_class == [0, 0]


def test_a_pooled_sample_is_offered_once_however_many_windows_hold_it() -> None:
    progress = MixProgress.empty(2)
    by_class = [np.array([0, 2]), np.array([1, 3])]
    progress.offer(np.array([0, 0, 1, 1]), by_class)
    assert progress.offered_by_class == [2, 2]
    progress.offer(np.array([1, 1, 2, 2]), by_class)
    assert progress.offered_by_class == [3, 3]
    progress.offer(np.array([1, 1, 2, 2]), by_class)  # the window did not move
    progress.offer(np.array([], int), [np.array([], int)] * 2)  # … or was empty
    assert progress.offered_by_class == [3, 3]


def test_reuse_is_uses_over_offered_samples() -> None:
    progress = MixProgress.empty(2)
    progress.offer(np.array([0, 0, 1, 1]), [np.array([0, 1, 2]), np.array([3])])
    progress = progress.plus(MADE, Fraction(1, 2)).plus(MADE, Fraction(1, 2))
    assert progress.reuse == 2.0
    assert progress.reuse_by_class == [pytest.approx(2 / 3), 6.0]


def test_figures_travel_as_plain_values() -> None:
    progress = MixProgress.empty(2)
    progress.offer(np.array([0, 0, 1, 1]), [np.array([0, 2]), np.array([1, 3])])
    progress.short_epochs = 3
    progress = progress.plus(MADE, Fraction(1, 3))
    again = MixProgress.from_state(json.loads(json.dumps(progress.state())))
    assert again == progress


def test_a_checkpoint_of_other_classes_is_refused_with_the_reason() -> None:
    progress = MixProgress.from_state(MixProgress.empty(3).state())
    message = r"checkpoint counts draws of 3 classes, and the training data have 2.*ckpt_path"
    with pytest.raises(ConfigurationError, match=message):
        progress.offer(np.array([0, 0]), [np.array([0]), np.array([1])])
    with pytest.raises(ConfigurationError, match=message):
        progress.plus(MADE, Fraction(1, 2))
