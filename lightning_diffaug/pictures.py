"""Pictures of samples: real beside synthetic ones of a run, and rows of any."""

from __future__ import annotations

import contextlib
import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.errors import PoolError
from lightning_diffaug.spec import CAPTION, IMAGE, LABEL

if TYPE_CHECKING:
    from lightning_diffaug.datamodule import DiffAugDataModule

log = logging.getLogger(__name__)

_PER_CLASS = 6
UNLABELLED_ROWS = 4
"""Rows of samples that have no classes."""
_CELL, _CELL_WITH_TEXT = 0.62, 1.2  # inches
_LETTERS, _LINES = 24, 5  # of a text below a picture

Picture = Tensor | tuple[Tensor, str]
"""An image, uint8 or float in [0, 1], (C, H, W); with the text that is written below it."""


def draw_samples(data: DiffAugDataModule, path: Path) -> Path | None:
    """Draws real and synthetic samples side by side, a row a class (some rows where there are no classes).

    Args:
        data: After its run. A wrapped module with a method ``picture(fields)`` says how a sample looks; of others the
            image is drawn.
        path: PNG file to write.

    Returns:
        The file, or None where there is nothing to draw (no pool, samples without a picture), or where it could not be
        drawn, which is logged: the run is done, and a picture is no reason for it to fail.
    """
    try:
        pooled = _pooled(data)
        if pooled is None:
            return None
        names = data.class_names if _labelled(data) else [""] * len(pooled)
        pairs = zip(names, _real(data), pooled, strict=True)
        return draw_grid([(name, (("real", left), ("synthetic", right))) for name, left, right in pairs], path)
    except Exception as error:  # the user's dataset may raise anything; a full disk; more classes than pixels
        log.warning(
            "%s is not drawn (%s: %s). The run and its figures are whole; diffaug pool grid draws what is in a pool.",
            path, type(error).__name__, error,
        )  # fmt: skip
        return None


def _labelled(data: DiffAugDataModule) -> bool:
    known = data.real_training
    return known is not None and known.class_index is not None


def _picture(data: DiffAugDataModule, fields: Mapping[str, Any]) -> Picture | None:
    """A raw sample's picture, with its caption where it has one."""
    own = getattr(data.real, "picture", None)
    image = own(fields) if callable(own) else fields.get(IMAGE)
    if image is None:
        return None
    image = image.clone()  # what it is of may be a whole slot
    return (image, str(fields[CAPTION])) if CAPTION in fields else image


def _pooled(data: DiffAugDataModule) -> list[list[Picture]] | None:
    """Pictures of some samples of each row from the window that was frozen last; None without any."""
    known, pool = data.real_training, data.pool
    if known is None or known.raw is None or pool is None:
        return None
    rows = len(data.class_names) if _labelled(data) else UNLABELLED_ROWS
    found: list[list[Picture]] = [[] for _ in range(rows)]
    for slot in data.window_slots:
        if all(len(row) >= _PER_CLASS for row in found):
            break
        with contextlib.suppress(PoolError, FileNotFoundError):  # damaged or dropped since it was read
            shard = pool.read(slot)
            for i in range(len(shard.rows)):
                fields: dict[str, Any] = {name: value[i] for name, value in shard.fields.items()}
                fields |= {name: texts[i] for name, texts in shard.strings.items()}
                open_rows = [found[int(fields[LABEL])]] if _labelled(data) else found
                row = next((row for row in open_rows if len(row) < _PER_CLASS), None)
                if row is None:
                    continue
                picture = _picture(data, fields)
                if picture is None:
                    return None
                row.append(picture)
    return found if any(found) else None


def _real(data: DiffAugDataModule) -> list[list[Picture]]:
    """Pictures of some real training samples of each row; no others are read."""
    from lightning_diffaug.randomness import untouched_rng
    from lightning_diffaug.sample import leaf_to_tensor  # torchvision, which drawing a pool does not need
    from lightning_diffaug.structure import leaves

    known: Any = data.real_training
    everything = np.arange(len(known.raw))
    chosen = [everything[row * _PER_CLASS :][:_PER_CLASS] for row in range(UNLABELLED_ROWS)]
    if _labelled(data):
        chosen = [np.flatnonzero(known.class_index == c)[:_PER_CLASS] for c in range(len(known.class_names))]
    rows: list[list[Picture]] = []
    with untouched_rng():
        for indices in chosen:
            pictures = []
            for i in indices.tolist():
                leaf = leaves(known.raw[i])
                fields = {f.name: leaf_to_tensor(leaf[f.path], f) for f in known.spec.continuous}
                fields |= {f.name: leaf[f.path] for f in known.spec.texts}
                pictures.append(_picture(data, fields))
            rows.append([picture for picture in pictures if picture is not None])
    return rows


def draw_grid(
    rows: Sequence[tuple[str, Sequence[tuple[str, Sequence[Picture] | Tensor]]]], path: Path, per_part: int = _PER_CLASS
) -> Path:
    """Draws rows of named groups of images.

    Args:
        rows: Row's name and its groups: (heading, pictures).
        path: PNG file to write.
        per_part: Columns of each group.

    Returns:
        The file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = len(rows[0][1])
    columns = parts * per_part + (parts - 1)  # an empty column between groups
    with_text = any(isinstance(one, tuple) for _, groups in rows for _, pictures in groups for one in pictures)
    cell = _CELL_WITH_TEXT if with_text else _CELL
    height = cell + 0.1 * _LINES * with_text
    figure = Figure(figsize=(cell * columns + 0.9, height * len(rows) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (name, groups) in zip(axes, rows, strict=True):
        _written(line[0], -0.35, 0.5, name, ha="right", va="center", fontsize=9)
        for part, (_, pictures) in enumerate(groups):
            for column, picture in enumerate(pictures[:per_part]):
                axis = line[part * (per_part + 1) + column]
                image, text = picture if isinstance(picture, tuple) else (picture, "")
                axis.imshow(_shown(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                lines = textwrap.wrap(text, _LETTERS, max_lines=_LINES, placeholder=" …")
                _written(axis, 0.5, -0.04, "\n".join(lines), ha="center", va="top", fontsize=6)
    for part, (heading, _) in enumerate(rows[0][1]):
        _written(axes[0][part * (per_part + 1)], 0.0, 1.15, heading, ha="left", va="bottom", fontsize=10)
    figure.savefig(path, dpi=110)
    return path


def _written(axis: Any, x: float, y: float, text: str, **how: Any) -> None:
    """Writes a text at a place in units of the axis, as it stands: a $ begins no formula."""
    axis.text(x, y, text, transform=axis.transAxes, parse_math=False, **how)


def _shown(image: Tensor) -> np.ndarray[Any, Any]:
    values = image.to(torch.float32) / 255 if image.dtype == torch.uint8 else image.to(torch.float32)
    return (values[0] if len(values) == 1 else values.permute(1, 2, 0)).clamp(0, 1).numpy()
