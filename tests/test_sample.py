"""Which leaves of a sample are fields, and how they are stored."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torchvision import tv_tensors

from lightning_diffaug.errors import SampleStructureError
from lightning_diffaug.sample import leaf_to_tensor, probe, value_range
from lightning_diffaug.spec import FieldSpec, SampleSpec

PIXELS = torch.arange(24, dtype=torch.uint8).reshape(1, 4, 6)


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


def test_a_sample_of_another_shape_or_mode_is_refused() -> None:
    spec = probe((PIXELS, 3))
    with pytest.raises(SampleStructureError, match=r"\(1, 2, 2\) here and \(1, 4, 6\)"):
        leaf_to_tensor(torch.zeros(1, 2, 2), spec["image"])
    spec = probe((PILImage.new("RGB", (6, 4)), 3))
    with pytest.raises(SampleStructureError, match="'L', the probed sample had 'RGB'"):
        leaf_to_tensor(PILImage.new("L", (6, 4)), spec["image"])
