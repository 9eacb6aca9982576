"""Clips: composed ones are aligned to the sample and share neither voices nor images, and one's own are read."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_diffaug.data import AudioVideoDataModule
from lightning_diffaug.data.digit_clips import digit_clips
from lightning_diffaug.data.spoken_digits import speaker_family, spoken_digits
from lightning_diffaug.errors import ConfigurationError

soundfile = pytest.importorskip("soundfile")
RATE, FRAMES = 4000, 10


def write_clip(folder: Path, level: int, frames: int = FRAMES, rate: int = RATE) -> None:
    """A second of a tone that begins with the first bright frame, the third."""
    folder.mkdir(parents=True)
    for i in range(frames):
        pixels = np.full((8, 8), level if i >= 2 else 0, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.png")
    time = np.arange(rate * frames // FRAMES) / rate
    soundfile.write(folder / "sound.wav", np.where(time >= 0.2, 0.5 * np.sin(2000 * time), 0.0), rate)


def write_clips(root: Path, parts: tuple[str, ...] = ("train", "val", "test"), classes: bool = True) -> None:
    for part in parts:
        for i in range(6):
            middle = ("bright" if i % 2 else "dark",) if classes else ()
            write_clip(Path(root, part, *middle, f"clip{i}"), 200 if i % 2 else 80)


def onsets(data: AudioVideoDataModule, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Seconds at which the picture and the sound of each clip begin."""
    dataset = getattr(data.splits, part)
    video, audio = dataset.fields["video"], dataset.fields["audio"]
    bright = video.flatten(2).amax(-1) > 60
    loud = audio[:, 0].abs() > 0.03
    return bright.int().argmax(1) / data.frame_rate, loud.int().argmax(1) / data.sample_rate


def test_a_word_begins_with_the_frame_that_shows_its_digit() -> None:
    pytest.importorskip("espeakng_loader")
    data = AudioVideoDataModule()
    again = AudioVideoDataModule()
    for part in ("train", "test"):
        seen, heard = onsets(data, part)
        assert float((heard - seen).abs().median()) < 0.03
        assert float((heard - seen).abs().max()) < 0.2  # a soft first sound
        assert len(seen.unique()) > 10
        for name in ("video", "audio"):
            assert torch.equal(getattr(data.splits, part).fields[name], getattr(again.splits, part).fields[name])
    assert data.splits.train[0]["video"].shape == (32, 1, 8, 8)
    assert data.model_facts()["num_classes"] == 10


def test_no_voice_and_no_image_is_in_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    spoken = spoken_digits(8000, 0.6)
    monkeypatch.setattr("lightning_diffaug.data.digit_clips.spoken_digits", lambda *_: spoken)
    monkeypatch.setattr("lightning_diffaug.data.digit_clips._HISS", 0.0)
    monkeypatch.setattr("lightning_diffaug.data.digit_clips._DARK", 1)
    voices = {bytes(sound.numpy().data): voice for sound, voice in zip(spoken.audio, spoken.voice, strict=True)}
    splits, families, images = digit_clips(8000, 16.0), [], []
    for part in (splits.train, splits.val, splits.test):
        video, audio = part.fields["video"], part.fields["audio"][:, 0]
        shown = [int(clip.flatten(1).amax(1).gt(0).int().argmax()) for clip in video]
        words = [bytes(sound[500 * at :][:4800].numpy().data) for sound, at in zip(audio, shown, strict=True)]
        families.append({speaker_family(voices[word]) for word in words})
        images.append({bytes(clip[at].numpy().data) for clip, at in zip(video, shown, strict=True)})
    for found in (families, images):
        assert min(map(len, found)) > 8
        for one, other in itertools.combinations(found, 2):
            assert not one & other


def test_clips_are_few_in_training_where_it_is_said() -> None:
    pytest.importorskip("espeakng_loader")
    data = AudioVideoDataModule(shots=3)
    assert data.class_counts == [3] * 10
    assert len(data.splits.test) == 400


