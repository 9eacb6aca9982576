"""Sound to spectrogram and back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.spectrogram import LogMelSpectrogram, griffin_lim, istft, non_negative_least_squares, stft

RATE, SAMPLES = 8000, 6400


def sine(frequency: float, amplitude: float = 1.0) -> Tensor:
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(SAMPLES) / RATE)


def glides() -> Tensor:
    """Four voiced sounds, (4, samples): ten partials of a gliding pitch, fading."""
    time = torch.arange(SAMPLES) / RATE
    pitch = torch.tensor([110.0, 150.0, 190.0, 230.0])[:, None] * (1 + 0.3 * time)
    phase = 2 * math.pi * pitch.cumsum(-1) / RATE
    partials = [torch.sin(k * phase) / k for k in range(1, 11)]
    return 0.3 * torch.stack(partials).sum(0) * torch.exp(-3 * time)


def convergence(made: Tensor, wanted: Tensor) -> float:
    """Spectral convergence: the norm of the error of magnitudes by that of the magnitudes."""
    return float((made - wanted).norm() / wanted.norm())


def test_frequencies_become_sound_again_exactly() -> None:
    sounds = glides().reshape(2, 2, SAMPLES)
    spectrum = stft(sounds, 400, 200)
    assert spectrum.shape == (2, 2, 201, 32)
    back = istft(spectrum, 400, 200, SAMPLES)
    assert torch.allclose(back[..., :6000], sounds[..., :6000], atol=1e-5)
    assert float(back[..., 6000:].abs().max()) <= 1.01 * float(sounds[..., 6000:].abs().max())


def test_a_sine_of_full_scale_has_magnitude_one_and_is_loudest_in_its_band() -> None:
    assert float(stft(sine(1000), 400, 200).abs()[:, 16].max()) == pytest.approx(1.0, abs=1e-3)
    spectrogram = LogMelSpectrogram()
    loudest = [int(spectrogram(sine(f))[:, 16].argmax()) for f in (200, 500, 1000, 2000, 3500)]
    centres = spectrogram.bank.argmax(0)  # bins of 20 Hz
    assert loudest == sorted(loudest)
    for band, frequency in zip(loudest, (200, 500, 1000, 2000, 3500), strict=True):
        assert abs(int(centres[band]) * 20 - frequency) <= max(40, 0.08 * frequency)


def test_levels_are_decibels_from_the_floor_to_full_scale() -> None:
    spectrogram = LogMelSpectrogram()
    loud, soft = spectrogram(sine(1000)), spectrogram(sine(1000, 0.1))
    assert loud.shape == (32, 32)
    difference = (loud - soft)[:, 16].max()
    assert float(difference) == pytest.approx(2 * 20 / 80, abs=1e-3)  # 20 dB of 80
    assert float(spectrogram(torch.zeros(SAMPLES)).unique()) == -1.0
    bands = torch.tensor([1e-3, 0.1, 1.0])
    assert torch.allclose(spectrogram.unscaled(spectrogram.scaled(bands)), bands, atol=1e-6)
    assert float(spectrogram.unscaled(torch.tensor(-1.0))) == 0.0


def test_a_waveform_has_the_spectrogram_that_it_was_made_of() -> None:
    spectrogram, sounds = LogMelSpectrogram(), glides()
    wanted = spectrogram(sounds)
    made = spectrogram.waveform(wanted, SAMPLES)
    assert made.shape == sounds.shape
    bands = spectrogram.unscaled(wanted)
    assert convergence(spectrogram.unscaled(spectrogram(made)), bands) < 0.06
    without = spectrogram.waveform(wanted, SAMPLES, iterations=0)
    assert convergence(spectrogram.unscaled(spectrogram(without)), bands) > 0.15


def test_momentum_is_closer_after_as_many_iterations() -> None:
    magnitude = stft(glides(), 400, 200).abs()

    def error(momentum: float) -> float:
        made = griffin_lim(magnitude, 400, 200, SAMPLES, 32, momentum)
        return convergence(stft(made, 400, 200).abs(), magnitude)

    assert error(0.99) < error(0.0)


def test_a_sound_depends_on_its_own_spectrogram_alone() -> None:
    spectrogram = LogMelSpectrogram()
    wanted = spectrogram(glides())
    together = spectrogram.waveform(wanted, SAMPLES)
    assert torch.equal(together, spectrogram.waveform(wanted, SAMPLES))
    assert torch.allclose(together[2], spectrogram.waveform(wanted[2], SAMPLES), atol=1e-4)


def test_silence_becomes_silence() -> None:
    spectrogram = LogMelSpectrogram()
    made = spectrogram.waveform(torch.full((2, 32, 32), -1.0), SAMPLES)
    assert float(made.abs().max()) < 1e-6


def test_magnitudes_are_not_negative_and_give_the_bands() -> None:
    bank = LogMelSpectrogram().bank
    bands = bank.T @ stft(glides(), 400, 200).abs()
    found = non_negative_least_squares(bank, bands)
    assert float(found.min()) >= 0
    assert convergence(bank.T @ found, bands) < 0.02


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"hop_length": 300}, "hop_length=300 is above half of n_fft=400"),
        ({"mels": 300}, "mels=300 bands are too many"),
        ({"min_frequency": 5000.0}, "no range within"),
        ({"max_frequency": 4001.0}, "no range within"),
        ({"floor_db": 3.0}, "floor_db=3.0 is not below 0"),
        ({"n_fft": 1.5}, "n_fft=1.5 is not a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        LogMelSpectrogram(**settings)
