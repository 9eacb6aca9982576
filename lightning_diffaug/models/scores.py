"""Scores of a classifier from its logits: as they are, and with the class prior corrected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_auroc, multiclass_confusion_matrix

from lightning_diffaug.models.prior_correction import cross_fitted, fitted_shift

CORRECTED = "_corrected"


def recalls(confusion: Tensor) -> Tensor:
    """Recall of each class from a confusion matrix.

    Args:
        confusion: counts ``(C, C)``, rows the true class.

    Returns:
        float32 ``(C,)`` in [0, 1]; NaN for a class without a sample, which no mean should count.
    """
    counts = confusion.to(torch.float32)
    return counts.diagonal() / counts.sum(dim=1)


def scores(logits: Tensor, target: Tensor, class_names: Sequence[str], rare: Sequence[int]) -> dict[str, float]:
    """Scores of predictions.

    Args:
        logits: float ``(n, C)``.
        target: int64 ``(n,)``.
        class_names: Of all classes, in order.
        rare: Indices of the rare ones.

    Returns:
        ``acc``, ``acc_balanced`` (mean recall over the classes that occur), ``acc_rare`` (over the rare ones among
        them), ``auroc`` (macro, one against the rest) and ``acc_class_<name>``, all in [0, 1]; one without a sample
        is absent. {} where a logit is no finite number: the classifier diverged, and its guesses say nothing.
    """
    if not logits.isfinite().all():
        return {}
    confusion = multiclass_confusion_matrix(logits, target, len(class_names))
    recall = recalls(confusion)
    found = {"acc": confusion.diagonal().sum() / confusion.sum(), "acc_balanced": recall.nanmean()}
    if len(rare):
        found["acc_rare"] = recall[list(rare)].nanmean()
    if target.min() < target.max():
        found["auroc"] = multiclass_auroc(logits.softmax(dim=1), target, len(class_names), average="macro")
    found |= {f"acc_class_{name}": value for name, value in zip(class_names, recall, strict=True)}
    return {name: float(value) for name, value in found.items() if not value.isnan()}


def corrected_scores(
    val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], class_names: Sequence[str], rare: Sequence[int]
) -> dict[str, float]:
    """Scores with one shift a class, tuned on validation data.

    ``acc`` has the shift that fits the validation samples as they come, the means over classes that in which every
    class weighs the same. Those of validation are cross-fitted.

    Args:
        val: Logits and targets of real validation samples.
        test: Likewise of test samples.
        class_names: Of all classes, in order.
        rare: Indices of the rare ones.

    Returns:
        ``val/<score>_corrected`` and ``test/<score>_corrected`` for each accuracy of `scores`; {} where logits of
        validation samples are no finite numbers.
    """
    if not val[0].isfinite().all():
        return {}
    figures: dict[str, float] = {}
    for balanced in (False, True):
        shifted = test[0].double() + fitted_shift(*val, balanced)
        for part, logits, target in (
            ("val", cross_fitted(*val, balanced), val[1]),
            ("test", shifted, test[1]),
        ):
            for name, value in scores(logits, target, class_names, rare).items():
                if (name == "acc") != balanced and name != "auroc":
                    figures[f"{part}/{name}{CORRECTED}"] = value
    return figures
