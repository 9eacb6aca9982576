"""Sounds of the pool as files to listen to."""

from __future__ import annotations

import contextlib
import logging
import wave
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_diffaug.errors import PoolError
from lightning_diffaug.spec import LABEL

log = logging.getLogger(__name__)


class WriteSounds(Callback):
    """Writes some synthetic sounds that a run was trained on, ``<class>.wav``, after the test, on rank 0.

    Without classes they are numbered. A sound that cannot be written is logged, and no reason for a run to fail.

    Args:
        folder: Where.
        sample_rate: Of the sounds, in Hz.
        field: Name of the field that holds them: (samples,) or (channels, samples) in [-1, 1].
        per_class: Sounds of each class; from the second on they are ``<class>_2.wav``, ….
    """

    def __init__(self, folder: str, sample_rate: int, field: str = "audio", per_class: int = 1) -> None:
        self.folder = Path(folder)
        self.sample_rate = sample_rate
        self.field = field
        self.per_class = per_class

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the window that was frozen last, and writes."""
        from lightning_diffaug.datamodule import DiffAugDataModule

        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not isinstance(data, DiffAugDataModule):
            return
        try:
            for name, sound in self._sounds(data).items():
                self.folder.mkdir(parents=True, exist_ok=True)
                write_wav(self.folder / f"{name}.wav", sound, self.sample_rate)
        except (OSError, ValueError) as error:
            log.warning("no sounds in %s (%s). The run and its figures are whole.", self.folder, error)

    def _sounds(self, data: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for slot in data.window_slots if data.pool is not None else ():
            with contextlib.suppress(PoolError, FileNotFoundError):  # damaged or dropped since it was read
                shard = data.pool.read(slot)
                sounds, labels = shard.fields.get(self.field, ()), shard.fields.get(LABEL)
                for i, sound in enumerate(sounds):
                    name = "sound" if labels is None else data.class_names[int(labels[i])]
                    counts[name] = counts.get(name, 0) + 1
                    if counts[name] <= self.per_class:
                        found[name if counts[name] == 1 else f"{name}_{counts[name]}"] = sound.clone()
        return found


def write_wav(path: Path, sound: Tensor, sample_rate: int) -> None:
    """Writes a waveform (samples,) or (channels, samples) in [-1, 1] as 16-bit PCM.

    Raises:
        ValueError: It is of another shape.
    """
    if sound.ndim not in (1, 2):
        raise ValueError(f"a sound of shape {tuple(sound.shape)} is no waveform")
    values = (sound.to(torch.float32).clamp(-1.0, 1.0) * 32767).round().to(torch.int16)
    channels = values.reshape(-1, values.shape[-1])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(channels.T.contiguous().numpy().astype("<i2").tobytes())
