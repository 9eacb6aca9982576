"""Whether synthetic data help, as far as the figures of a sweep say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.statistics import Difference
from lightning_diffaug.ablation.summary import ArmSummary

HELPS, PRIOR_SHIFT, NO_EVIDENCE, HARMS = "helps", "prior_shift", "no_evidence", "harms"
TOO_FEW, NOT_JUDGED = "too_few", "not_judged"
KINDS = (HELPS, PRIOR_SHIFT, NO_EVIDENCE, HARMS, TOO_FEW, NOT_JUDGED)


@dataclass(frozen=True)
class Comparison:
    """One arm minus another, paired by seed, on real test data.

    Attributes:
        arm: The one.
        reference: The other.
        raw: Difference of the scores as they are; None without a common seed.
        corrected: Of the scores with the class prior corrected; None where they are missing. For a metric that no prior
            moves it is `raw`.
        auroc: Of macro AUROC, which no prior moves; None where it is missing.
        p_holm: P-value of the deciding difference, Holm-corrected over all synthetic arms against this reference; None
            for other arms and with fewer than three pairs.
        p_raw_holm: Likewise of the raw difference.
    """

    arm: str
    reference: str
    raw: Difference | None
    corrected: Difference | None = None
    auroc: Difference | None = None
    p_holm: float | None = None
    p_raw_holm: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What a sweep says about one task.

    Attributes:
        kind: "helps"; "prior_shift": the gain is one that needs no generator; "no_evidence"; "harms"; "too_few": fewer
            than three seeds in common; "not_judged": there is nothing to compare, the sentence says why.
        sentence: The verdict in words, complete by itself.
        notes: What to know when reading it, a sentence each.
        metric: What it is by.
        corrected: Whether the deciding scores have the class prior corrected (or need no correction).
        arm: The synthetic arm judged: the best on validation data; None where there is none.
        fraction: Its synthetic fraction.
        best_baseline: The best arm without a generator on validation data.
        real_only: The arm of real data alone, as they come.
        control: The arm that fills the same slots without a generator.
        best_is_zero: On validation data the best fraction is 0; `arm` is then the best of the others.
        comparisons: Of each arm (but itself) with real only, the best baseline and the control, in this order.
        one_generator: All runs of the arm share one generator, fitted to the same data: what is found is conditional
            on it.
        task: What sets this task apart from others of the sweep; "" where there is one.
    """

    kind: str
    sentence: str
    notes: tuple[str, ...]
    metric: Metric
    corrected: bool = False
    arm: str | None = None
    fraction: float | None = None
    best_baseline: str | None = None
    real_only: str | None = None
    control: str | None = None
    best_is_zero: bool = False
    comparisons: tuple[Comparison, ...] = ()
    one_generator: bool = False
    task: str = ""

    def comparison(self, arm: str, reference: str | None) -> Comparison | None:
        """That of two arms by their names; None where there is none."""
        return next((c for c in self.comparisons if (c.arm, c.reference) == (arm, reference)), None)


def judge(arms: Sequence[ArmSummary], metric: Metric) -> Verdict:
    """Judges the arms of one task (`ArmSummary.task`).

    Args:
        arms: All of them.
        metric: See `chosen_metric`.
    """
    raise NotImplementedError
