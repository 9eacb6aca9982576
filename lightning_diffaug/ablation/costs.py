"""What the arms of a sweep cost, beside what they gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.statistics import Difference, paired_difference
from lightning_diffaug.ablation.summary import ArmSummary


@dataclass(frozen=True)
class ArmCosts:
    """Costs of one arm, means over its runs; None where no run has the figure.

    Attributes:
        arm: Its unique name.
        generator_seconds: Of making the samples that its runs used, whichever run made them.
        fit_seconds: Of the fit of the generator, whichever run fitted it.
        samples: Distinct synthetic samples used.
        passes_per_sample: Passes of the generator's network for each sample trained on, real ones included.
        train_seconds: Of training, without waiting.
        wait_seconds: That training waited for samples.
        gain: Its deciding score minus that of real only (where less is better the other way round), a share of 1 or in
            the metric's unit; None for that arm itself and without it.
        price: Seconds of generator and fit for each percentage point of gain, of a metric that is no share for each per
            cent of real only's score; None where there is no gain, and for an arm without a generator.
        price_low: Price at the upper end of the gain's interval; None without an interval.
        price_high: At its lower end; None where that is no gain: the price has no upper bound.
    """

    arm: str
    generator_seconds: float | None = None
    fit_seconds: float | None = None
    samples: float | None = None
    passes_per_sample: float | None = None
    train_seconds: float | None = None
    wait_seconds: float | None = None
    gain: Difference | None = None
    price: float | None = None
    price_low: float | None = None
    price_high: float | None = None


def arm_costs(arms: Sequence[ArmSummary], metric: Metric, real_only: str | None, corrected: bool) -> list[ArmCosts]:
    """Costs of each arm, in their order.

    Args:
        arms: Of one task.
        metric: What gains are measured by.
        real_only: Name of the arm that gains are against, such as `Verdict.real_only`.
        corrected: Whether gains are of the scores with the class prior corrected, as `Verdict.corrected`.
    """
    reference = next((arm for arm in arms if arm.arm == real_only), None)
    return [_costs(arm, reference, metric.key("test", corrected), metric) for arm in arms]


def _costs(arm: ArmSummary, reference: ArmSummary | None, key: str, metric: Metric) -> ArmCosts:
    def mean(figure: str) -> float | None:
        return arm.estimates[figure].mean if figure in arm.estimates else None

    gain = None
    if reference is not None and reference.arm != arm.arm:
        gain = paired_difference(arm.values.get(key, {}), reference.values.get(key, {}))
        gain = gain.negated if gain is not None and metric.lower else gain
    step = 0.01
    if not metric.share and reference is not None and key in reference.estimates:
        step = abs(reference.estimates[key].mean) / 100
    made, fitted = mean("cost/generator_seconds"), mean("cost/fit_seconds")
    spent = None if made is None or fitted is None else made + fitted
    return ArmCosts(
        arm=arm.arm,
        generator_seconds=made,
        fit_seconds=fitted,
        samples=mean("cost/samples"),
        passes_per_sample=mean("cost/passes_per_sample"),
        train_seconds=mean("train/seconds"),
        wait_seconds=mean("train/wait_seconds"),
        gain=gain,
        price=_price(spent, gain.mean if gain else None, step),
        price_low=_price(spent, gain.high, step) if gain and gain.mean > 0 else None,
        price_high=_price(spent, gain.low, step) if gain else None,
    )


def _price(spent: float | None, gain: float | None, step: float) -> float | None:
    """Seconds for each percentage point, or for each per cent of what real data alone reach."""
    return spent * step / gain if spent and gain is not None and gain > 0 else None
