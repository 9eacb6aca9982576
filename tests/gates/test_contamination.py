"""The measure of what is near a held-out sample: the nearest real one there, of whichever part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import NotHeldOut
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

SPEC = SampleSpec((FieldSpec("image", "0", "tensor", "float32", (1, 8, 8), -1.0, 1.0, "chw"),))


def _images(n: int, seed: int) -> Tensor:
    return torch.rand((n, 1, 8, 8), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _gate(training: Tensor, held_out: Tensor, **settings: Any) -> NotHeldOut:
    gate = NotHeldOut(**settings)
    gate.bind(Snapshot(SPEC, {"image": training}))
    gate.bind_held_out(Snapshot(SPEC, {"image": held_out}))
    return gate


def test_copies_of_held_out_samples_are_rejected_and_of_training_samples_are_not() -> None:
    training, held_out = _images(20, 0), _images(10, 1)
    gate = _gate(training, held_out)
    noisy = held_out + 0.02 * _images(10, 2)
    for copies in (held_out, noisy, held_out.flip(-1), held_out.roll(1, -1), held_out.roll(-1, -2)):
        assert not gate({"image": copies}, {}).any()
    assert gate({"image": training}, {}).all()
    assert gate({"image": _images(50, 3)}, {}).all()


def test_where_a_training_sample_is_near_a_held_out_one_copies_have_to_be_nearer_still() -> None:
    """Few held-out samples lie far apart: their distances alone would take for a copy what is none."""
    held_out, away = _images(2, 1), _images(1, 4)
    near, nearer = held_out[:1] + 0.1 * away, held_out[:1] + 0.01 * away
    far_training = _gate(_images(20, 0), held_out)
    assert far_training({"image": near}, {}).tolist() == [False]
    near_training = _gate(torch.cat((_images(20, 0), held_out[:1] + 0.2 * away)), held_out)
    assert near_training({"image": near}, {}).tolist() == [True]
    assert near_training({"image": nearer}, {}).tolist() == [False]


def test_a_single_held_out_sample_is_measured_by_the_training_samples() -> None:
    held_out = _images(1, 1)
    gate = _gate(_images(20, 0), held_out)
    assert gate({"image": torch.cat((held_out, _images(5, 2)))}, {}).tolist() == [False] + [True] * 5


def test_a_ratio_out_of_range_names_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"gates\.contamination\.ratio"):
        NotHeldOut(ratio=1.5)
