"""The nearest neighbour is the one that a plain comparison of all variants finds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from gate_data import unlabelled
from torch import Tensor

from lightning_diffaug.gates import nearest
from lightning_diffaug.gates.nearest import Neighbours, compared_field


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _of(reference: Tensor, **settings: Any) -> Neighbours:
    return Neighbours(lambda rows: reference[rows], len(reference), **settings)


def _plain(x: Tensor, reference: Tensor, shift: int, mirror: bool) -> Tensor:
    """Root mean square differences (n, m), the definition: least over all variants, borders left out."""
    dims = range(2, x.ndim)

    def inner(value: Tensor, offset: tuple[int, ...]) -> Tensor:
        for axis, o in zip(dims, offset, strict=True):
            value = value.narrow(axis, shift + o, value.shape[axis] - 2 * shift)
        return value.flatten(1)

    offsets = list(itertools.product(range(-shift, shift + 1), repeat=len(dims)))
    fixed = inner(reference, (0,) * len(dims))
    all_of_them = [
        (inner(y, o)[:, None] - fixed[None]).square().mean(-1).sqrt()
        for y in ([x, x.flip(-1)] if mirror else [x])
        for o in offsets
    ]
    return torch.stack(all_of_them).amin(0)


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 7), (2, 9), (2, 4, 4, 4)])
@pytest.mark.parametrize("shift", [0, 1])
def test_the_nearest_is_that_of_the_definition(shape: tuple[int, ...], shift: int) -> None:
    reference, x = _random(40, *shape), _random(12, *shape, seed=1)
    mirror = len(shape) >= 3
    wanted = _plain(x, reference, shift, mirror).min(1)
    distance, index = _of(reference, shift=shift, mirror=True).distances(x)
    assert torch.allclose(distance, wanted.values, atol=1e-4)
    assert torch.equal(index, wanted.indices)


def test_vectors_are_neither_moved_nor_mirrored() -> None:
    reference, x = _random(30, 7), _random(5, 7, seed=1)
    distance, index = _of(reference).distances(x)
    wanted = (torch.cdist(x, reference) / 7**0.5).min(1)
    assert torch.allclose(distance, wanted.values, atol=1e-5)
    assert torch.equal(index, wanted.indices)
    assert _of(reference).distances(reference.flip(1))[0].min() > 0.1


def test_many_references_are_compared_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, x = _random(50, 1, 6, 6), _random(9, 1, 6, 6, seed=1)
    whole = _of(reference).distances(x)
    monkeypatch.setattr(nearest, "_CHUNK", 7)
    monkeypatch.setattr(nearest, "_READ", 11)
    parts = _of(reference).distances(x)
    assert torch.allclose(parts[0], whole[0], atol=1e-5)
    assert torch.equal(parts[1], whole[1])


def test_a_references_own_distance_is_to_the_nearest_other_that_differs() -> None:
    reference = torch.tensor([[0.0], [0.0], [0.3], [0.9]])
    found = _of(reference)
    assert found.own(torch.tensor([0, 2, 3, 0]), lambda i: reference[i]).tolist() == pytest.approx([0.3, 0.3, 0.6, 0.3])


def test_equal_references_have_no_neighbour() -> None:
    reference = torch.zeros(4, 1, 4, 4)
    assert _of(reference).own(torch.tensor([1]), lambda i: reference[i]).isinf().all()
    distance, _ = _of(torch.empty(0, 1, 4, 4)).distances(reference)
    assert distance.isinf().all()


def test_large_samples_are_compared_when_averaged_after_they_were_moved() -> None:
    reference = _random(20, 1, 40, 40)
    found = _of(reference, shift=1, size=8)
    moved = torch.roll(reference, (1, -1), (2, 3))
    assert found.distances(moved)[0].max() < 1e-3
    assert torch.equal(found.distances(moved)[1], torch.arange(20))
    unmoved = _of(reference, shift=0, size=8).distances(moved)[0]
    assert unmoved.min() > 0.02


def test_an_encoders_features_are_compared_in_place_of_values() -> None:
    reference, x = _random(30, 1, 5, 5), _random(6, 1, 5, 5, seed=1)

    def mean(value: Tensor) -> Tensor:
        return value.flatten(1).mean(1, keepdim=True)

    distance, index = _of(reference, encoder=mean).distances(x)
    wanted = (mean(x) - mean(reference).T).abs().min(1)
    assert torch.allclose(distance, wanted.values, atol=1e-6)
    assert torch.equal(index, wanted.indices)


def test_the_field_compared_is_the_image_else_the_first_or_the_one_asked_for() -> None:
    both = {"sound": torch.zeros(2, 3), "image": torch.zeros(2, 1, 2, 2)}
    assert compared_field(unlabelled(both).spec, None) == compared_field(both, None) == "image"
    assert compared_field(both, "sound") == "sound"
    assert compared_field(unlabelled({"sound": both["sound"]}).spec, None) == "sound"


def _structured(n: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Images with something at every scale."""
    rng = torch.Generator().manual_seed(seed)
    x = 0.05 * torch.randn((n, *shape), generator=rng)
    for cells in (2, 4, 8):
        rough = torch.randn((n, shape[0], *[cells] * (len(shape) - 1)), generator=rng)
        x += 0.4 * torch.nn.functional.interpolate(rough, shape[1:], mode="nearest")
    return x.clamp(-1, 1)


