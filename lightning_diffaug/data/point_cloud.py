"""Point clouds and sparse scans of them: the user's own folder, or tiles of real terrain."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.data.aligned import AlignedDataModule, AlignedDataset, AlignedSplits, Sample
from lightning_diffaug.data.base import at_least
from lightning_diffaug.data.cloud_files import SUFFIXES, Points, read_cloud
from lightning_diffaug.data.cloud_picture import oblique
from lightning_diffaug.data.parts import PARTS, check_split, class_names, folder_parts, shown_files, shown_folders
from lightning_diffaug.data.terrain import CLASSES, terrain_tiles
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.points import SCANS, Cloud, farthest_points, mean_cloud, random_points, scanned

log = logging.getLogger(__name__)

CLOUD, SCAN = "cloud", "scan"
SAMPLINGS = ("random", "farthest")
LAYOUT = """Expected is either
  <root>/train/*.npz   <root>/val/*.npz   <root>/test/*.npz
  <root>/train/<class>/*.npz   <root>/val/<class>/*.npz   <root>/test/<class>/*.npz   (with classes)
or one folder that is split by ratio (real.split)
  <root>/*.npz   or   <root>/<class>/*.npz
Files are .npz (array points (n, 3 or more); maybe a scan (m, 3 or more)), .npy or .ply (vertices x, y, z); val may be
absent."""

ONE_CLASS = "cloud"
"""Name of the class of all, where there are no classes."""

Entry = tuple[Path, str]
"""A file and its class."""


class PointCloudDataModule(AlignedDataModule):
    """Dense clouds with a sparse scan of each; which places of them is drawn once for each file or tile.

    Samples are ``{"cloud": float32 (points, 3), "scan": float32 (scan_points, 3), "label": int}``.

    Without `root`: round tiles of terrain, 2 km wide, split by place (`terrain.terrain_tiles`). x and y are in units of
    1,000 m from the centre, z in units of 400 m from the scan's mean height, which is all that is known of a scan's
    height where it is to be completed. Classes are by how rugged a tile is.

    With `root`: see `LAYOUT`; without folders of classes all are of one. Each cloud is put into the unit ball (its
    points' mean at 0, the farthest at distance 1), as ShapeNet's and ModelNet's usually are, or the unit cube; a scan
    that came with it likewise.

    Args:
        root: The folder; None: the terrain.
        points: Of a dense cloud. A cloud of fewer points has some of them several times.
        scan_points: Of a scan.
        scan: How a scan is made of all points of a cloud: ``"lines"``, or ``"random"``; see `points.scanned`.
        scan_lines: How many lines.
        sampling: How points of a dense cloud are chosen: ``"random"``, or ``"farthest"`` from each other.
        normalise: ``"ball"`` or ``"cube"``, of the clouds of `root`; None: as they are, in one unit.
        split: Shares of training, validation and test when there is one folder. Neighbouring clouds of one place belong
            into one part: give such data folders.
        split_seed: Which files go where, and which points are taken; apart from `seed`, so that seeds share a test set.
        **settings: See `AlignedDataModule`.

    Raises:
        ConfigurationError: A value is out of range; the folder is missing or has another layout; a file cannot be read.
    """

    few_shots = 20

    def __init__(
        self,
        root: str | Path | None = None,
        points: int = 128,
        scan_points: int = 24,
        scan: str = "lines",
        scan_lines: int = 3,
        sampling: str = "random",
        normalise: str | None = "ball",
        split: Sequence[float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        at_least("points", points, 5, "how many points a dense cloud has")
        at_least("scan_points", scan_points, 2, "how many points a scan has")
        at_least("scan_lines", scan_lines, 1, "along how many lines a cloud is scanned")
        _one_of("scan", scan, SCANS)
        _one_of("sampling", sampling, SAMPLINGS)
        _one_of("normalise", normalise, ("ball", "cube", None))
        if scan_lines > scan_points:
            raise ConfigurationError(
                f"real.scan_lines={scan_lines} is more than the points of a scan. Set real.scan_lines to at most "
                f"real.scan_points={scan_points}."
            )
        check_split(split)
        self.root = None if root is None else Path(root).expanduser()
        self.points, self.scan_points = points, scan_points
        self.scan, self.scan_lines = scan, scan_lines
        self.sampling, self.normalise = sampling, normalise
        self.split, self.split_seed = tuple(split), split_seed

    def load(self) -> AlignedSplits:
        """Cuts the tiles, or finds the files, divides and reads them."""
        if self.root is None:
            return AlignedSplits(*(self._terrain(part) for part in PARTS))
        if not (self.root / "train").is_dir():
            log.info("%s is split by ratio: clouds of one place may then be in several parts", self.root)
        parts = folder_parts(self.root, _entries, LAYOUT, self.split, self.split_seed, label=lambda entry: entry[1])
        names = class_names(self.root, parts, lambda entry: entry[1], LAYOUT)
        return AlignedSplits(*(self._files(parts[part], names) for part in PARTS))

    def conversion(self, sample: Sample) -> Sample:
        """Heights of terrain from the scan's mean height: it is 0 of real samples already, and of no made one."""
        return sample if self.root is not None else {**sample, **_levelled(sample)}

    def model_facts(self) -> dict[str, Any]:
        """The training clouds' mean, as plain numbers, and how many classes there are to tell apart."""
        clouds = self.splits.train.fields[CLOUD]
        return {
            "mean_cloud": mean_cloud(clouds, self.points).tolist(),
            "num_classes": self.num_classes if self.num_classes > 1 else 0,
        }

    def picture(self, fields: Mapping[str, Any]) -> Tensor | None:
        """The cloud from an oblique angle, high points bright, those of the scan orange."""
        return oblique(fields[CLOUD], fields.get(SCAN)) if CLOUD in fields else None

    def _terrain(self, part: str) -> AlignedDataset:
        tiles = terrain_tiles(part)
        pairs = []
        for number, tile in enumerate(tiles.clouds):
            pairs.append(self._pair(tile, None, np.random.RandomState([self.split_seed, number])))
        dataset = _dataset(pairs, tiles.labels, CLASSES)
        dataset.fields |= _levelled(dataset.fields)
        return dataset

    def _files(self, entries: Sequence[Entry], names: Sequence[str]) -> AlignedDataset:
        pairs, smaller = [], 0
        for path, _ in entries:
            content = read_cloud(path)
            smaller += len(content.points) < self.points
            frame = _frame(content.points, self.normalise, path)
            scan = None if content.scan is None else _framed(content.scan, *frame)
            rng = np.random.RandomState([self.split_seed, *os.fsencode(path.stem)])
            pairs.append(self._pair(_framed(content.points, *frame), scan, rng))
        if smaller:
            log.warning(
                "real.root=%s: %d of %d clouds have fewer points than real.points=%d, so that some of theirs come "
                "several times. Set real.points to fewer, or take such clouds out.",
                self.root, smaller, len(entries), self.points,
            )  # fmt: skip
        return _dataset(pairs, [names.index(name) for _, name in entries], names)

    def _pair(self, points: Cloud, scan: Cloud | None, rng: np.random.RandomState) -> tuple[Cloud, Cloud]:
        if scan is None:
            scan = scanned(points, self.scan_points, self.scan, self.scan_lines, rng)
        else:
            scan = farthest_points(scan, self.scan_points, rng)
        choose = farthest_points if self.sampling == "farthest" else random_points
        return choose(points, self.points, rng), scan


def _one_of(key: str, value: Any, choices: Sequence[str | None]) -> None:
    if value not in choices:
        words = ", ".join("null" if choice is None else choice for choice in choices)
        raise ConfigurationError(f"real.{key}={value!r} is unknown. Set real.{key} to one of {words}.")


def _dataset(pairs: Sequence[tuple[Cloud, Cloud]], labels: list[int], names: Sequence[str]) -> AlignedDataset:
    fields: dict[str, Any] = {
        CLOUD: torch.from_numpy(np.stack([cloud for cloud, _ in pairs])) if pairs else torch.empty(0, 1, 3),
        SCAN: torch.from_numpy(np.stack([scan for _, scan in pairs])) if pairs else torch.empty(0, 1, 3),
        "label": labels,
    }
    return AlignedDataset(fields, names)


def _levelled(fields: Mapping[str, Any]) -> dict[str, Tensor]:
    """Cloud and scan, (…, points, 3), with the scan's mean height at 0."""
    level = fields[SCAN][..., 2:].mean(-2, keepdim=True) * torch.tensor([0.0, 0.0, 1.0])
    return {name: fields[name] - level for name in (CLOUD, SCAN)}


def _frame(points: Points, normalise: str | None, path: Path) -> tuple[Points, float]:
    """Centre and size of a cloud."""
    if normalise is None:
        return np.zeros(3), 1.0
    low, high = points.min(0), points.max(0)
    centre: Points = points.mean(0) if normalise == "ball" else (low + high) / 2
    size = np.sqrt(np.square(points - centre).sum(1)).max() if normalise == "ball" else (high - low).max() / 2
    if not (high > low).any():  # the mean of equal numbers may differ from them by a rounding
        raise ConfigurationError(
            f"{path} holds one point only (maybe many times), which has no size. Take it out of the folder that "
            "real.root names, or set real.normalise=null."
        )
    return centre, float(size)


def _framed(points: Points, centre: Points, size: float) -> Cloud:
    return ((points - centre) / size).astype(np.float32)


# The folder -----------------------------------------------------------------------------------------


def _entries(folder: Path) -> list[Entry]:
    def clouds(of: Path) -> list[Path]:
        return shown_files(of.iterdir(), SUFFIXES)

    found = [(path, ONE_CLASS) for path in clouds(folder)]
    of_classes = [(path, each.name) for each in shown_folders(folder) for path in clouds(each)]
    if found and of_classes:
        raise ConfigurationError(
            f"{folder} has clouds beside folders of clouds ({of_classes[0][1]}/), so whether there are classes is a "
            f"guess. Put all into folders of classes, or none; real.root names the data.\n{LAYOUT}"
        )
    return found or of_classes
