from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_diffaug.data import AudioDataModule
from lightning_diffaug.data.sound import fitted, resampled
from lightning_diffaug.data.sound_augment import SoundAugment, shifted
from lightning_diffaug.data.sound_files import SoundFiles
from lightning_diffaug.errors import ConfigurationError

soundfile = pytest.importorskip("soundfile")

Write = Callable[..., Path]


def tone(frequency: float, seconds: float, rate: int) -> np.ndarray[Any, Any]:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def loudest(sound: torch.Tensor, rate: int) -> float:
    """Frequency of the loudest partial in Hz."""
    return float(torch.fft.rfft(sound.flatten()).abs().argmax()) * rate / sound.shape[-1]


@pytest.fixture
def write_sound() -> Write:
    """Writes a tone."""

    def write(path: Path, frequency: float = 440.0, seconds: float = 0.3, rate: int = 16000, channels: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = tone(frequency, seconds, rate)
        soundfile.write(path, np.stack([values / (1 + c) for c in range(channels)], 1), rate)
        return path

    return write


@pytest.fixture
def three_parts(tmp_path: Path, write_sound: Write) -> Path:
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        for name, frequency in (("low", 300.0), ("high", 1200.0)):
            for i in range(count):
                write_sound(tmp_path / part / name / f"{i}.wav", frequency + i)
    return tmp_path


def test_three_folders_are_the_three_parts(three_parts: Path) -> None:
    data = AudioDataModule(three_parts)
    splits = data.splits
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [8, 2, 4]
    assert data.class_names == ["high", "low"]
    assert data.class_counts == [4, 4]
    assert splits.train.images.shape == (8, 1, 6400)
    x, y = next(iter(data.train_dataloader()))
    assert (x.shape, x.dtype, y.dtype) == ((8, 1, 32, 32), torch.float32, torch.int64)
    assert float(x.min()) == -1.0
    facts = data.model_facts()
    assert (facts["num_classes"], facts["in_channels"]) == (2, 1)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_is_the_same_tone_at_another_rate(tmp_path: Path, write_sound: Write, rate: int, extension: str) -> None:
    path = write_sound(tmp_path / f"a.{extension}", 440.0, 2.0, rate)
    sound = SoundFiles([path], 8000, 8000, 1)[0]
    assert sound.shape == (1, 8000)
    assert loudest(sound, 8000) == pytest.approx(440, abs=1)
    assert float(sound[0, 1000:7000].abs().max()) == pytest.approx(0.5, rel=0.05)


def test_what_is_too_long_fades_out_and_what_is_too_short_is_followed_by_silence() -> None:
    sound = np.ones((1, 1000), np.float32)
    assert fitted(sound, 1200, 8000)[0, 1000:].tolist() == [0.0] * 200
    cut = fitted(sound, 800, 8000)
    assert cut.shape == (1, 800)
    assert cut[0, 719] == 1.0
    assert cut[0, -1] == 0.0
    assert float(np.abs(np.diff(cut)).max()) < 0.02
    assert sound.min() == 1.0, "the sound itself is left alone"


def test_nothing_above_half_of_the_new_rate_is_heard() -> None:
    above = tone(6000, 0.5, 16000)
    assert float(np.abs(resampled(above, 16000, 8000)[200:-200]).max()) < 0.01


def test_channels_are_averaged_or_kept(tmp_path: Path, write_sound: Write) -> None:
    for name in ("a", "b"):
        for i in range(5):
            write_sound(tmp_path / name / f"{i}.wav", channels=1 if i == 0 else 2)
    mono, stereo = AudioDataModule(tmp_path), AudioDataModule(tmp_path, mono=False)
    assert (mono.in_channels, stereo.in_channels) == (1, 2)
    x, _ = next(iter(stereo.test_dataloader()))
    assert x.shape[1:] == (2, 32, 32)
    write_sound(tmp_path / "a" / "9.wav", channels=4)
    with pytest.raises(ConfigurationError, match=r"has 2 channels and others have 4.*real\.mono=true"):
        AudioDataModule(tmp_path, mono=False).setup()


def test_files_that_do_not_fit_into_memory_are_read_when_asked_for(three_parts: Path) -> None:
    kept, lazy = AudioDataModule(three_parts).splits, AudioDataModule(three_parts, memory_limit_mb=0).splits
    assert isinstance(lazy.train.images, SoundFiles)
    for i in range(len(kept.test)):
        assert torch.equal(kept.test[i][0], lazy.test[i][0])


def test_one_folder_is_split_by_ratio_and_by_source(tmp_path: Path, write_sound: Write) -> None:
    for name, frequency in (("low", 300.0), ("high", 1200.0)):
        for speaker in "abcdefghij":
            for take in range(2):
                write_sound(tmp_path / name / f"{speaker}_{take}.wav", frequency)
    data = AudioDataModule(tmp_path, group="^([a-z])_", memory_limit_mb=0)
    parts = [data.splits.train, data.splits.val, data.splits.test]
    speakers = [{path.name[0] for path in part.images.paths} for part in parts]
    assert [len(part) for part in parts] == [28, 4, 8]
    assert sum(len(found) for found in speakers) == len(set().union(*speakers)) == 10
    with pytest.raises(ConfigurationError, match=r"real\.group='\^x' matches nothing in the name of .*a_0\.wav"):
        AudioDataModule(tmp_path, group="^x").setup()
    with pytest.raises(ConfigurationError, match=r"real\.group='\(' is no regular expression"):
        AudioDataModule(tmp_path, group="(").setup()
    with pytest.raises(ConfigurationError, match=r"2 groups of samples \(0, 1\), too few for 3 parts.*real\.group"):
        AudioDataModule(tmp_path, group=r"_(\d)").setup()


def test_without_a_validation_folder_some_of_training_is_set_aside_by_source(
    tmp_path: Path, write_sound: Write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for part, speakers in (("train", "abcd"), ("test", "ef")):
        for name in ("low", "high"):
            for speaker in speakers:
                write_sound(tmp_path / part / name / f"{speaker}_0.wav")
    splits = AudioDataModule(tmp_path, group="^([a-z])_", memory_limit_mb=0).splits
    assert not {p.name for p in splits.train.images.paths} & {p.name for p in splits.val.images.paths}
    assert {p.name[0] for p in splits.test.images.paths} == {"e", "f"}
    assert "has no validation part" in caplog.text


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ([], "is not a folder"),
        (["a.wav"], "nothing that can be read"),
        (["only/a.wav"], "class only has 1 sample"),
        (["train/a/1.wav", "val/a/1.wav", "test/a/1.wav"], "at least 2 classes are needed"),
        (["train/a/1.wav", "train/b/1.wav"], "no test/"),
        (["train/a/1.wav", "train/b/1.wav", "val/a/1.wav", "test/c/1.wav"], r"test has the classes \['c'\]"),
    ],
)
def test_another_layout_is_refused_with_the_expected_one(
    tmp_path: Path, write_sound: Write, made: list[str], text: str
) -> None:
    root = tmp_path / "sounds"
    for name in made:
        write_sound(root / name)
    with pytest.raises(ConfigurationError, match=rf"(?s)real\.root.*{text}|{text}.*real\.root") as error:
        AudioDataModule(root).setup()
    assert "<root>/train/<class>/*.wav" in str(error.value)


