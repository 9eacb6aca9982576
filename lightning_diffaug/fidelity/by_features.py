"""The figures that are of features: distances of distributions, coverage, diversity; of all and of each class."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity import semantic
from lightning_diffaug.fidelity.diversity import distance_within_classes, vendi_rows, vendi_score
from lightning_diffaug.fidelity.result import Figure
from lightning_diffaug.fidelity.statistical import coverage_of, frechet_distance, kernel_distance
from lightning_diffaug.fidelity.work import Work

_COVERAGE = ("precision", "recall", "density", "coverage")


def statistics(work: Work) -> None:
    """Fréchet distance, kernel distance, precision, recall, density and coverage."""
    n, d = work.features[1].shape
    note = f"fewer samples ({n}) than dimensions ({d}): only the level says what it means" if n <= d else ""
    for names, make in _distances(*work.features, work.weights, work.reference.labels, note):
        work.add(names, make)


def _distances(
    reference: Tensor,
    drawn: Tensor,
    level: Tensor,
    weights: Tensor | None = None,
    labels: Tensor | None = None,
    note: str = "",
) -> list[tuple[tuple[str, ...], Callable[[], dict[str, Figure]]]]:
    sizes = (len(drawn), len(level), len(reference))

    def frechet() -> dict[str, Figure]:
        found, real = (frechet_distance(reference, one, weights) for one in (drawn, level))
        return {"frechet": Figure(found, real, *sizes, note=note)}

    def kid() -> dict[str, Figure]:
        found, real = (kernel_distance(reference, one, weights, labels) for one in (drawn, level))
        return {"kid": Figure(found.value, real.value, *sizes, found.standard_error, real.standard_error)}

    def coverage() -> dict[str, Figure]:
        found, real = (coverage_of(reference, one, weights) for one in (drawn, level))
        return {name: Figure(getattr(found, name), getattr(real, name), *sizes) for name in _COVERAGE}

    return [(("frechet",), frechet), (("kid",), kid), (_COVERAGE, coverage)]


def of_each_class(work: Work) -> None:
    """The same of each class that has enough samples of each kind, with its diversity and agreement."""
    least = work.settings.least_per_class
    work.about |= {"least_per_class": least, "classes_too_small": []}
    of_reference, of_drawn, of_level = work.reference.labels, work.drawn.labels, work.level.labels
    if of_reference is None or of_drawn is None or of_level is None:
        return
    for c in work.classes:
        rows = [(labels == c).nonzero()[:, 0] for labels in (of_reference, of_drawn, of_level)]
        if min(map(len, rows)) < least:
            work.about["classes_too_small"].append(work.class_names[c])
            continue
        reference, drawn, level = (features[of] for features, of in zip(work.features, rows, strict=True))
        found: dict[str, Figure] = {}
        for _, make in _distances(reference, drawn, level):
            found |= make()
        found["vendi"] = Figure(vendi_score(drawn), vendi_score(level), len(drawn), len(level))
        if work.classifier is not None:
            share = semantic.share_right(work.classifier, work.drawn.take(rows[1]))
            real = semantic.share_right(work.classifier, work.level.take(rows[2]))
            found["class_agreement"] = Figure(share, real, len(drawn), len(level))
        work.per_class[work.class_names[c]] = found


def diversity(work: Work) -> None:
    """Vendi score, and the distances within classes."""
    _, drawn, level = work.features
    seed, kept = work.settings.seed, vendi_rows(*drawn.shape)
    note = "" if kept == len(drawn) else f"of {kept} samples, drawn at random"
    score, real_score = vendi_score(drawn, seed), vendi_score(level, seed)
    work.measured["vendi"] = Figure(score, real_score, kept, min(kept, len(level)), note=note)

    def within() -> dict[str, Figure]:
        labelled = work.drawn.labels is not None and work.level.labels is not None
        value = distance_within_classes(drawn, work.drawn.labels if labelled else None)
        if value is None:
            raise ConfigurationError("no class has two samples")
        real = distance_within_classes(level, work.level.labels if labelled else None)
        note = "" if labelled else "without classes: of all samples"
        return {"within_class": Figure(value, real, len(drawn), len(level), note=note)}

    work.add(("within_class",), within)
