"""Log-mel spectrograms of waveforms, and waveforms of log-mel spectrograms."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError

_NNLS_STEPS = 60
_TINY = 1e-9


@dataclass(frozen=True)
class LogMelSpectrogram:
    """Waveform (…, samples) in [-1, 1] → mel bands over time, (…, mels, samples // hop_length), about in [-1, 1].

    Frame t is centred at sample ``t · hop_length`` (Hann window of `n_fft`, zeros beyond the ends). A band is the sum
    of the magnitudes in a triangle of peak 1 on Slaney's mel scale; its level in dB below a sine of full scale is
    scaled so that `floor_db` is -1 and 0 dB is 1. What is softer is at the floor; a loud sound of many partials may
    pass 1.

    Args:
        sample_rate: In Hz.
        n_fft: Samples of a frame.
        hop_length: Samples from a frame to the next; at most half of `n_fft`.
        mels: Number of bands.
        min_frequency: Lower end of the lowest band in Hz.
        max_frequency: Upper end of the highest; None: half the sample rate.
        floor_db: The softest level, below 0.

    Raises:
        ConfigurationError: A value is out of range, or a band would hold no frequency.
    """

    sample_rate: int = 8000
    n_fft: int = 400
    hop_length: int = 200
    mels: int = 32
    min_frequency: float = 50.0
    max_frequency: float | None = None
    floor_db: float = -80.0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "mels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r} is not a whole number from 1. Set {name} to one.")
        if 2 * self.hop_length > self.n_fft:
            raise ConfigurationError(
                f"hop_length={self.hop_length} is above half of n_fft={self.n_fft}: frames would not overlap enough to "
                "be turned into sound again. Set hop_length lower, or n_fft higher."
            )
        if not 0 <= self.min_frequency < self.highest <= self.sample_rate / 2:
            raise ConfigurationError(
                f"min_frequency={self.min_frequency} and max_frequency={self.max_frequency} are no range within 0 … "
                f"{self.sample_rate / 2:g} Hz, half of sample_rate. Set both so, or max_frequency to null."
            )
        if not self.floor_db < 0:
            raise ConfigurationError(
                f"floor_db={self.floor_db} is not below 0, the level of a sine of full scale. Set floor_db to e.g. -80."
            )
        if not bool((self.bank.sum(0) > 0).all()):
            raise ConfigurationError(
                f"mels={self.mels} bands are too many for the frequencies of n_fft={self.n_fft}: some hold none. Set "
                "mels lower, or n_fft or min_frequency higher."
            )

    @property
    def highest(self) -> float:
        """Upper end of the highest band in Hz."""
        return self.sample_rate / 2 if self.max_frequency is None else self.max_frequency

    @property
    def bank(self) -> Tensor:
        """Weights float32 (n_fft // 2 + 1, mels)."""
        return _bank(self.sample_rate, self.n_fft, self.mels, self.min_frequency, self.highest, None)

    @property
    def slaney_norm(self) -> Tensor:
        """Factors float32 (mels,) to bands of equal area, as most vocoders take them."""
        of_area = _bank(self.sample_rate, self.n_fft, self.mels, self.min_frequency, self.highest, "slaney")
        return of_area.sum(0) / self.bank.sum(0)

    def frames(self, samples: int) -> int:
        """Frames of so many samples."""
        return samples // self.hop_length

    def __call__(self, audio: Tensor) -> Tensor:
        """The spectrogram, float32 (…, mels, frames)."""
        magnitude = stft(audio.to(torch.float32), self.n_fft, self.hop_length).abs()
        return self.scaled(magnitude.transpose(-1, -2) @ self.bank.to(audio.device)).transpose(-1, -2)

    def scaled(self, bands: Tensor) -> Tensor:
        """Magnitudes (1 is a sine of full scale) as levels, about in [-1, 1]."""
        level: Tensor = 20 * bands.clamp(min=10 ** (self.floor_db / 20)).log10()
        return 1 - 2 * level / self.floor_db

    def unscaled(self, spectrogram: Tensor) -> Tensor:
        """The inverse of `scaled`; what is not above the floor is 0."""
        bands = 10 ** ((1 - spectrogram) * (self.floor_db / 40))
        return torch.where(spectrogram <= -1, 0.0, bands)

    def waveform(self, spectrogram: Tensor, samples: int, iterations: int = 32, momentum: float = 0.99) -> Tensor:
        """A waveform of this spectrogram: magnitudes by non-negative least squares, phases by `griffin_lim`.

        Args:
            spectrogram: (…, mels, frames).
            samples: Length of the waveform.
            iterations: As the next, see there.
            momentum: See there.

        Returns:
            float32 (…, samples).
        """
        bands = self.unscaled(spectrogram.to(torch.float32))
        magnitude = non_negative_least_squares(self.bank.to(bands.device), bands)
        return griffin_lim(magnitude, self.n_fft, self.hop_length, samples, iterations, momentum)


def stft(audio: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Short-time Fourier transform (…, samples) → complex (…, n_fft // 2 + 1, samples // hop_length).

    Scaled so that a sine of amplitude 1 has the magnitude 1.
    """
    flat = audio.reshape(-1, audio.shape[-1])
    window = _window(n_fft, audio.device)
    found = torch.stft(flat, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True)
    found = found[..., : audio.shape[-1] // hop_length] * (2 / window.sum())
    return found.reshape(*audio.shape[:-1], *found.shape[-2:])


def istft(spectrum: Tensor, n_fft: int, hop_length: int, samples: int) -> Tensor:
    """The inverse of `stft`, by least squares where frames disagree (Griffin & Lim 1984): (…, samples).

    Behind the last frame's centre the sound fades out, as if a silent frame followed.
    """
    window = _window(n_fft, spectrum.device)
    flat = spectrum.reshape(-1, *spectrum.shape[-2:]) * (window.sum() / 2)
    # else the last samples, which the window hardly sees, would be divided by nearly nothing: a click
    flat = torch.nn.functional.pad(flat, (0, 1))
    covered = min(samples, spectrum.shape[-1] * hop_length + n_fft // 2)
    audio = torch.istft(flat, n_fft, hop_length, window=window, length=covered)
    return torch.nn.functional.pad(audio, (0, samples - covered)).reshape(*spectrum.shape[:-2], samples)


def griffin_lim(
    magnitude: Tensor, n_fft: int, hop_length: int, samples: int, iterations: int = 32, momentum: float = 0.99
) -> Tensor:
    """A waveform whose spectrum has about these magnitudes, by the fast Griffin-Lim algorithm (Perraudin et al. 2013).

    It starts from the phases of steady partials, not from random ones: equal spectrograms give equal sound.

    Args:
        magnitude: (…, n_fft // 2 + 1, frames), not negative.
        n_fft: Samples of a frame.
        hop_length: Samples from a frame to the next.
        samples: Length of the waveform.
        iterations: Projections on the spectra that sounds have.
        momentum: The α of the paper; 0 is Griffin & Lim (1984).

    Returns:
        float32 (…, samples).
    """
    bins, frames = magnitude.shape[-2:]
    # a partial at bin k turns by 2π k hop / n_fft from frame to frame
    turns = torch.outer(torch.arange(bins), torch.arange(frames) * hop_length).remainder(n_fft) / n_fft
    spectrum = magnitude * torch.polar(torch.ones_like(turns), 2 * torch.pi * turns).to(magnitude.device)
    last = torch.zeros_like(spectrum)
    for _ in range(iterations):
        possible = stft(istft(spectrum, n_fft, hop_length, samples), n_fft, hop_length)
        ahead = possible + momentum * (possible - last)
        spectrum, last = magnitude * (ahead / ahead.abs().clamp(min=_TINY)), possible
    return istft(spectrum, n_fft, hop_length, samples)


def non_negative_least_squares(bank: Tensor, bands: Tensor, steps: int = _NNLS_STEPS) -> Tensor:
    """Magnitudes x >= 0 of all frequencies with ``bankᵀ x`` close to the bands (updates of Lee & Seung 2001).

    Args:
        bank: (frequencies, mels), not negative.
        bands: (…, mels, frames), not negative.
        steps: Updates, from the pseudo-inverse on.

    Returns:
        (…, frequencies, frames); 0 at frequencies that no band covers.
    """
    # a plain zero would stay one
    least = 1e-3 * bands.mean(dim=(-1, -2), keepdim=True)
    x: Tensor = (torch.linalg.pinv(bank.T) @ bands).maximum(least) * (bank.sum(1, keepdim=True) > 0)
    wanted, gram = bank @ bands, bank @ bank.T
    for _ in range(steps):
        x = x * wanted / (gram @ x).clamp(min=_TINY)
    return x


@lru_cache(maxsize=16)
def _bank(rate: int, n_fft: int, mels: int, low: float, high: float, norm: str | None) -> Tensor:
    from transformers.audio_utils import mel_filter_bank  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty bands, which are refused
        weights = mel_filter_bank(n_fft // 2 + 1, mels, low, high, rate, norm=norm, mel_scale="slaney")
    return torch.from_numpy(weights).to(torch.float32)


@lru_cache(maxsize=16)
def _window(n_fft: int, device: torch.device) -> Tensor:
    return torch.hann_window(n_fft, device=device)
