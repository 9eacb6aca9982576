"""Denoisers: sizes, conditions, architecture as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


TOLD: dict[str, ConditionSpec] = {
    "label": ConditionSpec("class", classes=3),
    "tags": ConditionSpec("labels", (4,)),
    "text": ConditionSpec("vector", (5,)),
}
ATTENDED = {"points": ConditionSpec("cross", (6, 3)), "map": ConditionSpec("cross", (2, 3, 4))}
# Each denoiser with each kind of sample, and every condition that it can be told.
CASES: dict[str, tuple[str, tuple[int, ...], dict[str, ConditionSpec]]] = {
    "unet": ("unet", (1, 9, 11), TOLD | {"mask": ConditionSpec("concat", (2, 9, 11))}),
    "unet_cross": ("unet_cross", (1, 9, 11), TOLD | ATTENDED | {"mask": ConditionSpec("concat", (2, 9, 11))}),
    "dit of an image": ("dit", (1, 9, 11), TOLD | ATTENDED | {"mask": ConditionSpec("concat", (2, 9, 11))}),
    "dit of a volume": ("dit", (1, 4, 6, 5), TOLD | {"mask": ConditionSpec("concat", (1, 4, 6, 5))}),
    "dit of a sequence": ("dit", (2, 51), TOLD | ATTENDED | {"mask": ConditionSpec("concat", (1, 51))}),
    "dit of points": ("dit", (12, 3), TOLD | ATTENDED),
    "dit of a vector": ("dit", (7,), TOLD | ATTENDED),
    "unet1d": ("unet1d", (2, 50), TOLD | {"mask": ConditionSpec("concat", (1, 50))}),
    "unet1d of a short sequence": ("unet1d", (1, 5), TOLD),
}


def _told(conditions: Mapping[str, ConditionSpec], n: int = 2) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {
        name: torch.arange(n) % spec.classes if spec.kind == "class" else torch.randn(n, *spec.shape, generator=rng)
        for name, spec in conditions.items()
    }


def _built(name: str, shape: tuple[int, ...], conditions: Mapping[str, ConditionSpec], **args: Any) -> Any:
    torch.manual_seed(0)
    denoiser: Any = Architecture(name, shape, conditions, args).build().eval()
    if name == "dit":  # it begins by predicting nothing, whatever it is told
        torch.nn.init.normal_(denoiser.outwards.weight)
    return denoiser


@pytest.mark.parametrize("case", list(CASES))
def test_each_condition_changes_the_prediction(case: str) -> None:
    name, shape, conditions = CASES[case]
    denoiser, told, x, t = _built(name, shape, conditions), _told(conditions), _noise(2, *shape), torch.tensor(500.0)
    null = denoiser.null(told)
    with torch.no_grad():
        out = denoiser(x, t, told)
        assert out.shape == x.shape
        assert bool(torch.isfinite(out).all())
        assert not torch.allclose(denoiser(x, torch.tensor(900.0), told), out, atol=1e-4)
        torch.testing.assert_close(denoiser(x, torch.tensor([500.0, 500.0]), told), out)  # a time for each sample
        for key in conditions:
            assert not torch.allclose(denoiser(x, t, {**told, key: null[key]}), out, atol=1e-4), key


@pytest.mark.parametrize("kind", ["label", "tags", "text", "mask"])
def test_each_condition_alone_changes_the_prediction_of_a_unet(kind: str) -> None:
    conditions = {kind: CASES["unet"][2][kind]}
    denoiser, told, x = _built("unet", (1, 9, 11), conditions), _told(conditions), _noise(2, 1, 9, 11)
    out = denoiser(x, torch.tensor(500), told)
    assert not torch.allclose(denoiser(x, torch.tensor(500), denoiser.null(told)), out, atol=1e-4)


def test_a_transformer_begins_by_predicting_nothing() -> None:
    out = Architecture("dit", (1, 8, 8), {}).build()(_noise(2, 1, 8, 8), torch.tensor(5.0), {})
    assert torch.equal(out, torch.zeros(2, 1, 8, 8))


def test_a_transformer_knows_where_a_patch_is() -> None:
    denoiser, x, t = _built("dit", (1, 8, 8), {}), _noise(2, 1, 8, 8), torch.tensor(300.0)
    moved = denoiser(x.roll(2, -1), t, {})
    assert not torch.allclose(moved, denoiser(x, t, {}).roll(2, -1), atol=1e-4)


def test_points_have_no_order() -> None:
    points, order = _noise(2, 12, 3), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for points_or_not, same in ((None, True), (False, False)):
        denoiser, t = _built("dit", (12, 3), {}, points=points_or_not, patch=1), torch.tensor(300.0)
        moved = denoiser(points[:, order], t, {})
        assert torch.allclose(moved, denoiser(points, t, {})[:, order], atol=1e-5) == same


def test_tokens_without_a_place_have_no_order_and_those_of_a_map_have() -> None:
    conditions = {"points": ATTENDED["points"], "map": ATTENDED["map"]}
    denoiser, told, x, t = (
        _built("dit", (1, 8, 8), conditions),
        _told(conditions),
        _noise(2, 1, 8, 8),
        torch.tensor(9.0),
    )
    out = denoiser(x, t, told)
    assert torch.allclose(denoiser(x, t, {**told, "points": told["points"].flip(1)}), out, atol=1e-5)
    assert not torch.allclose(denoiser(x, t, {**told, "map": told["map"].flip(-1)}), out, atol=1e-4)


@pytest.mark.parametrize("case", list(CASES))
def test_an_architecture_survives_json_with_the_order_of_its_conditions(case: str) -> None:
    name, shape, conditions = CASES[case]
    made = Architecture(name, shape, conditions)
    again = Architecture.from_json(json.loads(json.dumps(made.to_json(), sort_keys=True)))
    assert again == made
    assert list(again.conditions) == list(conditions)
    state, told, x = made.build().state_dict(), _told(conditions), _noise(2, *shape)
    networks = [_built(name, shape, conditions), again.build().eval()]
    for network in networks:
        network.load_state_dict(state)
    assert torch.equal(networks[0](x, torch.tensor(5.0), told), networks[1](x, torch.tensor(5.0), told))


@pytest.mark.parametrize(
    ("shape", "attends", "name"),
    [
        ((1, 8, 8), False, "unet"),
        ((1, 8, 8), True, "unet_cross"),
        ((2, 100), False, "unet1d"),
        ((2, 100), True, "dit"),
        ((100, 3), False, "dit"),
        ((1, 4, 4, 4), False, "dit"),
        ((7,), False, "dit"),
    ],
)
def test_auto_takes_the_denoiser_that_suits_the_samples(shape: tuple[int, ...], attends: bool, name: str) -> None:
    conditions = {"points": ATTENDED["points"]} if attends else {}
    assert Architecture.of("auto", shape, conditions, {}).name == name
    assert Architecture.of("dit", shape, conditions, {}).name == "dit"


@pytest.mark.parametrize(
    ("name", "shape", "args", "key"),
    [
        ("unet_cross", (1, 8, 8), {}, r"generator\.fit\.denoiser=unet"),
        ("unet1d", (1, 8, 8), {}, r"generator\.fit\.denoiser=auto"),
        ("unet1d", (1, 80), {"channels": [8, 8]}, r"generator\.fit\.channels"),
        ("unet1d", (1, 80), {"channels": [32]}, r"generator\.fit\.channels"),
        ("dit", (1, 8, 8), {"width": 30}, r"generator\.fit\.denoiser_args"),
        ("dit", (1, 8, 8), {"patch": 0}, r"generator\.fit\.denoiser_args\.patch"),
        ("dit", (1, 8, 8), {"points": True}, r"generator\.fit\.denoiser_args\.points"),
        ("dit", (1, 8, 8), {"layers": 3}, r"no argument 'layers'.*patch, width"),
        ("transformer", (1, 8, 8), {}, r"generator\.fit\.denoiser to auto, unet"),
        ("my_project.denoisers.Mlp", (1, 8, 8), {}, r"cannot be imported.*generator\.fit\.denoiser"),
        ("torch.nn.functional.relu", (1, 8, 8), {}, r"is no denoiser.*generator\.fit\.denoiser"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_key(
    name: str, shape: tuple[int, ...], args: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=key):
        Architecture(name, shape, {}, args).build()


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
        UNetDenoiser((1, 8, 8), {"points": ATTENDED["points"]})
