"""The value ranges of raw fields, by which a generator's [-1, 1] is scaled: given and checked, or found on the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.probing import spread
from lightning_diffaug.sample import leaf_to_tensor, value_range
from lightning_diffaug.spec import FieldSpec, SampleSpec
from lightning_diffaug.structure import leaves

_PROBED = 256
_PROBED_FOR_CLASSES = 4096
_ROUNDING = 0.01  # of a given range's width: so far floating-point data may be outside it


def with_ranges(
    spec: SampleSpec,
    raw: Dataset[Any] | None,
    template: Any,
    given: tuple[float, float] | Mapping[str, tuple[float, float]] | None,
) -> SampleSpec:
    """The specification with the value ranges of floating-point fields and masks.

    Args:
        spec: The fields.
        raw: The training data without transform, of which some are looked at; None for a stream.
        template: One raw sample.
        given: Ranges that the user gives (``data.image_range``): of floating-point fields, or of fields by name.

    Raises:
        ConfigurationError: A range has no width, names no field, or does not hold the data.
    """
    of_fields = given if isinstance(given, Mapping) else {}
    if unknown := set(of_fields) - {field.name for field in spec.continuous}:
        raise ConfigurationError(
            f"data.image_range says the range of {sorted(unknown)}, and the fields are "
            f"{[field.name for field in spec.continuous]}. Set data.image_range to (low, high), or name these."
        )
    ranged = []
    for field in spec.fields:
        floating = field.continuous and field.torch_dtype.is_floating_point
        told = of_fields.get(field.name)
        if told is None and floating and not isinstance(given, Mapping):
            told = given
        if told is not None:
            low, high = told
            _check_holds(field, low, high, raw, template)
        elif floating or field.is_mask:
            low, high = _extremes(field, raw, template)
            low, high = (min(low, 0.0), max(high, 1.0)) if field.is_mask else value_range(low, high)
        else:
            low, high = field.low, field.high
        if field.continuous and not low < high:
            raise ConfigurationError(
                f"field {field.path!r} has the value range [{low}, {high}], so it cannot be scaled for a "
                f"generator. Give image_range=(low, high), or {{{field.name}: [low, high]}} (key data.image_range)."
            )
        ranged.append(dataclasses.replace(field, low=float(low), high=float(high)))
    return SampleSpec(tuple(ranged))


def _check_holds(field: FieldSpec, low: float, high: float, raw: Dataset[Any] | None, template: Any) -> None:
    least, most = _extremes(field, raw, template)
    room = _ROUNDING * (high - low) if field.torch_dtype.is_floating_point else 0.0
    if least < low - room or most > high + room:
        raise ConfigurationError(
            f"data.image_range says that field {field.path!r} is within [{low:g}, {high:g}], and the training data are "
            f"within [{least:g}, {most:g}]: what is made would be cut off where real samples are not. Set "
            f"data.image_range to a range that holds them, e.g. {{{field.name}: [{min(least, low):g}, "
            f"{max(most, high):g}]}}, to null, by which it is found, or scale the data."
        )


def _extremes(field: FieldSpec, raw: Dataset[Any] | None, template: Any) -> tuple[float, float]:
    """The lowest and the highest value of a field in some of the data."""
    samples = [template]
    if raw is not None:
        # more of masks: the highest class may be rare
        samples = [raw[i] for i in spread(raw, _PROBED_FOR_CLASSES if field.is_mask else _PROBED)]
    values = [leaf_to_tensor(leaves(sample)[field.path], field) for sample in samples]
    return min(float(v.min()) for v in values), max(float(v.max()) for v in values)
