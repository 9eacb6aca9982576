"""Classes by channel: a mask of class numbers as values that can be denoised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.spec import FieldSpec

_ANYTHING = 255.0  # what uint8 that is no mask may hold


@dataclass(frozen=True)
class OneHot:
    """A mask (H, W) or (1, H, W) of class numbers ↔ (classes, H, W), 1 in the channel of the class, else -1.

    Class numbers as grey values would make two classes neighbours, and what lies between them a third. Decoded is the
    channel of the highest value.

    Args:
        classes: Their number; a number in the data that is not below it is an error. None: what the range of the field
            says, which is found on the training data (or ``data.image_range``).

    Raises:
        ConfigurationError: Below 2; or None, and nothing says that the field holds class numbers (`shape`).
    """

    classes: int | None = None

    def __post_init__(self) -> None:
        if self.classes is not None and (type(self.classes) is not int or self.classes < 2):
            raise ConfigurationError(
                f"classes={self.classes!r} of the codec OneHot is not a whole number from 2. Set "
                "generator.codecs.<field>.classes to the number of classes in the masks, background included, or null."
            )

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """See `FieldCodec`."""
        size = _size(field)
        if not size or field.is_text:
            raise ConfigurationError(
                f"field {field.name!r} of shape {field.shape} is no mask of class numbers (H, W): leave "
                f"generator.codecs.{field.name} out."
            )
        return (self._number(field), *size)

    def encode(self, raw: Tensor | Sequence[str], field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        assert isinstance(raw, Tensor)
        classes = self._number(field)
        numbers = raw.reshape(len(raw), *_size(field)).round().to(torch.int64)
        low, high = (int(numbers.min()), int(numbers.max())) if len(raw) else (0, 0)
        if low < 0 or high >= classes:
            raise ConfigurationError(
                f"field {field.name!r} holds the class {low if low < 0 else high}, and its codec knows 0 … "
                f"{classes - 1}"
                + (
                    f", as a part of the data has it. Set data.image_range={{{field.name}: [0, {high}]}}."
                    if self.classes is None
                    else f". Set generator.codecs.{field.name}.classes to their number."
                )
            )
        channels = functional.one_hot(numbers, classes).movedim(-1, 1)
        return channels.to(torch.float32) * 2.0 - 1.0

    def decode(self, encoded: Tensor, field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        return encoded.argmax(1).to(torch.float32).reshape(len(encoded), *field.shape)

    def _number(self, field: FieldSpec) -> int:
        if self.classes is not None:
            return self.classes
        if not field.is_mask and field.high == _ANYTHING:
            raise ConfigurationError(
                f"field {field.name!r} is {field.dtype}, so how many classes it has is not known. Set "
                f"generator.codecs.{field.name}.classes to their number, or let the dataset give int64 or a "
                "tv_tensors.Mask."
            )
        return round(field.high) + 1


def _size(field: FieldSpec) -> tuple[int, ...]:
    """The axes behind a channel axis of length 1, if there is one."""
    shape = field.shape
    return shape[1:] if len(shape) > 2 and shape[0] == 1 else shape
