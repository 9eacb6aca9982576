from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_diffaug.points import (
    chamfer_distance,
    farthest_points,
    mean_cloud,
    random_points,
    scanned,
)


def _rng(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


def _cloud(n: int = 400, seed: int = 1) -> np.ndarray:
    return _rng(seed).uniform(-1, 1, (n, 3)).astype(np.float32)


def test_chamfer_is_the_mean_of_both_directions_of_plain_distances() -> None:
    first = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    second = torch.tensor([[[0.0, 0, 2], [0, 0, 2], [1, 0, 2]]])
    assert chamfer_distance(first, second).item() == pytest.approx(2.0, abs=1e-5)
    one = torch.tensor([[[0.0, 3, 4]]])
    # from the two points: 5 and sqrt(26); from the one: 5
    assert chamfer_distance(first, one).item() == pytest.approx(((5 + math.sqrt(26)) / 2 + 5) / 2, abs=1e-5)


def test_chamfer_knows_no_order_and_can_be_learned_from_at_distance_zero() -> None:
    cloud = torch.from_numpy(_cloud(50))[None]
    shuffled = cloud[:, torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    assert chamfer_distance(cloud, shuffled).item() == pytest.approx(0, abs=1e-5)
    moved = cloud.clone().requires_grad_()
    chamfer_distance(moved, shuffled).sum().backward()
    assert bool(moved.grad is not None and moved.grad.isfinite().all())


def test_the_mean_cloud_is_nearer_to_all_than_any_of_them() -> None:
    heights = torch.linspace(-0.5, 0.5, 8)
    clouds = torch.from_numpy(np.stack([_cloud(60, seed) for seed in range(8)]))
    clouds[..., 2] = heights[:, None]
    mean = mean_cloud(clouds, 60)
    assert abs(float(mean[:, 2].mean())) < 0.1
    reached = [chamfer_distance(each.expand(8, -1, -1), clouds).mean().item() for each in (mean, *clouds)]
    assert reached[0] < min(reached[1:])
    assert torch.equal(mean, mean_cloud(clouds, 60))


def test_farthest_points_cover_a_cloud_better_than_random_ones() -> None:
    cloud = _cloud()
    far, drawn = farthest_points(cloud, 40, _rng()), random_points(cloud, 40, _rng())
    reach = [np.sqrt(((cloud[:, None] - some) ** 2).sum(2)).min(1).max() for some in (far, drawn)]
    assert reach[0] < reach[1]
    assert len({tuple(point) for point in far.tolist()}) == 40


@pytest.mark.parametrize("choose", [farthest_points, random_points])
def test_a_small_cloud_gives_each_of_its_points(choose: object) -> None:
    some = choose(_cloud(5), 12, _rng())  # type: ignore[operator]
    assert some.shape == (12, 3)
    assert {tuple(p) for p in some.tolist()} == {tuple(p) for p in _cloud(5).tolist()}


def test_a_scan_is_of_the_cloud_along_lines() -> None:
    cloud = _cloud(3000)
    scan = scanned(cloud, 30, "lines", 3, _rng(4))
    assert {tuple(p) for p in scan.tolist()} <= {tuple(p) for p in cloud.tolist()}
    assert len({tuple(p) for p in scan.tolist()}) == 30
    for line in np.split(scan[:, :2], 3):
        width, length = np.linalg.svd(line - line.mean(0), compute_uv=False)[::-1]
        assert length > 10 * width
    assert np.array_equal(scan, scanned(cloud, 30, "lines", 3, _rng(4)))
    assert not np.array_equal(scan, scanned(cloud, 30, "lines", 3, _rng(5)))
