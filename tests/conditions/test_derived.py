"""Conditions made of a field: what they are, and what they cannot be made of."""

from __future__ import annotations

import pytest
import torch

from lightning_diffaug.conditions.derived import derive, edges, low_resolution
from lightning_diffaug.errors import ConfigurationError


@pytest.mark.parametrize(("size", "small"), [((8,), (2,)), ((8, 8), (2, 2)), ((9, 4), (3, 1)), ((4, 8, 4), (1, 2, 1))])
def test_low_resolution_is_the_mean_of_blocks(size: tuple[int, ...], small: tuple[int, ...]) -> None:
    x = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    low = low_resolution(x, 4)
    assert low.shape == (3, 2, *small)
    if size == (8, 8):
        expected = x.unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5))
        torch.testing.assert_close(low, expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_edges_are_where_values_change_and_nowhere_else(axes: int) -> None:
    x = torch.full((1, 2, *(8,) * axes), -1.0)
    x[:, 1, 4:] = 1.0  # one channel has a step along the first axis
    found = edges(x, 4)
    assert found.shape == (1, 1, *(8,) * axes)
    assert torch.equal(found[:, :, 3:5], torch.ones_like(found[:, :, 3:5]))
    assert torch.equal(found[:, :, :3], -torch.ones_like(found[:, :, :3]))
    assert torch.equal(found[:, :, 5:], -torch.ones_like(found[:, :, 5:]))


def test_what_has_no_space_cannot_be_derived_from() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.conditions"):
        derive(torch.zeros(2, 5), "edges", 4)
