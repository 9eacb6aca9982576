"""Spectrum and sharpness say what is in an image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.perceptual import radial_power, sharpness, spectrum_distance


def wave(periods: int, height: int = 16, width: int = 16, vertical: bool = False) -> Tensor:
    axis = torch.arange(height if vertical else width) / (height if vertical else width)
    line = torch.sin(2 * math.pi * periods * axis)
    return (line[:, None] if vertical else line[None]).expand(height, width)[None, None]


@pytest.mark.parametrize("vertical", [False, True])
def test_a_wave_has_all_its_power_at_its_frequency(vertical: bool) -> None:
    power = radial_power(wave(5, vertical=vertical))
    assert power.shape == (8,)
    assert int(power.argmax()) == 4
    assert power[4] / power.sum() > 0.999


def test_frequencies_of_oblong_images_are_counted_along_the_shorter_side() -> None:
    assert int(radial_power(wave(8, 16, 32)).argmax()) == 3  # eight periods over 32 positions: four over 16


def test_ten_times_the_power_at_all_frequencies_is_ten_decibels() -> None:
    x = torch.randn(20, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    power = radial_power(x)
    assert spectrum_distance(power, power) == 0.0
    assert spectrum_distance(power, radial_power(x * 10**0.5)) == pytest.approx(10.0)
    assert torch.allclose(radial_power(x + 3.0), power), "brightness has no frequency"


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    x = torch.randn(3, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None].double()
    edges = torch.nn.functional.conv2d(x.double().flatten(0, 1)[:, None], kernel)
    assert sharpness(x) == pytest.approx(float(edges.flatten(1).var(1).mean()))
    assert sharpness(torch.full((2, 1, 8, 8), 0.3)) == pytest.approx(0.0, abs=1e-12)


def test_weights_are_shares() -> None:
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    twice, weights = torch.cat((x, x[:1])), torch.tensor([2.0, 1, 1, 1]) / 5
    assert torch.allclose(radial_power(x, weights), radial_power(twice))
    assert sharpness(x, weights) == pytest.approx(sharpness(twice))


@pytest.mark.parametrize("x", [torch.rand(3, 5), torch.rand(2, 1, 3, 9), torch.empty(0, 1, 8, 8)])
def test_what_is_no_image_is_refused(x: Tensor) -> None:
    for measure in (radial_power, sharpness):
        with pytest.raises(ConfigurationError, match="images"):
            measure(x)


def test_nan_is_refused() -> None:
    for measure in (radial_power, sharpness):
        with pytest.raises(ConfigurationError, match="NaN"):
            measure(torch.full((1, 1, 8, 8), torch.nan))
