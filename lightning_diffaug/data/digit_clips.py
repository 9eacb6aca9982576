"""Clips composed of real handwritten digits and spoken ones: an image is shown as its word begins."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors

from lightning_diffaug.data.aligned import AlignedDataset, AlignedSplits
from lightning_diffaug.data.dataset import ImageDataset
from lightning_diffaug.data.digits import DigitsDataModule
from lightning_diffaug.data.spoken_digits import WORDS, SpokenDigits, speaker_family, spoken_digits
from lightning_diffaug.errors import ConfigurationError

CLIP_SECONDS = 2.0
_WORD_SECONDS = 0.6
_FIRST, _LAST = 0.25, 1.25
"""Seconds between which a word begins."""
_CLIPS = {"train": 40, "val": 20, "test": 40}
"""Of each digit."""
_PARTS = ("train", "test", "train", "val", "train", "test", "train")
"""Where families of speakers go, in turn."""
_DARK, _HISS = 24, 0.004
"""Largest grey level of the noise behind the digit, and amplitude of that in the sound."""


def digit_clips(sample_rate: int, frame_rate: float) -> AlignedSplits:
    """2,000-millisecond clips: ``video`` uint8 (frames, 1, 8, 8), ``audio`` float32 (1, samples), ``label``.

    The image of a handwritten digit stands in faint noise for as long as its word may last, from the very frame in
    which the word begins. Speakers, by family of voices, and images of the parts are disjoint. The same on every
    machine with one version of the speech package.

    Args:
        sample_rate: Samples a second.
        frame_rate: Frames a second; a clip is a whole number of frames, each a whole number of samples.

    Raises:
        ConfigurationError: The rates have no common clock, or the speech package is missing.
    """
    frames, per_frame = CLIP_SECONDS * frame_rate, sample_rate / frame_rate
    if frames != round(frames) or per_frame != round(per_frame):
        halves = 1 + (sample_rate % 2 == 0)  # of a frame, which the codec's spectra take
        fitting = [rate for rate in range(1, sample_rate + 1) if sample_rate % (halves * rate) == 0]
        nearest = min(fitting, key=lambda rate: abs(rate - frame_rate))
        raise ConfigurationError(
            f"real.frame_rate={frame_rate:g} and real.sample_rate={sample_rate}: {frames:g} frames a clip of "
            f"{per_frame:g} samples each, which are no whole numbers. Set real.frame_rate to e.g. {nearest}."
        )
    spoken = spoken_digits(sample_rate, _WORD_SECONDS)
    families = sorted({speaker_family(voice) for voice in spoken.voice})
    part_of = {family: _PARTS[i % len(_PARTS)] for i, family in enumerate(families)}
    images = DigitsDataModule().load()
    made = {
        part: _part(part, spoken, part_of, getattr(images, part), round(frames), round(per_frame)) for part in _CLIPS
    }
    return AlignedSplits(made["train"], made["val"], made["test"])


def _part(
    part: str, spoken: SpokenDigits, part_of: dict[str, str], images: ImageDataset, frames: int, per_frame: int
) -> AlignedDataset:
    rng = torch.Generator().manual_seed(list(_CLIPS).index(part))
    n = _CLIPS[part] * len(WORDS)
    label = torch.arange(n) % len(WORDS)
    heard = torch.tensor([part_of[speaker_family(voice)] == part for voice in spoken.voice])
    shown = torch.tensor(images.targets)
    assert isinstance(images.images, Tensor)
    pixels = images.images
    onset = torch.randint(
        round(_FIRST * frames / CLIP_SECONDS), round(_LAST * frames / CLIP_SECONDS) + 1, (n,), generator=rng
    )
    lasts = round(_WORD_SECONDS * frames / CLIP_SECONDS)
    video = torch.randint(0, _DARK, (n, frames, *pixels.shape[1:]), generator=rng, dtype=torch.uint8)
    audio = _HISS * torch.randn(n, 1, frames * per_frame, generator=rng)
    words = spoken.audio.shape[1]
    for i, digit in enumerate(label.tolist()):
        image = _one(torch.nonzero(shown == digit).flatten(), rng)
        word = _one(torch.nonzero(heard & (spoken.digit == digit)).flatten(), rng)
        begin = int(onset[i])
        video[i, begin : begin + lasts] = torch.maximum(video[i, begin : begin + lasts], pixels[image])
        audio[i, 0, begin * per_frame :][:words] += spoken.audio[word]
    fields = {"video": video, "audio": audio.clamp(-1.0, 1.0), "label": label}
    return AlignedDataset(fields, WORDS, wrap={"video": tv_tensors.Video})


def _one(of: Tensor, rng: torch.Generator) -> int:
    return int(of[torch.randint(len(of), (), generator=rng)])
