"""Sounds with classes: spoken digits that need no download, or a user's own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from lightning_diffaug.data.audio_folder import LAYOUT, Files, find_parts
from lightning_diffaug.data.base import RealDataModule, RealSettings
from lightning_diffaug.data.dataset import ImageDataset
from lightning_diffaug.data.hub import located
from lightning_diffaug.data.parts import check_split, class_names
from lightning_diffaug.data.selection import drawn_groups, grouped_split
from lightning_diffaug.data.sound_files import SoundFiles, most_channels
from lightning_diffaug.data.split_module import Splits
from lightning_diffaug.data.spoken_digits import WORDS, speaker_family, spoken_digits
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.spectrogram import LogMelSpectrogram

_DIGITS_SPLIT = (0.3, 0.15, 0.55)
"""Of the spoken digits: large test data, as nobody records more of these voices."""


class AudioDataModule(RealDataModule):
    """Sounds and their classes: a raw sample is ``(float32 (channels, samples) in [-1, 1], class index)``.

    Batches hold log-mel spectrograms float32 ``(n, channels, mels, frames)``, about in [-1, 1], which any classifier of
    pictures takes. Without `root`: the digits zero to nine by 104 voices of eSpeak NG, twice each (`spoken_digits`).
    Voices that are variations of one another stay together, and no voice of training is heard in validation or test.

    Args:
        root: Folder of sounds, see `audio_folder.LAYOUT`, or a data set of the Hugging Face hub, see `hub.located`;
            None: the spoken digits.
        sample_rate: In Hz; sounds of another rate are resampled.
        seconds: Length of every sound: its beginning, or the whole followed by silence.
        mono: Whether the mean of a sound's channels is taken; else they are kept.
        voices: Training voices of the spoken digits that are kept, drawn by `seed`; None: all (about 30).
        group: Of a folder: regular expression that finds the speaker or source in a file's name. Where training or
            validation is split off, files of one source stay together. None: they do not.
        split: Of a folder without parts: shares of training, validation and test.
        split_seed: Which files, or groups, go where; apart from `seed`, so that seeds share one test set.
        n_fft: As the next five, see `LogMelSpectrogram`.
        hop_length: See there.
        mels: See there.
        min_frequency: See there.
        max_frequency: See there.
        floor_db: See there.
        memory_limit_mb: Decoded sounds are kept in memory up to this many MB in all, beyond it each is decoded again
            when it is asked for.
        columns: Of a data set of the hub: audio and label → its column; None: found by type and name.
        **settings: See `RealDataModule`.

    Raises:
        ConfigurationError: A setting is out of range, the folder is missing or has another layout, a file is no sound,
            or a package of the extra ``audio`` is missing.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        sample_rate: int = 8000,
        seconds: float = 0.8,
        mono: bool = True,
        voices: int | None = None,
        group: str | None = None,
        split: Sequence[float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
        n_fft: int = 400,
        hop_length: int = 200,
        mels: int = 32,
        min_frequency: float = 50.0,
        max_frequency: float | None = None,
        floor_db: float = -80.0,
        memory_limit_mb: int = 1024,
        columns: Mapping[str, str] | None = None,
        **settings: Unpack[RealSettings],
    ) -> None:
        super().__init__(**settings)
        try:
            self.spectrogram = LogMelSpectrogram(
                sample_rate, n_fft, hop_length, mels, min_frequency, max_frequency, floor_db
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"real: {error}") from None
        self.samples = round(sample_rate * seconds)
        if self.spectrogram.frames(self.samples) < 4:
            raise ConfigurationError(
                f"real.seconds={seconds} are fewer than 4 frames of real.hop_length={hop_length} samples. Set "
                "real.seconds higher, or real.hop_length lower."
            )
        if voices is not None and voices < 1:
            raise ConfigurationError(
                f"real.voices={voices} is below 1: it is how many voices the training data are of. Set real.voices to "
                "e.g. 4, or null."
            )
        check_split(split)
        self.root: Path | None
        self.root, self.hub = located(root, ("audio", "label"), columns)
        self.sample_rate = sample_rate
        self.seconds = seconds
        self.mono = mono
        self.voices = voices
        self.group = group
        self.split = tuple(split)
        self.split_seed = split_seed
        self.memory_limit_mb = memory_limit_mb
        self.conversion = self.spectrogram

    def load(self) -> Splits[ImageDataset]:
        """Makes the spoken digits, or finds the files and decodes them as far as memory allows."""
        return self._spoken_digits() if self.root is None else self._folder(self.root)

    def picture(self, fields: Mapping[str, Any]) -> Tensor | None:
        """The spectrogram of the first channel, low frequencies below: float32 (1, mels, frames) in [0, 1]."""
        sound = fields.get("audio")
        if sound is None:
            return None
        return ((self.spectrogram(sound.reshape(-1, sound.shape[-1])[:1]) + 1) / 2).clamp(0.0, 1.0).flip(-2)

    def _spoken_digits(self) -> Splits[ImageDataset]:
        spoken = spoken_digits(self.sample_rate, self.seconds)
        whole = ImageDataset(spoken.audio.unsqueeze(1), spoken.digit.tolist(), WORDS)
        train, val, test = grouped_split([speaker_family(voice) for voice in spoken.voice], _DIGITS_SPLIT)
        if self.voices is not None:
            known = sorted({spoken.voice[i] for i in train})
            if self.voices > len(known):
                raise ConfigurationError(
                    f"real.voices={self.voices} is more than the {len(known)} voices that are for training. Set "
                    f"real.voices to at most {len(known)}, or null."
                )
            kept = set(drawn_groups(known, self.voices, self.seed))
            train = [i for i in train if spoken.voice[i] in kept]
        return Splits(whole.select(train), whole.select(val), whole.select(test))

    def _folder(self, root: Path) -> Splits[ImageDataset]:
        parts = find_parts(root, self.split, self.split_seed, self.group)
        classes = class_names(root, parts, lambda file: file[1], LAYOUT, least=2)
        channels = 1 if self.mono else most_channels([path for files in parts.values() for path, _ in files])
        size = sum(map(len, parts.values())) * channels * self.samples * 4
        in_memory = size <= self.memory_limit_mb * 2**20

        def dataset(files: Files) -> ImageDataset:
            lazy = SoundFiles([path for path, _ in files], self.sample_rate, self.samples, channels)
            return ImageDataset(lazy.read() if in_memory else lazy, [classes.index(name) for _, name in files], classes)

        return Splits(dataset(parts["train"]), dataset(parts["val"]), dataset(parts["test"]))
