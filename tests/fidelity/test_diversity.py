"""Diversity is counted, and grows with it."""

from __future__ import annotations

import pytest
import torch

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity import diversity
from lightning_diffaug.fidelity.diversity import distance_within_classes, vendi_score


def test_the_vendi_score_counts_kinds_of_samples() -> None:
    kinds = torch.eye(6)
    assert vendi_score(kinds) == pytest.approx(6.0)
    assert vendi_score(kinds[:1].repeat(9, 1)) == pytest.approx(1.0)
    assert vendi_score(kinds[:3].repeat(20, 1)) == pytest.approx(3.0), "more rows than dimensions"
    assert vendi_score(torch.cat((kinds[:1].repeat(9, 1), kinds[1:2]))) == pytest.approx(0.9**-0.9 * 0.1**-0.1)


def test_the_smaller_of_two_matrices_gives_the_same_score() -> None:
    x = torch.randn(30, 50, generator=torch.Generator().manual_seed(0))
    gram = torch.nn.functional.normalize(x.double(), dim=1)
    shares = torch.linalg.eigvalsh(gram.T @ gram / 30).clamp(min=0)
    assert vendi_score(x) == pytest.approx(float(torch.special.entr(shares).sum().exp()))


def test_above_the_largest_matrix_rows_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "LARGEST", 10)
    x = torch.eye(40)
    assert diversity.vendi_rows(*x.shape) == 10
    assert vendi_score(x) == pytest.approx(10.0)
    assert diversity.vendi_rows(40, 8) == 40


def test_distances_within_classes_are_averaged_over_the_classes_that_have_two() -> None:
    x = torch.tensor([[0.0], [2.0], [10.0], [14.0], [18.0], [99.0]])
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    assert distance_within_classes(x, labels) == pytest.approx((2 + (4 + 8 + 4) / 3) / 2)
    assert distance_within_classes(x[:2], None) == pytest.approx(2.0)
    assert distance_within_classes(x[-1:], labels[-1:]) is None


def test_nan_is_refused() -> None:
    for measure in (vendi_score, lambda x: distance_within_classes(x, None)):
        with pytest.raises(ConfigurationError, match="NaN"):
            measure(torch.tensor([[1.0], [torch.nan]]))
