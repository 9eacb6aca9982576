"""Sound files of any rate, length and channels as waveforms of one kind."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.data.progress import followed
from lightning_diffaug.data.sound import fitted, resampled
from lightning_diffaug.errors import ConfigurationError

EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})


class SoundFiles:
    """Decodes a sound file each time it is asked for: its beginning, resampled, cut or followed by silence.

    Args:
        paths: The files.
        sample_rate: In Hz.
        samples: Length of every sound.
        channels: 1: the mean of a file's channels. More: as many as the file has, one repeated.
    """

    def __init__(self, paths: Sequence[Path], sample_rate: int, samples: int, channels: int) -> None:
        self.paths = list(paths)
        self.sample_rate = sample_rate
        self.samples = samples
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> Tensor:
        """A waveform, float32 (channels, samples) in [-1, 1].

        Raises:
            ConfigurationError: The file is no sound, is empty, or has other channels.
        """
        path = self.paths[index]
        soundfile = soundfile_package()
        try:
            with soundfile.SoundFile(path) as file:
                rate = int(file.samplerate)
                wanted = math.ceil((self.samples + 1) * rate / self.sample_rate)
                values = file.read(wanted, dtype="float32", always_2d=True).T
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable(path, error) from error
        if values.shape[1] == 0 or not np.isfinite(values).all():
            raise _unreadable(path, "it is empty, or holds values that are no numbers")
        if self.channels == 1:
            values = values.mean(0, keepdims=True)
        elif len(values) == 1:
            values = np.repeat(values, self.channels, axis=0)
        elif len(values) != self.channels:
            raise ConfigurationError(
                f"{path} has {len(values)} channels and others have {self.channels}. Set real.mono=true, or take the "
                "file out of the folder that real.root names."
            )
        sound = fitted(resampled(values, rate, self.sample_rate), self.samples, self.sample_rate)
        return torch.from_numpy(np.ascontiguousarray(sound)).clamp(-1.0, 1.0)

    def select(self, indices: Sequence[int]) -> SoundFiles:
        """The files at `indices`, in that order."""
        return SoundFiles([self.paths[i] for i in indices], self.sample_rate, self.samples, self.channels)

    def read(self) -> Tensor:
        """All at once: float32 (n, channels, samples)."""
        sounds = torch.empty(len(self), self.channels, self.samples)
        for index in followed(range(len(self)), "reading sounds", "sound", len(self)):
            sounds[index] = self[index]
        return sounds


def most_channels(paths: Sequence[Path], most: int = 1000) -> int:
    """The most channels that a file has, from the headers of up to `most` of them.

    Raises:
        ConfigurationError: A file is no sound.
    """
    soundfile, found = soundfile_package(), 1
    for path in list(paths)[:: -(-len(paths) // most)]:
        try:
            found = max(found, int(soundfile.info(path).channels))
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable(path, error) from error
    return found


def sound_seconds(path: Path) -> float:
    """How long a sound is, from its header.

    Raises:
        ConfigurationError: The file is no sound.
    """
    try:
        return float(soundfile_package().info(path).duration)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from error


def soundfile_package() -> Any:
    """The package soundfile.

    Raises:
        ConfigurationError: It is not installed.
    """
    if importlib.util.find_spec("soundfile") is None:
        raise ConfigurationError(
            "real.root names a folder of sounds, which the package soundfile reads, and it is not installed. Run: "
            "pip install 'lightning-diffaug[audio]'"
        )
    return importlib.import_module("soundfile")


def _unreadable(path: Path, why: object) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be read as a sound ({why}), so the data set is incomplete. Repair the file or take it out of "
        "the folder that real.root names."
    )
