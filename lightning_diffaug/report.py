"""What a run leaves for its user: figures as JSON, a short table, a picture of real beside synthetic samples."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.errors import PoolError
from lightning_diffaug.figures import ACHIEVED, ASKED, MANY_CLASSES, TOLERANCE
from lightning_diffaug.spec import IMAGE, LABEL

if TYPE_CHECKING:
    from lightning_diffaug.datamodule import DiffAugDataModule

log = logging.getLogger(__name__)

_PER_CLASS = 6
_UNLABELLED_ROWS = 4
_SCORES = (
    ("accuracy on real test data", "test/acc", "{:.1%}"),
    ("balanced accuracy", "test/acc_balanced", "{:.1%}"),
    ("rare classes' accuracy", "test/acc_rare", "{:.1%}"),
    ("mean IoU on real test data", "test/miou", "{:.1%}"),
    ("mean average precision of boxes", "test/map", "{:.1%}"),
    ("retrieval recall at 1 on real test data", "test/recall_at_1", "{:.1%}"),
    ("retrieval recall at 5", "test/recall_at_5", "{:.1%}"),
    ("Chamfer distance to real test clouds", "test/chamfer", "{:.4f}"),
    ("error of the offset between streams, s", "test/sync_error", "{:.3f}"),
)
_TRIVIAL = "_trivial"
"""Of a score: what chance, or the mean of the training data, reaches on the same test data."""
_TABLE = (
    *(
        row
        for label, key, form in _SCORES
        for row in ((label, key, form), ("  chance, or the mean", f"{key}{_TRIVIAL}", form))
    ),
    ("synthetic fraction asked for", ASKED, "{:.4f}"),
    ("synthetic fraction achieved", ACHIEVED, "{:.4f}"),
    ("uses of a pooled sample", "mix/reuse", "{:.2f}"),
    ("epochs short of samples", "mix/short_epochs", "{:.0f}"),
    ("samples made by this run", "pool/generated", "{:.0f}"),
    ("  of them while training", "pool/generated_while_training", "{:.0f}"),
    ("  admitted", "pool/admitted", "{:.0f}"),
    ("  rejected", "pool/rejected", "{:.0f}"),
    ("pooled samples looked at afterwards", "pool/audited", "{:.0f}"),
    ("  near-duplicates of another", "pool/near_duplicates", "{:.0f}"),
    ("  near-copies of training samples", "pool/near_copies_train", "{:.0f}"),
    ("  near-copies of validation samples", "pool/near_copies_val", "{:.0f}"),
    ("  near-copies of test samples", "pool/near_copies_test", "{:.0f}"),
    ("seconds of generation", "generator/seconds", "{:.1f}"),
    ("seconds of the generator's fit", "generator/fit_seconds", "{:.1f}"),
    ("seconds that training waited", "train/wait_seconds", "{:.1f}"),
    ("optimiser steps", "train/steps", "{:.0f}"),
)


def write_metrics(figures: Mapping[str, float], folder: Path) -> Path:
    """Writes ``metrics.json``, whole or not at all: one flat object, keys as logged."""
    path, part = folder / "metrics.json", folder / ".metrics.json"
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(dict(sorted(figures.items())), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


def write_classes(names: Sequence[str], train_counts: Sequence[int], rare: Sequence[int], folder: Path) -> Path:
    """Writes ``classes.json``: which classes there are, how many real training samples of each, and which are rare.

    Args:
        names: In the order of the class indices.
        train_counts: Likewise.
        rare: Class indices.
        folder: The run's folder.
    """
    said = {"names": list(names), "train_counts": list(train_counts), "rare": [names[c] for c in rare]}
    path = folder / "classes.json"
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return path


def print_line(figures: Mapping[str, float], folder: Path) -> None:
    """Prints one line for a run among many: its scores, seconds and folder."""
    scores = [f"{label} {form.format(figures[key])}" for label, key, form in _SCORES if key in figures]
    seconds = figures.get("train/seconds", 0.0) + figures.get("train/wait_seconds", 0.0)
    print(f"{', '.join(scores)}; {seconds:.1f} s; {folder}", flush=True)


def print_table(figures: Mapping[str, float], folder: Path, pool: Path | None = None) -> None:
    """Prints the run's figures, each class's share, and where things are.

    Args:
        figures: Of the run, as in ``metrics.json``.
        folder: The run's folder.
        pool: The pool's folder, for ``diffaug pool info``; None where there is none.
    """
    width = max(len(label) for label, _, _ in _TABLE)
    lines = [f"{label:<{width}}  {form.format(figures[key])}" for label, key, form in _TABLE if key in figures]
    asked, achieved = figures.get(ASKED, 0.0), figures.get(ACHIEVED, 0.0)
    if abs(asked - achieved) > TOLERANCE:
        row = next(i for i, line in enumerate(lines) if line.startswith("synthetic fraction achieved"))
        lines[row] += "  <-- not what was asked for: the log says why, data.when_short what happens then"
    prefix = "mix/reuse_class_"
    uses = {key.removeprefix(prefix): value for key, value in figures.items() if key.startswith(prefix)}
    if uses and "mix/reuse" in figures:
        most = max(uses, key=lambda c: uses[c])
        row = next(i for i, line in enumerate(lines) if line.startswith("uses of a pooled sample"))
        lines[row] += f" on average, {uses[most]:.2f} of class {most}"
    prefix = "mix/synthetic_fraction_class_"
    shares = [f"{key.removeprefix(prefix)} {value:.3f}" for key, value in figures.items() if key.startswith(prefix)]
    if len(shares) > MANY_CLASSES:
        lines.append(f"the shares of {len(shares)} classes are in metrics.json")
    elif shares:
        lines.append("synthetic share of each class's draws:")
        lines += textwrap.wrap(", ".join(shares), 76, initial_indent="  ", subsequent_indent="  ")
    if figures.get("gates/contamination"):
        lines.append("gates.contamination was on: validation and test images had a say in what was trained on")
    if pool is not None:
        lines.append(f"pool of synthetic samples (diffaug pool info): {pool}")
    print("\n" + "\n".join(lines) + f"\nwritten to {folder}")


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


def _picture(data: DiffAugDataModule, fields: Mapping[str, Any]) -> Tensor | None:
    """A raw sample's picture, float or uint8 (C, H, W)."""
    own = getattr(data.real, "picture", None)
    return own(fields) if callable(own) else fields.get(IMAGE)


