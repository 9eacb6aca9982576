from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from lightning_diffaug.data import AudioDataModule
from lightning_diffaug.data.spoken_digits import SpokenDigits, speaker_family, spoken_digits
from lightning_diffaug.errors import ConfigurationError


@pytest.fixture(scope="module")
def spoken() -> SpokenDigits:
    pytest.importorskip("espeakng_loader")
    return spoken_digits()


def test_every_voice_says_every_digit_twice(spoken: SpokenDigits) -> None:
    voices = sorted(set(spoken.voice))
    assert len(voices) > 80
    assert spoken.audio.shape == (20 * len(voices), 6400)
    assert spoken.audio.dtype == torch.float32
    for voice in (voices[0], voices[-1]):
        said = sorted(int(d) for d, who in zip(spoken.digit, spoken.voice, strict=True) if who == voice)
        assert said == sorted([*range(10)] * 2)
    assert len({voice.partition("+")[0] for voice in voices}) == 8


def test_words_are_equally_loud_and_begin_at_once(spoken: SpokenDigits) -> None:
    loudness = spoken.audio.abs()
    assert torch.allclose(loudness.amax(1), torch.tensor(0.9), atol=1e-4)
    begins = (loudness > 0.015).int().argmax(1)
    assert float(begins.float().quantile(0.95)) < 80  # 10 ms
    assert float((loudness[:, -8:].amax(1) < 0.05).float().mean()) > 0.99
    assert not torch.equal(spoken.audio[0], spoken.audio[1])


def test_the_same_voices_say_the_same_each_time(spoken: SpokenDigits) -> None:
    again = spoken_digits()
    assert torch.equal(again.audio, spoken.audio)
    assert (again.digit.tolist(), again.voice) == (spoken.digit.tolist(), spoken.voice)


def test_variations_of_a_voice_are_one_family() -> None:
    voices = ["en-us+iven2", "en+Iven", "en-029+robosoft8", "en+f1", "en+whisperf", "en+Mr serious"]
    assert [speaker_family(voice) for voice in voices] == ["iven", "iven", "robosoft", "f", "whisperf", "mr serious"]


def test_no_voice_of_training_is_heard_later(spoken: SpokenDigits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_diffaug.data.audio.spoken_digits", lambda *_: spoken)
    by_sound = {bytes(sound.numpy().data): who for sound, who in zip(spoken.audio, spoken.voice, strict=True)}

    def heard(**settings: Any) -> list[set[str]]:
        splits = AudioDataModule(**settings).splits
        return [
            {by_sound[bytes(sound[0].numpy().data)] for sound in part.images}
            for part in (splits.train, splits.val, splits.test)
        ]

    whole = heard()
    families = [{speaker_family(voice) for voice in part} for part in whole]
    assert not families[0] & families[1]
    assert not families[0] & families[2]
    assert not families[1] & families[2]
    assert len(whole[2]) > 1.5 * len(whole[0])
    few, other = heard(voices=4), heard(voices=4, seed=1)
    assert len(few[0]) == len(other[0]) == 4
    assert few[0] < whole[0]
    assert few[0] != other[0]
    assert few[1:] == other[1:] == whole[1:]
    assert few[0] < heard(voices=8)[0]
    with pytest.raises(ConfigurationError, match=r"real\.voices=99 is more than the \d+ voices"):
        heard(voices=99)


def test_without_the_package_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "espeakng_loader" else find(name))
    with pytest.raises(ConfigurationError, match=r"pip install 'lightning-diffaug\[audio\]', or set real\.root"):
        spoken_digits()


def test_a_synthesiser_that_does_not_speak_is_said_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr("lightning_diffaug.data.spoken_digits.ACCENTS", ("en-nowhere",))
    with pytest.raises(
        ConfigurationError, match=r"does not speak here \(eSpeak NG has no voice 'en-nowhere\+.*real\.root"
    ):
        spoken_digits()
