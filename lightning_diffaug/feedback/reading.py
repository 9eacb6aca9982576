"""Plans as the refill reads them: slot number → what the learner said for it."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from lightning_diffaug.conditions.feedback import Feedback, Learner
from lightning_diffaug.errors import GeneratorError, PoolError
from lightning_diffaug.feedback.learner import unpacked
from lightning_diffaug.pool.plans import Plan, Plans

log = logging.getLogger(__name__)


class PlanReader:
    """Says what holds for a slot; reads the plans' folder each time, and an entry once.

    What of an entry cannot be read is said once and left out: slots are then made without it. Where the folder itself
    cannot be read, the plans that were read before hold.

    Args:
        folder: The pool's folder.
        network: Name of the learner's network (`lightning_diffaug.feedback.learner.network_name`); None: there is none,
            and weights that are found are not used.
    """

    def __init__(self, folder: str | os.PathLike[str], network: Mapping[str, Any] | None = None) -> None:
        self._plans = Plans(folder)
        self._network = network
        self._said_failure = False
        self._last: tuple[Plan, Feedback] | None = None

    def __call__(self, slot: int) -> Feedback | None:
        """What the last plan up to a slot says; None before the first."""
        try:
            plan = self._plans.at(slot)
        except (OSError, PoolError) as error:
            log.log(
                logging.DEBUG if self._said_failure else logging.ERROR,
                "The plans cannot be read (%s): slots are planned by the last that was read, or by none.", error,
            )  # fmt: skip
            self._said_failure = True
            plan = self._plans.read_before(slot)
        if plan is None:
            return None
        if self._last is None or self._last[0] != plan:
            self._last = (plan, self._feedback(plan))
        return self._last[1]

    def _feedback(self, plan: Plan) -> Feedback:
        samples: dict[str, Tensor] = {}
        learner: Callable[[], Learner] | None = None
        try:
            samples = self._plans.samples(plan)
        except (OSError, PoolError) as error:
            log.error("Slots from %d on are planned without values of single samples: %s", plan.from_slot, error)
        if plan.scorer is not None:
            try:
                learner = partial(copy.deepcopy, unpacked(self._network, *self._plans.scorer(plan)))
            except (OSError, PoolError, GeneratorError) as error:
                log.error("Slots from %d on are made without the learner: %s", plan.from_slot, error)
        return feedback_of(plan, samples, learner)


def feedback_of(plan: Plan, samples: dict[str, Tensor], learner: Callable[[], Learner] | None) -> Feedback:
    """What a plan says."""
    content = plan.content
    return Feedback(
        from_slot=plan.from_slot,
        classes={metric: [float(value) for value in values] for metric, values in content["classes"].items()},
        samples=samples,
        learner=learner,
        metric=content["metric"],
        strength=float(content["strength"]),
    )
