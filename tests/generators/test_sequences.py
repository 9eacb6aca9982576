"""Streams as sequences over the same steps of time, and back."""

from __future__ import annotations

import pytest
import torch

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.field_codecs import FrameSequence, LogMel, LogMelSequence
from lightning_diffaug.generators.field_codecs.base import Codecs
from lightning_diffaug.spec import FieldSpec

VIDEO = FieldSpec("video", "video", "tv_video", "uint8", (8, 2, 3, 5), 0.0, 255.0)
AUDIO = FieldSpec("audio", "audio", "tensor", "float32", (2, 4000), -1.0, 1.0)
LOG_MEL = {"n_fft": 512, "hop_length": 250, "mels": 24}


def test_frames_come_back_as_they_were() -> None:
    video = torch.randint(0, 256, (4, *VIDEO.shape), dtype=torch.uint8)
    codec = FrameSequence()
    encoded = codec.encode(video, VIDEO)
    assert encoded.shape[1:] == codec.shape(VIDEO) == (30, 8)
    assert torch.equal(encoded[:, :, 3].reshape(4, 2, 3, 5), VIDEO.to_unit(video[:, 3]))
    assert torch.equal(VIDEO.from_unit(VIDEO.to_unit(codec.decode(encoded, VIDEO))), video)


def test_the_spectra_of_a_step_are_those_of_its_time() -> None:
    audio = torch.randn(3, *AUDIO.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    without = {**LOG_MEL, "iterations": 0}  # which would let rounding grow
    codec, plain = LogMelSequence(2, **without), LogMel(**without)
    encoded, bands = codec.encode(audio, AUDIO), plain.encode(audio, AUDIO)
    assert encoded.shape[1:] == codec.shape(AUDIO) == (2 * 2 * 24, 8)
    step = encoded[:, :, 5].reshape(3, 2, 2, 24)  # channels, spectra, mels
    assert torch.equal(step[:, 1, 0], bands[:, 1, :, 10])
    assert torch.equal(step[:, 1, 1], bands[:, 1, :, 11])
    torch.testing.assert_close(codec.decode(encoded, AUDIO), plain.decode(bands, AUDIO))


def test_both_have_the_steps_of_one_clock_and_are_named_with_all_arguments() -> None:
    codecs = {"video": FrameSequence(), "audio": LogMelSequence(2, **LOG_MEL)}
    assert FrameSequence().shape(VIDEO)[1] == LogMelSequence(2, **LOG_MEL).shape(AUDIO)[1]
    key = Codecs(codecs).key()["codecs"]["audio"]
    assert (key["spectra"], key["hop_length"], key["floor_db"]) == (2, 250, -80.0)
    assert (
        Codecs({"audio": LogMelSequence(1, **LOG_MEL)}).key() != Codecs({"audio": LogMelSequence(2, **LOG_MEL)}).key()
    )


def test_the_hop_follows_from_the_frames_unless_it_is_given() -> None:
    def made(**given: object) -> tuple[object, object]:
        config = LogMelSequence(2, sample_rate=8000, **given).config()
        assert LogMelSequence(**config).config() == config
        return config["hop_length"], config["n_fft"]

    assert made() == (200, 400)
    assert made(frame_rate=16) == (250, 512)
    assert made(frame_rate=12.5) == (320, 1024)
    assert made(frame_rate=16, n_fft=600) == (250, 600)
    assert made(frame_rate=16, hop_length=125) == (125, 256)
    with pytest.raises(ConfigurationError, match=r"Set real\.sample_rate to e\.g\. 8040"):
        made(frame_rate=30)
    with pytest.raises(ConfigurationError, match="frame_rate=0"):
        made(frame_rate=0)


def test_what_is_no_stream_or_no_whole_steps_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no video"):
        FrameSequence().shape(AUDIO)
    with pytest.raises(ConfigurationError, match="spectra=0"):
        LogMelSequence(0)
    with pytest.raises(ConfigurationError, match=r"not whole steps of 3"):
        LogMelSequence(3, **LOG_MEL).shape(AUDIO)
