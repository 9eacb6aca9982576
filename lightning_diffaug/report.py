"""What a run leaves for its user: figures as JSON, a short table, a picture of real beside synthetic samples."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.figures import MANY_CLASSES
from lightning_diffaug.spec import IMAGE, LABEL

if TYPE_CHECKING:
    from lightning_diffaug.datamodule import DiffAugDataModule

_PER_CLASS = 6
_TOLERANCE = 0.01  # of the synthetic fraction: an epoch is exact to one draw
_ASKED, _ACHIEVED = "mix/requested_fraction", "mix/achieved_fraction"
_TABLE = (
    ("accuracy on real test data", "test/acc", "{:.1%}"),
    ("balanced accuracy", "test/acc_balanced", "{:.1%}"),
    ("rare classes' accuracy", "test/acc_rare", "{:.1%}"),
    ("synthetic fraction asked for", _ASKED, "{:.4f}"),
    ("synthetic fraction achieved", _ACHIEVED, "{:.4f}"),
    ("uses of a pooled sample", "mix/reuse", "{:.2f}"),
    ("epochs short of samples", "mix/short_epochs", "{:.0f}"),
    ("samples made by this run", "pool/generated", "{:.0f}"),
    ("  of them while training", "pool/generated_while_training", "{:.0f}"),
    ("  admitted", "pool/admitted", "{:.0f}"),
    ("  rejected", "pool/rejected", "{:.0f}"),
    ("seconds of generation", "generator/seconds", "{:.1f}"),
    ("seconds of the generator's fit", "generator/fit_seconds", "{:.1f}"),
    ("seconds that training waited", "train/wait_seconds", "{:.1f}"),
    ("optimiser steps", "train/steps", "{:.0f}"),
)


def write_metrics(figures: Mapping[str, float], folder: Path) -> Path:
    """Writes ``metrics.json``: one flat object, keys as logged."""
    path = folder / "metrics.json"
    path.write_text(json.dumps(dict(sorted(figures.items())), indent=1) + "\n", encoding="utf-8")
    return path


def print_table(figures: Mapping[str, float], folder: Path, pool: Path | None = None) -> None:
    """Prints the run's figures, each class's share, and where things are.

    Args:
        figures: Of the run, as in ``metrics.json``.
        folder: The run's folder.
        pool: The pool's folder, for ``diffaug pool info``; None where there is none.
    """
    width = max(len(label) for label, _, _ in _TABLE)
    lines = [f"{label:<{width}}  {form.format(figures[key])}" for label, key, form in _TABLE if key in figures]
    asked, achieved = figures.get(_ASKED, 0.0), figures.get(_ACHIEVED, 0.0)
    if abs(asked - achieved) > _TOLERANCE:
        row = next(i for i, line in enumerate(lines) if line.startswith("synthetic fraction achieved"))
        lines[row] += "  <-- not what was asked for: the log says why, data.when_short what happens then"
    prefix = "mix/synthetic_fraction_class_"
    shares = [f"{key.removeprefix(prefix)} {value:.3f}" for key, value in figures.items() if key.startswith(prefix)]
    if len(shares) > MANY_CLASSES:
        lines.append(f"the shares of {len(shares)} classes are in metrics.json")
    elif shares:
        lines.append("synthetic share of each class's draws:")
        lines += textwrap.wrap(", ".join(shares), 76, initial_indent="  ", subsequent_indent="  ")
    if pool is not None:
        lines.append(f"pool of synthetic samples (diffaug pool info): {pool}")
    print("\n" + "\n".join(lines) + f"\nwritten to {folder}")


def draw_samples(data: DiffAugDataModule, path: Path) -> Path | None:
    """Draws real and synthetic samples side by side, a row a class.

    Args:
        data: After its run.
        path: PNG file to write.

    Returns:
        The file, or None where there is nothing to draw (no pool, no labels, samples that are not images).
    """
    real, pooled = _real_images(data), _pooled_images(data)
    if real is None or pooled is None:
        return None
    names = data.class_names
    rows = [
        (name, real[0][real[1] == c][:_PER_CLASS], pooled[0][pooled[1] == c][:_PER_CLASS])
        for c, name in enumerate(names)
    ]
    return draw_grid([(f"{name}", (("real", left), ("synthetic", right))) for name, left, right in rows], path)


def _real_images(data: DiffAugDataModule) -> tuple[Tensor, Tensor] | None:
    """The raw real training images (n, C, H, W) and their class indices (n,); None without images or labels."""
    known = data.real_training
    if known is None or known.class_index is None or known.spec.get(IMAGE) is None:
        return None
    snapshot = known.snapshot()
    return None if snapshot is None else (snapshot.raw(IMAGE), torch.from_numpy(known.class_index))


def _pooled_images(data: DiffAugDataModule) -> tuple[Tensor, Tensor] | None:
    """Images (n, C, H, W) and class indices (n,) of the window that was frozen last; None without any."""
    known, pool = data.real_training, data.pool
    if known is None or pool is None or not {IMAGE, LABEL} <= {field.name for field in known.spec.fields}:
        return None
    shards = [pool.read(k) for k in data.window_slots if pool.has(k)]
    if not shards:
        return None
    return torch.cat([s.fields[IMAGE] for s in shards]), torch.cat([s.fields[LABEL] for s in shards])


def draw_grid(rows: Sequence[tuple[str, Sequence[tuple[str, Tensor]]]], path: Path, per_part: int = _PER_CLASS) -> Path:
    """Draws rows of named groups of images.

    Args:
        rows: Row's name and its groups: (heading, images uint8 or float in [0, 1], (n, C, H, W)).
        path: PNG file to write.
        per_part: Columns of each group.

    Returns:
        The file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = len(rows[0][1])
    columns = parts * per_part + (parts - 1)  # an empty column between groups
    figure = Figure(figsize=(0.62 * columns + 0.9, 0.62 * len(rows) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (name, groups) in zip(axes, rows, strict=True):
        line[0].text(-0.35, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
        for part, (_, images) in enumerate(groups):
            for column, image in enumerate(images[:per_part]):
                axis = line[part * (per_part + 1) + column]
                axis.imshow(_shown(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for part, (heading, _) in enumerate(rows[0][1]):
        axis = axes[0][part * (per_part + 1)]
        axis.text(0.0, 1.15, heading, transform=axis.transAxes, ha="left", va="bottom", fontsize=10)
    figure.savefig(path, dpi=110)
    return path


def _shown(image: Tensor) -> np.ndarray[Any, Any]:
    values = image.to(torch.float32) / 255 if image.dtype == torch.uint8 else image.to(torch.float32)
    return (values[0] if len(values) == 1 else values.permute(1, 2, 0)).clamp(0, 1).numpy()