def _pooled(data: DiffAugDataModule) -> list[list[Tensor]] | None:
    """Pictures of some samples of each row from the window that was frozen last; None without any."""
    known, pool = data.real_training, data.pool
    if known is None or known.raw is None or pool is None:
        return None
    rows = len(data.class_names) if _labelled(data) else _UNLABELLED_ROWS
    found: list[list[Tensor]] = [[] for _ in range(rows)]
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
                row.append(picture.clone())
    return found if any(found) else None


def _real(data: DiffAugDataModule) -> list[list[Tensor]]:
    """Pictures of some real training samples of each row; no others are read."""
    from lightning_diffaug.randomness import untouched_rng
    from lightning_diffaug.sample import leaf_to_tensor, leaves  # torchvision, which drawing a pool does not need

    known: Any = data.real_training
    everything = np.arange(len(known.raw))
    chosen = [everything[row * _PER_CLASS :][:_PER_CLASS] for row in range(_UNLABELLED_ROWS)]
    if _labelled(data):
        chosen = [np.flatnonzero(known.class_index == c)[:_PER_CLASS] for c in range(len(known.class_names))]
    rows: list[list[Tensor]] = []
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
    rows: Sequence[tuple[str, Sequence[tuple[str, Sequence[Tensor] | Tensor]]]], path: Path, per_part: int = _PER_CLASS
) -> Path:
    """Draws rows of named groups of images.

    Args:
        rows: Row's name and its groups: (heading, images uint8 or float in [0, 1], (C, H, W) each).
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
