"""Copies are seen, and honest samples are accused as often as the p-value says."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import binom

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.privacy import authenticity, closer_than_real


def test_the_p_value_is_exact() -> None:
    """All orders of three samples among five real distances are alike likely: counted, not approximated."""
    real_places = list(itertools.combinations(range(8), 5))
    seen: dict[float, list[float]] = {}
    for places in real_places:
        order = torch.arange(8.0)
        real, samples = order[list(places)], order[[i for i in range(8) if i not in places]]
        found = closer_than_real(samples, real, quantile=0.4)
        seen.setdefault(found.share, []).append(found.p)
    for share, ps in seen.items():
        as_much = sum(len(other) for larger, other in seen.items() if larger >= share) / len(real_places)
        assert ps == pytest.approx([as_much] * len(ps))


def test_with_many_real_distances_it_is_the_binomial_one() -> None:
    real = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    samples = torch.cat((torch.zeros(12), torch.ones(88)))
    found = closer_than_real(samples, real, quantile=0.05)
    assert found.share == 0.12
    assert found.expected == pytest.approx(0.05, abs=1e-4)
    assert found.p == pytest.approx(float(binom.sf(11, 100, 0.05)), rel=0.05)


def test_copies_are_accused_and_distant_samples_are_not() -> None:
    real = torch.rand(200, generator=torch.Generator().manual_seed(0)) + 1
    copies, distant = closer_than_real(torch.zeros(50), real), closer_than_real(torch.full((50,), 9.0), real)
    assert copies.share == 1.0
    assert copies.p < 1e-12
    assert (distant.share, distant.p) == (0.0, 1.0)


def test_samples_at_equal_distances_are_not_accused() -> None:
    assert closer_than_real(torch.zeros(9), torch.zeros(40)).share == 0.0


def test_authentic_is_what_is_farther_from_a_training_sample_than_others_are() -> None:
    assert authenticity(torch.tensor([0.1, 0.5, 2.0, 1.0]), torch.tensor([0.5, 0.5, 0.5, torch.inf])) == 0.25


@pytest.mark.parametrize(
    ("samples", "real", "quantile", "why"),
    [
        (torch.empty(0), torch.ones(3), 0.05, "nothing to compare"),
        (torch.ones(3), torch.empty(0), 0.05, "nothing to compare"),
        (torch.tensor([torch.nan]), torch.ones(3), 0.05, "NaN"),
        (torch.ones(3), torch.ones(3), 1.0, "quantile=1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    samples: torch.Tensor, real: torch.Tensor, quantile: float, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        closer_than_real(samples, real, quantile)
