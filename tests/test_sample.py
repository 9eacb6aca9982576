"""What a sample is: its leaves, the probe, and samples made of pooled tensors."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections import defaultdict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torchvision import tv_tensors

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.sample import (
    FieldSpec,
    SampleAdapter,
    SampleSpec,
    describe,
    leaf_to_tensor,
    leaves,
    probe,
    value_range,
)

PIXELS = torch.arange(24, dtype=torch.uint8).reshape(1, 4, 6)
Pair = namedtuple("Pair", "x y")


@dataclasses.dataclass
class Record:
    x: Any
    y: Any
    derived: int = dataclasses.field(init=False, default=3)


def test_leaves_are_named_by_their_path_in_order() -> None:
    sample = {"a": (1, {"b": 2}), "c": [Pair(3, "text")], 5: Record(6, None)}
    assert leaves(sample) == {"a.0": 1, "a.1.b": 2, "c.0.0": 3, "c.0.1": "text", "5.x": 6, "5.y": None}


def test_a_sample_that_is_one_leaf_has_the_empty_path() -> None:
    assert list(leaves(PIXELS)) == [""]
    assert "(the sample itself): Tensor" in describe(PIXELS)


def test_the_structure_is_described_leaf_by_leaf() -> None:
    text = describe({"image": PILImage.new("RGB", (6, 4)), "n": 3, "mask": np.zeros((4, 6), bool)})
    assert text.splitlines() == [
        "  image: Image size (6, 4) mode RGB",
        "  n: int",
        "  mask: ndarray shape (4, 6) bool",
    ]


@pytest.mark.parametrize(
    ("image", "kind", "shape", "layout", "mode"),
    [
        (PILImage.new("L", (6, 4)), "pil", (1, 4, 6), "chw", "L"),
        (PILImage.new("RGB", (6, 4)), "pil", (3, 4, 6), "chw", "RGB"),
        (tv_tensors.Image(PIXELS), "tv_image", (1, 4, 6), "chw", None),
        (PIXELS, "tensor", (1, 4, 6), "chw", None),
        (np.zeros((8, 6, 3), np.uint8), "ndarray", (3, 8, 6), "hwc", None),
        (torch.zeros(8, 6), "tensor", (1, 8, 6), "hw", None),
    ],
)
def test_the_probe_finds_image_and_label(
    image: Any, kind: str, shape: tuple[int, ...], layout: str, mode: str | None
) -> None:
    spec = probe((image, 3))
    assert spec["label"] == FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0)
    found = spec["image"]
    assert (found.path, found.kind, found.shape, found.layout, found.mode) == ("0", kind, shape, layout, mode)
    assert spec.continuous == (found,)


@pytest.mark.parametrize("mode", ["1", "P", "I", "F", "CMYK"])
def test_pil_modes_that_a_pool_cannot_hold_are_refused(mode: str) -> None:
    with pytest.raises(SampleStructureError, match=f"mode '{mode}'(.|\n)*convert"):
        probe((PILImage.new(mode, (6, 4)), 3))


class Depth(tv_tensors.TVTensor):
    """A kind of the user's own, which no pool knows."""


def test_tv_tensors_that_a_pool_cannot_rebuild_are_refused() -> None:
    depth = torch.zeros(4, 6).as_subclass(Depth)
    with pytest.raises(SampleStructureError, match="Depth"):
        probe((PIXELS, depth), {"0": "image", "1": "depth"})


@pytest.mark.parametrize(
    "leaf",
    [
        tv_tensors.Mask(torch.arange(24).reshape(4, 6) % 3),
        tv_tensors.Mask(torch.zeros(4, 6, dtype=torch.bool)),
        tv_tensors.Video(torch.zeros(5, 3, 4, 6, dtype=torch.uint8)),
        tv_tensors.BoundingBoxes(torch.rand(2, 4), format="CXCYWH", canvas_size=(4, 6)),
        torch.arange(24).reshape(4, 6) % 3,
    ],
    ids=lambda leaf: f"{type(leaf).__name__}-{leaf.dtype}",
)
def test_leaves_of_every_kind_come_back_as_they_were(leaf: Any) -> None:
    sample = {"image": PIXELS, "more": leaf}
    spec = probe(sample, {"image": "image", "more": "more"})
    fields = {field.name: leaf_to_tensor(sample[field.path], field)[None] for field in spec.fields}
    (again,) = SampleAdapter(sample, spec).samples(fields, lambda: [(0, 0)])
    found = again["more"]
    assert type(found) is type(leaf)
    assert (found.dtype, found.shape) == (leaf.dtype, leaf.shape)
    assert bool((found == leaf).all())
    assert getattr(found, "format", None) == getattr(leaf, "format", None)
    assert getattr(found, "canvas_size", None) == getattr(leaf, "canvas_size", None)


def test_class_numbers_survive_the_way_through_a_generators_range() -> None:
    mask = torch.arange(12).reshape(3, 4) % 11
    field = FieldSpec("mask", "mask", "tv_mask", "int64", (3, 4), 0.0, 10.0)
    assert field.is_mask
    assert bool((field.from_unit(field.to_unit(mask)) == mask).all())


@pytest.mark.parametrize("flag", [True, np.bool_(True), torch.tensor(True), 0.5, "text"])
def test_what_is_no_integer_is_no_label(flag: Any) -> None:
    assert "label" not in probe((PIXELS, flag))


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.0, 1.0, (0, 1)),
        (0.2, 0.4, (0, 1)),
        (-0.1, 0.4, (-1, 1)),
        (0.0, 1.5, (0, 1.5)),
        (-2.0, -1.5, (-2, -1.5)),
    ],
)
def test_the_range_of_data_is_a_usual_one_where_it_fits(low: float, high: float, found: tuple[float, float]) -> None:
    assert value_range(low, high) == found


