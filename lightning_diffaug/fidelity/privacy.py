"""Whether samples repeat training samples: against how near real data are to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lightning_diffaug.errors import ConfigurationError


@dataclass(frozen=True)
class Closeness:
    """How many samples lie nearer to the training data than all but a few real ones do.

    Attributes:
        share: Of the samples, in [0, 1].
        expected: What real ones would have: that share of them is as near.
        threshold: The distance in question.
        p: Probability of so large a share, were samples as far from the training data as real ones are.
    """

    share: float
    expected: float
    threshold: float
    p: float


def closer_than_real(samples: Tensor, real: Tensor, quantile: float = 0.05) -> Closeness:
    """Compares distances to the nearest training sample: of samples, and of real data that are none of these.

    The threshold is the j-th smallest of the m real distances, j = max(1, floor(quantile · m)). Were the n distances
    of samples drawn from the same distribution, the number below it would be beta-binomial, with n, j and m + 1 - j:
    a binomial whose probability is not taken as known, for it was estimated on m distances. So the one-sided p-value
    is exact for any m, and goes to the binomial one as m grows. It takes the distances as independent, and of equal
    distances none is below the other.

    Args:
        samples: Distances of the samples, (n,), n at least 1.
        real: Distances of the real data, (m,), m at least 1.
        quantile: Share of real data that is near by its nature, in (0, 1).

    Raises:
        ConfigurationError: There are no distances, some are NaN, or the quantile is out of range.
    """
    if not 0.0 < quantile < 1.0:
        raise ConfigurationError(f"quantile={quantile} is not between 0 and 1. Set it to e.g. 0.05.")
    n, m = len(samples), len(real)
    if not n or not m or bool(samples.isnan().any()) or bool(real.isnan().any()):
        raise ConfigurationError(
            f"{n} distances of samples and {m} of real data are given, or some are NaN: there is nothing to compare."
        )
    from scipy.stats import betabinom

    j = max(1, math.floor(quantile * m))
    threshold = float(real.double().sort().values[j - 1])
    below = int((samples.double() < threshold).sum())
    p = float(betabinom.sf(below - 1, n, j, m + 1 - j))
    return Closeness(below / n, j / (m + 1), threshold, min(1.0, p))


def authenticity(distance: Tensor, own: Tensor) -> float:
    """Share of samples that are not nearer to a training sample than any other training sample is (Alaa et al. 2022).

    Args:
        distance: Of each sample to its nearest training sample, (n,).
        own: Of that training sample to its nearest other, (n,).

    Returns:
        A share in [0, 1]; the paper's "authentic" samples.
    """
    return float((distance > own).double().mean())
