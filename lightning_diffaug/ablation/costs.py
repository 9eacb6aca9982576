"""What the arms of a sweep cost, beside what they gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.statistics import Difference
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
        gain: Its deciding score minus that of real only, a share of 1; None for that arm itself and without it.
        price: Seconds of generator and fit for each percentage point of gain; None where there is no gain, and for an
            arm without a generator.
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
    raise NotImplementedError
