"""The class prior of a classifier's predictions, corrected after training on real validation data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_FOLDS = 5
_RIDGE = 1e-3
"""Of the shifts: a class that validation says nothing of keeps its prior."""
_ITERATIONS = 200


def fitted_shift(logits: Tensor, target: Tensor, balanced: bool) -> Tensor:
    """One shift a class which, added to the logits, gives the predictions the class prior of the validation data.

    The bias of bias-corrected temperature scaling (Alexandari et al. 2020, arXiv 1901.06852), in the units of the
    logits: cross-entropy of ``logits / T + b`` is minimised over T and b, and ``T b`` is returned. It changes no
    ranking within a class, and so no AUROC of one class against the rest.

    Args:
        logits: float ``(n, C)`` of validation samples.
        target: int64 ``(n,)``.
        balanced: Every class that occurs weighs the same, for a score that is a mean over classes; else every sample.

    Returns:
        float64 ``(C,)``, of mean 0 over the classes that occur; 0 for a class without a sample.
    """
    x, classes = logits.double(), logits.shape[1]
    counts = torch.bincount(target, minlength=classes).double()
    there = counts > 0
    if not there.any():
        return torch.zeros(classes, dtype=torch.float64)
    weight = torch.where(there, 1 / counts.clamp(min=1), 0.0) if balanced else there.double()
    weight = weight[target] / weight[target].sum()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")
    x = x / x.std().clamp(min=1e-6)  # a problem of one scale, whatever the network's

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = functional.cross_entropy(x * scale + bias, target, reduction="none")
        total: Tensor = (weight * each).sum() + _RIDGE * bias.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    factor = max(float(scale.detach()), 1e-3)
    shift = bias.detach() / factor * float(logits.double().std().clamp(min=1e-6))
    return torch.where(there, shift - shift[there].mean(), 0.0)


def cross_fitted(logits: Tensor, target: Tensor, balanced: bool) -> Tensor:
    """Logits of the validation samples themselves, each with the shift that the others ask for.

    What validation data chose is flattered by them; each fifth gets the shift of the other four. Deterministic:
    folds take the samples of each class in turn.

    Args:
        logits: float ``(n, C)``.
        target: int64 ``(n,)``.
        balanced: As in `fitted_shift`.

    Returns:
        float64 ``(n, C)``.
    """
    order = np.lexsort((np.arange(len(target)), target.numpy()))
    fold = np.empty(len(target), np.int64)
    fold[order] = np.arange(len(target)) % _FOLDS
    corrected = logits.double().clone()
    for k in range(_FOLDS):
        inside = torch.from_numpy(fold == k)
        if inside.any() and not inside.all():
            corrected[inside] += fitted_shift(logits[~inside], target[~inside], balanced)
    return corrected
