"""Each arm of a sweep minus those that it is measured by, with p-values for all synthetic arms together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lightning_diffaug.ablation.choice import synthetic
from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL, Difference, holm, paired_difference
from lightning_diffaug.ablation.summary import ArmSummary

ALPHA = 0.05
_AUROC = "test/auroc"


@dataclass(frozen=True)
class Comparison:
    """One arm minus another, paired by seed, on real test data.

    Attributes:
        arm: The one.
        reference: The other.
        raw: Difference of the scores as they are; None without a common seed.
        corrected: Of the scores with the class prior corrected; None where they are missing. For a metric that no prior
            moves it is `raw`.
        taken: What the correction takes of `raw`: raw minus corrected scores, the one's minus the other's.
        auroc: Of macro AUROC, which no prior moves; None where it is missing.
        deciding: The one that a verdict rests on: `corrected`, or `raw` where no correction was made.
        p_holm: P-value of the deciding difference, Holm-corrected over all synthetic arms against this reference; None
            for other arms and with fewer than three pairs.
        p_raw_holm: Likewise of the raw difference.
        lower: Less is better: a difference below 0 is a gain.
    """

    arm: str
    reference: str
    raw: Difference | None
    corrected: Difference | None = None
    taken: Difference | None = None
    auroc: Difference | None = None
    deciding: Difference | None = None
    p_holm: float | None = None
    p_raw_holm: float | None = None
    lower: bool = False

    @property
    def enough(self) -> bool:
        """Whether there are pairs enough for an interval."""
        return self.deciding is not None and self.deciding.n >= MIN_FOR_INTERVAL

    @property
    def gain(self) -> Difference | None:
        """The deciding difference as a gain: above 0 the arm is better, whichever way the metric goes."""
        return self.deciding.negated if self.deciding is not None and self.lower else self.deciding

    @property
    def gains(self) -> bool:
        """Whether the deciding difference is a gain: its interval, and its Holm-corrected p-value."""
        return self.gain is not None and self.gain.above and _significant(self.p_holm)

    @property
    def gains_raw(self) -> bool:
        """Whether the raw difference is a gain."""
        raw = self.raw.negated if self.raw is not None and self.lower else self.raw
        return raw is not None and raw.above and _significant(self.p_raw_holm)

    @property
    def loses(self) -> bool:
        """Whether the deciding difference is a loss."""
        return self.gain is not None and self.gain.below and _significant(self.p_holm)


def _significant(p: float | None) -> bool:
    return p is not None and p < ALPHA


def compare(
    arms: Sequence[ArmSummary], references: Sequence[ArmSummary], metric: Metric, corrected: bool
) -> tuple[Comparison, ...]:
    """Compares each arm with each reference but itself.

    Args:
        arms: Of one task.
        references: Some of them.
        metric: What they are compared by.
        corrected: Whether the deciding score is that with the class prior corrected.

    Returns:
        By reference, then by arm.
    """
    judged = {arm.arm for arm in synthetic(arms)}
    found: list[Comparison] = []
    for reference in references:
        of_one = [_compare(arm, reference, metric, corrected) for arm in arms if arm.arm != reference.arm]
        tested = [c for c in of_one if c.arm in judged]
        ps = holm([c.deciding.p if c.deciding else None for c in tested])
        raw = holm([c.raw.p if c.raw else None for c in tested])
        adjusted: Mapping[str, tuple[float | None, float | None]] = {
            c.arm: both for c, both in zip(tested, zip(ps, raw, strict=True), strict=True)
        }
        for c in of_one:
            p_holm, p_raw_holm = adjusted.get(c.arm, (None, None))
            found.append(replace(c, p_holm=p_holm, p_raw_holm=p_raw_holm))
    return tuple(found)


def _compare(arm: ArmSummary, reference: ArmSummary, metric: Metric, corrected: bool) -> Comparison:
    def difference(key: str) -> Difference | None:
        return paired_difference(arm.values.get(key, {}), reference.values.get(key, {}))

    keys = metric.key("test"), metric.key("test", corrected=True)
    raw, shifted = map(difference, keys)
    taken = paired_difference(_less(arm, *keys), _less(reference, *keys))
    deciding = shifted if corrected else raw
    return Comparison(arm.arm, reference.arm, raw, shifted, taken, difference(_AUROC), deciding, lower=metric.lower)


def _less(arm: ArmSummary, first: str, second: str) -> dict[int, float]:
    """One score minus another, of each seed that has both."""
    scores, others = arm.values.get(first, {}), arm.values.get(second, {})
    return {seed: scores[seed] - others[seed] for seed in scores.keys() & others.keys()}
