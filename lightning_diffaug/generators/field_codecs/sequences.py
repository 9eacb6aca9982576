"""Streams on one clock: video and sound as channels over the same steps of time, so that they are denoised jointly."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.field_codecs.log_mel import LogMel
from lightning_diffaug.spec import FieldSpec


@dataclass(frozen=True)
class FrameSequence:
    """A video (frames, channels, height, width) ↔ a sequence (channels · height · width, frames)."""

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """See `FieldCodec`."""
        if field.is_text or len(field.shape) != 4:
            raise ConfigurationError(
                f"field {field.name!r} of shape {field.shape} is no video (frames, channels, height, width): leave "
                f"generator.codecs.{field.name} out."
            )
        frames, *of_frame = field.shape
        return (of_frame[0] * of_frame[1] * of_frame[2], frames)

    def encode(self, raw: Tensor | Sequence[str], field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        assert isinstance(raw, Tensor)
        return field.to_unit(raw).flatten(2).transpose(1, 2).contiguous()

    def decode(self, encoded: Tensor, field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        unit = encoded.transpose(1, 2).reshape(len(encoded), *field.shape).clamp(-1.0, 1.0)
        return (unit + 1.0) * ((field.high - field.low) / 2.0) + field.low


class LogMelSequence:
    """A waveform ↔ a sequence of steps, each of the bands of some spectra: (channels · spectra · mels, steps).

    Beside a video (`FrameSequence`) with one frame a step: ``hop_length · spectra`` samples are as long as a frame.

    Args:
        spectra: Spectra in a step.
        **log_mel: See `LogMel`.

    Raises:
        ConfigurationError: A value is out of range.
    """

    unnamed = LogMel.unnamed

    def __init__(self, spectra: int = 1, **log_mel: Any) -> None:
        if type(spectra) is not int or spectra < 1:
            raise ConfigurationError(
                f"spectra={spectra!r} of the codec LogMelSequence is not a whole number from 1. Set "
                "generator.codecs.<field>.spectra to how many spectra a step of the clock holds."
            )
        self.spectra = spectra
        self._log_mel = LogMel(**log_mel)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values, with those that were left out."""
        of_log_mel = {name: getattr(self._log_mel, name) for name in inspect.signature(LogMel).parameters}
        return {"spectra": self.spectra, **of_log_mel}

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """See `FieldCodec`."""
        channels, mels, frames = self._log_mel.shape(field)
        if frames % self.spectra:
            raise ConfigurationError(
                f"field {field.name!r} has {frames} spectra, which are not whole steps of {self.spectra}. Set "
                f"generator.codecs.{field.name}.spectra, or its hop_length."
            )
        return (channels * self.spectra * mels, frames // self.spectra)

    def encode(self, raw: Tensor | Sequence[str], field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        bands = self._log_mel.encode(raw, field)
        n, channels, mels, frames = bands.shape
        steps = bands.reshape(n, channels, mels, frames // self.spectra, self.spectra)
        return steps.permute(0, 1, 4, 2, 3).reshape(n, -1, frames // self.spectra)

    def decode(self, encoded: Tensor, field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        channels, mels, _ = self._log_mel.shape(field)
        steps = encoded.reshape(len(encoded), channels, self.spectra, mels, encoded.shape[-1])
        bands = steps.permute(0, 1, 3, 4, 2).reshape(len(encoded), channels, mels, -1)
        return self._log_mel.decode(bands, field)
