"""Denoisers: sizes, conditions, architecture as plain values."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.denoisers import Architecture, ConditionSpec, UNetDenoiser, class_condition

LABEL = class_condition("label", 3)


def _unet(shape: tuple[int, ...], conditions: dict[str, ConditionSpec] = LABEL, **args: Any) -> UNetDenoiser:
    return UNetDenoiser(shape, conditions, **args).eval()


def _noise(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def test_eight_pixels_get_the_measured_architecture() -> None:
    unet: Any = _unet((1, 8, 8), class_condition("label", 10))
    assert unet.unet.config.block_out_channels == (32, 32)
    assert 260_000 < sum(p.numel() for p in unet.parameters()) < 275_000


def test_larger_samples_get_more_resolutions() -> None:
    levels = [len(_unet((3, size, size)).unet.config.block_out_channels) for size in (8, 16, 28, 32, 64, 128, 256)]
    assert levels == [2, 2, 3, 3, 4, 5, 6]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 9, 13), (1, 1, 1), (2, 3, 17), (4, 31, 5)])
def test_any_height_width_and_channels_are_denoised(shape: tuple[int, int, int]) -> None:
    x = _noise(2, *shape)
    out = _unet(shape)(x, torch.tensor([3, 999]), {"label": torch.tensor([0, 3])})
    assert out.shape == x.shape
    assert bool(torch.isfinite(out).all())


def test_time_and_class_change_the_prediction() -> None:
    denoiser, x = _unet((1, 8, 8)), _noise(1, 1, 8, 8)
    base = denoiser(x, torch.tensor(10), {"label": torch.tensor([0])})
    assert not torch.equal(denoiser(x, torch.tensor(900), {"label": torch.tensor([0])}), base)
    assert not torch.equal(denoiser(x, torch.tensor(10), {"label": torch.tensor([1])}), base)


def test_without_classes_no_condition_is_needed() -> None:
    assert _unet((1, 8, 8), {})(torch.zeros(2, 1, 8, 8), torch.tensor(5), {}).shape == (2, 1, 8, 8)


SPECS = {
    "label": ConditionSpec("class", classes=3),
    "tags": ConditionSpec("labels", (4,)),
    "text": ConditionSpec("vector", (5,)),
    "mask": ConditionSpec("concat", (2, 9, 11)),
}
GIVEN = {
    "label": torch.tensor([0, 2]),
    "tags": torch.ones(2, 4),
    "text": torch.ones(2, 5),
    "mask": torch.ones(2, 2, 9, 11),
}


@pytest.mark.parametrize("name", list(SPECS))
def test_each_condition_alone_and_among_others_changes_the_prediction(name: str) -> None:
    x = _noise(2, 1, 9, 11)
    for conditions in ({name: SPECS[name]}, SPECS):
        denoiser = _unet((1, 9, 11), conditions)
        given = {key: GIVEN[key] for key in conditions}
        null = denoiser.null(given)
        assert null is not None
        out = denoiser(x, torch.tensor(500), given)
        assert out.shape == x.shape
        assert not torch.allclose(denoiser(x, torch.tensor(500), {**given, name: null[name]}), out)


def test_an_architecture_survives_json_with_the_order_of_its_conditions() -> None:
    made = Architecture("unet", (1, 9, 11), SPECS, {"channels": [8, 16]})
    again = Architecture.from_json(json.loads(json.dumps(made.to_json(), sort_keys=True)))
    assert again == made
    assert list(again.conditions) == list(SPECS)
    states = [architecture.build().state_dict() for architecture in (made, again)]
    assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in states[1].items()}


@pytest.mark.parametrize(
    ("shape", "channels", "key"),
    [
        ((12,), None, "Set generator"),
        ((2, 100), [8], "Set generator"),
        ((3, 512, 512), None, r"real\.size"),
        ((1, 8, 8), (12,), r"generator\.fit\.channels"),
        ((1, 8, 8), (), r"generator\.fit\.channels"),
    ],
)
def test_what_a_unet_cannot_do_is_refused_with_the_key_to_change(
    shape: tuple[int, ...], channels: tuple[int, ...] | None, key: str
) -> None:
    with pytest.raises(ConfigurationError, match=key):
        UNetDenoiser(shape, LABEL, channels)


def test_a_condition_of_a_kind_that_the_unet_cannot_be_told_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'points' as cross.*generator\.fit\.denoiser"):
        UNetDenoiser((1, 8, 8), {"points": ConditionSpec("cross", (6, 3))})


def test_an_argument_that_the_denoiser_does_not_have_is_refused_with_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.denoiser_args"):
        Architecture("unet", (1, 8, 8), LABEL, {"patch": 2}).build()
