"""Measures samples against real data, each figure beside that of real data against real data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity import alignment, by_features, by_samples
from lightning_diffaug.fidelity.alignment import Paired
from lightning_diffaug.fidelity.result import Fidelity
from lightning_diffaug.fidelity.samples import Samples
from lightning_diffaug.fidelity.settings import FidelitySettings
from lightning_diffaug.fidelity.work import LEAST, Work
from lightning_diffaug.randomness import untouched_rng

HELD_OUT = "training data against validation data"
HALVES = "one half of the training data against the other"
_STEPS = (
    by_features.statistics,
    by_features.of_each_class,
    by_features.diversity,
    by_samples.semantics,
    by_samples.captions,
    by_samples.looks,
    by_samples.copies,
)


def measure(
    real_train: Samples,
    synthetic: Samples,
    real_held_out: Samples | None = None,
    class_names: Sequence[str] = (),
    settings: FidelitySettings | Mapping[str, Any] | None = None,
    held_out_name: str = HELD_OUT,
    paired: Paired | None = None,
) -> Fidelity:
    """Measures synthetic samples, and real ones in the same way beside them.

    The reference is the real training data, and the level that of held-out real data against it; without these, one
    half of the training data is the reference, and the other half is held out. Classifiers and feature networks are
    fitted on the reference alone, so that neither the synthetic samples nor those of the level were fitted on. Of
    synthetic and held-out samples equally many are drawn, of each class too, so that neither number nor class shares
    are what differs; the reference is weighted to the same class shares. Global random states stay as they are.

    Args:
        real_train: The real training data.
        synthetic: The samples in question.
        real_held_out: Real data that nothing was trained on; they decide nothing.
        class_names: Name of each class index.
        settings: `FidelitySettings`, or a mapping of it.
        held_out_name: What is compared with what for the level, in words, where there are held-out data.
        paired: The same samples with the fields that `FidelitySettings.pairs` is about.

    Raises:
        ConfigurationError: There are too few samples, they differ in shape, or a setting does not work.
    """
    started, chosen = time.perf_counter(), FidelitySettings.of(settings)
    for whose, samples in (("training", real_train), ("synthetic", synthetic), ("held-out", real_held_out)):
        if samples is not None and samples.values.shape[1:] != real_train.values.shape[1:]:
            raise ConfigurationError(
                f"the {whose} samples have the shape {tuple(samples.values.shape[1:])} and the training samples "
                f"{tuple(real_train.values.shape[1:])}: only samples of one shape can be compared."
            )
        if samples is not None and len(samples) < LEAST:
            raise ConfigurationError(f"there are {len(samples)} {whose} samples, and no fewer than {LEAST} will do.")
    with untouched_rng(), torch.enable_grad():
        work = Work.of(real_train, synthetic, real_held_out, tuple(class_names), chosen)
        for step in _STEPS:
            step(work)
        if paired is not None:
            alignment.partners(work, paired)
    about = {
        "level": HALVES if real_held_out is None else held_out_name,
        **work.about,
        "seed": chosen.seed,
        "seconds": round(time.perf_counter() - started, 2),
    }
    return Fidelity(work.measured, work.absent, work.per_class, about)
