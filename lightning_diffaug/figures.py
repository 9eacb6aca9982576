"""The figures of a run: one flat mapping, all keys present, named as they are logged."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_diffaug.mixing.sampler import MixSettings
from lightning_diffaug.run import MixRun

MANY_CLASSES = 50
"""With more classes their figures are not logged at every epoch: hundreds of curves flood a logger."""
ASKED, ACHIEVED = "mix/requested_fraction", "mix/achieved_fraction"
TOLERANCE = 0.01
"""Between the two: an epoch is exact to one draw."""
PER_CLASS = ("mix/draws_class_", "mix/synthetic_fraction_class_", "mix/reuse_class_")
WINDOW_PER_CLASS = "window/share_class_"
AGES = {"window/share_age_0": (0, 1), "window/share_age_1_3": (1, 4), "window/share_age_4_plus": (4, 1 << 62)}
"""Epochs since a slot entered the windows: from, to."""


def mix_figures(run: MixRun | None, settings: MixSettings, class_names: Sequence[str]) -> dict[str, float]:
    """What was mixed, made and waited for.

    Args:
        run: The run; None where nothing was mixed.
        settings: The mix's settings.
        class_names: Names of the classes; () for data without labels.

    Returns:
        ``mix/requested_fraction`` and ``mix/achieved_fraction`` (means over all draws, of all ranks), ``mix/reuse``
        (uses of each pooled sample that a window held), ``mix/short_epochs``; ``pool/generated``, ``pool/admitted``,
        ``pool/rejected``, ``pool/generated_while_training`` (samples that this run made, on rank 0's node);
        ``generator/seconds``, ``generator/fit_seconds``, ``train/wait_seconds``; for each class
        ``mix/draws_class_<name>``, ``mix/synthetic_fraction_class_<name>`` and ``mix/reuse_class_<name>``. Of the
        window that was frozen last, shares of its rows in [0, 1]: ``window/share_age_<epochs>``, by the epochs since
        their slot entered the windows (0, 1 to 3, 4 and more), and ``window/share_class_<name>``; all 0 without a
        window. At the end of each epoch `MixMonitor` logs those of the classes only for up to `MANY_CLASSES`.
    """
    if run is None:
        requested = float(settings.fraction(0))
        keys = (
            ACHIEVED, "mix/reuse", "mix/short_epochs", "pool/generated", "pool/admitted",
            "pool/rejected", "pool/generated_while_training", "generator/seconds", "generator/fit_seconds",
            "train/wait_seconds",
        )  # fmt: skip
        return {ASKED: requested} | dict.fromkeys((*keys, *AGES), 0.0)
    progress, status = run.progress, run.status
    figures = {
        ASKED: progress.requested_fraction,
        ACHIEVED: progress.achieved_fraction,
        "mix/reuse": progress.reuse,
        "mix/short_epochs": float(progress.short_epochs),
        "pool/generated": float(status.generated),
        "pool/admitted": float(status.admitted),
        "pool/rejected": float(status.rejected),
        "pool/generated_while_training": float(run.generated_while_training),
        "generator/seconds": status.generator_seconds,
        "generator/fit_seconds": status.fit_seconds,
        "train/wait_seconds": run.wait_seconds,
    }
    for c, name in enumerate(class_names if len(class_names) == len(progress.real_by_class) else ()):
        real, synthetic = progress.real_by_class[c], progress.synthetic_by_class[c]
        values = (float(real + synthetic), synthetic / max(real + synthetic, 1), progress.reuse_by_class[c])
        figures |= {f"{prefix}{name}": value for prefix, value in zip(PER_CLASS, values, strict=True)}
    return figures | _window_figures(run, class_names)


def _window_figures(run: MixRun, class_names: Sequence[str]) -> dict[str, float]:
    by_age, by_class = run.window_by_age, run.window_by_class
    rows = max(sum(by_age.values()), 1)
    figures = {
        key: sum(count for age, count in by_age.items() if least <= age < end) / rows
        for key, (least, end) in AGES.items()
    }
    if len(class_names) == len(by_class):
        figures |= {f"{WINDOW_PER_CLASS}{name}": n / rows for name, n in zip(class_names, by_class, strict=True)}
    return figures
