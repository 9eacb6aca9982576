"""Classical augmentation of waveforms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError


@dataclass(frozen=True)
class SoundAugment:
    """Random gain, shift in time, noise, and gaps in time and frequency (as SpecAugment, Park et al. 2019).

    Each with probability `p`, on a waveform float32 (channels, samples) in [-1, 1]; the channels alike. What is shifted
    out is lost, not wrapped. Draws from torch's global random state.

    Args:
        p: Probability of each.
        gain_db: Largest change of the level, either way, in dB.
        shift: Largest shift, either way, as a share of the length.
        noise_db: Level of white noise below the sound's own, in dB, at its loudest; drawn up to 30 dB softer.
        time_mask: Longest silenced stretch, as a share of the length.
        frequency_mask: Widest silenced band, as a share of all frequencies.

    Raises:
        ConfigurationError: A value is out of range.
    """

    p: float = 0.5
    gain_db: float = 6.0
    shift: float = 0.1
    noise_db: float = 20.0
    time_mask: float = 0.1
    frequency_mask: float = 0.1

    def __post_init__(self) -> None:
        for name in ("p", "shift", "time_mask", "frequency_mask"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(
                    f"real.augment.{name}={getattr(self, name)} is not in [0, 1]. Set real.augment.{name} to e.g. 0.1."
                )
        for name in ("gain_db", "noise_db"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(
                    f"real.augment.{name}={getattr(self, name)} is below 0. Set real.augment.{name} to e.g. 6."
                )

    def __call__(self, sound: Tensor) -> Tensor:
        """A changed copy, clamped to [-1, 1]."""
        active = (torch.rand(5) < self.p).tolist()
        gain, shift, noise, *_ = (2 * torch.rand(3) - 1).tolist()
        if active[0]:
            sound = sound * 10 ** (gain * self.gain_db / 20)
        if active[1]:
            sound = shifted(sound, round(shift * self.shift * sound.shape[-1]))
        if active[2]:
            below = 10 ** (-(self.noise_db + 15 * (1 + noise)) / 20)
            sound = sound + torch.randn_like(sound) * sound.square().mean().sqrt() * below
        if active[3]:
            sound = sound * _gap(sound.shape[-1], self.time_mask)
        if active[4]:
            spectrum = torch.fft.rfft(sound)
            sound = torch.fft.irfft(spectrum * _gap(spectrum.shape[-1], self.frequency_mask), n=sound.shape[-1])
        return sound.clamp(-1.0, 1.0)


def shifted(sound: Tensor, by: int) -> Tensor:
    """A sound (…, samples) moved by so many samples, later if positive; silence moves in."""
    moved = torch.zeros_like(sound)
    if by >= 0:
        moved[..., by:] = sound[..., : sound.shape[-1] - by]
    else:
        moved[..., :by] = sound[..., -by:]
    return moved


def _gap(length: int, longest: float) -> Tensor:
    """Ones (length,) with a stretch of zeros of random place and length."""
    width, place = torch.rand(2).tolist()
    size = round(width * longest * length)
    first = round(place * (length - size))
    mask = torch.ones(length)
    mask[first : first + size] = 0.0
    return mask
