"""The leaves of a sample by their path."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from lightning_diffaug.structure import describe, leaves

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
