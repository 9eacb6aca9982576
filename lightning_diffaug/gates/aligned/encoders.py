"""Small encoders of a field, by its shape: images, sequences, volumes, videos, vectors, sets of points, texts."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.gates.aligned.fields import Values, class_count, class_numbers
from lightning_diffaug.gates.classifier import Classifier
from lightning_diffaug.spec import FieldSpec
from lightning_diffaug.words import words

BUCKETS = 1024
_SPACE = 4  # dimensions up to which rows of a field are points
_MOST_CLASSES = 64  # of a mask that gets a channel for each
_WAVE = 4096  # values from which a sequence is looked at by its spectrum over time
_WINDOW, _BANDS, _TIMES = 256, 32, 128


def is_points(field: FieldSpec) -> bool:
    """Whether it is a set of points (P, d)."""
    return len(field.shape) == 2 and field.shape[1] <= _SPACE and not field.is_mask


def is_known(field: FieldSpec) -> bool:
    """Whether there is an encoder for it."""
    return field.is_text or len(field.shape) <= 4


class FieldEncoder(nn.Module):
    """A field of n samples → vectors of length 1, float32 (n, dimensions).

    Args:
        field: What it is.
        dimensions: Of the result.
        width: Channels of the first layer.
        size: Longest side that images and volumes are averaged down to.
    """

    def __init__(self, field: FieldSpec, dimensions: int, width: int, size: int) -> None:
        super().__init__()
        self.field = field
        self.layers: nn.Module
        if field.is_text:
            self.layers = nn.Sequential(
                nn.Linear(BUCKETS, 4 * width, bias=False), nn.ReLU(), nn.Linear(4 * width, dimensions)
            )
        elif is_points(field):
            self.layers = _PointSet(field.shape[1], 4 * width, dimensions)
        else:
            self.layers = Classifier(_shape(field), dimensions, width, size)

    def forward(self, values: Values) -> Tensor:
        """Features of what `given` and `read` hand out."""
        return functional.normalize(self.layers(_tensor(values, self.field)), dim=1)


def _one_channel_each(field: FieldSpec) -> bool:
    return field.is_mask and class_count(field) <= _MOST_CLASSES


def _is_frames(field: FieldSpec) -> bool:
    """Whether a field of four axes is a video, frames first."""
    return len(field.shape) == 4 and (field.kind == "tv_video" or field.shape[1] <= _SPACE < field.shape[0])


def _is_wave(field: FieldSpec) -> bool:
    return len(field.shape) == 2 and not field.is_mask and field.shape[1] >= _WAVE


def spectrum(waves: Tensor) -> Tensor:
    """Log-magnitudes over time of long sequences (n, C, L): float32 (n, 32 C, about 128)."""
    n, channels, length = waves.shape
    window = torch.hann_window(_WINDOW)
    found = torch.stft(waves.flatten(0, 1), _WINDOW, max(1, length // _TIMES), window=window, return_complex=True)
    bands = functional.adaptive_avg_pool2d(found.abs(), (_BANDS, found.shape[2]))
    return (bands + 1e-3).log().div(4.0).add(1.0).reshape(n, channels * _BANDS, -1)


def _shape(field: FieldSpec) -> tuple[int, ...]:
    """Of what the network gets of one sample."""
    if _is_wave(field):
        return (field.shape[0] * _BANDS, _TIMES)
    if _one_channel_each(field):
        return (class_count(field), *field.shape[-2:])
    if _is_frames(field):
        frames, channels, *size = field.shape
        return (channels, frames, *size)
    return field.shape or (1,)


def _tensor(values: Values, field: FieldSpec) -> Tensor:
    if not isinstance(values, Tensor):
        return hashed_words(values)
    if _one_channel_each(field):
        return functional.one_hot(class_numbers(values, field), class_count(field)).movedim(-1, 1).float() * 2 - 1
    if _is_wave(field):
        return spectrum(values)
    if _is_frames(field):
        return values.movedim(1, 2)
    return values.reshape(len(values), 1) if not field.shape else values


def hashed_words(texts: Sequence[str]) -> Tensor:
    """Texts as counts of their words and of neighbouring words, by the hash of each (Weinberger et al. 2009).

    Args:
        texts: n of them; see `words.words`.

    Returns:
        float32 (n, `BUCKETS`), of length 1; 0 for a text without words.
    """
    found = torch.zeros(len(texts), BUCKETS)
    for row, text in enumerate(texts):
        said = words(text)
        for piece in [*said, *(f"{a} {b}" for a, b in itertools.pairwise(said))]:
            number = zlib.crc32(piece.encode())
            found[row, number % BUCKETS] += 1.0 if number & 0x80000000 else -1.0
    return functional.normalize(found, dim=1)


class _PointSet(nn.Module):
    """Points (n, P, d) → (n, dimensions): each by itself, and the largest of all (Qi et al. 2017, "PointNet")."""

    def __init__(self, space: int, hidden: int, dimensions: int) -> None:
        super().__init__()
        self.each = nn.Sequential(
            nn.Linear(space, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * hidden)
        )
        self.all = nn.Sequential(
            nn.ReLU(), nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, dimensions)
        )

    def forward(self, points: Tensor) -> Tensor:
        found: Tensor = self.all(self.each(points).amax(1))
        return found
