"""Fractal pictures to blend into samples: Julia sets made by seed, or the pictures of a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.remote_image import values_of

_STEPS = 48
_ESCAPED = 8.0
_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


def julia(rngs: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Pictures of Julia sets of ``z² + c``, coloured by how soon each point escapes; in float64, as they are chaotic.

    The constant c lies just outside of the main cardioid of the Mandelbrot set, ``e^iθ / 2 - e^2iθ / 4``, where the
    sets are rich in detail. Constant, turn, zoom and colours are drawn.

    Args:
        rngs: One random generator for each picture.
        shape: (C, H, W) of a picture.

    Returns:
        float32 (n, C, H, W) in [-1, 1].
    """
    channels, height, width = shape
    drawn = torch.stack([torch.rand(4 + channels, generator=rng, dtype=torch.float64) for rng in rngs])
    theta, turn = (2 * math.pi * drawn[:, i].view(-1, 1, 1) for i in (0, 1))
    out, extent = 1.02 + 0.08 * drawn[:, 2].view(-1, 1, 1), 0.5 + drawn[:, 3].view(-1, 1, 1)
    c_x = out * (theta.cos() / 2 - (2 * theta).cos() / 4)
    c_y = out * (theta.sin() / 2 - (2 * theta).sin() / 4)
    rows = torch.linspace(-1, 1, height, dtype=torch.float64).view(1, -1, 1)
    columns = torch.linspace(-1, 1, width, dtype=torch.float64).view(1, 1, -1)
    x = extent * (columns * turn.cos() - rows * turn.sin())
    y = extent * (columns * turn.sin() + rows * turn.cos())
    steps = torch.zeros_like(x)
    for _ in range(_STEPS):
        inside = x * x + y * y < _ESCAPED**2
        x, y = torch.where(inside, x * x - y * y + c_x, x), torch.where(inside, 2 * x * y + c_y, y)
        steps += inside
    # Without the steps' edges: what an escaped point has gone beyond the radius is a part of a step.
    beyond = (x * x + y * y).clamp_min(_ESCAPED**2).log() / math.log(_ESCAPED**2)
    shade = (steps + 1 - beyond.log2()).clamp_min(0).log1p()
    phase = drawn[:, 4:].view(-1, channels, 1, 1)
    return (2 * math.pi * (shade.unsqueeze(1) + phase)).cos().float()


def pictures(folder: str) -> list[Path]:
    """The pictures in a folder and the folders in it, by name.

    Raises:
        ConfigurationError: There are none.
    """
    root = Path(folder).expanduser()
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not found:
        raise ConfigurationError(
            f"fractals={folder!r} holds no pictures ({', '.join(sorted(_SUFFIXES))}): they are blended into samples. "
            "Set generator.fractals to a folder that does, or to null, to have them made."
        )
    return found


def read(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A picture, cropped around its centre and scaled to (C, H, W): float32 in [-1, 1].

    Raises:
        ConfigurationError: It cannot be decoded.
    """
    try:
        with Image.open(path) as picture:
            return values_of(picture, shape)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a picture ({error}). Take it out of the folder that generator.fractals names."
        ) from error
