"""Sets of points in space: how far two are apart, and fewer points of many."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Cloud = npt.NDArray[np.float32]
"""Points (n, 3)."""

SCANS = ("lines", "random")
"""How a scan sees a cloud: along parallel lines, as a laser scanner in an aircraft; or at random points."""

_TINY = 1e-12  # the root's gradient at 0 is infinite
_BAND = 2  # times as many points on either side of a line are near enough to it as are taken of it
_ACROSS = 3  # points beyond the line that each of these is joined to
_LONGEST = 1.5  # times as far as the nearest one usually is: what is further away is of another part of the cloud


def chamfer_distance(first: Tensor, second: Tensor) -> Tensor:
    """How far two clouds are apart: the mean distance from each point to the nearest one of the other cloud.

    Plain Euclidean distances, the mean of both directions: half of equation 2 of Yuan et al. (2018, "PCN"), which is
    known as CD-l1. The order of the points does not matter.

    Args:
        first: float (n, P, 3).
        second: float (n, Q, 3).

    Returns:
        float (n,), in the unit of the points.
    """
    with torch.no_grad():  # which is nearest; the gradient of all distances would cost many times as much
        apart = torch.cdist(first, second)
        of_first, of_second = apart.argmin(2), apart.argmin(1)
    return (_distance(first, second, of_first) + _distance(second, first, of_second)) / 2


def _distance(points: Tensor, to: Tensor, nearest: Tensor) -> Tensor:
    difference = points - to.gather(1, nearest[..., None].expand(-1, -1, points.shape[-1]))
    return (difference.square().sum(2) + _TINY).sqrt().mean(1)


def mean_cloud(clouds: Tensor, points: int, steps: int = 150, lr: float = 0.02) -> Tensor:
    """The cloud with the least mean Chamfer distance to all given ones, by gradient descent; deterministic.

    Points of clouds have no order in which they could be averaged.

    Args:
        clouds: float32 (n, P, 3).
        points: Of the result.
        steps: Of Adam.
        lr: Its learning rate.

    Returns:
        float32 (points, 3).
    """
    some = clouds[torch.linspace(0, len(clouds) - 1, min(len(clouds), 64)).long()]
    first = farthest_points(some.flatten(0, 1).numpy(), points, np.random.RandomState(0))
    mean = torch.from_numpy(first.copy()).requires_grad_()
    optimizer = torch.optim.Adam([mean], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            chamfer_distance(mean.expand(len(some), -1, -1), some).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return mean.detach()


def farthest_points(points: Cloud, count: int, rng: np.random.RandomState) -> Cloud:
    """Points of a cloud, each as far as can be from those before it (Eldar et al. 1997).

    Args:
        points: (n, 3).
        count: How many; where the cloud has fewer, all of them in turn.
        rng: Draws the first.

    Returns:
        (count, 3).
    """
    if len(points) <= count:
        return points[np.arange(count) % len(points)]
    chosen = np.empty(count, np.int64)
    chosen[0] = rng.randint(len(points))
    nearest = np.full(len(points), np.inf, np.float32)
    for i in range(1, count):
        nearest = np.minimum(nearest, np.square(points - points[chosen[i - 1]]).sum(1))
        chosen[i] = nearest.argmax()
    return points[chosen]


def random_points(points: Cloud, count: int, rng: np.random.RandomState) -> Cloud:
    """Points of a cloud drawn without replacement; where it has fewer, all of them in turn; (count, 3)."""
    return points[rng.permutation(len(points))[np.arange(count) % len(points)]]


def scanned(points: Cloud, count: int, how: str, lines: int, rng: np.random.RandomState) -> Cloud:
    """A sparse scan of the surface that a cloud is of: at places between its points, as of another measurement.

    Args:
        points: (n, 3).
        count: Of the scan.
        how: One of `SCANS`. ``random``: midway between a point and the one nearest to it. ``lines``: where segments
            between neighbouring points cross parallel upright planes, as far as can be from each other in each.
        lines: How many planes; their direction and place are drawn.
        rng: Of the draws.

    Returns:
        (count, 3), of each plane in turn. A scan of few points of a surface is like one of many, but for its heights,
        which are interpolated over wider gaps.
    """
    if how == "random":
        drawn = rng.permutation(len(points))[np.arange(count) % len(points)]
        return np.stack([(points[i] + points[_nearest_other(points, i)]) / 2 for i in drawn])
    angle = rng.uniform(0, math.pi)
    across = points[:, :2] @ np.array([math.cos(angle), math.sin(angle)], np.float32)
    low, high = float(across.min()), float(across.max())
    shift = rng.uniform(0.25, 0.75)
    found = []
    for line, of_line in enumerate(np.array_split(np.arange(count), lines)):
        place = low + (high - low) * (line + shift) / lines
        found.append(farthest_points(_crossings(points, across - place, _BAND * len(of_line)), len(of_line), rng))
    return np.concatenate(found)


def _nearest_other(points: Cloud, index: int) -> int:
    apart = np.square(points - points[index]).sum(1)
    apart[index] = np.inf
    return int(apart.argmin())


def _crossings(points: Cloud, beside: Cloud, near: int) -> Cloud:
    """Where segments between points on both sides of a plane, `near` on each, cross it; `beside` is how far beside."""
    order = np.argsort(np.abs(beside), kind="stable")
    first, second = order[beside[order] <= 0][:near], order[beside[order] > 0][:near]
    if not len(second):  # the cloud is within the plane
        return points[first]
    apart = np.square(points[first][:, None] - points[second]).sum(2)
    joined = np.argsort(apart, 1, kind="stable")[:, :_ACROSS]
    lengths = np.take_along_axis(apart, joined, 1)
    row, column = np.nonzero(lengths <= _LONGEST**2 * np.median(lengths[:, 0]))
    first, second = first[row], second[joined[row, column]]
    share = beside[first] / (beside[first] - beside[second])
    crossings: Cloud = points[first] + share[:, None] * (points[second] - points[first])
    return crossings