@pytest.mark.parametrize("classes", [True, False])
def test_a_folder_of_clips_is_read_with_and_without_classes(tmp_path: Path, classes: bool) -> None:
    write_clips(tmp_path, classes=classes)
    data = AudioVideoDataModule(tmp_path, frame_rate=FRAMES, sample_rate=2000, seconds=None)
    assert data.class_names == (["bright", "dark"] if classes else ["clip"])
    assert data.model_facts()["num_classes"] == (2 if classes else 0)
    sample = data.splits.test[0]
    assert sample["video"].shape == (FRAMES, 1, 8, 8)
    assert sample["audio"].shape == (1, 2000)
    seen, heard = onsets(data, "train")
    assert torch.allclose(seen, torch.full_like(seen, 0.2))
    assert float((heard - seen).abs().max()) < 0.005


def test_short_clips_are_followed_by_their_last_frame_and_silence(tmp_path: Path) -> None:
    write_clips(tmp_path)
    data = AudioVideoDataModule(tmp_path, frame_rate=FRAMES, sample_rate=RATE, seconds=1.5)
    sample = data.splits.val[0]
    assert sample["video"].shape[0] == 15
    assert torch.equal(sample["video"][9], sample["video"][14])
    assert float(sample["audio"][:, RATE:].abs().max()) == 0.0


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        folder = tmp_path / part / "clip"
        folder.mkdir(parents=True)
        for i in range(1, 13):  # as ffmpeg's %d counts
            Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(folder / f"{i}.png")
        soundfile.write(folder / "sound.wav", np.zeros(RATE), RATE)
    video = AudioVideoDataModule(tmp_path, frame_rate=FRAMES, seconds=None).splits.train.fields["video"][0]
    assert video[:, 0, 0, 0].tolist() == [20 * i for i in range(1, 13)]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["1", "2", "4", "5"], "2"),
        (["a-0010", "a-0020", "a-0030", "a-0050"], "a-0030"),
        (["0.033", "0.067", "0.100", "0.133"], None),  # times
        (["a", "b", "c", "d"], None),
        (["b1", "a2", "a4", "a5"], None),  # not one row of numbers
    ],
)
def test_a_frame_that_is_missing_is_said(tmp_path: Path, names: list[str], missing: str | None) -> None:
    for part in ("train", "val", "test"):
        folder = tmp_path / part / "clip"
        folder.mkdir(parents=True)
        for name in names:
            Image.fromarray(np.full((8, 8), 9, np.uint8)).save(folder / f"{name}.png")
        soundfile.write(folder / "sound.wav", np.zeros(RATE * len(names) // FRAMES), RATE)
    data = AudioVideoDataModule(tmp_path, frame_rate=FRAMES, seconds=None)
    if missing is None:
        data.setup()
        return
    with pytest.raises(ConfigurationError, match=rf"clip: after {missing}\.png a frame is missing.*real\.root"):
        data.setup()


def test_a_number_that_two_frames_have_is_said(tmp_path: Path) -> None:
    for name in ("1", "01", "2", "3"):
        (tmp_path / "clip").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 9, np.uint8)).save(tmp_path / "clip" / f"{name}.png")
    soundfile.write(tmp_path / "clip" / "sound.wav", np.zeros(RATE), RATE)
    with pytest.raises(ConfigurationError, match=r"clip: (01\.png and 1|1\.png and 01)\.png have one number"):
        AudioVideoDataModule(tmp_path, frame_rate=FRAMES, seconds=None).setup()


def test_a_folder_in_one_is_divided_clip_by_clip(tmp_path: Path) -> None:
    for i in range(10):
        write_clip(tmp_path / f"clip{i}", 20 * i)
    data = AudioVideoDataModule(tmp_path, frame_rate=FRAMES, seconds=None, split=(0.6, 0.2, 0.2))
    assert [len(part) for part in (data.splits.train, data.splits.val, data.splits.test)] == [6, 2, 2]


def test_each_part_of_a_divided_folder_has_each_class(tmp_path: Path) -> None:
    for label, count in {"dark": 24, "bright": 4}.items():
        for i in range(count):
            write_clip(tmp_path / label / f"clip{i}", 200 if label == "bright" else 80)
    data = AudioVideoDataModule(tmp_path, frame_rate=FRAMES, seconds=None, split=(0.5, 0.25, 0.25))
    for part, counts in {"train": [2, 12], "val": [1, 6], "test": [1, 6]}.items():
        assert torch.bincount(torch.tensor(getattr(data.splits, part).fields["label"])).tolist() == counts


