"""Real training samples for a plan: which ones a slot's rows vary, edit, lie between, or are conditioned on."""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.derived import derive
from lightning_diffaug.conditions.planner import QuotaPlanner
from lightning_diffaug.errors import ConfigurationError, GeneratorError

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

log = logging.getLogger(__name__)

_WEIGHTS = (0.2, 0.8)  # interpolants nearer to an end are all but copies of it


class RealGuidedPlanner:
    """Quotas as `QuotaPlanner`, and real training samples for every row, chosen by (seed, slot, row) alone.

    Beside ``label`` a plan has ``source_index``, the row of the real sample in the snapshot, which provenance keeps,
    and ``start``, that sample, float32 (rows, *shape) in [-1, 1]: the fields that are to be made, joined along their
    channels. With source

    - ``"noise"``: there is no `start`; the sample is one of the row's class, for what is given of it.
    - ``"image"``: `start` is a sample of the row's class.
    - ``"interpolate"``: ``other`` (and ``other_index``) is a further sample of the class, and ``weight``, float32
      (rows,) in [.2, .8], says where between them the row lies. A class of one sample gives that sample twice.
    - ``"edit"``: `start` is a sample of any other class, which ``start_label`` names.

    What is given of the real sample stands under its own name: fields as they are (rows, *shape), in their own dtype,
    and what is derived of a field, float32 in [-1, 1]. With ``"edit"`` that is of a further sample (``given_index``) of
    the row's class, and ``start_<name>`` is that of `start`.

    Args:
        shares: As for `QuotaPlanner`. Classes without the samples that are needed get none.
        source: ``"noise"``, ``"image"``, ``"interpolate"`` or ``"edit"``.
        repaint: Share of the area in (0, 1) that is made anew: the plan then has ``mask``, float32 (rows, 1, …), which
            is 0 in a random rectangle (box) of this share and 1, kept, elsewhere. None: no mask.
        seed: Of the choices.
        given: Fields that are conditions, and not made.
        derived: Name → ``{of: field, how: one of derived.DERIVED, factor: …}``: conditions made of a field.

    Raises:
        ConfigurationError: The shares are impossible, or ``"edit"`` is asked for without labels.
    """

    SOURCES = ("noise", "image", "interpolate", "edit")

    def __init__(
        self,
        shares: Sequence[float] | None,
        source: str = "image",
        repaint: float | None = None,
        seed: int = 0,
        given: Sequence[str] = (),
        derived: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.shares = QuotaPlanner(shares).shares
        if self.shares is None and source == "edit":
            raise ConfigurationError(
                "source=edit turns samples of one class into another, and the data have no labels. Set "
                "generator.source to image, interpolate or noise."
            )
        if source not in self.SOURCES:
            raise ConfigurationError(f"source={source!r} is none of {', '.join(self.SOURCES)}. Set generator.source.")
        self.source = source
        self.repaint = repaint
        self.seed = seed
        self.given = list(given)
        self.derived = {name: dict(how) for name, how in (derived or {}).items()}
        self._data: Snapshot | None = None
        self._quotas = QuotaPlanner(self.shares)
        self._rows: list[Tensor] = []
        self._own: list[Tensor] = []

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
        self._data, labels, everything = snapshot, snapshot.labels, torch.arange(len(snapshot))
        if self.shares is None or labels is None:
            self._rows = self._own = [everything]
            return
        edit = self.source == "edit"
        self._own = [everything[labels == c] for c in range(len(self.shares))]
        self._rows = [everything[labels != c] for c in range(len(self.shares))] if edit else self._own
        # What is given is of the row's own class, whatever is edited.
        needed = [
            len(rows) > 0 and (len(own) > 0 or not (self.given or self.derived))
            for rows, own in zip(self._rows, self._own, strict=True)
        ]
        empty = [c for c, there in enumerate(needed) if not there and self.shares[c] > 0]
        if empty:
            log.warning("Classes %s have no real samples to start from, so none is made of them.", empty)
        self._quotas = QuotaPlanner([s if there else 0.0 for s, there in zip(self.shares, needed, strict=True)])

    def plan(self, slot: int, rows: int) -> dict[str, Any]:
        """See `Planner`, and above."""
        if self._data is None:
            raise GeneratorError("the planner has no training data. Call bind(snapshot) first.")
        plan: dict[str, Any] = dict(self._quotas.plan(slot, rows))
        classes = plan["label"].tolist() if "label" in plan else [0] * rows
        candidates = [self._rows[c] for c in classes]
        places = [int(self._draw(slot, row, 0) * len(of)) for row, of in enumerate(candidates)]
        index = torch.stack([of[place] for of, place in zip(candidates, places, strict=True)])
        plan["source_index"] = index
        if self.source != "noise":
            plan["start"] = self._samples(index)
        plan |= self._given(slot, classes, index)
        if self.source == "edit" and self._data.labels is not None:
            plan["start_label"] = self._data.labels[index]
        if self.source == "interpolate":
            # Any of the further ones: a step of 1 … n - 1 places, around the end.
            steps = [1 + int(self._draw(slot, row, 1) * (len(of) - 1)) for row, of in enumerate(candidates)]
            pairs = zip(candidates, places, steps, strict=True)
            other = torch.stack([of[(place + step) % len(of)] for of, place, step in pairs])
            low, high = _WEIGHTS
            weight = torch.tensor([low + (high - low) * self._draw(slot, row, 2) for row in range(rows)])
            plan |= {"other": self._samples(other), "other_index": other, "weight": weight}
        if self.repaint is not None:
            plan["mask"] = torch.stack([self._mask(slot, row, plan["start"].shape[2:]) for row in range(rows)])
        return plan

    def _draw(self, slot: int, row: int, what: int) -> float:
        """A number in [0, 1) that follows from its place alone, on any machine and with any version."""
        digest = hashlib.blake2b(struct.pack("<4q", self.seed, slot, row, what), digest_size=8, person=b"real").digest()
        return (int.from_bytes(digest, "little") >> 11) / 2**53

    def _samples(self, index: Tensor) -> Tensor:
        assert self._data is not None
        made = [field.name for field in self._data.spec.continuous if field.name not in self.given]
        return torch.cat([self._data.unit(name, index) for name in made], dim=1)

    def _given(self, slot: int, classes: Sequence[int], source: Tensor) -> dict[str, Tensor]:
        if not self.given and not self.derived:
            return {}
        if self.source != "edit":
            return self._of_rows(source)
        own = [self._own[c] for c in classes]
        index = torch.stack([rows[int(self._draw(slot, row, -1) * len(rows))] for row, rows in enumerate(own)])
        of_start = {f"start_{name}": value for name, value in self._of_rows(source).items()}
        return {**self._of_rows(index), **of_start, "given_index": index}

    def _of_rows(self, index: Tensor) -> dict[str, Tensor]:
        assert self._data is not None
        given = {name: self._data.raw(name, index) for name in self.given}
        for name, how in self.derived.items():
            given[name] = derive(self._data.unit(how["of"], index), how["how"], how["factor"])
        return given

    def _mask(self, slot: int, row: int, size: Sequence[int]) -> Tensor:
        assert self.repaint is not None
        mask, box, share = torch.ones(1, *size), [slice(None)], self.repaint
        for axis, length in enumerate(size):
            # Equal shares of the axes; the later ones make up for the rounding of the earlier.
            extent = max(1, round(length * share ** (1.0 / (len(size) - axis))))
            share = min(share * length / extent, 1.0)
            first = int(self._draw(slot, row, 3 + axis) * (length - extent + 1))
            box.append(slice(first, first + extent))
        mask[tuple(box)] = 0.0
        return mask
