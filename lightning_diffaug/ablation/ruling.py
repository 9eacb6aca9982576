"""From the differences of a sweep to the kind of its verdict, and the sentence that says it."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_diffaug.ablation.differences import Comparison
from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.numbers import as_difference, in_points, p_value
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL
from lightning_diffaug.ablation.summary import ArmSummary

HELPS, PRIOR_SHIFT, NO_EVIDENCE, HARMS = "helps", "prior_shift", "no_evidence", "harms"
TOO_FEW, NOT_JUDGED = "too_few", "not_judged"
KINDS = (HELPS, PRIOR_SHIFT, NO_EVIDENCE, HARMS, TOO_FEW, NOT_JUDGED)
_TOLERANCE = 0.01
"""Of optimiser steps: the last epoch of one arm may be cut otherwise than that of another."""


@dataclass(frozen=True)
class Facts:
    """What a verdict rests on: the arm judged, and it minus each arm that it is measured by.

    Attributes:
        metric: What it is by.
        corrected: Whether the deciding scores have the class prior corrected, or need it not.
        arm: The synthetic arm.
        best: The best arm without a generator.
        to_best: Arm minus it.
        only: It is the only arm without a generator.
        real: Real data alone, which may be `best` too.
        to_real: Arm minus it.
        zero: The arm's own settings at fraction 0, which may be `best` too.
        to_zero: Arm minus it.
        control: The control.
        to_control: Arm minus it.
        control_to_best: Control minus `best`.
        best_is_zero: On validation data fraction 0 is at least as good.
        timed: An arm without a generator of the same wall-clock time, beside arms that are equal in something else.
        to_timed: Arm minus it.
    """

    metric: Metric
    corrected: bool
    arm: ArmSummary
    best: ArmSummary
    to_best: Comparison
    only: bool = False
    real: ArmSummary | None = None
    to_real: Comparison | None = None
    zero: ArmSummary | None = None
    to_zero: Comparison | None = None
    control: ArmSummary | None = None
    to_control: Comparison | None = None
    control_to_best: Comparison | None = None
    best_is_zero: bool = False
    timed: ArmSummary | None = None
    to_timed: Comparison | None = None

    @property
    def beside(self) -> Comparison | None:
        """The comparison with real data alone, where that is not `to_best`."""
        return None if self.real is None or self.real.arm == self.best.arm else self.to_real

    @property
    def best_title(self) -> str:
        """The reference in words."""
        if self.only:
            return f"{self.best.arm}, the only arm without a generator"
        return f"{self.best.arm}, the best arm without a generator on validation data"

    @property
    def score(self) -> str:
        """The deciding score in words."""
        if not self.metric.classification:
            better = ", lower is better" if self.metric.lower else ""
            return f"{self.metric.title}{better}; as scored, as there is no class prior to correct"
        if not self.metric.needs_correction:
            return f"{self.metric.title}, which no class prior moves"
        return f"{self.metric.title}, class prior {'' if self.corrected else 'NOT '}corrected"


def rule(facts: Facts) -> tuple[str, str]:
    """The kind of the verdict, and its sentence."""
    if not facts.to_best.enough:
        return TOO_FEW, _too_few(facts)
    for rules in (_harms, _prior_shift, _zero, _helps):
        found = rules(facts)
        if found is not None:
            return found
    better = f", and {facts.best.arm} is better" if facts.to_best.loses else ""
    return NO_EVIDENCE, f"No evidence that synthetic data help{better}: {_against(facts)}."


def _too_few(f: Facts) -> str:
    found = f.to_best.deciding
    if found is None:
        return f"No verdict: {f.arm.arm} and {f.best_title}, have no seed in common."
    seeds = "one seed" if found.n == 1 else f"{found.n} seeds"
    return (
        f"No verdict from {seeds}: {f.arm.arm} minus {f.best_title}, is {as_difference(found, f.metric)} ({f.score}), "
        f"without an interval; it takes at least {MIN_FOR_INTERVAL} seeds."
    )


def _harms(f: Facts) -> tuple[str, str] | None:
    """Worse than the same settings without synthetic data, or than real data alone; than the best where neither is."""
    nearest = [c for c in (f.to_zero, f.to_real) if c is not None and c.enough] or [f.to_best]
    worse = next((c for c in nearest if c.loses and not c.gains_raw), None)
    if worse is None:
        return None
    other = next(a for a in (f.zero, f.real, f.best) if a is not None and a.arm == worse.reference)
    if _longer(other, f.arm):
        return NO_EVIDENCE, (
            f"No evidence that synthetic data help: {_minus(f, worse)}, and {f.arm.arm} trained fewer steps "
            f"({f.arm.steps:.10g}, {other.arm} {other.steps:.10g})."
        )
    zero = "; on validation data the best of the fractions is 0" if f.best_is_zero else ""
    better = "" if f.beside is None or not f.beside.gains else f" Against real data alone it is {_value(f, f.beside)}."
    return HARMS, f"Synthetic data harm: {_minus(f, worse)}{zero}.{better}"


def _zero(f: Facts) -> tuple[str, str] | None:
    if not f.best_is_zero:
        return None
    return NO_EVIDENCE, (
        f"No evidence that synthetic data help: the best of the fractions on validation data is 0. Of the others "
        f"{f.arm.arm} is best: {_against(f)}."
    )


def _helps(f: Facts) -> tuple[str, str] | None:
    if not f.to_best.gains or (f.beside is not None and f.beside.enough and not f.beside.gains):
        return None
    if _longer(f.arm, f.best):
        return NO_EVIDENCE, (
            f"No evidence that synthetic data help: {_against(f)}, but {f.arm.arm} trained longer "
            f"({f.arm.steps:.10g} steps, {f.best.arm} {f.best.steps:.10g})."
        )
    control = f.to_control if f.to_control is not None and f.to_control.enough else None
    if control is not None and not (control.gain and control.gain.above):
        return _no_more_than_control(f, control)
    said = f" Against real data alone: {_value(f, f.beside)}." if f.beside is not None else ""
    if control is not None:
        said += f" Against {control.reference}, which fills the slots without a generator: {_value(f, control)}."
    if not f.corrected:
        said += " No correction of the class prior was made: the gain may be a shift of it."
    return HELPS, (
        f"Synthetic data help by {as_difference(f.to_best.gain, f.metric, sign='')} at fraction "
        f"{f.arm.fraction:.4g} ({f.score}; {f.arm.arm} against {f.best_title}; "
        f"{_p(f.to_best)}).{said}"
    )


def _no_more_than_control(f: Facts, control: Comparison) -> tuple[str, str]:
    """The gain stands, but not against the control: a shift where that gains as much, else nothing is known."""
    assert control.gain is not None
    own = f.control_to_best.gain if f.control_to_best is not None else None
    if control.gain.mean <= 0 or (own is not None and own.above):
        shift = ", as a shift of the class prior does" if f.metric.classification else ""
        return PRIOR_SHIFT, (
            f"The gain is not the generator's: {control.reference}, which fills the slots without a generator, gains "
            f"as much{shift} ({f.arm.arm} minus it: {_value(f, control)}, {f.score}). "
            f"Against {f.best_title}, {f.arm.arm} gains {_value(f, f.to_best)}."
        )
    return NO_EVIDENCE, (
        f"No evidence that synthetic data help: {_against(f)}, but that cannot be told from what "
        f"{control.reference} gains, which fills the slots without a generator ({_value(f, control)} against it)."
    )


def _prior_shift(f: Facts) -> tuple[str, str] | None:
    """A raw gain, most of which the correction takes: shown to be more than nothing, with no evidence of the rest."""
    if not f.corrected or not f.metric.needs_correction:
        return None
    for c in (f.to_best, f.beside):
        if c is None or c.raw is None or c.deciding is None or c.taken is None or not c.enough:
            continue
        if c.gains_raw and not c.gains and c.taken.above and c.deciding.mean <= c.raw.mean / 2:
            zero = " On validation data the best of the fractions is 0." if f.best_is_zero else ""
            also = f" Against {f.best_title}: {_value(f, f.to_best)}, corrected."
            return PRIOR_SHIFT, (
                f"{'Most of the gain' if c.deciding.mean > 0 else 'The gain'} is a shift of the class prior, which a "
                f"loss term can give for nothing: {f.arm.arm} minus {c.reference} is {in_points(c.raw)} of "
                f"{f.metric.title}, and {in_points(c.deciding)} when the class prior of both is corrected on "
                f"validation data ({_p(c)}); the correction takes {in_points(c.taken)}."
                f"{also if c is not f.to_best else ''}{zero}"
            )
    return None


def _against(f: Facts) -> str:
    """The arm against both references, in words."""
    text = (
        f"at fraction {f.arm.fraction:.4g} {f.arm.arm} minus {f.best_title}, is {_value(f, f.to_best)} "
        f"({f.score}; {_p(f.to_best)})"
    )
    if f.beside is not None and f.beside.deciding is not None:
        text += f", and minus real data alone {_value(f, f.beside)}"
    if f.corrected and f.metric.needs_correction and f.to_best.gains_raw and not f.to_best.gains:
        text += f"; the raw difference, {in_points(f.to_best.raw)}, is not left when the class prior is corrected"
    return text


def _minus(f: Facts, c: Comparison) -> str:
    what = "the same without them" if f.zero is not None and c.reference == f.zero.arm else "an arm without them"
    return f"{f.arm.arm} minus {c.reference}, {what}, is {_value(f, c)} ({f.score}; {_p(c)})"


def _value(f: Facts, c: Comparison) -> str:
    return as_difference(c.deciding, f.metric)


def _p(c: Comparison) -> str:
    if c.p_holm is None:
        return "no p-value"
    text = p_value(c.p_holm)
    return f"p {text if text.startswith('<') else f'= {text}'}, Holm-corrected"


def _longer(one: ArmSummary, other: ArmSummary) -> bool:
    """Whether one arm had more optimiser steps than the other where steps should be equal."""
    agreed = one.equal == other.equal and one.equal in ("epochs", "wall_clock")
    return not agreed and one.steps > (1 + _TOLERANCE) * other.steps
