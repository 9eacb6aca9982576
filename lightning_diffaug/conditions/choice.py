"""Which real sample each row of a slot varies: any, the one that was varied least, or one that is still learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_diffaug.conditions.draws import draw, permutation
from lightning_diffaug.conditions.feedback import Feedback
from lightning_diffaug.errors import GeneratorError

CHOICES = ("uniform", "least_augmented", "misclassified")
FLOOR = 0.1
"""Share of the draws of ``misclassified`` in which all samples are alike, so that each still occurs."""

Classes = NDArray[np.int64]


class Choice:
    """Chooses among groups of real samples, each group as likely.

    Args:
        how: ``"uniform"``; ``"least_augmented"``: the groups, and the samples in them, in random orders, each gone
            through before it begins anew, so that over the slots from 0 on all are varied equally often, but for one
            time, as long as the quotas stay: where these follow feedback, the earlier slots are counted by the newest
            ones, whatever they held, and a sample may be varied again before another; ``"misclassified"``: in
            proportion to the learner's loss on each, over a `FLOOR`; without feedback as uniform.
        seed: Of the choices.
        n: Real samples.
        classes_of: Slot and rows → class of each row, int64 (rows,): what the earlier slots held.
    """

    def __init__(self, how: str, seed: int, n: int, classes_of: Callable[[int, int], Classes]) -> None:
        self._how = how
        self._seed = seed
        self._n = n
        self._classes_of = classes_of
        self._counted: tuple[int, int, Classes] = (0, 0, np.zeros(0, np.int64))
        self._weights: Tensor | None = None
        self._followed: int | None = None

    def follow(self, feedback: Feedback | None) -> None:
        """Takes what the learner said; slots are planned by the last that it is given.

        Raises:
            GeneratorError: It is not of these training data.
        """
        followed = None if feedback is None else feedback.from_slot
        if followed != self._followed:  # quotas may follow it too
            self._followed, self._counted = followed, (0, 0, np.zeros(0, np.int64))
        self._weights = None if feedback is None else _weights(feedback, self._n)

    def __call__(self, slot: int, classes: Sequence[int], groups: Callable[[int], list[Tensor]]) -> Tensor:
        """The real sample of each row, int64 (rows,).

        Args:
            slot: Slot number.
            classes: Class of each row.
            groups: Class → groups of real samples, none of them empty.
        """
        known = {c: groups(c) for c in set(classes)}
        before = self._before(slot, classes) if self._how == "least_augmented" else []
        chosen = []
        for row, c in enumerate(classes):
            if self._how == "least_augmented":
                chosen.append(self._next(c, known[c], before[row]))
                continue
            place = draw(self._seed, slot, row, 0) * len(known[c])
            members = known[c][int(place)]
            chosen.append(members[self._within(members, place % 1.0)])
        return torch.stack(chosen)

    def _within(self, members: Tensor, u: float) -> int:
        if self._how != "misclassified" or self._weights is None:
            return int(u * len(members))
        loss = self._weights[members]
        total = loss.sum()
        share = loss / total if total > 0 else torch.full_like(loss, 1 / len(loss))
        ends = ((1 - FLOOR) * share + FLOOR / len(loss)).cumsum(0)
        return min(int(torch.searchsorted(ends, u * float(ends[-1]), right=True)), len(members) - 1)

    def _next(self, c: int, groups: list[Tensor], count: int) -> Tensor:
        turn, place = divmod(count, len(groups))
        group = int(permutation(self._seed, c, turn, len(groups))[place])
        members = groups[group]
        turn, place = divmod(turn, len(members))
        which = (c + 1) * 2**32 + group  # the orders of a class's groups, and of the groups, are not the same ones
        return members[int(permutation(self._seed, which, turn, len(members))[place])]

    def _before(self, slot: int, classes: Sequence[int]) -> list[int]:
        """How many rows of its class come before each row, had all slots followed the quotas that are followed now.

        So a slot's plan follows from what it is planned by alone, and not from what earlier ones were planned by.
        """
        rows, highest = len(classes), max(classes, default=0) + 1
        done, size, counts = self._counted
        if done > slot or size != rows:
            done, counts = 0, np.zeros(0, np.int64)
        for earlier in range(done, slot):
            more = np.bincount(self._classes_of(earlier, rows), minlength=len(counts))
            more[: len(counts)] += counts
            counts = more
        self._counted = (slot, rows, counts)
        running = np.zeros(max(highest, len(counts)), np.int64)
        running[: len(counts)] = counts
        found = []
        for c in classes:
            found.append(int(running[c]))
            running[c] += 1
        return found


def _weights(feedback: Feedback, n: int) -> Tensor | None:
    """The learner's loss on each real sample, float64 (n,); where it is not known, the mean of the others."""
    loss = feedback.samples.get("loss", feedback.samples.get("error"))
    if loss is None:
        return None
    if tuple(loss.shape) != (n,):
        raise GeneratorError(
            f"the learner's feedback is on {tuple(loss.shape)} samples, and the training data have {n}: it is of other "
            "data. Set data.real_guided.choose=uniform, or start the run anew."
        )
    loss = loss.double().clamp_min(0.0)
    loss = torch.where(loss.isfinite(), loss, torch.nan)
    mean = loss.nanmean()
    return torch.where(loss.isnan(), mean, loss) if bool(mean.isfinite()) else None
