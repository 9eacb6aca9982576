"""Samples that are made of pooled tensors are as the user's own."""

from __future__ import annotations

import dataclasses
import pickle
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torchvision import tv_tensors

from lightning_diffaug.adapter import SampleAdapter
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.sample import leaf_to_tensor, probe
from lightning_diffaug.spec import FieldSpec

PIXELS = torch.arange(24, dtype=torch.uint8).reshape(1, 4, 6)


@dataclasses.dataclass
class Record:
    x: Any
    y: Any
    derived: int = dataclasses.field(init=False, default=3)


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
