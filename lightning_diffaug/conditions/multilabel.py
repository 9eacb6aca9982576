"""Several labels a sample: which samples a row that is made for a label may be of, and how often it is that label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError

MADE_FOR = "made_for"
"""Key of the label that a row is made for, int64 (n,)."""


def label_sets(vectors: Tensor, name: str) -> Tensor:
    """Which labels each sample has, bool (n, K).

    Args:
        vectors: (n, K), 1 where a sample has the label, 0 or -1 where not.
        name: Of the field, for errors.

    Raises:
        ConfigurationError: It is no such field.
    """
    if vectors.ndim != 2 or not bool(torch.isin(vectors.float(), torch.tensor([-1.0, 0.0, 1.0])).all()):
        raise ConfigurationError(
            f"the field {name!r} of shape {tuple(vectors.shape[1:])} does not say which labels a sample has: needed is "
            "a vector of ones and zeros. Set data.planner.field to one, or data.planner to auto."
        )
    return vectors > 0


def candidates(has: Tensor, unwanted: Sequence[int]) -> Tensor:
    """Which samples a row that is made for a label may be of, bool (n, K): those that have it.

    Of them only those with the fewest labels of which none is wanted.

    Args:
        has: bool (n, K).
        unwanted: Labels whose quota is 0.
    """
    beside = has[:, list(unwanted)].sum(1) if unwanted else torch.zeros(len(has), dtype=torch.int64)
    fewest = torch.where(has, beside[:, None], len(has[0]) + 1).amin(0)
    return has & (beside[:, None] == fewest)


def rows_for(has: Tensor, quotas: npt.ArrayLike) -> list[float]:
    """The share of the rows that are made for each label, so that all labels reach their quota as soon as can be.

    A row that is made for one label brings the others of its sample, so rare labels may be all but reached by rows for
    other ones, and common ones come by themselves. The shares t maximise z such that Σ_k t_k P(j | k) ≥ z q_j for every
    label j: the least that a label has, of its quota (a linear programme).

    Args:
        has: bool (n, K).
        quotas: q, (K,), not negative; 0 for labels of no sample.

    Returns:
        t, (K,), of sum 1.
    """
    from scipy.optimize import linprog

    q = np.asarray(quotas, np.float64)
    wanted = np.flatnonzero(q > 0)
    may = candidates(has, np.flatnonzero(q == 0).tolist()).double().numpy()
    beside = (may[:, wanted].T @ has.double().numpy()[:, wanted]) / may[:, wanted].sum(0)[:, None]  # P(j | k)
    m = len(wanted)
    reached = np.hstack([-beside.T, (q[wanted] / q[wanted].max())[:, None]])
    found = linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=reached, b_ub=np.zeros(m), A_eq=[np.append(np.ones(m), 0.0)], b_eq=[1.0], bounds=(0, None),
    )  # fmt: skip
    if not found.success:
        raise GeneratorError(f"no shares of the labels were found: {found.message}")
    shares = np.zeros(len(q))
    shares[wanted] = np.maximum(found.x[:m], 0.0).round(12)
    return [float(share) for share in shares / shares.sum()]
