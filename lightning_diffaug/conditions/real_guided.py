"""Real training samples for a plan: which ones a slot's rows vary, edit, lie between, or are conditioned on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.conditions.choice import Choice, Classes
from lightning_diffaug.conditions.derived import derive
from lightning_diffaug.conditions.draws import draw
from lightning_diffaug.conditions.feedback import Feedback
from lightning_diffaug.conditions.multilabel import MADE_FOR, candidates, label_sets
from lightning_diffaug.conditions.pairs import Starts, soft_label
from lightning_diffaug.conditions.planner import QuotaPlanner
from lightning_diffaug.conditions.real_guided_settings import SOURCES, RealGuided, check_planner
from lightning_diffaug.conditions.repaint import box_mask
from lightning_diffaug.conditions.strength import STRENGTH, Strengths
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.spec import SOFT_LABEL

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

log = logging.getLogger(__name__)

_WEIGHTS = (0.2, 0.8)  # interpolants nearer to an end are all but copies of it
_GIVEN, _STRENGTH = -1, -2  # of the choices of a row; 0 is the sample, 1 and 2 the other and the weight, 3 … the box


class RealGuidedPlanner:
    """Quotas as `QuotaPlanner`, and real training samples for every row.

    All choices follow from (seed, slot, row), the quotas, and the learner's feedback where it is followed; never from
    what a pool holds. Beside ``label`` a plan has ``source_index``, the row of the real sample in the snapshot, which
    provenance keeps, and ``start``, that sample, float32 (rows, *shape) in [-1, 1]: the fields that are to be made,
    joined along their channels. With source

    - ``"noise"``: there is no `start`; the sample is one of the row's class, for what is given of it.
    - ``"image"``: `start` is a sample of the row's class; across classes (`pairs`) of the class ``start_label``.
    - ``"interpolate"``: ``other`` (and ``other_index``) is a further sample of the class, and ``weight``, float32
      (rows,) in [.2, .8], says where between them the row lies. A class of one sample gives that sample twice.
    - ``"edit"``: `start` is a sample of any other class, which ``start_label`` names.

    Where the strength varies, ``strength``, float64 (rows,), is each row's own. With a `gamma` there is ``soft_label``,
    float32 (rows, C); see `pairs.soft_label`.

    What is given of the real sample stands under its own name: fields as they are (rows, *shape), in their own dtype,
    and what is derived of a field, float32 in [-1, 1]. Across classes that is of a further sample (``given_index``) of
    the row's class, and ``start_<name>`` is that of `start`.

    Args:
        shares: As for `QuotaPlanner`. Classes without the samples that are needed get none.
        source: ``"noise"``, ``"image"``, ``"interpolate"`` or ``"edit"``.
        repaint: Share of the area in (0, 1) that is made anew: the plan then has ``mask``, float32 (rows, 1, …), which
            is 0 in a random rectangle (box) of this share and 1, kept, elsewhere. None: no mask.
        seed: Of the choices.
        given: Fields that are conditions, and not made.
        derived: Name → ``{of: field, how: one of derived.DERIVED, factor: …}``: conditions made of a field.
        strength: How far starts are noised: a number, a list or a range; see `Strengths`. None: it is not known.
        choose: As the next three, see `RealGuided`.
        pairs: Of which class starts are.
        cross: How classes of starts are weighted.
        gamma: Of soft labels.
        labels_in: Field with several labels a sample (see `multilabel.label_sets`), in place of one class; the shares
            are then those of the rows that are made for each, which ``made_for`` names in place of ``label``.
        unwanted: Labels that samples shall have as few of as can be.

    Raises:
        ConfigurationError: The shares are impossible, or the settings do not go together.
    """

    SOURCES = SOURCES

    def __init__(
        self,
        shares: Sequence[float] | None,
        source: str = "image",
        repaint: float | None = None,
        seed: int = 0,
        given: Sequence[str] = (),
        derived: Mapping[str, Mapping[str, Any]] | None = None,
        strength: Any = None,
        choose: str = "uniform",
        pairs: str | None = None,
        cross: str = "common",
        gamma: float | None = None,
        labels_in: str | None = None,
        unwanted: Sequence[int] = (),
    ) -> None:
        settings = RealGuided(choose, pairs, cross, gamma)
        self.shares = QuotaPlanner(shares).shares
        self._strengths = None if strength is None else Strengths.of(strength)
        check_planner(settings, source, self.shares is not None and labels_in is None, repaint, self._strengths)
        self.source = source
        self.repaint = repaint
        self.seed = seed
        self.given = list(given)
        self.derived = {name: dict(how) for name, how in (derived or {}).items()}
        self.strength = None if self._strengths is None else self._strengths.plain
        self.choose = choose
        self.pairs = settings.pairs_of(source)
        self.cross = cross if self.pairs != "intra" else RealGuided().cross  # one name for one choice
        self.gamma = gamma
        self.labels_in = labels_in
        self.unwanted = list(unwanted)
        self._data: Snapshot | None = None
        self._quotas = QuotaPlanner(self.shares)
        self._starts = Starts(None, 0, None, "intra", cross)
        self._choice = Choice(choose, seed, 0, self._classes_of)

    def bind(self, snapshot: Snapshot) -> None:
        """Gives it the training data, whose hash is then part of the pool's name.

        Raises:
            ConfigurationError: No class has samples to start from, or a field that is given is not in the data.
        """
        for name in (*self.given, *(how["of"] for how in self.derived.values())):
            if name not in snapshot.spec:
                raise ConfigurationError(
                    f"the condition {name!r} is no field of the samples, which have "
                    f"{[field.name for field in snapshot.spec.fields]}. Name it in data.fields, or leave it out of "
                    "generator.conditions."
                )
        self._data, n = snapshot, len(snapshot)
        classes = None if self.shares is None else len(self.shares)
        labels = snapshot.labels
        if self.labels_in is not None:
            labels = candidates(label_sets(snapshot.raw(self.labels_in), self.labels_in), self.unwanted)
        self._starts = Starts(labels, n, classes, self.pairs, self.cross)
        self._choice = Choice(self.choose, self.seed, n, self._classes_of)
        if self.shares is None or labels is None:
            return
        # What is given is of the row's own class, whatever is started from.
        needs_own = bool(self.given or self.derived)
        there = [
            bool(self._starts.of(c)) and (len(self._starts.own(c)) > 0 or not needs_own)
            for c in range(len(self.shares))
        ]
        empty = [c for c, found in enumerate(there) if not found and self.shares[c] > 0]
        if empty:
            log.warning("Classes %s have no real samples to start from, so none is made of them.", empty)
        self._quotas = QuotaPlanner([s if found else 0.0 for s, found in zip(self.shares, there, strict=True)])

    def follow(self, feedback: Feedback | None) -> None:
        """Takes what the learner said of the training data, for the slots that are planned next."""
        self._quotas.follow(feedback)
        self._choice.follow(feedback)

    def plan(self, slot: int, rows: int) -> dict[str, Any]:
        """See `Planner`, and above."""
        if self._data is None:
            raise GeneratorError("the planner has no training data. Call bind(snapshot) first.")
        plan: dict[str, Any] = dict(self._quotas.plan(slot, rows))
        classes = plan["label"].tolist() if "label" in plan else [0] * rows
        if self.labels_in is not None:
            plan[MADE_FOR] = plan.pop("label")
        index = self._choice(slot, classes, self._starts.of)
        plan["source_index"] = index
        if self.source != "noise":
            plan["start"] = self._samples(index)
        plan |= self._given(slot, classes, index)
        if self.pairs != "intra" and self._data.labels is not None:
            plan["start_label"] = self._data.labels[index]
        if self.source == "interpolate":
            plan |= self._other(slot, classes, index)
        if self.repaint is not None:
            size = plan["start"].shape[2:]
            plan["mask"] = torch.stack([box_mask(size, self.repaint, self.seed, slot, row) for row in range(rows)])
        return plan | self._strength(slot, plan, rows)

    def _strength(self, slot: int, plan: Mapping[str, Any], rows: int) -> dict[str, Tensor]:
        if self._strengths is None:
            return {}
        each = [self._strengths.at(draw(self.seed, slot, row, _STRENGTH)) for row in range(rows)]
        strength, found = torch.tensor(each, dtype=torch.float64), {}
        if self._strengths.varies:
            found[STRENGTH] = strength
        if self.gamma is not None and self.shares is not None:
            found[SOFT_LABEL] = soft_label(
                plan["label"], plan["start_label"], strength, self.gamma, len(self.shares)
            )  # fmt: skip
        return found

    def _other(self, slot: int, classes: Sequence[int], index: Tensor) -> dict[str, Tensor]:
        """A further sample of each row's class, and where the row lies between the two."""
        other = []
        for row, (c, first) in enumerate(zip(classes, index, strict=True)):
            own = self._starts.own(c)
            place = int(torch.searchsorted(own, first))
            # Any of the further ones: a step of 1 … n - 1 places, around the end.
            step = 1 + int(draw(self.seed, slot, row, 1) * (len(own) - 1))
            other.append(own[(place + step) % len(own)])
        low, high = _WEIGHTS
        weight = [low + (high - low) * draw(self.seed, slot, row, 2) for row in range(len(classes))]
        return {
            "other": self._samples(torch.stack(other)),
            "other_index": torch.stack(other),
            "weight": torch.tensor(weight),
        }

    def _classes_of(self, slot: int, rows: int) -> Classes:
        label = self._quotas.plan(slot, rows).get("label")
        return np.zeros(rows, np.int64) if label is None else label.numpy()

    def _samples(self, index: Tensor) -> Tensor:
        assert self._data is not None
        made = [field.name for field in self._data.spec.continuous if field.name not in self.given]
        return torch.cat([self._data.unit(name, index) for name in made], dim=1)

    def _given(self, slot: int, classes: Sequence[int], source: Tensor) -> dict[str, Tensor]:
        if not self.given and not self.derived:
            return {}
        if self.pairs == "intra":
            return self._of_rows(source)
        own = [self._starts.own(c) for c in classes]
        places = [int(draw(self.seed, slot, row, _GIVEN) * len(rows)) for row, rows in enumerate(own)]
        index = torch.stack([rows[place] for rows, place in zip(own, places, strict=True)])
        of_start = {f"start_{name}": value for name, value in self._of_rows(source).items()}
        return {**self._of_rows(index), **of_start, "given_index": index}

    def _of_rows(self, index: Tensor) -> dict[str, Tensor]:
        assert self._data is not None
        given = {name: self._data.raw(name, index) for name in self.given}
        for name, how in self.derived.items():
            given[name] = derive(self._data.unit(how["of"], index), how["how"], how["factor"])
        return given