@pytest.mark.parametrize(
    "field",
    [
        FieldSpec("image", "0", "tensor", "uint8", (1, 4, 6), 0.0, 255.0),
        FieldSpec("image", "0", "tensor", "float32", (1, 4, 6), -3.0, 5.0),
        FieldSpec("image", "0", "tensor", "float64", (1, 4, 6), 0.0, 1.0),
    ],
)
def test_scaling_to_the_unit_range_and_back_is_exact(field: FieldSpec) -> None:
    raw = (torch.linspace(field.low, field.high, 256).reshape(-1, 1)).to(field.torch_dtype)
    unit = field.to_unit(raw)
    assert (unit.dtype, float(unit.min()), float(unit.max())) == (torch.float32, -1.0, 1.0)
    again = field.from_unit(unit)
    assert again.dtype == field.torch_dtype
    assert torch.allclose(again.double(), raw.double(), atol=1e-5)
    beyond = field.from_unit(torch.tensor([-1.2, 1.2]))
    assert beyond.tolist() == [field.low, field.high]


def test_a_specification_travels_as_json() -> None:
    spec = probe({"x": PILImage.new("RGB", (6, 4)), "y": 3})
    assert SampleSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "image",
    [
        PILImage.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)),
        PILImage.fromarray(np.arange(96, dtype=np.uint8).reshape(4, 8, 3)),
        tv_tensors.Image(PIXELS),
        np.arange(120, dtype=np.float32).reshape(8, 5, 3) / 120,
        np.arange(40, dtype=np.float64).reshape(8, 5) / 40,
        torch.arange(40.0).reshape(1, 8, 5) / 40,
    ],
    ids=["L", "RGB", "tv", "hwc", "hw", "chw"],
)
def test_a_leaf_comes_back_as_it_was(image: Any) -> None:
    sample = {"x": image, "y": 3}
    spec = probe(sample)
    stored = leaf_to_tensor(image, spec["image"])
    assert tuple(stored.shape) == spec["image"].shape
    adapter = SampleAdapter(sample, spec, [3])
    fields = {"image": torch.stack([stored, stored]), "label": torch.zeros(2, dtype=torch.int64)}
    for again in adapter.samples(fields, _origin((0, 0), (0, 1))):
        assert type(again["x"]) is type(image) or isinstance(image, PILImage.Image)
        assert np.array_equal(np.asarray(again["x"]), np.asarray(image))
        assert again["y"] == 3


def test_a_sample_of_another_shape_or_mode_is_refused() -> None:
    spec = probe((PIXELS, 3))
    with pytest.raises(SampleStructureError, match=r"\(1, 2, 2\) here and \(1, 4, 6\)"):
        leaf_to_tensor(torch.zeros(1, 2, 2), spec["image"])
    spec = probe((PILImage.new("RGB", (6, 4)), 3))
    with pytest.raises(SampleStructureError, match="'L', the probed sample had 'RGB'"):
        leaf_to_tensor(PILImage.new("L", (6, 4)), spec["image"])


def _origin(*places: tuple[int, int]) -> Callable[[], list[tuple[int, int]]]:
    return lambda: list(places)


def _adapter(template: Any, **settings: Any) -> SampleAdapter:
    return SampleAdapter(template, probe(template), **settings)


def _rows(n: int) -> dict[str, torch.Tensor]:
    return {"image": torch.zeros(n, 1, 4, 6, dtype=torch.uint8), "label": torch.arange(n) % 2}


def test_containers_that_are_not_made_from_pairs_come_back() -> None:
    template = defaultdict(list, {"x": PIXELS, "y": 1, "name": "n"})
    first, second = _adapter(template, label_values=[1, 5]).samples(_rows(2), _origin((7, 0), (7, 1)))
    assert type(first) is defaultdict
    assert first["missing"] == []
    assert (first["y"], second["y"]) == (1, 5)
    assert (first["name"], second["name"]) == ("synthetic/7/0", "synthetic/7/1")
    assert list(template) == ["x", "y", "name"]  # the template is as it was


def test_a_dataclass_computes_its_own_fields() -> None:
    (made,) = _adapter(Record(PIXELS, 1), label_values=[1]).samples(_rows(1), _origin((0, 0)))
    assert (type(made), made.derived) == (Record, 3)


@pytest.mark.parametrize("empty", [{}, [], ()])
def test_an_empty_container_is_a_leaf_that_must_be_filled(empty: Any) -> None:
    with pytest.raises(ConfigurationError, match="'meta'"):
        _adapter({"x": PIXELS, "y": 1, "meta": empty})
    adapter = _adapter({"x": PIXELS, "y": 1, "meta": empty}, label_values=[1], fill={"meta": empty})
    (made,) = adapter.samples(_rows(1), _origin((0, 0)))
    assert made["meta"] == empty


def test_no_rows_make_no_samples() -> None:
    assert _adapter((PIXELS, 1), label_values=[0, 1]).samples(_rows(0), _origin()) == []


def test_an_adapter_reaches_spawned_workers() -> None:
    adapter = pickle.loads(pickle.dumps(_adapter({"x": PIXELS, "y": 1}, label_values=[4, 9])))
    assert [sample["y"] for sample in adapter.samples(_rows(2), _origin((0, 0), (0, 1)))] == [4, 9]


def test_a_fill_for_a_leaf_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"fill names \['z'\](.|\n)*x: Tensor"):
        _adapter({"x": PIXELS, "y": 1}, fill={"z": 0})
