"""What a run leaves for its user: figures as JSON, and a short table."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_diffaug.figures import ACHIEVED, ASKED, MANY_CLASSES, TOLERANCE

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
