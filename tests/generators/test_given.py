"""From raw fields of the data to what a denoiser is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.augment import AUGMENT
from lightning_diffaug.generators.denoisers import ConditionSpec
from lightning_diffaug.generators.diffusion_fit import made_together
from lightning_diffaug.generators.fit_module import DenoiserFit
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.given import Given, condition_settings
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

N = 20
SHAPE = (1, 8, 8)


def _rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _snapshot() -> Snapshot:
    fields = {
        "image": (255 * _rand(N, *SHAPE)).to(torch.uint8),
        "tags": (torch.arange(N)[:, None] % torch.tensor([2, 3, 4]) == 0).to(torch.uint8),
        "text": _rand(N, 5) * torch.tensor([1.0, 100.0, 1e-3, 0.0, 1.0]) + 7.0,
        "mask": (torch.arange(N)[:, None, None] % torch.tensor([[3, 2], [4, 5]]) == 0).to(torch.uint8),
        "depth": 40.0 * _rand(N, 2, 16, 16),
        "points": 9.0 * _rand(N, 6, 3),
        "label": torch.arange(N) % 3,
    }
    kinds = {"mask": "tv_mask", "label": "scalar"}

    def spec(name: str, value: Tensor) -> FieldSpec:
        high = 255.0 if value.dtype == torch.uint8 else 1.0
        dtype = str(value.dtype).removeprefix("torch.")
        return FieldSpec(name, name, kinds.get(name, "tensor"), dtype, tuple(value.shape[1:]), 0.0, high)

    specs = tuple(spec(name, value) for name, value in fields.items())
    return Snapshot(SampleSpec(specs), fields, ["a", "b", "c"], [0, 1, 2])


SETTINGS: dict[str, Any] = {
    "label": "class",
    "tags": "labels",
    "text": "vector",
    "mask": "concat",
    "depth": "concat",
    "points": "cross",
    "low": {"of": "image", "how": "low_resolution", "factor": 4},
}


def _given() -> Given:
    return Given.of(condition_settings(SETTINGS), _snapshot(), SHAPE)


def test_each_kind_is_told_in_its_own_range_and_shape() -> None:
    given = _given()
    told = given.rows(condition_settings(SETTINGS), _snapshot())(torch.arange(N))
    assert list(told) == list(SETTINGS) == list(given.specs)
    for name, value in told.items():
        assert value.shape == (N, *given.specs[name].shape), name
    assert torch.equal(told["label"], torch.arange(N) % 3)
    assert set(told["tags"].flatten().tolist()) == {-1.0, 1.0}  # whatever range uint8 has
    text = told["text"]
    torch.testing.assert_close(text.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(text.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]), atol=2e-2, rtol=0)
    assert float(told["depth"].min()) >= -1.0
    assert float(told["depth"].max()) <= 1.0
    assert abs(float(told["points"].mean())) < 1e-4
    assert given.specs["points"] == ConditionSpec("cross", (6, 3))


def test_maps_are_resized_to_the_sample_masks_without_new_values() -> None:
    given, snapshot = _given(), _snapshot()
    told = given.rows(condition_settings(SETTINGS), snapshot)(torch.arange(N))
    raw = snapshot.raw("mask").float()
    assert torch.equal(told["mask"][:, 0], (2 * raw - 1).repeat_interleave(4, 1).repeat_interleave(4, 2))
    depth = snapshot.raw("depth").unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5))  # means of what is smaller
    center, scale = given.fields["depth"].center[0], given.fields["depth"].scale[0]
    torch.testing.assert_close(told["depth"], (depth - center) / scale)
    assert told["low"].shape == (N, *SHAPE)


def test_a_planners_raw_values_are_told_as_in_the_fit() -> None:
    given, snapshot, rows = _given(), _snapshot(), torch.tensor([4, 1, 9])
    fitted = given.rows(condition_settings(SETTINGS), snapshot)(rows)
    condition = {name: snapshot.raw(name, rows) for name in SETTINGS if name != "low"}
    told = given.told({**condition, "negative_text": condition["text"], "start_mask": condition["mask"], "other": 1})
    for name in condition:
        assert torch.equal(told[name], fitted[name]), name
    assert torch.equal(told["negative_text"], fitted["text"])
    assert torch.equal(told["start_mask"], fitted["mask"])
    assert told["other"] == 1
    with pytest.raises(GeneratorError, match=r"'text'.*shape \(3, 4\).*\(n, 5\)"):
        given.told({"text": torch.zeros(3, 4)})


def test_what_is_told_survives_json() -> None:
    given = _given()
    again = Given.from_json(json.loads(json.dumps(given.to_json())))
    assert again.fields == given.fields
    assert list(again.fields) == list(given.fields)


def test_without_settings_the_class_is_told_where_there_is_one() -> None:
    assert Given.of(None, _snapshot(), SHAPE).specs == {"label": ConditionSpec("class", classes=3)}
    assert Given.of({}, _snapshot(), SHAPE).specs == {}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"audio": "vector"}, r"'audio'.*data\.fields"),
        ({"low": {"of": "audio", "how": "edges"}}, r"'audio'.*data\.fields"),
        ({"low": {"of": "label", "how": "edges"}}, r"'label'.*data\.fields"),
        ({"low": {"of": "text", "how": "edges"}}, r"generator\.conditions"),
        ({"text": "concat"}, r"generator\.conditions\.text"),
        ({"points": "vector"}, r"generator\.conditions"),
        ({"text": "cross"}, None),
    ],
)
def test_a_field_that_cannot_be_told_so_is_refused(settings: dict[str, Any], text: str | None) -> None:
    def of() -> Given:
        return Given.of(condition_settings(settings), _snapshot(), SHAPE)

    if text is None:  # a vector may be one token
        assert of().specs["text"].shape == (1, 5)
        return
    with pytest.raises(ConfigurationError, match=text):
        of()


def test_fields_that_are_given_are_not_made() -> None:
    spec = _snapshot().spec
    assert made_together(spec, ["tags", "text", "mask", "depth", "points"]) == ({"image": 1}, SHAPE)
    alone = ["image", "tags", "mask", "depth", "points"]
    assert made_together(spec, alone) == ({"text": 5}, (5,))
    for given in ([], ["image", *alone, "text"]):
        with pytest.raises(ConfigurationError, match=r"cannot be denoised together.*data\.fields"):
            made_together(spec, given)


def test_maps_move_along_with_the_sample_that_is_augmented() -> None:
    class Sees(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conditions = {"map": ConditionSpec("concat", SHAPE), "text": ConditionSpec("vector", (2,))}
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen: dict[str, Tensor] = {}

        def forward(self, x_t: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
            self.seen = condition
            return self.weight * x_t

    x_0, network = 2 * _rand(6, *SHAPE) - 1, Sees()
    fit = DenoiserFit(network, FitSettings(augment_p=1.0, augment_pixels=3.0, augment_as="condition"))
    text = _rand(6, 2)
    moved, condition, told = fit._augmented(x_0, {"map": x_0.clone(), "text": text})
    assert not torch.allclose(moved, x_0, atol=0.1)
    torch.testing.assert_close(condition["map"], moved)
    assert torch.equal(condition["text"], text)
    assert float(told[AUGMENT].abs().max()) > 0.0
