"""A user's own clips: folders of numbered frames with a sound file each."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_diffaug.data.aligned import AlignedDataset, AlignedSplits
from lightning_diffaug.data.image_files import ImageFiles, probe
from lightning_diffaug.data.parts import class_names, folder_parts, shown_files, shown_folders
from lightning_diffaug.data.sound_files import EXTENSIONS, SoundFiles, sound_seconds
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.paths import natural

log = logging.getLogger(__name__)

LAYOUT = """Expected is either
  <root>/train/[<class>/]<clip>/0001.png, 0002.png, … and one sound (wav, flac, ogg)   <root>/val/…   <root>/test/…
(val may be absent), or one folder that is split by ratio (real.split)
  <root>/[<class>/]<clip>/0001.png, … and one sound
Frames are in the order of their numbers, real.frame_rate of them a second, and begin when the sound does."""
DEFAULT_SIZE = 16
_FRAMES_OFF = 2  # frames by which picture and sound may differ in length, or
_SHARE_OFF = 0.1
_GAP = 1.5  # of the usual step of the frames' numbers
ONE_CLASS = "clip"
"""Name of the class of all, where there are no classes."""


@dataclass(frozen=True)
class _Clip:
    frames: tuple[Path, ...]
    sound: Path
    label: str | None


def clip_splits(
    root: Path,
    frame_rate: float,
    sample_rate: int,
    seconds: float | None,
    size: int | None,
    split: Sequence[float],
    split_seed: int,
) -> AlignedSplits:
    """The clips of a folder, in memory: arguments as `AudioVideoDataModule`.

    Raises:
        ConfigurationError: The folder has another layout, or a file cannot be read.
    """
    parts = folder_parts(root, _clips, LAYOUT, split, split_seed, label=lambda clip: clip.label)
    every = [clip for part in parts.values() for clip in part]
    if len({clip.label is not None for clip in every}) > 1:
        raise ConfigurationError(f"real.root={root}: some clips are in folders of classes, some are not.\n{LAYOUT}")
    classes = class_names(root, parts, _class, LAYOUT)
    lengths = [_seconds(clip, frame_rate) for clip in every]
    if seconds is not None and (short := [length for length in lengths if length < seconds - 1 / frame_rate]):
        log.warning(
            "%d of %d clips are shorter than real.seconds=%g (the shortest has %.3g s): their last frame and silence "
            "fill them, which may tell a model what it is to find. Set real.seconds to %.3g or null.",
            len(short), len(every), seconds, min(short), min(short),
        )  # fmt: skip
    native, channels = probe([clip.frames[0] for clip in parts["train"]])
    pixels = min(native, DEFAULT_SIZE) if size is None else size
    frames = min(len(clip.frames) for clip in every) if seconds is None else round(seconds * frame_rate)
    samples = round(frames / frame_rate * sample_rate)

    def dataset(clips: Sequence[_Clip]) -> AlignedDataset:
        fields: dict[str, object] = {
            "video": torch.stack([_video(clip, frames, pixels, channels) for clip in clips]),
            "audio": SoundFiles([clip.sound for clip in clips], sample_rate, samples, 1).read(),
            "label": [classes.index(_class(clip)) for clip in clips],
        }
        return AlignedDataset(fields, classes, wrap={"video": tv_tensors.Video})

    return AlignedSplits(dataset(parts["train"]), dataset(parts["val"]), dataset(parts["test"]))


def _seconds(clip: _Clip, frame_rate: float) -> float:
    """How long a clip is, by its sound; its frames have to be as long."""
    heard, seen = sound_seconds(clip.sound), len(clip.frames) / frame_rate
    if abs(heard - seen) > max(_FRAMES_OFF / frame_rate, _SHARE_OFF * heard):
        raise ConfigurationError(
            f"{clip.sound.parent} has {len(clip.frames)} frames, {seen:.4g} s at real.frame_rate={frame_rate:g}, and "
            f"{heard:.4g} s of sound: picture and sound would not be together. Set real.frame_rate to what the frames "
            f"were taken at ({len(clip.frames) / heard:.4g} would fit), or mend the clip."
        )
    return heard


def _class(clip: _Clip) -> str:
    return ONE_CLASS if clip.label is None else clip.label


def _clips(folder: Path) -> list[_Clip]:
    """The clips below a folder: folders with a sound in them, or in folders of classes."""
    found = []
    for inner in shown_folders(folder):
        if (clip := _clip(inner, None)) is not None:
            found.append(clip)
            continue
        found += [clip for deeper in shown_folders(inner) if (clip := _clip(deeper, inner.name)) is not None]
    return found


def _clip(folder: Path, label: str | None) -> _Clip | None:
    files = list(folder.iterdir())
    sounds = shown_files(files, EXTENSIONS)
    frames = sorted(shown_files(files, IMG_EXTENSIONS), key=natural)
    if not sounds and not frames:
        return None
    if len(sounds) != 1 or not frames:
        raise ConfigurationError(
            f"{folder} has {len(frames)} frames and {len(sounds)} sounds: a clip has frames and one sound. Mend the "
            f"folder, or set real.root to another.\n{LAYOUT}"
        )
    _check_complete(frames)
    return _Clip(tuple(frames), sounds[0], label)


def _check_complete(frames: Sequence[Path]) -> None:
    """Refuses frames whose numbers have a gap; times in place of numbers may go on by steps that differ a little."""
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem) for path in frames]
    numbers = [int(match[2]) for match in found if match is not None]
    if len(numbers) < max(3, len(frames)) or len({(match[1], match[3]) for match in found if match is not None}) > 1:
        return  # they are no one row of numbers
    steps = [after - before for before, after in pairwise(numbers)]
    if 0 in steps:
        twice = frames[steps.index(0)]
        raise ConfigurationError(
            f"{twice.parent}: {twice.name} and {frames[steps.index(0) + 1].name} have one number, so which is shown is "
            "not known. Take one out."
        )
    for before, step in zip(frames, steps, strict=False):
        if step > _GAP * median(steps):
            raise ConfigurationError(
                f"{before.parent}: after {before.name} a frame is missing, so all behind it would be shown before they "
                "are heard. Add it (a copy of its neighbour will do), number the frames anew if none is missing, or "
                "take the clip out of the folder that real.root names."
            )


def _video(clip: _Clip, frames: int, size: int, channels: int) -> Tensor:
    """uint8 (frames, channels, size, size); a shorter clip stays at its last frame."""
    video = ImageFiles(clip.frames[:frames], size, channels).read()
    return torch.cat([video, video[-1:].expand(frames - len(video), -1, -1, -1)])
