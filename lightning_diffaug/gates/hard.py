"""Deliberate practice: of several candidates the one that the learner finds hardest, as long as it is plausible."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.conditions.feedback import CRITERIA, Feedback, Learner, scores_of
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.chain import Verdict
from lightning_diffaug.gates.checks import as_set
from lightning_diffaug.spec import LABEL

LEAST_BOUND = math.log(2)
"""Loss up to which a candidate is plausible in any case: the learner gives its class at least even odds. A learner that
fits its training data has next to no loss on nearly all of them, and a bound by them alone would let in only what it is
sure of."""


class Hard:
    """Keeps, of several candidates for a row, the one that is hardest for the current learner.

    Askari-Hemmat et al. 2025, "Improving the Scaling Laws of Synthetic Data with Deliberate Practice" (arXiv
    2502.15588, section 3): candidates are pruned by the entropy of the learner's prediction. Here each row keeps its
    class and its best candidate, so that quotas hold, and a candidate that the learner is surer to be of another class
    than nearly all real samples are, is none. Until the learner has said something, one sample a row is made and let
    in.

    Needs the learner's weights (``feedback.hand_over=true``), which compute on the CPU here.

    Args:
        candidates: Made for each row, at least 2.
        criterion: ``"entropy"`` of the prediction, or ``"loss"`` on the class that was asked for.
        plausible: Candidates of a higher loss than this quantile, in (0, 1], of the learner's losses on real training
            samples are rejected, but none of a loss up to `LEAST_BOUND`. None: no bound.

    Raises:
        ConfigurationError: A setting is out of its range.
    """

    name = "hard"
    needs_learner = True

    def __init__(self, candidates: int = 4, criterion: str = "entropy", plausible: float | None = 0.95) -> None:
        if isinstance(candidates, bool) or not isinstance(candidates, int) or candidates < 2:
            raise ConfigurationError(
                f"gates.hard.candidates={candidates!r} is no whole number from 2: it is how many samples are made for "
                f"each that is kept. Set {as_set(self.name, candidates=4)}."
            )
        if criterion not in CRITERIA:
            raise ConfigurationError(
                f"gates.hard.criterion={criterion!r} is none of {', '.join(CRITERIA)}: it is what makes a sample hard. "
                f"Set {as_set(self.name, criterion='entropy')}."
            )
        in_range = isinstance(plausible, (int, float)) and not isinstance(plausible, bool) and 0 < plausible <= 1
        if plausible is not None and not in_range:
            raise ConfigurationError(
                f"gates.hard.plausible={plausible!r} is not in (0, 1]: it is the quantile of real samples' losses up "
                f"to which a candidate is plausible. Set {as_set(self.name, plausible=0.95)}, or to null."
            )
        self.criterion = criterion
        self.plausible = None if plausible is None else float(plausible)
        self.candidates = 1
        self.most_candidates = candidates
        self._learner: Learner | None = None
        self._bound = math.inf
        self._followed: Feedback | None = None

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"candidates": self.most_candidates, "criterion": self.criterion, "plausible": self.plausible}

    def follow(self, feedback: Feedback | None) -> None:
        """Takes the learner as it is for the next slot; without one nothing is ranked."""
        if feedback is self._followed:
            return
        learner = None if feedback is None or feedback.learner is None else feedback.learner()
        self._learner = learner
        self.candidates = 1 if self._learner is None else self.most_candidates
        losses = np.empty(0) if feedback is None else feedback.samples.get("loss", torch.empty(0)).numpy()
        losses = losses[np.isfinite(losses)]
        self._bound = math.inf
        if self.plausible is not None and len(losses):
            self._bound = max(LEAST_BOUND, float(np.quantile(losses, self.plausible)))
        self._followed = feedback  # last: after a failure the next call tries again, not with the learner before

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor | Verdict:
        """Which candidates are plausible; what the learner measured of them goes into their provenance."""
        if self._learner is None:
            return torch.ones(len(next(iter(samples.values()))), dtype=torch.bool)
        scores = self._scores(self._learner, samples, condition)
        return Verdict(~(scores["loss"] > self._bound), {f"learner_{name}": scores[name] for name in CRITERIA})

    def rank(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """How hard each candidate is, float (n,)."""
        assert self._learner is not None  # else there is one candidate
        value = self._scores(self._learner, samples, condition)[self.criterion]
        return torch.where(value.isfinite(), value, -math.inf)

    def _scores(
        self, learner: Learner, samples: Mapping[str, Tensor], condition: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        if LABEL not in condition:
            raise ConfigurationError(
                "gates.hard asks the learner about the class of a sample, and the data have no labels. Set "
                "gates.hard=false."
            )
        with torch.no_grad():
            logits = learner(learner.inputs(samples))
        return scores_of(logits, learner.columns[condition[LABEL]])