def _both(monkeypatch: pytest.MonkeyPatch, reference: Tensor) -> tuple[Neighbours, Neighbours]:
    """One that looks twice, and one that compares with all at once."""
    whole = _of(reference)
    monkeypatch.setattr(nearest, "_MANY", 0)
    twice = _of(reference)
    assert (whole._coarse is None, twice._coarse is None) == (True, False)
    return twice, whole


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 24, 24), (1, 13, 17), (1, 12, 12, 12)])
def test_a_first_look_at_many_references_finds_the_same_nearest(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, x = _structured(400, shape, 0), _structured(40, shape, 1)
    monkeypatch.setattr(nearest, "_COARSE_CHUNK", 90)
    monkeypatch.setattr(nearest, "_FURTHER", 200)
    monkeypatch.setattr(nearest, "_PAIRS", 400 * 15)
    twice, whole = _both(monkeypatch, reference)
    (found, index), (wanted, where) = twice.distances(x), whole.distances(x)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.equal(index, where)
    own = twice.own(index, lambda i: reference[i])
    assert torch.allclose(own, whole.own(index, lambda i: reference[i]), atol=1e-5)


@pytest.mark.parametrize("kind", ["structured", "noise"])
def test_a_first_look_misses_no_copy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = _structured(1500, (3, 16, 16), 0) if kind == "structured" else _random(1500, 3, 16, 16)
    twice, _ = _both(monkeypatch, reference)
    rows = torch.arange(0, 1500, 10)
    x = reference[rows]
    for copies in (x, x.flip(-1), torch.roll(x, (1, -1), (2, 3)), torch.roll(x.flip(-1), 1, 3)):
        distance, index = twice.distances(copies)
        assert torch.equal(index, rows)
        assert distance.max() < 1e-3


def test_a_first_look_sees_past_a_sample_that_is_there_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = torch.cat((_structured(1, (1, 16, 16), 5).expand(100, -1, -1, -1), _structured(50, (1, 16, 16), 0)))
    twice, whole = _both(monkeypatch, reference)
    first = torch.tensor([0])
    own = twice.own(first, lambda i: reference[i])
    assert own.isfinite().all()
    assert torch.allclose(own, whole.own(first, lambda i: reference[i]), atol=1e-5)


@pytest.mark.parametrize("further", [32, 100, 1024])
def test_many_images_that_differ_in_detail_alone_are_told_apart(further: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_FURTHER", further)
    detail = 0.3 * _random(240, 1, 16, 16).sign()
    detail[:, :, 1::2] = -detail[:, :, ::2]  # whole cells average to nothing
    reference = 0.5 * _structured(1, (1, 16, 16), 0) + detail
    monkeypatch.setattr(nearest, "_MANY", 0)
    twice = _of(reference, shift=0)
    assert twice._coarse is not None
    assert twice._coarse.std(0).max() < 1e-5
    for copies in (reference, reference + 0.05, reference + 0.05 * _random(240, 1, 16, 16, seed=3)):
        distance, index = twice.distances(copies)
        wanted = _plain(copies, reference, 0, True).min(1)
        assert torch.equal(index, torch.arange(240))
        assert torch.equal(index, wanted.indices)
        assert torch.allclose(distance, wanted.values, atol=1e-3)


@pytest.mark.parametrize("size", [9, 12, 13, 15, 16])
def test_averaging_makes_no_distance_larger(size: int) -> None:
    x = _random(30, 2, size, size) + _random(30, 2, 1, 1, seed=1)
    fine, coarse = torch.cdist(x.flatten(1), x.flatten(1)), torch.cdist(nearest._coarse(x), nearest._coarse(x))
    assert (coarse <= fine + 0.05).all()  # equals are that far apart by rounding


def test_references_are_read_a_few_at_a_time_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, x = _structured(100, (1, 16, 16), 0), _structured(9, (1, 16, 16), 1)
    whole, asked = _of(reference).distances(x), []
    monkeypatch.setattr(nearest, "_MANY", 0)
    monkeypatch.setattr(nearest, "_READ", 30)

    def read(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        return reference[rows]

    parts = Neighbours(read, 100).distances(x)
    assert asked == [30, 30, 30, 10]
    assert torch.allclose(parts[0], whole[0], atol=1e-5)
    assert torch.equal(parts[1], whole[1])


def _sines(n: int, seed: int) -> Tensor:
    pitch, phase = (_random(2, n, 1, 1, seed=seed) + 1) / 2
    return torch.sin(2 * math.pi * ((50 + 3000 * pitch) * torch.arange(8000) / 8000 + phase))


@pytest.mark.parametrize("kind", ["sines", "noise"])
def test_of_long_sequences_copies_are_near_and_others_are_not(kind: str) -> None:
    make = _sines if kind == "sines" else lambda n, seed: _random(n, 1, 8000, seed=seed)
    reference, x = make(100, 0), make(100, 1)
    found = _of(reference)
    for copies in (reference, reference.roll(1, 2), reference.roll(-1, 2)):
        distance, index = found.distances(copies)
        assert torch.equal(index, torch.arange(100))
        assert distance.max() < nearest.SAME
    distance, index = found.distances(x)
    assert distance.median() > 0.5
    assert (
        nearest.apart(distance, found.own(index, lambda i: reference[i]), 1 / 3).float().mean() >= 0.97
    )  # some pitches agree


def test_where_there_is_no_measure_only_equals_are_copies() -> None:
    distance, own = torch.tensor([0.0, 1e-4, 0.1, 0.1]), torch.tensor([torch.inf, torch.inf, torch.inf, 0.5])
    assert nearest.apart(distance, own, 1 / 3).tolist() == [False, False, True, False]
