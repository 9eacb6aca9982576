"""Point clouds from files: .npz, .npy, and .ply of ascii or binary numbers."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_diffaug.errors import ConfigurationError

Points = npt.NDArray[np.float64]
"""(n, 3) as a file holds them; not float32, in which millions of metres, as of surveys, have steps of 0.5 m."""

SUFFIXES = (".npz", ".npy", ".ply")
POINTS, SCAN = "points", "scan"

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class CloudFile:
    """What a file holds.

    Attributes:
        points: (n, 3), of any unit.
        scan: (m, 3), a scan that came with it; None: there is none.
    """

    points: Points
    scan: Points | None = None


def read_cloud(path: Path) -> CloudFile:
    """Reads a file.

    Args:
        path: ``.npz`` with an array ``points`` (n, 3 or more), or with one array only, and maybe ``scan`` (m, 3 or
            more); ``.npy`` with such an array; or ``.ply`` with vertices x, y, z. Further columns are left out.

    Raises:
        ConfigurationError: It is none of these, or holds no points or such that are not finite.
    """
    try:
        points, scan = _arrays(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a point cloud ({error}), so the data set is incomplete. Repair the file, or "
            "take it out of the folder that real.root names."
        ) from error
    return CloudFile(_checked(points, path), None if scan is None else _checked(scan, path))


def _arrays(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    if path.suffix.lower() == ".ply":
        return _read_ply(path.read_bytes()), None
    with path.open("rb") as file:  # numpy leaves what it opens open where it is no archive
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, None
        names = [name for name in loaded.files if name != SCAN]
        if POINTS not in names and len(names) != 1:
            raise ValueError(f"it holds {names}, and none is called {POINTS!r}")
        return loaded[POINTS if POINTS in names else names[0]], loaded[SCAN] if SCAN in loaded.files else None


def _checked(points: npt.NDArray[Any], path: Path) -> Points:
    if points.ndim != 2 or points.shape[1] < 3 or not len(points) or points.dtype.kind not in "iuf":
        raise ConfigurationError(
            f"{path} holds {points.dtype} of shape {points.shape}, and a point cloud is numbers (n, 3 or more): x, y, "
            "z first. Repair the file, or take it out of the folder that real.root names."
        )
    found = points[:, :3].astype(np.float64)
    if not np.isfinite(found).all():
        raise ConfigurationError(
            f"{path} has points that are not finite, so its size would not be either. Take them out of the file, or "
            "the file out of the folder that real.root names."
        )
    return found


# PLY (Turk 1994) ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[tuple[str, str], ...]  # type in `_PLY_TYPES`, or "list", and name


def _read_ply(content: bytes) -> npt.NDArray[np.float64]:
    order, elements, body = _ply_header(content)
    for element in elements:
        names = [name for _, name in element.properties]
        if element.name != "vertex":
            body = _behind(body, element, order)
            continue
        if missing := [axis for axis in "xyz" if axis not in names]:
            raise ValueError(f"its vertices have no {', '.join(missing)}")
        return _columns(body, element, order)[:, [names.index(axis) for axis in "xyz"]]
    raise ValueError("it has no element vertex")


def _ply_header(content: bytes) -> tuple[str, list[_Element], bytes]:
    end = content.find(b"end_header")
    if not content.startswith(b"ply") or end < 0:
        raise ValueError("it is no PLY file: its header does not begin with ply or has no end")
    order: str | None = None
    elements: list[_Element] = []
    for line in content[:end].decode("ascii", errors="replace").splitlines():
        match line.split():
            case ["format", kind, _]:
                order = _PLY_ORDERS[kind]
            case ["element", name, count]:
                elements.append(_Element(name, int(count), ()))
            case ["property", *_] if not elements:
                raise ValueError("its header names a property before any element")
            case ["property", "list", _, _, name]:
                elements[-1] = _with(elements[-1], "list", name)
            case ["property", kind, name]:
                elements[-1] = _with(elements[-1], kind, name)
    if order is None:
        raise ValueError("its header names no format")
    return order, elements, content[content.index(b"\n", end) + 1 :]


def _with(element: _Element, kind: str, name: str) -> _Element:
    return _Element(element.name, element.count, (*element.properties, (kind, name)))


def _type(properties: Sequence[tuple[str, str]], order: str) -> np.dtype[Any]:
    if any(kind == "list" for kind, _ in properties):
        raise ValueError("a list comes in or before its vertices, which this reader cannot pass over")
    return np.dtype([(name, order + _PLY_TYPES[kind]) for kind, name in properties])


def _behind(body: bytes, element: _Element, order: str) -> bytes:
    """What follows an element that comes before the vertices."""
    if order:
        return body[element.count * _type(element.properties, order).itemsize :]
    return b"\n".join(body.split(b"\n")[element.count :])


def _columns(body: bytes, element: _Element, order: str) -> npt.NDArray[np.float64]:
    """Every property of every vertex, (count, properties)."""
    if order:
        rows = np.frombuffer(body, _type(element.properties, order), element.count)
        return np.stack([rows[name].astype(np.float64) for _, name in element.properties], 1)
    _type(element.properties, order)
    lines = body.split(b"\n")[: element.count]
    values = np.loadtxt(io.BytesIO(b"\n".join(lines)), dtype=np.float64, ndmin=2)
    wanted = (element.count, len(element.properties))
    if values.shape != wanted:
        raise ValueError(f"its header announces vertices {wanted}, and it has {values.shape}")
    return values
