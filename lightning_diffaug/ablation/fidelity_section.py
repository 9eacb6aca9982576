"""The part of a report's page on how good the samples are."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_diffaug.ablation.fidelity_records import ArmFidelity, Measured, fidelity_of
from lightning_diffaug.ablation.findings import Findings
from lightning_diffaug.ablation.markup import (
    MANY_CLASSES,
    NOTHING,
    Cell,
    Content,
    Markup,
    bullets,
    element,
    in_parts,
    joined,
    table,
)
from lightning_diffaug.ablation.numbers import NONE
from lightning_diffaug.fidelity.result import METRICS

_DISTANCE = "frechet"


def fidelity(findings: Findings) -> Markup:
    """All figures arm by arm, distances class by class, and those of the classes of one arm."""
    found = {arm.arm: one for arm in findings.arms if (one := fidelity_of(arm)) is not None}
    names = list(dict.fromkeys(name for one in found.values() for name in one.measured))
    if not names:
        return NOTHING
    parts = []
    for some in in_parts(list(found)):
        rows: list[list[Cell | Content]] = [
            [Cell(*_metric(name)), *(_measured(found[arm].measured.get(name)) for arm in some)] for name in names
        ]
        parts.append(table(["figure", *some], rows))
    parts.append(element("p", _what_is_shown(found), class_="note"))
    of_classes = {arm: one for arm, one in found.items() if 0 < len(one.per_class) <= MANY_CLASSES}
    parts += _distances(of_classes)
    if of_classes:
        judged = None if findings.judged is None else findings.judged.arm
        parts.append(_classes(of_classes, judged if judged in of_classes else next(iter(of_classes))))
    about = list(dict.fromkeys(line for one in found.values() for line in one.about))
    return joined([*parts, bullets(about, "about")])


def _what_is_shown(found: Mapping[str, ArmFidelity]) -> str:
    measured = [one for arm in found.values() for one in arm.measured.values()]
    if max(one.value.n for one in measured) == 1:
        said = "Of one run an arm, so without an interval over runs"
    elif any(one.value.half_width is not None for one in measured):
        said = "Mean over runs ± half the 95% t-interval, where an arm has runs enough for one"
    else:
        said = "Mean over runs, too few for an interval"
    known = any(one.standard_error is not None for one in measured)
    error = "the standard error within a run (s.e.) where it is known, " if known else ""
    return f"{said}; below it {error}the same figure of real samples, and how many samples."


def _distances(found: Mapping[str, ArmFidelity]) -> list[Markup]:
    """Fréchet distances class by class, where several arms have them."""
    classes = dict.fromkeys(name for one in found.values() for name, of in one.per_class.items() if _DISTANCE in of)
    if len(found) < 2:
        return []
    tables = []
    for some in in_parts(list(found)):
        rows: list[list[Cell | Content]] = [
            [name, *(_measured(found[arm].per_class.get(name, {}).get(_DISTANCE)) for arm in some)] for name in classes
        ]
        tables.append(table(["class", *some], rows, f"{METRICS[_DISTANCE][0]} of each class; lower is better."))
    return tables if classes else []


def _classes(found: Mapping[str, ArmFidelity], arm: str) -> Markup:
    of_classes = found[arm].per_class
    columns = list(dict.fromkeys(name for one in of_classes.values() for name in one))
    rows: list[list[Cell | Content]] = [
        [name, *(_measured(one.get(column)) for column in columns)] for name, one in of_classes.items()
    ]
    return table(["class", *(_metric(name)[0] for name in columns)], rows, f"{arm}, class by class.")


def _metric(name: str) -> tuple[str, str]:
    title, good = METRICS.get(name, (name, ""))
    return title, {"low": "lower is better", "high": "higher is better"}.get(good, good)


def _measured(one: Measured | None) -> Cell:
    if one is None:
        return Cell(NONE)
    half, (least, most) = one.value.half_width, one.samples
    said = [] if one.standard_error is None else [f"s.e. {one.standard_error:.2g}"]
    if one.real is not None:
        error = "" if one.real_standard_error is None else f" (s.e. {one.real_standard_error:.2g})"
        said.append(f"real {one.real.mean:.4g}{error}")
    said.append(f"n {least}" if least == most else f"n {least} to {most}")
    text = f"{one.value.mean:.4g}" + ("" if half is None else f" ± {half:.2g}")
    return Cell(text, ", ".join(said), one.value.mean)
