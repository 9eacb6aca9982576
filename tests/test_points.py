from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_diffaug.points import (
    SCANS,
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


def _sphere(n: int) -> np.ndarray:
    points = _rng(2).normal(size=(n, 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("how", SCANS)
@pytest.mark.parametrize(("points", "inside"), [(3000, 0.02), (300, 0.1)])
def test_a_scan_is_of_the_surface_and_not_at_the_clouds_own_points(how: str, points: int, inside: float) -> None:
    cloud = _sphere(points)
    scan = scanned(cloud, 30, how, 3, _rng(4))
    radius = np.linalg.norm(scan, axis=1)
    assert radius.max() <= 1 + 1e-6
    assert radius.mean() > 1 - inside
    nearest = np.sqrt(np.square(scan[:, None] - cloud).sum(2)).min(1)
    assert np.mean(nearest < 1e-4) < 0.1
    assert len({tuple(p) for p in scan.tolist()}) > 25
    assert np.array_equal(scan, scanned(cloud, 30, how, 3, _rng(4)))
    assert not np.array_equal(scan, scanned(cloud, 30, how, 3, _rng(5)))


@pytest.mark.parametrize("points", [3000, 100])
def test_lines_are_lines_of_dense_and_of_sparse_clouds(points: int) -> None:
    for line in np.split(scanned(_cloud(points), 30, "lines", 3, _rng(4))[:, :2], 3):
        width, length = np.linalg.svd(line - line.mean(0), compute_uv=False)[::-1]
        assert width < 1e-5
        assert length > 1


@pytest.mark.parametrize("how", SCANS)
def test_a_cloud_without_two_sides_is_scanned_too(how: str) -> None:
    for cloud in (np.ones((5, 3), np.float32), np.array([[0, 0, 1], [0, 0, 2]], np.float32), _cloud(1)):
        scan = scanned(cloud, 9, how, 3, _rng())
        assert scan.shape == (9, 3)
        assert scan.dtype == np.float32
        assert np.isfinite(scan).all()


def test_lines_across_a_gap_stay_on_the_parts_that_they_cross() -> None:
    for seed in range(10):
        rng = np.random.RandomState(seed)
        cloud = rng.uniform(0, 1, (128, 3)).astype(np.float32) * [1, 1, 0.01]
        cloud[64:, 2] += 3  # a second sheet high above the first
        heights = scanned(cloud.astype(np.float32), 24, "lines", 3, rng)[:, 2]
        assert ((heights < 0.02) | (heights > 2.98)).all()
