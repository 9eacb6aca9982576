"""Whether so much of what is made is let in that going on is worth its price."""

from __future__ import annotations

from typing import Any

from lightning_diffaug.errors import DamagedShardError, TooFewAcceptedError
from lightning_diffaug.gates.remedies import advice, shares
from lightning_diffaug.pool import SyntheticPool

SLOTS = 4
"""Slots by which the rate is judged: one bad slot among them is none of the generator's fault."""


class Acceptance:
    """Stops the filling when the gates let too little pass.

    A slot is not begun if of the samples made for the `SLOTS` slots before it, of whichever run, less than `least`
    passed the gates. As these follow from the recipe alone, equal runs stop at the same slot, resumed or not. A sample
    that passed and was not chosen among a row's candidates counts as accepted.

    Args:
        pool: Whose slots are judged.
        least: Smallest share in [0, 1); 0 never stops.
    """

    def __init__(self, pool: SyntheticPool, least: float) -> None:
        self._pool = pool
        self._least = least
        self._made: dict[int, dict[str, Any]] = {}

    def made(self, slot: int, made: dict[str, Any]) -> None:
        """Learns what a slot's making gave (`Shard.made`), which spares a look at its file."""
        self._made[slot] = made

    def check(self, slot: int) -> None:
        """Looks at the slots before `slot`.

        Raises:
            TooFewAcceptedError: Too little of them passed the gates; the text says which and what to change.
        """
        before = range(slot - SLOTS, slot)
        if not self._least or before.start < 0:
            return
        found = [self._found(k) for k in before]
        self._made = {k: made for k, made in self._made.items() if k >= before.start}
        whole = [made for made in found if made is not None]
        generated = sum(made.get("generated", 0) for made in whole)
        passed = sum(made.get("passed", made.get("generated", 0)) for made in whole)
        if len(whole) < SLOTS or generated < SLOTS * self._pool.header.slot_size or passed >= self._least * generated:
            return
        rejections: dict[str, int] = {}
        for made in whole:
            for reason, count in made.get("rejections", {}).items():
                rejections[reason] = rejections.get(reason, 0) + count
        raise TooFewAcceptedError(
            f"of the {generated} samples made for slots {before.start} to {slot - 1}, {passed} passed the gates, which "
            f"is below refill.min_acceptance={self._least:g}, so no more are made. Rejected were "
            f"{shares(rejections, generated)}. {advice(rejections)} "
            "data.keep_rejected=8 keeps some for a look (diffaug pool grid <pool> --rejected); refill.min_acceptance=0 "
            "goes on whatever is rejected."
        )

    def _found(self, slot: int) -> dict[str, Any] | None:
        if slot not in self._made:
            try:
                self._made[slot] = self._pool.summary(slot).made
            except (FileNotFoundError, DamagedShardError):
                return None
        return self._made[slot]
