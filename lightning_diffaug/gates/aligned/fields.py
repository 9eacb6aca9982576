"""Two fields of a sample that belong together: whether they are there, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.spec import FieldSpec, SampleSpec

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

Values = Tensor | Sequence[str]
"""A field of n samples: float32 (n, *shape) in [-1, 1], or n texts."""


def check_there(spec: SampleSpec, gate: str, key: str, name: str, texts: bool = False) -> FieldSpec:
    """A field that a gate looks at.

    Args:
        spec: The fields of a sample.
        gate: Name of the gate.
        key: Its argument that names the field.
        name: What it says.
        texts: Whether the field may be a text.

    Raises:
        ConfigurationError: There is no such field.
    """
    fields = [field for field in spec.fields if field.continuous or (texts and field.is_text)]
    found = next((field for field in fields if field.name == name), None)
    if found is None:
        raise ConfigurationError(
            f"gates.{gate}.{key}={name!r} is no field of these data that the gate can look at; there are "
            f"{', '.join(field.name for field in fields)}. Name one of them in gates.{gate}.{key}, or set "
            f"gates.{gate}=false."
        )
    return found


def given(field: FieldSpec, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Values:
    """A field of the samples that a gate sees; a text is what the row was asked for by.

    Raises:
        GeneratorError: A text is not among the conditions.
    """
    if not field.is_text:
        return samples[field.name]
    texts = condition.get(field.name, condition.get(PROMPT))
    if texts is None:
        raise GeneratorError(
            f"the samples have no text {field.name!r}, and were made without a prompt: set data.text, such as "
            "{captions: real}."
        )
    return [str(text) for text in texts]


def read(snapshot: Snapshot, field: FieldSpec, rows: Tensor) -> Values:
    """A field of real samples, as `given` has it of made ones."""
    if field.is_text:
        return [snapshot.texts[field.name][i] for i in rows.tolist()]
    return snapshot.unit(field.name, rows)


def taken(values: Values, rows: Tensor) -> Values:
    """Some rows, int64 (m,)."""
    return values[rows] if isinstance(values, Tensor) else [values[i] for i in rows.tolist()]


def class_count(field: FieldSpec) -> int:
    """Number of classes that a mask tells apart.

    That is: the class numbers of its range; the channels of a field that has one for each; else two, below and above
    the middle of its range.
    """
    if field.is_mask:
        return round(field.high) + 1
    return field.shape[0] if len(field.shape) == 3 and field.shape[0] > 1 else 2


def class_numbers(values: Tensor, field: FieldSpec) -> Tensor:
    """Masks float32 (n, *shape) in [-1, 1] → class numbers, int64 (n, H, W)."""
    if field.is_mask:
        return field.from_unit(values).to(torch.int64).reshape(len(values), *field.shape[-2:])
    if len(field.shape) == 3 and field.shape[0] > 1:
        return values.argmax(1)
    return (values > 0).to(torch.int64).reshape(len(values), *field.shape[-2:])