def test_frames_and_sound_of_other_lengths_name_the_rate_that_would_fit(tmp_path: Path) -> None:
    write_clips(tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"10 frames, 2 s at real\.frame_rate=5, and 1 s of sound.*\(10 would fit"
    ):
        AudioVideoDataModule(tmp_path, frame_rate=5, seconds=None).setup()


def test_clips_that_are_shorter_than_asked_for_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_clips(tmp_path)
    with caplog.at_level("WARNING"):
        AudioVideoDataModule(tmp_path, frame_rate=FRAMES, sample_rate=RATE, seconds=1.0).setup()
        assert "shorter" not in caplog.text
        AudioVideoDataModule(tmp_path, frame_rate=FRAMES, sample_rate=RATE, seconds=1.5).setup()
    assert "18 of 18 clips are shorter than real.seconds=1.5 (the shortest has 1 s)" in caplog.text


def test_clips_with_and_without_classes_are_refused(tmp_path: Path) -> None:
    for i in range(6):
        write_clip(tmp_path / "dark" / f"clip{i}", 80)
    write_clip(tmp_path / "stray", 80)
    with pytest.raises(ConfigurationError, match="some clips are in folders of classes, some are not"):
        AudioVideoDataModule(tmp_path, frame_rate=FRAMES).setup()


def test_another_layout_is_refused_with_the_one_that_is_expected(tmp_path: Path) -> None:
    def refused(match: str, root: Path) -> None:
        with pytest.raises(ConfigurationError, match=match) as error:
            AudioVideoDataModule(root).setup()
        assert "<clip>/0001.png" in str(error.value)

    refused(r"real\.root=.*not a folder", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refused("nothing that can be read", tmp_path / "empty")
    write_clips(tmp_path / "no_test", ("train",))
    refused("test/ is missing", tmp_path / "no_test")
    write_clips(tmp_path / "two")
    (tmp_path / "two" / "train" / "dark" / "clip0" / "second.wav").write_bytes(b"")
    refused(r"clip0 has 10 frames and 2 sounds", tmp_path / "two")


def test_a_file_that_is_no_sound_is_named(tmp_path: Path) -> None:
    write_clips(tmp_path)
    bad = tmp_path / "train" / "dark" / "clip0" / "sound.wav"
    bad.write_bytes(b"no sound")
    with pytest.raises(ConfigurationError, match=r"clip0/sound\.wav.*real\.root"):
        AudioVideoDataModule(tmp_path, frame_rate=FRAMES).setup()


def test_settings_that_do_not_fit_are_refused() -> None:
    for given in (
        {"frame_rate": 7},
        {"frame_rate": 30},
        {"sample_rate": 44100},
        {"frame_rate": 4, "sample_rate": 8001},
    ):
        settings = {"frame_rate": 16, "sample_rate": 8000, **given}
        with pytest.raises(ConfigurationError, match=rf"real\.frame_rate={settings['frame_rate']}") as error:
            digit_clips(**settings)
        settings["frame_rate"] = int(str(error.value).rpartition(" ")[2].rstrip("."))
        assert settings["sample_rate"] % settings["frame_rate"] == 0
    with pytest.raises(ConfigurationError, match=r"real\.seconds=3"):
        AudioVideoDataModule(seconds=3)
    with pytest.raises(ConfigurationError, match=r"real\.frame_rate=0"):
        AudioVideoDataModule(frame_rate=0)


def test_the_picture_of_a_clip_shows_frames_above_loudness() -> None:
    video, audio = torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, 600)
    video[3:], audio[:, 300:] = 255, 0.5
    picture = AudioVideoDataModule().picture({"video": video, "audio": audio})
    assert picture is not None
    assert picture.shape == (1, 16, 48)
    for half in (picture[:, :8], picture[:, 8:]):
        assert float(half[..., :23].max()) == 0.0
        assert float(half[..., 25:].min()) == 1.0
