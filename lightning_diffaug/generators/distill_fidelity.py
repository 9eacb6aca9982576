"""What a distillation lost: student and teacher, step by step, against the real training data."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.fidelity.statistical import frechet_distance
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.fit_data import Conditions
from lightning_diffaug.generators.sampler import Sampler

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

FIDELITY = "fidelity.json"
_REAL = 2000
_COMPONENTS = 32
_SEED = 0xF1DE1


def measure(
    teacher: Sampler,
    students: Mapping[int, Any],
    snapshot: Snapshot,
    conditions: Conditions,
    samples: int,
    batch_size: int,
    seed: int,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Samples from teacher and students with the same noise and conditions, and compares.

    Conditions are those of real training samples, drawn at random, so that classes are as frequent as there. Nothing
    but training data is read.

    Args:
        teacher: Of the fitted denoiser, as it usually samples.
        students: Number of steps → distilled denoiser.
        snapshot: The real training data.
        conditions: Row numbers → condition.
        samples: How many of each kind.
        batch_size: Most samples denoised at a time.
        seed: Of the choice of rows.
        beat: Called after each step of the denoising, to show that work goes on.

    Returns:
        ``samples``, ``real``, ``components`` and ``explained`` (of the variance); ``kinds``: for each, ``of``,
        ``scheduler``, ``steps``, ``frechet`` (distance to the real data, in principal components of these),
        ``agreement`` (share that a classifier fitted on the real data takes for their class; None without labels),
        ``from_teacher`` (root of the mean squared difference from the teacher's usual samples of the same noise, in
        units in which data lie in [-1, 1]) and ``seconds`` a sample.
    """
    rng = torch.Generator().manual_seed(seed ^ _SEED)
    real_rows = torch.randperm(len(snapshot), generator=rng)[:_REAL]
    rows = torch.randint(len(snapshot), (samples,), generator=rng)
    condition, seeds = conditions(rows), torch.randint(2**62, (samples,), generator=rng).tolist()
    real = torch.cat([snapshot.unit(name, real_rows) for name in teacher.fields], dim=1).flatten(1)
    judge = _Judge(real, None if snapshot.labels is None else snapshot.labels[real_rows])
    labels = None if snapshot.labels is None else snapshot.labels[rows]
    usual = f"{teacher.scheduler}"
    few = [
        (kind, "ddim", steps, replace(teacher, denoiser=network, scheduler="ddim", controls=Controls(steps)))
        for steps, student in students.items()
        for kind, network in (("student", student), ("teacher", teacher.denoiser))
    ]
    kinds, reference = [], None
    for kind, scheduler, steps, sampler in [("teacher", usual, teacher.controls.num_inference_steps, teacher), *few]:
        started = time.perf_counter()
        made = sampler(condition, seeds, batch_size, lambda *_: beat()).flatten(1)
        seconds = (time.perf_counter() - started) / samples
        reference = made if reference is None else reference
        kinds.append(
            {
                "of": kind,
                "scheduler": scheduler,
                "steps": steps,
                **judge(made, labels),
                "from_teacher": float((made - reference).square().mean().sqrt()),
                "seconds": seconds,
            }
        )
    return {"samples": samples, "real": len(real), **judge.about, "kinds": kinds}


class _Judge:
    """Compares flattened samples with real ones, by what is fitted on the real ones."""

    def __init__(self, real: Tensor, labels: Tensor | None) -> None:
        from sklearn.decomposition import PCA

        pca = PCA(min(_COMPONENTS, *real.shape), svd_solver="full").fit(real.numpy())
        self.about = {"components": int(pca.n_components_), "explained": float(np.sum(pca.explained_variance_ratio_))}
        self._components, self._mean = torch.from_numpy(pca.components_).float(), torch.from_numpy(pca.mean_).float()
        self._real = self._features(real)
        self._classifier = None if labels is None else _classifier(self._real, labels)

    def _features(self, flat: Tensor) -> Tensor:
        """Flattened samples in the principal components of the real ones."""
        return (flat.float() - self._mean) @ self._components.T

    def __call__(self, made: Tensor, labels: Tensor | None) -> dict[str, Any]:
        features, agreement = self._features(made), None
        if self._classifier is not None and labels is not None:
            predicted = self._classifier.predict(features.numpy())
            agreement = float((predicted == labels.numpy()).mean())
        return {"frechet": frechet_distance(self._real, features), "agreement": agreement}


def _classifier(features: Tensor, labels: Tensor) -> Any:
    """A support vector machine on principal components; None where there is one class only."""
    if labels.min() == labels.max():
        return None
    from sklearn.svm import SVC

    return SVC(C=10.0, class_weight="balanced", random_state=0).fit(features.numpy(), labels.numpy())


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the record beside the weights."""
    (folder / FIDELITY).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The record of a distilled generator.

    Raises:
        GeneratorError: There is none.
    """
    try:
        record = json.loads((folder / FIDELITY).read_text(encoding="utf-8"))
        assert isinstance(record, dict)
        assert record["kinds"]
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise GeneratorError(
            f"{folder} holds no record of what a distillation lost: it is no distilled generator, or "
            "generator.distill.samples was 0."
        ) from error
    return record


def samples(folder: Path) -> int:
    """Samples of each kind that the record of a distilled generator is of; 0 where there is no record."""
    return int(read(folder)["samples"]) if (folder / FIDELITY).is_file() else 0


def table(record: Mapping[str, Any]) -> str:
    """The record as text."""
    heads = ("", "steps", "Fréchet distance", "agreement", "from teacher", "ms a sample")
    lines: list[Sequence[str]] = [heads]
    for kind in record["kinds"]:
        agreement = "" if kind["agreement"] is None else f"{kind['agreement']:.3f}"
        lines.append(
            (
                f"{kind['of']}, {kind['scheduler']}", str(kind["steps"]), f"{kind['frechet']:.3f}", agreement,
                f"{kind['from_teacher']:.3f}", f"{1e3 * kind['seconds']:.2f}",
            )
        )  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(
        [
            *rows,
            f"{record['samples']} samples of each kind, the same noise and conditions, against {record['real']} real "
            f"training samples in {record['components']} principal components ({record['explained']:.0%} of the "
            "variance)",
        ]
    )