def test_a_file_that_is_no_sound_is_named(three_parts: Path) -> None:
    bad = three_parts / "train" / "low" / "9.wav"
    bad.write_bytes(b"RIFF, but no sound")
    with pytest.raises(ConfigurationError, match=r"9\.wav cannot be read as a sound.*real\.root"):
        AudioDataModule(three_parts).setup()
    soundfile.write(bad, np.zeros(0, np.float32), 8000)
    with pytest.raises(ConfigurationError, match=r"9\.wav cannot be read as a sound \(it is empty"):
        AudioDataModule(three_parts).setup()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"seconds": 0.05}, r"real\.seconds=0\.05 are fewer than 4 frames"),
        ({"voices": 0}, r"real\.voices=0 is below 1"),
        ({"split": [0.5, 0.5]}, r"real\.split=\[0\.5, 0\.5\] does not hold three positive shares"),
        ({"hop_length": 300}, r"real: hop_length=300"),
    ],
)
def test_settings_out_of_range_name_the_key(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        AudioDataModule(**settings)


def test_a_missing_reader_is_said_with_the_command(three_parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"soundfile.*pip install 'lightning-diffaug\[audio\]'"):
        AudioDataModule(three_parts).setup()


def test_the_picture_of_a_sound_has_its_low_frequencies_below(three_parts: Path) -> None:
    data = AudioDataModule(three_parts)
    sound, label = data.splits.test.images[-1], data.splits.test.targets[-1]
    picture = data.picture({"audio": sound, "label": label})
    assert picture is not None
    assert picture.shape == (1, 32, 32)
    assert 0.0 <= float(picture.min()) < float(picture.max()) <= 1.0
    assert data.class_names[label] == "low"
    assert float(picture[0, 16:].sum()) > 2 * float(picture[0, :16].sum())
    assert data.picture({"image": sound}) is None


def test_augmentation_is_of_the_training_sounds_alone_and_by_torch_s_random_state(three_parts: Path) -> None:
    data = AudioDataModule(three_parts, augment=SoundAugment(p=1.0))
    torch.manual_seed(0)
    first = data.splits.train[0][0]
    torch.manual_seed(0)
    assert torch.equal(first, data.splits.train[0][0])
    assert not torch.equal(first, data.splits.train[0][0])
    assert torch.equal(data.splits.test[0][0], data.splits.test[0][0])


@pytest.mark.parametrize(
    ("only", "most"),
    [("gain_db", 6.0), ("shift", 0.1), ("noise_db", 20.0), ("time_mask", 0.2), ("frequency_mask", 0.2)],
)
def test_each_change_is_within_its_bound(only: str, most: float) -> None:
    off = {"gain_db": 0.0, "shift": 0.0, "noise_db": 400.0, "time_mask": 0.0, "frequency_mask": 0.0}
    augment = SoundAugment(p=1.0, **(off | {only: most}))
    sound = torch.from_numpy(tone(440, 0.4, 8000))[None] * 0.5
    torch.manual_seed(0)
    changes = [(augment(sound) - sound).norm() / sound.norm() for _ in range(20)]
    bound = {"gain_db": 10 ** (6 / 20) - 1, "noise_db": 0.11, "shift": 2.0, "time_mask": 0.6, "frequency_mask": 1.01}
    assert 0.0 < float(max(changes)) <= bound[only]
    assert torch.allclose(SoundAugment(p=1.0, **off)(sound), sound, atol=1e-5)
    assert torch.equal(SoundAugment(p=0.0)(sound), sound)


def test_what_is_shifted_out_is_lost() -> None:
    sound = torch.arange(1.0, 6.0)[None]
    assert shifted(sound, 2).tolist() == [[0, 0, 1, 2, 3]]
    assert shifted(sound, -2).tolist() == [[3, 4, 5, 0, 0]]
    assert shifted(sound, 0).tolist() == sound.tolist()


def test_an_augmentation_out_of_range_names_the_key() -> None:
    with pytest.raises(ConfigurationError, match=r"real\.augment\.shift=2 is not in \[0, 1\]"):
        SoundAugment(shift=2)
    with pytest.raises(ConfigurationError, match=r"real\.augment\.gain_db=-1 is below 0"):
        SoundAugment(gain_db=-1)
    assert math.isfinite(float(SoundAugment(p=1.0)(torch.zeros(1, 800)).abs().max()))
