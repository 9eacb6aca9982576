"""Streams on one clock: video and sound as channels over the same steps of time, so that they are denoised jointly."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.field_codecs.log_mel import LogMel
from lightning_diffaug.spec import FieldSpec

_SAMPLE_RATE = inspect.signature(LogMel).parameters["sample_rate"].default


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
        frame_rate: Steps a second, from which `hop_length` follows; None: it is given.
        hop_length: See `LogMel`; None: by `frame_rate`, and without it LogMel's own.
        n_fft: See `LogMel`; None: with `frame_rate` the power of two from twice `hop_length` on, else LogMel's own.
        **log_mel: See `LogMel`.

    Raises:
        ConfigurationError: A value is out of range, or a step of `frame_rate` is not `spectra` times a whole number of
            samples.
    """

    unnamed = LogMel.unnamed

    def __init__(
        self,
        spectra: int = 1,
        frame_rate: float | None = None,
        hop_length: int | None = None,
        n_fft: int | None = None,
        **log_mel: Any,
    ) -> None:
        if type(spectra) is not int or spectra < 1:
            raise ConfigurationError(
                f"spectra={spectra!r} of the codec LogMelSequence is not a whole number from 1. Set "
                "generator.codecs.<field>.spectra to how many spectra a step of the clock holds."
            )
        self.spectra = spectra
        if frame_rate is not None:
            if hop_length is None:
                hop_length = _hop(frame_rate, spectra, log_mel.get("sample_rate", _SAMPLE_RATE))
            if n_fft is None:
                n_fft = 2 ** (2 * hop_length - 1).bit_length()
        given: dict[str, Any] = {"hop_length": hop_length, "n_fft": n_fft}
        self._log_mel = LogMel(**log_mel, **{name: value for name, value in given.items() if value is not None})

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


def _hop(frame_rate: float, spectra: int, sample_rate: int) -> int:
    """Samples from a spectrum to the next, with `spectra` of them to each of `frame_rate` frames a second."""
    spectra_a_second = Fraction(str(frame_rate)) * spectra
    if spectra_a_second <= 0:
        raise ConfigurationError(
            f"frame_rate={frame_rate} of the codec LogMelSequence is not above 0. Set "
            "generator.codecs.<field>.frame_rate to the frames a second (real.frame_rate)."
        )
    hop = sample_rate / spectra_a_second
    if hop.denominator > 1:
        step = spectra_a_second.numerator
        raise ConfigurationError(
            f"frame_rate={frame_rate:g} and spectra={spectra} of the codec LogMelSequence: a frame of {sample_rate} "
            f"samples a second is not {spectra} times a whole number of them, so video and sound would have no common "
            f"clock. Set real.sample_rate to e.g. {-(-sample_rate // step) * step}, or real.frame_rate."
        )
    return int(hop)
