"""Whether what is seen and what is heard begin together: streams on one clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.aligned.fields import check_there
from lightning_diffaug.gates.chain import Verdict
from lightning_diffaug.gates.checks import as_set, check_number
from lightning_diffaug.spec import FieldSpec, SampleSpec

_WINDOW = 0.01  # seconds of sound whose energy is one value
_QUIET = 0.25  # quantile of a stream that is taken for its rest: something happens in less than three quarters of it
_STILL = 1e-4  # a stream that never rises so far above its rest, in values of [-1, 1], has no beginning


def video_onset(video: Tensor, frame_rate: float, share: float = 0.2) -> Tensor:
    """When a video first changes: by the mean absolute difference of neighbouring frames.

    Args:
        video: float32 (n, T, …), frames along the second axis.
        frame_rate: Frames a second.
        share: Of the largest change, above the video's rest, that counts as a beginning.

    Returns:
        float32 (n,), seconds from the start to the first frame that has changed; NaN where nothing changes.
    """
    frames = video.flatten(2)
    change = (frames[:, 1:] - frames[:, :-1]).abs().mean(2)
    return (_first(change, share) + 1) / frame_rate


def audio_onset(audio: Tensor, sample_rate: float, share: float = 0.2) -> Tensor:
    """When a sound begins: by its root mean square in windows of 10 ms.

    Args:
        audio: float32 (n, …, N), samples along the last axis.
        sample_rate: Samples a second.
        share: Of the greatest loudness, above the sound's rest, that counts as a beginning.

    Returns:
        float32 (n,), seconds from the start; NaN where it is silent.
    """
    window = max(1, round(_WINDOW * sample_rate))
    waves = audio.reshape(len(audio), -1, audio.shape[-1])
    waves = waves - waves.mean(2, keepdim=True)
    whole = waves.shape[2] // window * window
    loud = waves[..., :whole].reshape(len(waves), waves.shape[1], -1, window).square().mean((1, 3)).sqrt()
    return _first(loud, share) * (window / sample_rate)


def _first(activity: Tensor, share: float) -> Tensor:
    """Index of the first value that is so far above the rest, float32 (n,); NaN where nothing is."""
    above = activity - activity.quantile(_QUIET, dim=1, keepdim=True)
    most = above.amax(1, keepdim=True)
    first = (above >= share * most).float().argmax(1).float()
    return torch.where(most[:, 0] > _STILL, first, torch.nan)


def onset_offset(video: Tensor, audio: Tensor, frame_rate: float, sample_rate: float, share: float = 0.2) -> Tensor:
    """How much later a sound begins than what is seen.

    Beginnings are compared, not the largest changes nor the lag of the highest cross-correlation: an image that goes
    changes a video as much as one that comes, and the loudest syllable is not the first.

    Args:
        video: float32 (n, T, …), at `frame_rate` frames a second.
        audio: float32 (n, …, N), at `sample_rate` samples a second; both start at the same time.
        frame_rate: Frames a second.
        sample_rate: Samples a second.
        share: Of the largest activity that counts as a beginning, in (0, 1).

    Returns:
        float32 (n,), seconds. Where only one of the two has a beginning, the length of the clip; 0 where none has.
    """
    seen, heard = video_onset(video, frame_rate, share), audio_onset(audio, sample_rate, share)
    length = video.shape[1] / frame_rate
    alone = torch.where(seen.isnan() & heard.isnan(), 0.0, length)
    return torch.where(seen.isnan() | heard.isnan(), alone, heard - seen)


class InSync:
    """Passes clips whose sound begins when the picture changes. A gate of taste: off by default.

    Score: ``sync_offset``, seconds by which the sound begins later (`onset_offset`).

    Args:
        frame_rate: Frames a second.
        sample_rate: Samples a second.
        tolerance: Seconds by which the beginnings may differ, either way.
        video: Field of frames (T, …).
        audio: Field of sound (…, N), a wave.
        share: Of the largest activity that counts as a beginning, in (0, 1).

    Raises:
        ConfigurationError: A rate is not set, or a value out of its range.
    """

    name = "sync"

    def __init__(
        self,
        frame_rate: float | None = None,
        sample_rate: float | None = None,
        tolerance: float = 0.1,
        video: str = "video",
        audio: str = "audio",
        share: float = 0.2,
    ) -> None:
        for key, rate in (("frame_rate", frame_rate), ("sample_rate", sample_rate)):
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < float("inf"):
                raise ConfigurationError(
                    f"gates.sync.{key}={rate!r} is no number above 0, and without the rates of both streams they have "
                    f"no common clock. Set {as_set('sync', frame_rate=16, sample_rate=8000)}."
                )
        check_number(tolerance, self.name, "tolerance", "seconds that sound may begin before or after", 0.1, 0)
        check_number(share, self.name, "share", "of the largest activity, which is a beginning", 0.2, 0.01, 0.99)
        assert frame_rate is not None
        assert sample_rate is not None
        self.frame_rate, self.sample_rate, self.tolerance = frame_rate, sample_rate, tolerance
        self.video, self.audio, self.share = video, audio, share

    @property
    def looks_at(self) -> tuple[str, str]:
        """Names of the two fields."""
        return self.video, self.audio

    def check(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Looks at the fields before anything is made.

        Raises:
            ConfigurationError: They are not there, are no streams, or do not last equally long at these rates.
        """
        video = check_there(spec, self.name, "video", self.video)
        audio = check_there(spec, self.name, "audio", self.audio)
        for key, field, axis in (("video", video, 0), ("audio", audio, -1)):
            if not field.shape or field.shape[axis] < 2:
                raise ConfigurationError(
                    f"gates.sync.{key}={field.name!r} of shape {field.shape} is no stream: frames are its first axis, "
                    f"samples of sound its last. Name another field in gates.sync.{key}."
                )
        self._check_clock(video, audio)

    def _check_clock(self, video: FieldSpec, audio: FieldSpec) -> None:
        seen, heard = video.shape[0] / self.frame_rate, audio.shape[-1] / self.sample_rate
        if abs(seen - heard) > max(2 / self.frame_rate, 0.02 * seen):
            raise ConfigurationError(
                f"gates.sync: {video.shape[0]} frames last {seen:g} s and {audio.shape[-1]} samples of sound {heard:g} "
                "s, so that they share no clock. Set gates.sync.frame_rate and gates.sync.sample_rate to those of the "
                "data."
            )

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
        """Which rows are in step, and how far off each is."""
        offset = onset_offset(samples[self.video], samples[self.audio], self.frame_rate, self.sample_rate, self.share)
        return Verdict(offset.abs() <= self.tolerance, {"sync_offset": offset})
