"""The UNet: sizes, channels, conditions."""

from __future__ import annotations

import pytest
import torch

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.denoisers import UNetConfig, UNetDenoiser


def _denoiser(shape: tuple[int, int, int], classes: int = 3, channels: tuple[int, ...] | None = None) -> UNetDenoiser:
    return UNetDenoiser(UNetConfig.for_data(shape, classes, channels)).eval()


def test_eight_pixels_get_the_measured_architecture() -> None:
    config = UNetConfig.for_data((1, 8, 8), 10)
    assert config == UNetConfig((1, 8, 8), 10, (32, 32), 1, False)
    assert 260_000 < sum(p.numel() for p in UNetDenoiser(config).parameters()) < 275_000


def test_larger_samples_get_more_resolutions() -> None:
    levels = [len(UNetConfig.for_data((3, size, size), 10).channels) for size in (8, 16, 28, 32, 64, 128, 256)]
    assert levels == [2, 2, 3, 3, 4, 5, 6]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 9, 13), (1, 1, 1), (2, 3, 17), (4, 31, 5)])
def test_any_height_width_and_channels_are_denoised(shape: tuple[int, int, int]) -> None:
    denoiser = _denoiser(shape)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    out = denoiser(x, torch.tensor([3, 999]), {"label": torch.tensor([0, 3])})
    assert out.shape == x.shape
    assert bool(torch.isfinite(out).all())


def test_time_and_class_change_the_prediction() -> None:
    denoiser = _denoiser((1, 8, 8))
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    base = denoiser(x, torch.tensor(10), {"label": torch.tensor([0])})
    assert not torch.equal(denoiser(x, torch.tensor(900), {"label": torch.tensor([0])}), base)
    assert not torch.equal(denoiser(x, torch.tensor(10), {"label": torch.tensor([1])}), base)


def test_the_null_condition_is_a_class_of_its_own() -> None:
    null = _denoiser((1, 8, 8), classes=3).null({"label": torch.tensor([0, 2])})
    assert null is not None
    assert null["label"].tolist() == [3, 3]
    assert _denoiser((1, 8, 8), classes=0).null({}) is None


def test_without_classes_no_condition_is_needed() -> None:
    assert _denoiser((1, 8, 8), classes=0)(torch.zeros(2, 1, 8, 8), torch.tensor(5), {}).shape == (2, 1, 8, 8)


def test_a_config_survives_json() -> None:
    config = UNetConfig.for_data((3, 28, 20), 7)
    assert UNetConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ({}, "no 'label'"),
        ({"label": [0, 1, 2]}, "shape"),
        ({"label": [0, 3]}, r"0\.\.2"),
        ({"label": [-1, 0]}, r"0\.\.2"),
    ],
)
def test_a_condition_that_does_not_fit_is_refused(condition: dict[str, list[int]], text: str) -> None:
    with pytest.raises(GeneratorError, match=text):
        _denoiser((1, 8, 8)).check(condition, 2)


def test_only_what_the_denoiser_uses_is_kept_of_a_condition() -> None:
    checked = _denoiser((1, 8, 8)).check({"label": [0, 1], "prompt": ["a", "b"]}, 2)
    assert list(checked) == ["label"]
    assert checked["label"].dtype == torch.int64


@pytest.mark.parametrize(
    ("shape", "channels", "key"),
    [
        ((12,), None, "Set generator to"),
        ((2, 100), None, "Set generator to"),
        ((3, 512, 512), None, r"real\.size"),
        ((1, 8, 8), (12,), r"generator\.fit\.channels"),
        ((1, 8, 8), (), r"generator\.fit\.channels"),
    ],
)
def test_what_a_unet_cannot_do_is_refused_with_the_key_to_change(
    shape: tuple[int, ...], channels: tuple[int, ...] | None, key: str
) -> None:
    with pytest.raises(ConfigurationError, match=key):
        UNetConfig.for_data(shape, 10, channels)
