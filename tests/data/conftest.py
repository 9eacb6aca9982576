from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ImageWriter = Callable[..., None]


@pytest.fixture
def write_images() -> ImageWriter:
    """Writes `count` images of constant level `10 * i` into a folder."""

    def write(folder: Path, count: int, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> None:
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = np.full((size[1], size[0]), 10 * index, dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / f"{index:03d}.png")

    return write
