"""Whether synthetic data help, as far as the figures of a sweep say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_diffaug.ablation.caveats import beside_time, caveats, shares_generator
from lightning_diffaug.ablation.choice import (
    Note,
    best_on_validation,
    control_of,
    is_corrected,
    is_zero_better,
    own_zero,
    real_only,
    synthetic,
    without_generator,
)
from lightning_diffaug.ablation.differences import Comparison, compare
from lightning_diffaug.ablation.metric import Metric, chosen_metric
from lightning_diffaug.ablation.notes import equality, of_runs
from lightning_diffaug.ablation.ruling import (
    HARMS,
    HELPS,
    KINDS,
    NO_EVIDENCE,
    NOT_JUDGED,
    PRIOR_SHIFT,
    TOO_FEW,
    Facts,
    rule,
)
from lightning_diffaug.ablation.summary import ArmSummary

__all__ = [
    "HARMS",
    "HELPS",
    "KINDS",
    "NOT_JUDGED",
    "NO_EVIDENCE",
    "PRIOR_SHIFT",
    "TOO_FEW",
    "Comparison",
    "Verdict",
    "judge",
    "judge_each",
]


@dataclass(frozen=True)
class Verdict:
    """What a sweep says about one task.

    Attributes:
        kind: "helps"; "prior_shift": the gain is one that needs no generator; "no_evidence"; "harms"; "too_few": fewer
            than three seeds in common; "not_judged": there is nothing to compare, the sentence says why.
        sentence: The verdict in words, complete by itself.
        notes: What to know when reading it; some warn.
        metric: What it is by.
        corrected: Whether the deciding scores have the class prior corrected (or need no correction).
        arm: The synthetic arm judged: the best on validation data; None where there is none.
        fraction: Its synthetic fraction.
        best_baseline: The best arm without a generator on validation data.
        real_only: The arm of real data alone, as they come.
        control: The arm that fills the same slots without a generator.
        best_is_zero: On validation data the best fraction is 0; `arm` is then the best of the others.
        own_zero: The arm's own settings at fraction 0.
        equal_time: The arm without a generator that trained as long as `arm` took with fit and generation, where such
            a one stands beside arms that are equal in something else.
        comparisons: Of each arm with real only, the best baseline, the control, `own_zero` and `equal_time`, in this
            order; one arm may be several of these, and occurs once.
        one_generator: All runs of the arm share one generator, fitted to the same data: what is found is conditional
            on it.
        task: What sets this task apart from others of the sweep; "" where there is one.
    """

    kind: str
    sentence: str
    notes: tuple[Note, ...]
    metric: Metric
    corrected: bool = False
    arm: str | None = None
    fraction: float | None = None
    best_baseline: str | None = None
    real_only: str | None = None
    control: str | None = None
    best_is_zero: bool = False
    own_zero: str | None = None
    equal_time: str | None = None
    comparisons: tuple[Comparison, ...] = ()
    one_generator: bool = False
    task: str = ""

    def comparison(self, arm: str, reference: str | None) -> Comparison | None:
        """That of two arms by their names; None where there is none."""
        return next((c for c in self.comparisons if (c.arm, c.reference) == (arm, reference)), None)


def judge_each(arms: Sequence[ArmSummary], asked: str | None = None) -> list[Verdict]:
    """Judges each task of a sweep by itself, in the order in which they come.

    Args:
        arms: All of the sweep.
        asked: ``ablation.metric``; see `chosen_metric`.
    """
    tasks = dict.fromkeys(arm.task for arm in arms)
    of_task = [[arm for arm in arms if arm.task == task] for task in tasks]
    return [judge(some, chosen_metric([run for arm in some for run in arm.runs_of], asked)) for some in of_task]


def judge(arms: Sequence[ArmSummary], metric: Metric) -> Verdict:
    """Judges the arms of one task (`ArmSummary.task`).

    The synthetic arm, the best arm without a generator and the control are chosen by their mean on validation data;
    what is said of them is by test data. The verdict rests on the scores with the class prior corrected where all arms
    have them.

    Args:
        arms: All of them, at least one.
        metric: See `chosen_metric`.
    """
    task = arms[0].task
    every = [arm for arm in arms if arm.values.get(metric.key("test"))]
    # who trains by another rule (the row of equal wall-clock time) stands beside, and is neither chosen nor chosen from
    equal = next((arm.equal for arm in synthetic(every)), None)
    scored = [arm for arm in every if equal in (None, arm.equal)]
    judged, baselines = synthetic(scored), without_generator(scored)
    about = of_runs(arms, metric)
    empty = Verdict(NOT_JUDGED, "", (*about, equality(arms)), metric, task=task)
    if not every:
        return replace(empty, sentence=f"Nothing to judge: no run has {metric.key('test')}.")
    corrected = is_corrected(every, metric)
    key = metric.key("val", corrected)
    lower = metric.lower
    best, chosen = best_on_validation(baselines, key, lower), best_on_validation(judged, key, lower)
    real = real_only(scored, chosen.arm)
    known = replace(
        empty,
        corrected=corrected,
        notes=(*chosen.notes, *best.notes, *empty.notes),
        arm=chosen.arm.arm if chosen.arm else None,
        fraction=chosen.arm.fraction if chosen.arm else None,
        best_baseline=best.arm.arm if best.arm else None,
        real_only=real.arm if real else None,
    )
    if best.arm is None or chosen.arm is None:
        comparisons = compare(every, _unique(real, best.arm), metric, corrected)
        return replace(known, sentence=_why_not(judged, baselines, key), comparisons=comparisons)
    arm, control, zero = chosen.arm, control_of(scored, chosen.arm, key, lower), own_zero(scored, chosen.arm)
    timed = next((a for a in without_generator(every) if a.equal == "wall_clock" != arm.equal), None)
    comparisons = compare(every, _unique(real, best.arm, control.arm, zero, timed), metric, corrected)

    def minus(one: ArmSummary, other: ArmSummary | None) -> Comparison | None:
        return next((c for c in comparisons if other and (c.arm, c.reference) == (one.arm, other.arm)), None)

    to_best = minus(arm, best.arm)
    assert to_best is not None
    facts = Facts(
        metric,
        corrected,
        arm,
        best.arm,
        to_best,
        only=len(baselines) == 1,
        real=real,
        to_real=minus(arm, real),
        zero=zero,
        to_zero=minus(arm, zero),
        control=control.arm,
        to_control=minus(arm, control.arm),
        control_to_best=minus(control.arm, best.arm) if control.arm else None,
        best_is_zero=is_zero_better(zero, arm, key, lower),
        timed=timed,
        to_timed=minus(arm, timed),
    )
    kind, sentence = rule(facts)
    one_generator = shares_generator(arm)
    if one_generator and kind not in (TOO_FEW, NOT_JUDGED):
        sentence += " This is conditional on one generator: all seeds share it, and generator.seed varies it."
    equal_in = [equality(arms, arm)]
    if arm.equal != "steps" and kind not in (TOO_FEW, NOT_JUDGED):
        sentence += f" {equal_in.pop().text}"
    if kind == HELPS and facts.to_timed is not None:
        sentence += f" {beside_time(facts)}"
    return replace(
        known,
        kind=kind,
        sentence=sentence,
        notes=(*chosen.notes, *best.notes, *control.notes, *caveats(facts, every, key, kind), *about, *equal_in),
        control=control.arm.arm if control.arm else None,
        best_is_zero=facts.best_is_zero,
        own_zero=zero.arm if zero else None,
        equal_time=timed.arm if timed else None,
        comparisons=comparisons,
        one_generator=one_generator,
    )


def _unique(*arms: ArmSummary | None) -> list[ArmSummary]:
    return list({arm.arm: arm for arm in arms if arm is not None}.values())


def _why_not(judged: Sequence[ArmSummary], baselines: Sequence[ArmSummary], key: str) -> str:
    if not judged:
        return "Nothing to judge: no arm with synthetic data came to its end."
    if not baselines:
        return "Nothing to judge by: no arm without a generator came to its end."
    return f"Not judged: {key} is missing, and arms are not chosen by test data."
