"""The class prior of predictions is corrected on validation data, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_diffaug.models.prior_correction import cross_fitted, fitted_shift
from lightning_diffaug.models.scores import corrected_scores, scores

CLASSES = 5


def predicted(n: int, seed: int, prior: Tensor | None = None, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits of a calibrated classifier of Gaussian classes, moved by the logarithm of a wrong prior."""
    rng = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % CLASSES
    centres = torch.eye(CLASSES) * 2
    x = centres[target] + torch.randn(n, CLASSES, generator=rng)
    logits = x @ centres.T - centres.square().sum(1) / 2
    return scale * (logits + (0 if prior is None else prior.log())), target


PRIOR = torch.tensor([0.6, 0.2, 0.1, 0.07, 0.03])


@pytest.mark.parametrize("scale", [0.05, 1.0, 40.0])
def test_a_planted_shift_of_the_prior_is_undone_whatever_the_scale_of_the_logits(scale: float) -> None:
    logits, target = predicted(4000, 0, PRIOR, scale)
    found = fitted_shift(logits, target, balanced=True) / scale
    planted = -PRIOR.log().double()
    assert torch.allclose(found, planted - planted.mean(), atol=0.25)


@pytest.mark.parametrize("balanced", [False, True])
def test_correction_regains_what_a_wrong_prior_cost_and_leaves_a_right_one(balanced: bool) -> None:
    names, key = [str(c) for c in range(CLASSES)], "acc_balanced" if balanced else "acc"
    best = scores(*predicted(4000, 1), names, [])[key]
    moved = scores(*predicted(4000, 1, PRIOR), names, [])[key]
    back = corrected_scores(predicted(300, 2, PRIOR), predicted(4000, 1, PRIOR), names, [])[f"test/{key}_corrected"]
    same = corrected_scores(predicted(300, 2), predicted(4000, 1), names, [])[f"test/{key}_corrected"]
    assert moved < best - 0.05
    assert back > best - 0.02
    assert same > best - 0.02


def test_a_class_that_validation_lacks_keeps_its_prior_and_rare_ones_weigh_as_much_as_others() -> None:
    logits, target = predicted(1000, 3, PRIOR)
    there = target != 4
    shift = fitted_shift(logits[there], target[there], balanced=True)
    assert shift[4] == 0
    assert shift.isfinite().all()
    few = there | (torch.arange(1000) % 100 == 4)  # a twentieth of class 4
    by_samples, by_classes = (fitted_shift(logits[few], target[few], balanced) for balanced in (False, True))
    assert by_classes[4] - by_classes[0] > by_samples[4] - by_samples[0] + 1


def test_validation_samples_have_no_say_in_their_own_correction() -> None:
    logits, target = predicted(100, 4, PRIOR)
    other = logits.clone()
    other[7] += torch.tensor([0.0, 50.0, 0.0, 0.0, 0.0])
    moved = (cross_fitted(other, target, True) - cross_fitted(logits, target, True))[7]
    assert torch.allclose(moved.float(), torch.tensor([0.0, 50.0, 0.0, 0.0, 0.0]), atol=1e-4)


def test_separable_and_constant_logits_give_finite_shifts() -> None:
    target = torch.arange(50) % CLASSES
    for logits in (1e4 * torch.eye(CLASSES)[target], torch.zeros(50, CLASSES)):
        assert fitted_shift(logits, target, balanced=True).isfinite().all()


def test_scores_agree_with_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

    logits, target = predicted(500, 5, PRIOR)
    names, guess = [f"c{c}" for c in range(CLASSES)], logits.argmax(1)
    found = scores(logits, target, names, [3, 4])
    recall = recall_score(target, guess, average=None)
    assert found["acc"] == pytest.approx(float((guess == target).float().mean()))
    assert found["acc_balanced"] == pytest.approx(balanced_accuracy_score(target, guess))
    assert found["acc_rare"] == pytest.approx(recall[3:].mean())
    assert found["acc_class_c1"] == pytest.approx(recall[1])
    assert found["auroc"] == pytest.approx(roc_auc_score(target, logits.softmax(1), multi_class="ovr"), abs=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_finite_numbers_have_no_scores(value: float) -> None:
    logits, target = predicted(100, 6)
    broken, names = logits.clone(), [str(c) for c in range(CLASSES)]
    broken[3, 1] = value
    assert scores(broken, target, names, [3]) == {}
    assert corrected_scores((broken, target), (logits, target), names, [3]) == {}
    left = corrected_scores((logits, target), (broken, target), names, [3])
    assert left
    assert all(key.startswith("val/") for key in left)
