"""Round tiles of real terrain as point clouds, from an elevation model that comes with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lightning_diffaug.points import Cloud

FILE = "jacksboro_fault_dem.npz"
"""344 by 403 elevations, 3 arc seconds apart, about the Jacksboro fault in Tennessee (SRTM)."""

RADIUS = 1000.0
"""Of a tile, in metres: the unit of x and y."""

HEIGHT = 400.0
"""Metres that are the unit of z: heights are exaggerated 2.5 times."""

CLASSES = ("gentle", "rolling", "steep")
BOUNDS = (55.0, 90.0)
"""Standard deviation of a tile's heights, in metres, from which it is of the next class: about the terciles."""

_DENSE = 1024  # points that a tile is measured at
_MARGIN = 250.0  # metres between a tile and the border of its block
_METRES_PER_DEGREE = 111_320.0
_BLOCKS = (  # of the map, north up: tiles lie within one block, so that parts share no ground
    ("train", "test", "val", "test"),
    ("test", "val", "test", "train"),
    ("test", "train", "test", "test"),
    ("val", "test", "train", "test"),
)
SPACING = {"train": 600.0, "val": 1200.0, "test": 1200.0}
"""Metres between the centres of neighbouring tiles: those of one part overlap."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of one part.

    Attributes:
        clouds: Each (1024, 3): x to the east and y to the north of the tile's centre, in `RADIUS`; z the elevation in
            `HEIGHT`, above sea level.
        labels: Index in `CLASSES` of each.
        centres: Column and row of each centre on the map, in metres from its south-west corner.
    """

    clouds: list[Cloud]
    labels: list[int]
    centres: list[tuple[float, float]]


def terrain_tiles(part: str) -> Tiles:
    """The tiles of a part of the map; the same in each call.

    The map is divided in 4 by 4 blocks, each of one part, and a tile lies within its block, at least 250 m from the
    border: tiles of different parts are at least 500 m apart.

    Args:
        part: ``"train"``, ``"val"`` or ``"test"``.
    """
    elevation, (dx, dy) = _map()
    height, width = (elevation.shape[0] - 1) * dy, (elevation.shape[1] - 1) * dx
    inset = RADIUS + _MARGIN
    clouds, labels, centres = [], [], []
    for row, line in enumerate(reversed(_BLOCKS)):
        for column, of in enumerate(line):
            if of != part:
                continue
            for north in _steps(row * height / 4 + inset, (row + 1) * height / 4 - inset, SPACING[part]):
                for east in _steps(column * width / 4 + inset, (column + 1) * width / 4 - inset, SPACING[part]):
                    rng = np.random.RandomState([round(east), round(north)])
                    metres = _tile(elevation, dx, dy, east, north, rng)
                    labels.append(int(np.searchsorted(BOUNDS, float(metres[:, 2].std()), side="right")))
                    clouds.append((metres / np.array([RADIUS, RADIUS, HEIGHT])).astype(np.float32))
                    centres.append((east, north))
    return Tiles(clouds, labels, centres)


@lru_cache(maxsize=1)
def _map() -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """Elevations in metres, row 0 in the south, and the size of a cell in metres along x and y."""
    from matplotlib import cbook  # slow to import, and only needed here

    with np.load(cbook.get_sample_data(FILE, asfileobj=False)) as file:
        elevation = np.asarray(file["elevation"], dtype=np.float64)[::-1]
        latitude = math.radians(float(file["ymin"] + file["ymax"]) / 2)
        degrees = float(file["dx"]), float(file["dy"])
    return elevation, (degrees[0] * _METRES_PER_DEGREE * math.cos(latitude), degrees[1] * _METRES_PER_DEGREE)


def _steps(low: float, high: float, spacing: float) -> Sequence[float]:
    return [float(x) for x in np.linspace(low, high, int((high - low) // spacing) + 1)]


def _tile(
    elevation: npt.NDArray[np.float64], dx: float, dy: float, east: float, north: float, rng: np.random.RandomState
) -> npt.NDArray[np.float64]:
    """(1024, 3) metres: places drawn uniformly in the disc, and the elevation there, by bilinear interpolation."""
    radius, angle = RADIUS * np.sqrt(rng.uniform(size=_DENSE)), rng.uniform(0, 2 * math.pi, size=_DENSE)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    column, row = (east + x) / dx, (north + y) / dy
    left, below = np.floor(column).astype(int), np.floor(row).astype(int)
    right, above = column - left, row - below
    lower = elevation[below, left] * (1 - right) + elevation[below, left + 1] * right
    upper = elevation[below + 1, left] * (1 - right) + elevation[below + 1, left + 1] * right
    return np.stack([x, y, lower * (1 - above) + upper * above], 1)
