from __future__ import annotations

import types
import wave
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_diffaug.listening import WriteSounds, write_wav


def test_a_sound_is_written_as_it_is(tmp_path: Path) -> None:
    sound = torch.tensor([[0.0, 0.5, -0.5, 1.0], [0.1, 0.2, 0.3, -1.5]])
    write_wav(tmp_path / "a.wav", sound, 8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth(), file.getnframes()) == (2, 8000, 2, 4)
        values = torch.frombuffer(bytearray(file.readframes(4)), dtype=torch.int16).reshape(4, 2).T / 32767
    assert torch.allclose(values, sound.clamp(-1, 1), atol=1e-4)
    with pytest.raises(ValueError, match="no waveform"):
        write_wav(tmp_path / "b.wav", torch.zeros(1, 2, 3), 8000)


def test_a_folder_that_cannot_be_written_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    callback = WriteSounds(str(tmp_path / "file" / "below"), 8000)
    monkeypatch.setattr(callback, "_sounds", lambda data: {"a": torch.zeros(4)})
    monkeypatch.setattr("lightning_diffaug.datamodule.DiffAugDataModule", types.SimpleNamespace)
    trainer: Any = types.SimpleNamespace(datamodule=types.SimpleNamespace(), is_global_zero=True)
    callback.on_test_end(trainer, None)  # type: ignore[arg-type]
    assert "The run and its figures are whole" in caplog.text
