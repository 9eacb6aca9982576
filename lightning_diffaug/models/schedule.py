"""The learning rate of the demo's learners over a run."""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP = 0.1  # share of the steps in which the learning rate rises


def warm_up_cosine(steps: int) -> Callable[[int], float]:
    """Share of the highest learning rate at each step, for `LambdaLR`: a linear warm-up, then a cosine to 0.

    Not OneCycleLR: that raises past its last step, as when a run is resumed with more epochs.

    Args:
        steps: Of the whole run.
    """

    def factor(step: int) -> float:
        done = min(step / steps, 1.0)
        if done < WARM_UP:
            return max(done / WARM_UP, 0.01)
        return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))

    return factor
