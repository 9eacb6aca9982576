"""Clips of video and sound on one clock: composed of real digits, or a user's own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d
from typing_extensions import Unpack

from lightning_diffaug.data.aligned import AlignedDataModule, AlignedSettings, AlignedSplits, Sample
from lightning_diffaug.data.base import at_least
from lightning_diffaug.data.clip_folder import clip_splits
from lightning_diffaug.data.digit_clips import CLIP_SECONDS, digit_clips
from lightning_diffaug.errors import ConfigurationError

_SHOWN = 6
"""Frames of a clip that are drawn."""


class AudioVideoDataModule(AlignedDataModule):
    """Video with sound.

    A raw sample is a dict: ``video`` uint8 (frames, C, H, W), ``audio`` float32 (channels, samples) in [-1, 1],
    ``label`` int, 0 where there are no classes.

    Args:
        root: Folder of clips, see `clip_folder.LAYOUT`; None: clips composed of real handwritten and spoken digits.
        frame_rate: Frames a second.
        sample_rate: Samples a second; sounds of a folder are resampled to it.
        seconds: Length of a clip; None: of the shortest clip of the folder.
        size: Height and width of a frame; None: the native size, at most 16.
        split: Shares of training, validation and test of a folder without such subfolders.
        split_seed: Of that split.
        **settings: See `AlignedDataModule`.

    Raises:
        ConfigurationError: A setting is out of range, or the folder has another layout (`setup`).
    """

    few_shots = 6

    def __init__(
        self,
        root: str | Path | None = None,
        frame_rate: float = 16.0,
        sample_rate: int = 8000,
        seconds: float | None = CLIP_SECONDS,
        size: int | None = None,
        split: Sequence[float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
        **settings: Unpack[AlignedSettings],
    ) -> None:
        super().__init__(**settings)
        at_least("sample_rate", sample_rate, 1, "samples a second")
        at_least("size", size, 4, "height and width of a frame in pixels")
        if not frame_rate > 0 or (seconds is not None and not seconds > 0):
            raise ConfigurationError(
                f"real.frame_rate={frame_rate}, real.seconds={seconds}: both are above 0. Set real.frame_rate to the "
                "frames a second of the clips, and real.seconds to their length or null."
            )
        if root is None and (seconds != CLIP_SECONDS or size is not None):
            raise ConfigurationError(
                f"real.seconds={seconds}, real.size={size}: the composed clips last {CLIP_SECONDS:g} s and are 8 "
                f"pixels high. Set real.seconds={CLIP_SECONDS:g} and real.size=null, or real.root to clips of your own."
            )
        self.root = None if root is None else Path(root).expanduser()
        self.frame_rate = frame_rate
        self.sample_rate = sample_rate
        self.seconds = seconds
        self.size = size
        self.split = tuple(split)
        self.split_seed = split_seed

    def load(self) -> AlignedSplits:
        """Composes the clips, or reads the folder."""
        if self.root is None:
            return digit_clips(self.sample_rate, self.frame_rate)
        return clip_splits(
            self.root, self.frame_rate, self.sample_rate, self.seconds, self.size, self.split, self.split_seed
        )

    def conversion(self, sample: Sample) -> Sample:
        """Frames as float32 in [0, 1]."""
        return {**sample, "video": torch.as_tensor(sample["video"]).as_subclass(Tensor).to(torch.float32) / 255}

    def model_facts(self) -> dict[str, Any]:
        """How many classes there are to tell apart, the shape of a clip, and its rates."""
        return {
            "num_classes": self.num_classes if self.num_classes > 1 else 0,
            "class_names": self.class_names,
            "video_shape": list(self.splits.train[0]["video"].shape),
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
        }

    def picture(self, fields: Mapping[str, Any]) -> Tensor:
        """Some frames, evenly spread, side by side, and below the loudness of the sound over the same time."""
        video, audio = fields["video"], fields["audio"].mean(0)
        frames, _, height, _ = video.shape
        at = torch.linspace(0, frames - 1, _SHOWN).round().long()
        strip = torch.cat(list(video[at].float() / 255), dim=-1)
        loud = adaptive_avg_pool1d(audio.square()[None], strip.shape[-1])[0].sqrt()
        level = torch.arange(height, 0, -1)[:, None] / height
        bars = (loud / loud.max().clamp(min=1e-6) >= level).float()
        return torch.cat((strip, bars.expand(strip.shape[0], -1, -1)), dim=-2)
