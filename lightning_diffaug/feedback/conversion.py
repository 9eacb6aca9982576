"""From the pool's values to the learner's input, as training does it: found by trying, to be handed over."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.spec import FieldSpec

_CHUNK = 32
_CLOSE = 1e-5  # of floating-point data, as a share of the input's range
_REMEDY = (
    "Only conversions that map each value by itself can be handed over (scaling, normalisation by channel). Let the "
    "conversion without augmentation (eval_transform) be such a one and move the rest (resizing) into the raw data or "
    "the network, or set feedback.hand_over=false."
)


class Conversion(nn.Module):
    """Maps raw values of a field to the learner's input, each value by itself.

    Args:
        field: The field.
        table: Of uint8 data: input value of each raw value, float32 (channels, 256). Of floating-point data: inputs of
            the lower and the upper end of the range, (channels, 2).
    """

    table: Tensor

    def __init__(self, field: FieldSpec, table: Tensor) -> None:
        super().__init__()
        self.field = field
        self.register_buffer("table", table)

    @property
    def _slope(self) -> Tensor:
        """Input per raw value, (channels,)."""
        ends = self.table[:, [0, -1]].double()
        return (ends[:, 1] - ends[:, 0]) / (self.field.high - self.field.low)

    def forward(self, raw: Tensor) -> Tensor:
        """Inputs, float32 (n, channels, …), of raw values (n, *shape) in the stored dtype."""
        values = raw if raw.ndim > 1 else raw[:, None]
        if raw.dtype == torch.uint8:
            index = values.long().expand(len(values), len(self.table), *values.shape[2:])
            flat = index.transpose(0, 1).flatten(1)
            columns: Tensor = self.table.gather(1, flat).reshape(len(self.table), len(raw), *values.shape[2:])
            return columns.transpose(0, 1)
        by_channel = (1, -1, *([1] * (values.ndim - 2)))
        start = self.table[:, 0].double().reshape(by_channel)
        return (start + (values.double() - self.field.low) * self._slope.reshape(by_channel)).float()

    def of_unit(self, unit: Tensor) -> Tensor:
        """Inputs of values in [-1, 1], rounded as the pool stores them; the gradient is that without the rounding."""
        exact: Tensor = self(self.field.from_unit(unit.detach()))
        if not unit.requires_grad:
            return exact
        span = (self.field.high - self.field.low) / 2.0
        slope = (self._slope * span).to(unit.dtype).reshape(1, -1, *([1] * (unit.ndim - 2)))
        return exact + slope * (unit - unit.detach())


def found_conversion(
    field: FieldSpec, inputs_of: Callable[[Tensor], Tensor], raw: Tensor, wanted: Tensor
) -> Conversion:
    """Finds the conversion on constant images and checks it on real ones.

    Args:
        field: The field.
        inputs_of: Raw values (n, *shape) → the learner's inputs (n, channels, …), as training has them.
        raw: Of some real samples, (m, *shape).
        wanted: The learner's inputs of these.

    Raises:
        ConfigurationError: It maps no value by itself; the text says what to do.
    """
    shape = field.shape or (1,)
    if field.dtype == "uint8":
        values = torch.arange(256, dtype=torch.uint8)
    else:
        values = torch.tensor([field.low, field.high], dtype=field.torch_dtype)
    columns = []
    for part in torch.split(values, _CHUNK):
        constant = part.reshape(-1, *([1] * len(field.shape))).expand(len(part), *field.shape)
        made = inputs_of(constant.contiguous()).detach().cpu().float()
        if made.ndim < 2 or made.shape[2:] != torch.Size(shape[1:]) or shape[0] not in (1, made.shape[1]):
            raise ConfigurationError(
                f"feedback.hand_over=true: images of shape {field.shape} become inputs of shape "
                f"{tuple(made.shape[1:])}. {_REMEDY}"
            )
        columns.append(made.reshape(*made.shape[:2], -1)[:, :, 0])
    found = Conversion(field, torch.cat(columns).T.contiguous())
    got, wanted = found(raw), wanted.detach().cpu().float()
    bound = 0.0 if field.dtype == "uint8" else _CLOSE * float(found.table.abs().max())
    if got.shape != wanted.shape or not bool(((got - wanted).abs() <= bound).all()):
        raise ConfigurationError(
            "feedback.hand_over=true: what training makes of an image depends on more than each of its values, or on "
            f"chance. {_REMEDY}"
        )
    return found
