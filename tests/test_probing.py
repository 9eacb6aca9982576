"""When two samples are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torchvision import tv_tensors
from training_toys import Images

from lightning_diffaug.probing import equal, spread


@pytest.mark.parametrize(
    ("sample", "other"),
    [
        (torch.tensor([1.0, float("nan")]), torch.tensor([2.0, float("nan")])),
        (torch.ones(2, dtype=torch.bfloat16, requires_grad=True), torch.zeros(2, dtype=torch.bfloat16)),
        (tv_tensors.Image(torch.ones(1, 2, 2)), tv_tensors.Image(torch.zeros(1, 2, 2))),
        (np.array([1.0, np.nan]), np.array([2.0, np.nan])),
        (np.array(["a", "b"]), np.array(["a", "c"])),
        (PILImage.new("L", (3, 2), 5), PILImage.new("L", (3, 2), 6)),
        ({"x": (1, "a")}, {"x": (1, "b")}),
        (float("nan"), 1.0),
        (1, 1.0),
        ((1, 2), (1, 2, 3)),
    ],
)
def test_samples_are_equal_by_structure_and_value(sample: Any, other: Any) -> None:
    assert equal(sample, sample)
    assert not equal(sample, other)
    assert not equal(other, sample)


def test_what_has_no_values_counts_as_equal() -> None:
    assert equal((1, object()), (1, object()))
    assert equal((1, None), (1, None))


def test_probed_indices_are_spread_from_first_to_last() -> None:
    assert spread(Images(25), 4) == [0, 8, 16, 24]
    assert spread(Images(2), 4) == [0, 1]
    assert spread(Images(1), 4) == [0]
