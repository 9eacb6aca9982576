"""The fields of a sample as plain values: what snapshot, job and pool say of the tensors they hold.

Apart from `lightning_diffaug.sample`, so that a refill process need not import torchvision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

IMAGE = "image"
LABEL = "label"
SOFT_LABEL = "soft_label"
"""Probabilities of the classes, float32 (C,), which a planner may store with a sample beside its class."""

CAPTION = "caption"

LabelValue: TypeAlias = "int | str"


@dataclass(frozen=True)
class FieldSpec:
    """One leaf of the user's sample, as snapshot and pool store it.

    Attributes:
        name: Name in the pool (``"image"``, ``"label"``, or what ``fields=`` maps the leaf to).
        path: Where the leaf sits in the user's sample: ``"0"``, ``"pixels"``, ``"meta.id"``.
        kind: ``"pil"``, ``"tv_image"``, ``"tv_mask"``, ``"tv_video"``, ``"tv_boxes"``, ``"tv_points"``, ``"tensor"``,
            ``"ndarray"``, ``"scalar"``, or ``"str"`` for the caption, a text.
        dtype: Name of the stored torch dtype, such as ``"uint8"``; ``"str"`` for a text.
        shape: Stored shape of one sample; images are channels-first ``(C, H, W)``, scalars ``()``.
        low: Lower end of the raw value range (0 for uint8 and masks).
        high: Upper end of the raw value range (255 for uint8 but masks).
        layout: How the leaf holds an image: ``"chw"``, ``"hwc"``, ``"hw"``; ``""`` for anything else.
        mode: PIL mode of a ``"pil"`` leaf, else None.
    """

    name: str
    path: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float
    layout: str = ""
    mode: str | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """The stored dtype."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def continuous(self) -> bool:
        """Whether a generator makes this field as float32 in [-1, 1]: all but the label and texts."""
        return self.name != LABEL and not self.is_text

    @property
    def is_mask(self) -> bool:
        """Whether it holds class numbers, whose range is what the data hold."""
        if not self.continuous:
            return False
        return self.kind == "tv_mask" or not (self.torch_dtype.is_floating_point or self.dtype == "uint8")

    @property
    def is_text(self) -> bool:
        """Whether it is stored as a text and not as a tensor."""
        return self.kind == "str"

    def to_unit(self, raw: Tensor) -> Tensor:
        """Scales raw values from [low, high] to float32 in [-1, 1]; same shape."""
        return (raw.to(torch.float32) - self.low) * (2.0 / (self.high - self.low)) - 1.0

    def from_unit(self, unit: Tensor) -> Tensor:
        """Scales float values in [-1, 1] back to the raw range and dtype (rounded for integers); same shape."""
        raw = (unit.to(torch.float32) + 1.0) * ((self.high - self.low) / 2.0) + self.low
        raw = raw.clamp(self.low, self.high)
        return raw.to(self.torch_dtype) if self.torch_dtype.is_floating_point else raw.round().to(self.torch_dtype)


@dataclass(frozen=True)
class SampleSpec:
    """The fields that a pool stores for each sample. Plain values: it travels as JSON."""

    fields: tuple[FieldSpec, ...]

    def __getitem__(self, name: str) -> FieldSpec:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"no field {name!r}; there are {[f.name for f in self.fields]}")

    def get(self, name: str) -> FieldSpec | None:
        """The field of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)

    def __contains__(self, name: object) -> bool:
        return any(field.name == name for field in self.fields)

    @property
    def continuous(self) -> tuple[FieldSpec, ...]:
        """The fields that a generator makes."""
        return tuple(field for field in self.fields if field.continuous)

    @property
    def tensors(self) -> tuple[FieldSpec, ...]:
        """The fields that are stored as tensors: all but texts."""
        return tuple(field for field in self.fields if not field.is_text)

    @property
    def texts(self) -> tuple[FieldSpec, ...]:
        """The fields that are texts."""
        return tuple(field for field in self.fields if field.is_text)

    def without(self, names: Collection[str]) -> SampleSpec:
        """The fields but for those of these names."""
        return SampleSpec(tuple(field for field in self.fields if field.name not in names))

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values for a JSON file."""
        return [{**dataclasses.asdict(field), "shape": list(field.shape)} for field in self.fields]

    @classmethod
    def from_json(cls, fields: Sequence[Mapping[str, Any]]) -> SampleSpec:
        """The inverse of `to_json`."""
        return cls(tuple(FieldSpec(**{**field, "shape": tuple(field["shape"])}) for field in fields))
