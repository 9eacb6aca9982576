"""All that a report says of one task: its arms, the verdict, the best fraction, costs; computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_diffaug.ablation.best_fraction import BestFraction, best_fractions
from lightning_diffaug.ablation.choice import EQUAL_TIME
from lightning_diffaug.ablation.costs import ArmCosts, arm_costs
from lightning_diffaug.ablation.metric import CORRECTED, Metric
from lightning_diffaug.ablation.notes import of_failures, steps_of
from lightning_diffaug.ablation.runs import BASELINE, SYNTHETIC, Failure, Run
from lightning_diffaug.ablation.statistics import Estimate
from lightning_diffaug.ablation.summary import ArmSummary, class_counts
from lightning_diffaug.ablation.verdict import Verdict, judge_each

_EQUAL = {
    "steps": "equal optimiser steps",
    "epochs": "equal epochs",
    "wall_clock": f'equal wall-clock time in arms named "…{EQUAL_TIME}"',
}
_RARE = "test/acc_rare"


@dataclass(frozen=True)
class Findings:
    """What was found in one task of a sweep.

    Attributes:
        arms: Its arms, in the order of the sweep.
        verdict: What they say.
        best: The best fraction of each family that has several.
        costs: Of each arm, in the same order.
    """

    arms: tuple[ArmSummary, ...]
    verdict: Verdict
    best: tuple[BestFraction, ...]
    costs: tuple[ArmCosts, ...]

    @property
    def metric(self) -> Metric:
        """What the task is judged by."""
        return self.verdict.metric

    @property
    def score_key(self) -> str:
        """The test metric that the verdict rests on."""
        return self.metric.key("test", self.verdict.corrected)

    @property
    def rare_key(self) -> str | None:
        """The rare classes' accuracy, of the same kind as the deciding score; None where there are none."""
        for key in (_RARE + CORRECTED, _RARE) if self.verdict.corrected else (_RARE,):
            if any(key in arm.estimates for arm in self.arms):
                return key
        return None

    @property
    def trivial(self) -> Estimate | None:
        """What chance or a mean predictor reaches, mean over all runs; None where it is not known, and of classes."""
        key = f"{self.metric.key('test')}_trivial"
        found = [value for arm in self.arms for value in arm.values.get(key, {}).values()]
        return Estimate(len(found), sum(found) / len(found)) if found and not self.metric.classification else None

    @property
    def runs(self) -> list[Run]:
        """Those of all arms."""
        return [run for arm in self.arms for run in arm.runs_of]

    @property
    def alike(self) -> list[ArmSummary]:
        """The arms that train by the rule of the arm judged: as many steps, epochs or seconds."""
        one = self.judged or next((arm for arm in self.arms if arm.role == SYNTHETIC), self.arms[0])
        return [arm for arm in self.arms if arm.equal == one.equal]

    @property
    def families(self) -> list[list[ArmSummary]]:
        """Arms with synthetic samples, those that differ in the fraction alone together; the family judged first."""
        found: dict[str, list[ArmSummary]] = {}
        for arm in self.arms:
            found.setdefault(arm.family or arm.arm, []).append(arm)
        mixed = [family for family in found.values() if any(arm.fraction > 0 for arm in family)]
        return sorted(mixed, key=lambda family: (self.judged not in family, self.control not in family, -len(family)))

    @property
    def warnings(self) -> list[str]:
        """What takes weight from the verdict."""
        return [note.text for note in self.verdict.notes if note.warns]

    @property
    def notes(self) -> list[str]:
        """What else to know."""
        return [note.text for note in self.verdict.notes if not note.warns]

    @property
    def judged(self) -> ArmSummary | None:
        """The synthetic arm that the verdict is on."""
        return self._named(self.verdict.arm)

    @property
    def best_baseline(self) -> ArmSummary | None:
        """The best arm without a generator on validation data."""
        return self._named(self.verdict.best_baseline)

    @property
    def real_only(self) -> ArmSummary | None:
        """The arm of real data alone."""
        return self._named(self.verdict.real_only)

    @property
    def control(self) -> ArmSummary | None:
        """The arm that fills the slots without a generator."""
        return self._named(self.verdict.control)

    @property
    def equal_time(self) -> ArmSummary | None:
        """The arm without a generator that trained for as many seconds as the one judged."""
        return self._named(self.verdict.equal_time)

    @property
    def equal(self) -> str:
        """What is equal in all arms, as it is written on plots."""
        kind = self.alike[0].equal
        if kind not in _EQUAL:
            return "arms NOT equal in one thing"
        if kind != "steps":
            return _EQUAL[kind]
        steps = steps_of(self.alike)
        return f"optimiser steps NOT equal ({steps})" if " " in steps else f"{_EQUAL[kind]} ({steps})"

    @property
    def class_counts(self) -> dict[str, tuple[int, int]]:
        """Fewest and most real training samples of each class over the runs; {} where they are not known."""
        known = [counts for run in self.runs if (counts := class_counts(run))]
        names = list(dict.fromkeys(name for counts in known for name in counts))
        found = {name: [counts[name] for counts in known if name in counts] for name in names}
        return {name: (min(counts), max(counts)) for name, counts in found.items()}

    def _named(self, name: str | None) -> ArmSummary | None:
        return next((arm for arm in self.arms if arm.arm == name), None)


def shown_role(arm: ArmSummary) -> str:
    """An arm's role; at fraction 0 one that is judged has no generator."""
    return BASELINE if arm.role == SYNTHETIC and arm.fraction == 0 else arm.role


def find(arms: Sequence[ArmSummary], asked: str | None = None, failures: Sequence[Failure] = ()) -> list[Findings]:
    """What a sweep says, task by task.

    Args:
        arms: All of the sweep.
        asked: ``ablation.metric``; None: that of the runs' configurations, or the default.
        failures: What the sweep has beside them, which stands beside each verdict where it leaves an arm out.

    Raises:
        ConfigurationError: There is no such metric.
    """
    found = []
    missing = of_failures([run for arm in arms for run in arm.runs_of], failures)
    for verdict in judge_each(arms, asked):
        of_task = tuple(arm for arm in arms if arm.task == verdict.task)
        best = best_fractions(of_task, verdict.metric)
        costs = arm_costs(of_task, verdict.metric, verdict.real_only, verdict.corrected)
        verdict = replace(verdict, notes=(*missing, *verdict.notes))
        found.append(Findings(of_task, verdict, tuple(best), tuple(costs)))
    return found
