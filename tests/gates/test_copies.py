"""Copies of training samples are seen, also when moved or mirrored; what is honest is let through."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gate_data import honest, training, unlabelled
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import NotCopy, Unique


def _bound(gate: Any, data: Any = None) -> Any:
    gate.bind(training() if data is None else data)
    return gate


def _rejected(gate: Any, x: Tensor, **more: Any) -> float:
    passed: Tensor = gate({"image": x}, {}, **more)
    return float((~passed).float().mean())


def _moved(x: Tensor, down: int, right: int) -> Tensor:
    """Moved by whole pixels, with background at the border."""
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-1.0)
    return padded[:, :, 1 - down : 1 - down + x.shape[2], 1 - right : 1 - right + x.shape[3]]


COPIES = {
    "exact": lambda x: x,
    "down": lambda x: _moved(x, 1, 0),
    "up and left": lambda x: _moved(x, -1, -1),
    "mirrored": lambda x: x.flip(-1),
    "mirrored and moved": lambda x: _moved(x.flip(-1), 0, 1),
    "with noise": lambda x: x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    "darker": lambda x: 0.97 * x,
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_training_samples_are_rejected(how: str) -> None:
    assert _rejected(_bound(NotCopy()), COPIES[how](training().unit("image")[:200])) >= 0.99


def test_real_samples_that_are_not_in_the_training_pass() -> None:
    assert _rejected(_bound(NotCopy()), honest()[0]) <= 0.01


def test_a_higher_ratio_rejects_what_is_less_near() -> None:
    x = honest()[0]
    shares = [_rejected(_bound(NotCopy(ratio=ratio)), x) for ratio in (0.2, 0.6, 0.95)]
    assert shares[0] < shares[1] < shares[2]


def test_movement_and_mirroring_are_seen_through_only_as_far_as_asked() -> None:
    x = training().unit("image")[:200]
    assert _rejected(_bound(NotCopy(shift=0)), COPIES["up and left"](x)) < 0.1
    assert _rejected(_bound(NotCopy(mirror=False)), COPIES["mirrored"](x)) < 0.2
    assert _rejected(_bound(NotCopy(shift=0, mirror=False)), x) == 1.0


def test_data_with_the_same_sample_many_times_are_measured_by_what_differs() -> None:
    x = torch.cat([training().unit("image")[:100]] * 2)
    gate = _bound(NotCopy(), unlabelled({"image": x}))
    assert _rejected(gate, x[:100]) == 1.0
    assert _rejected(gate, honest()[0][:200]) <= 0.02


def test_the_field_that_is_compared_can_be_chosen() -> None:
    rng = torch.Generator().manual_seed(0)
    images, sound = torch.rand(40, 1, 8, 8, generator=rng), torch.rand(20, 30, generator=rng)
    data = unlabelled({"image": images[:20], "sound": sound})
    samples = {"image": images[20:], "sound": sound}
    assert _bound(NotCopy(), data)(samples, {}).all()
    assert not _bound(NotCopy(field="sound"), data)(samples, {}).any()


@pytest.mark.parametrize("gate", [NotCopy, Unique])
@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1, True, "x"])
def test_a_ratio_that_is_none_is_refused_with_its_key(gate: Any, ratio: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"gates\.{gate.name}\.ratio"):
        gate(ratio=ratio)


def test_of_equal_samples_in_a_slot_the_first_stays() -> None:
    x = honest(n=6)[0]
    near = x[1:2] + 0.01
    gate = _bound(Unique())
    assert gate({"image": torch.cat((x, x[:1], near))}, {}).tolist() == [True] * 6 + [False, False]


def test_a_sample_that_the_slot_holds_already_is_a_duplicate() -> None:
    x = honest(n=6)[0]
    verdict = _bound(Unique())({"image": x}, {}, {"image": x[2:4]})
    assert verdict.tolist() == [True, True, False, False, True, True]


def test_a_rejected_sample_is_no_reason_to_reject_another() -> None:
    # b is near a, c is near b but not a: without b, c is nothing twice.
    gate = Unique(ratio=0.5)
    gate.bind(unlabelled({"x": torch.arange(10.0).view(10, 1) / 10}))  # neighbours are 0.1 apart: bound 0.05
    x = torch.tensor([[0.0], [0.04], [0.08]])
    assert gate({"x": x}, {}).tolist() == [True, False, True]


def test_a_higher_ratio_finds_more_alike() -> None:
    x = honest()[0]
    shares = [_rejected(_bound(Unique(ratio=ratio)), x) for ratio in (0.2, 0.7, 0.99)]
    assert shares[0] == 0.0
    assert shares[0] < shares[1] < shares[2]


def test_without_two_different_real_samples_only_equal_ones_are_duplicates() -> None:
    gate = _bound(Unique(), unlabelled({"image": torch.zeros(3, 1, 4, 4)}))
    x = torch.rand(3, 1, 4, 4)
    assert gate({"image": torch.cat((x, x[:1]))}, {}).tolist() == [True, True, True, False]


@pytest.mark.parametrize("times", [1, 3])
def test_of_a_single_real_sample_only_equals_are_copies(times: int) -> None:
    x = training().unit("image")[:1]
    gate = _bound(NotCopy(), unlabelled({"image": x.repeat(times, 1, 1, 1)}))
    assert _rejected(gate, torch.cat((x, x.flip(-1)))) == 1.0
    assert _rejected(gate, honest()[0]) == 0.0


def test_what_is_usual_between_real_samples_is_measured_as_samples_of_a_slot_are() -> None:
    x = torch.rand(60, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gate = _bound(Unique(ratio=0.5), unlabelled({"image": x}))
    assert gate.bound == pytest.approx(0.5 * (2 / 3) ** 0.5, rel=0.1)  # averages of noise would be half as far apart
    half = x[:1] + 0.5 * (x[1:2] - x[:1]) * 0.8
    assert gate({"image": torch.cat((x[:1], x[2:3], half))}, {}).tolist() == [True, True, False]
