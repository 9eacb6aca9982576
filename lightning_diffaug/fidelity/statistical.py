"""How two sets of features differ as distributions: Fréchet distance, kernel distance, and what covers what."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.pairs import blocks, centred, checked, neighbour_radii, squared_distances

_ROWS = 4096  # of a matrix that are read at a time


def moments(features: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance of a matrix (n, d), n at least 2: float64 (d,) and (d, d).

    Args:
        features: The matrix.
        weights: Share of each row, float64 (n,), of sum 1; None: all alike.
    """
    n, d = features.shape
    shares = _shares(n, weights)
    mean, scatter = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for part, share in zip(torch.split(features, _ROWS), torch.split(shares, _ROWS), strict=True):
        mean.addmv_(part.double().T, share)
    for part, share in zip(torch.split(features, _ROWS), torch.split(shares, _ROWS), strict=True):
        apart = part.double() - mean
        scatter.addmm_(apart.T * share, apart)
    return mean, scatter / (1.0 - float(shares.square().sum()))


def _shares(n: int, weights: Tensor | None) -> Tensor:
    return torch.full((n,), 1.0 / n, dtype=torch.float64) if weights is None else weights.double() / weights.sum()


def frechet_distance(first: Tensor, second: Tensor, weights: Tensor | None = None) -> float:
    """Fréchet distance of the normal distributions with the means and covariances of two sets (Heusel et al. 2017).

    It falls with the number of samples even where the distributions are the same (Chong & Forsyth 2020), so compare
    figures of equal numbers only.

    Args:
        first: Features (n, d), n at least 2; fewer rows than dimensions will do.
        second: (m, d), likewise.
        weights: Share of each row of the first, (n,), of sum 1; None: all alike.

    Returns:
        The distance, at least 0: ``|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½)``.

    Raises:
        ConfigurationError: A feature is not finite, or a set has fewer than two rows.
    """
    mean, covariance = moments(_several(checked(first, "the first set"), "the first set"), weights)
    other_mean, other_covariance = moments(_several(checked(second, "the second set"), "the second set"))
    # Σ₁ Σ₂ has the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, which stay real where covariances have no full rank
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    product = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0.0)
    shared = float(product.sqrt().sum())
    distance = float((mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace()) - 2 * shared
    return max(distance, 0.0)


@dataclass(frozen=True)
class KernelDistance:
    """An estimate and how sure it is.

    Attributes:
        value: Unbiased, so it may be below 0 where the sets are alike.
        standard_error: By the jackknife; None below three rows a set.
    """

    value: float
    standard_error: float | None


def kernel_distance(
    first: Tensor,
    second: Tensor,
    weights: Tensor | None = None,
    strata: Tensor | None = None,
    degree: int = 3,
    coefficient: float = 1.0,
) -> KernelDistance:
    """Kernel inception distance (Bińkowski et al. 2018): the unbiased squared MMD with the kernel (x·y / d + c)^degree.

    It is the estimate from all pairs: the mean of what all subsets of a size give, of which implementations with
    subsets draw some at random. That of one subset of a set's size is torchmetrics' formula. The standard error is the
    two-sample jackknife's, which, unlike the spread over subsets that overlap, is one of the estimate from all.

    Args:
        first: Features (n, d), n at least 2.
        second: (m, d), likewise.
        weights: Share of each row of the first, (n,), of sum 1; None: all alike.
        strata: With weights, the class of each row, int64 (n,), by which these were chosen: a row's pair with itself,
            which the estimate leaves out, is then made up for by its pairs with others of its class.
        degree: Of the polynomial.
        coefficient: Its c.

    Raises:
        ConfigurationError: A feature is not finite, or a set has fewer than two rows.
    """
    x = _several(checked(first, "the first set"), "the first set")
    y = _several(checked(second, "the second set"), "the second set")
    w, v = _shares(len(x), weights), _shares(len(y), None)
    within_x, _ = _kernel_means(x, None, w, w, degree, coefficient)
    within_y, _ = _kernel_means(y, None, v, v, degree, coefficient)
    by_x, by_y = _kernel_means(x, y, w, v, degree, coefficient)
    xx, yy, xy = float(w @ within_x), float(v @ within_y), float(w @ by_x)
    xx_mean, yy_mean = xx / (1 - float(w @ w)), yy / (1 - float(v @ v))
    if weights is not None and strata is not None:
        xx_mean = xx + float(w.square() @ _among_equals(x, strata, within_x / (1 - w), degree, coefficient))
    value = xx_mean + yy_mean - 2 * xy
    if min(len(x), len(y)) < 3:
        return KernelDistance(value, None)
    without_x = _without(xx, within_x, w) + yy_mean - 2 * (xy - w * by_x) / (1 - w)
    without_y = xx_mean + _without(yy, within_y, v) - 2 * (xy - v * by_y) / (1 - v)
    variance = sum((len(one) - 1) * float(one.var(correction=0)) for one in (without_x, without_y))
    return KernelDistance(value, math.sqrt(variance))


def _among_equals(x: Tensor, strata: Tensor, alone: Tensor, degree: int, coefficient: float) -> Tensor:
    """Mean of the kernel over the other rows of a row's class, (n,); `alone` where it has none."""
    found = alone.clone()
    for stratum in torch.unique(strata).tolist():
        rows = (strata == stratum).nonzero()[:, 0]
        if len(rows) > 1:
            share = torch.full((len(rows),), 1.0 / (len(rows) - 1), dtype=torch.float64)
            found[rows] = _kernel_means(x[rows], None, share, share, degree, coefficient)[0]
    return found


def _without(total: float, means: Tensor, w: Tensor) -> Tensor:
    """Mean of the kernel over the pairs that are left when each row is left out, (n,)."""
    return (total - 2 * w * means) / ((1 - w).square() - (w @ w) + w.square())


def _kernel_means(
    x: Tensor, y: Tensor | None, w: Tensor, v: Tensor, degree: int, coefficient: float
) -> tuple[Tensor, Tensor]:
    """Weighted sums of the kernel over columns, (n,), and over rows, (m,); of x with itself without the diagonal."""
    other = x if y is None else y
    of_rows, of_columns = torch.empty(len(x), dtype=torch.float64), torch.zeros(len(other), dtype=torch.float64)
    for rows in blocks(len(x), max(len(other), x.shape[1])):
        part = (x[rows].double() @ other.T.double() / x.shape[1] + coefficient).pow_(degree)
        if y is None:
            part[torch.arange(len(part)), torch.arange(rows.start, rows.stop)] = 0.0
        of_rows[rows] = part @ v
        of_columns += part.T @ w[rows]
    return of_rows, of_columns


@dataclass(frozen=True)
class Coverage:
    """How much of two sets lies where the other one is; shares in [0, 1] but for the density.

    Attributes:
        precision: Samples that lie within reach of a real one.
        recall: Real ones that lie within reach of a sample.
        density: Real ones in whose reach a sample lies, over what is expected; about 1 for real ones, and unbounded.
        coverage: Real ones with a sample in their reach.
    """

    precision: float
    recall: float
    density: float
    coverage: float


IMPROVED_K, NAEEM_K = 3, 5
"""Neighbours that reach goes to: of precision and recall, and of density and coverage; as in the papers."""


def coverage_of(real: Tensor, samples: Tensor, weights: Tensor | None = None) -> Coverage:
    """Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    A row's reach is its distance to its 3rd nearest neighbour in its own set (precision, recall), or its 5th (density,
    coverage).

    Args:
        real: Features (n, d), n at least 6.
        samples: (m, d), m at least 4.
        weights: Share of each real row in recall and coverage, (n,), of sum 1; None: all alike.

    Raises:
        ConfigurationError: A feature is not finite, or there are fewer rows.
    """
    x = _several(checked(real, "the real samples"), "the real samples", NAEEM_K + 1)
    y = _several(checked(samples, "the samples"), "the samples", IMPROVED_K + 1)
    x, y = centred(x, y)
    (reach, wide), (other_reach,) = neighbour_radii(x, (IMPROVED_K, NAEEM_K)), neighbour_radii(y, (IMPROVED_K,))
    inside = torch.zeros(len(y), dtype=torch.bool)
    recalled, covered, times = torch.empty(len(x)), torch.empty(len(x)), 0
    for rows in blocks(len(x), len(y)):
        apart = squared_distances(x[rows], y)
        inside |= (apart <= reach[rows, None]).any(0)
        recalled[rows] = (apart <= other_reach).any(1).float()
        near = apart <= wide[rows, None]
        times += int(near.sum())
        covered[rows] = near.any(1).float()
    shares = _shares(len(x), weights)
    recall, coverage = float(shares @ recalled.double()), float(shares @ covered.double())
    return Coverage(float(inside.double().mean()), recall, times / (NAEEM_K * len(y)), coverage)


def _several(features: Tensor, whose: str, least: int = 2) -> Tensor:
    if len(features) < least:
        raise ConfigurationError(
            f"{whose} has {len(features)} rows and at least {least} are needed for this figure. Give more samples."
        )
    return features
