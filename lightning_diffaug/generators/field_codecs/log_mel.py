"""Sound as a picture of its mel bands over time, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.field_codecs.model_folder import KEY, ModelFolder
from lightning_diffaug.spec import FieldSpec
from lightning_diffaug.spectrogram import LogMelSpectrogram

_FLOOR_OF_VOCODER = 1e-10


class LogMel:
    """A waveform (samples,) or (channels, samples) ↔ its log-mel spectrogram (channels, mels, samples // hop_length).

    Back to sound by non-negative least squares (mel bands to frequencies) and fast Griffin-Lim (Perraudin et al. 2013),
    or by a vocoder. What is told from a sound by its spectrogram is best told by the same one (`LogMelSpectrogram`).

    Args:
        sample_rate: Of the data, in Hz.
        n_fft: As the next five, see `LogMelSpectrogram`.
        hop_length: See there.
        mels: See there.
        min_frequency: See there.
        max_frequency: See there.
        floor_db: See there.
        iterations: Of Griffin-Lim.
        momentum: Of Griffin-Lim.
        vocoder: Folder with a `SpeechT5HifiGan` of transformers, as ``save_pretrained`` writes it, in place of
            Griffin-Lim. It gets log10 of mel magnitudes of bands of equal area (Slaney), as `SpeechT5FeatureExtractor`
            makes them: set the arguments above as it was trained. Nothing is fetched.
        digest: Hash of the vocoder's files, which names fit and pool; None: as found.

    Raises:
        ConfigurationError: A value is out of range, or the vocoder is missing or was trained for other spectrograms.
    """

    unnamed = ("vocoder",)

    def __init__(
        self,
        sample_rate: int = 8000,
        n_fft: int = 400,
        hop_length: int = 200,
        mels: int = 32,
        min_frequency: float = 50.0,
        max_frequency: float | None = None,
        floor_db: float = -80.0,
        iterations: int = 32,
        momentum: float = 0.99,
        vocoder: str | None = None,
        digest: str | None = None,
    ) -> None:
        try:
            self.spectrogram = LogMelSpectrogram(
                sample_rate, n_fft, hop_length, mels, min_frequency, max_frequency, floor_db
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{KEY}: {error}") from None
        if type(iterations) is not int or iterations < 0 or not 0 <= momentum < 1:
            raise ConfigurationError(
                f"iterations={iterations!r}, momentum={momentum!r} of the codec LogMel are no whole number from 0 and "
                f"number in [0, 1). Set {KEY}.iterations to e.g. 32 and {KEY}.momentum to e.g. 0.99."
            )
        self.sample_rate, self.n_fft, self.hop_length, self.mels = sample_rate, n_fft, hop_length, mels
        self.min_frequency, self.max_frequency, self.floor_db = min_frequency, max_frequency, floor_db
        self.iterations, self.momentum = iterations, momentum
        self.vocoder = None if vocoder is None else str(vocoder)
        self._files: ModelFolder | None = None
        if self.vocoder is not None:
            remedy = "the folder that save_pretrained(...) of a SpeechT5HifiGan wrote, or to null: Griffin-Lim."
            self._files = ModelFolder(self.vocoder, "vocoder", "make sound with", remedy, digest)
            self._check_vocoder()

    @cached_property
    def digest(self) -> str | None:
        """Hash of the vocoder's files, see `ModelFolder`; None without one."""
        return None if self._files is None else self._files.digest

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """See `FieldCodec`."""
        frames = self.spectrogram.frames(field.shape[-1]) if field.shape else 0
        if field.is_text or len(field.shape) not in (1, 2) or not field.torch_dtype.is_floating_point or not frames:
            raise ConfigurationError(
                f"field {field.name!r} of {field.dtype} {field.shape} is no sound: floating-point values (samples,) or "
                f"(channels, samples), at least hop_length={self.hop_length}. Leave generator.codecs.{field.name} out, "
                "or set its hop_length lower."
            )
        return (1 if len(field.shape) == 1 else field.shape[0], self.mels, frames)

    def encode(self, raw: Tensor | Sequence[str], field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        assert isinstance(raw, Tensor)
        return self.spectrogram(raw.to(torch.float32)).reshape(len(raw), *self.shape(field))

    def decode(self, encoded: Tensor, field: FieldSpec) -> Tensor:
        """See `FieldCodec`; the same spectrogram gives the same sound."""
        samples = field.shape[-1]
        if self.vocoder is None:
            audio = self.spectrogram.waveform(encoded, samples, self.iterations, self.momentum)
        else:
            audio = self._spoken(encoded, samples)
        return audio.reshape(len(encoded), *field.shape)

    def _spoken(self, encoded: Tensor, samples: int) -> Tensor:
        """The vocoder's waveform (n, channels, samples)."""
        bands = self.spectrogram.unscaled(encoded.to(torch.float32).flatten(0, 1)).transpose(-1, -2)
        # from a full-scale sine of 1 to plain sums over a frame, and from bands of peak 1 to bands of area 1
        plain = bands * self.spectrogram.slaney_norm.to(bands.device) * (self.n_fft / 4)
        with torch.inference_mode():
            spoken: Tensor = self._model.to(bands.device)(plain.clamp(min=_FLOOR_OF_VOCODER).log10())
        spoken = spoken.clone().reshape(len(plain), -1)
        missing = samples - spoken.shape[-1]  # behind the last whole frame
        return torch.nn.functional.pad(spoken, (0, missing)).reshape(*encoded.shape[:2], samples)

    def _check_vocoder(self) -> None:
        config = self._config
        hop = math.prod(config.upsample_rates)
        wanted = {"sample_rate": config.sampling_rate, "mels": config.model_in_dim, "hop_length": hop}
        given = {name: getattr(self, name) for name in wanted}
        if given != wanted:
            raise ConfigurationError(
                f"vocoder={self.vocoder!r} was trained for {wanted}, and the codec has {given}: its sound would be "
                f"noise. Set these of {KEY} so."
            )

    @cached_property
    def _config(self) -> Any:
        from transformers import SpeechT5HifiGanConfig  # slow to import

        assert self._files is not None
        return SpeechT5HifiGanConfig.from_pretrained(self._files.path, local_files_only=True)

    @cached_property
    def _model(self) -> Any:
        from transformers import SpeechT5HifiGan

        assert self._files is not None
        try:
            model = SpeechT5HifiGan.from_pretrained(self._files.path, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigurationError(
                f"vocoder={self.vocoder!r} cannot be read as a SpeechT5HifiGan ({type(error).__name__}: {error}). Save "
                f"it anew with save_pretrained(...), or set {KEY}.vocoder=null."
            ) from error
        model.requires_grad_(False).train(False)
        return model
