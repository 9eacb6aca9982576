"""Keeps some of the samples that a slot's making rejected."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import PoolError
from lightning_diffaug.pool import Shard, SyntheticPool

log = logging.getLogger(__name__)


class KeepRejected:
    """Takes a slot's rejected samples (`fill_slot`'s ``aside``) and puts them beside the pool.

    Args:
        pool: Where to.
        slot: Whose making rejected them.
        most: How many of each reason are kept.
    """

    def __init__(self, pool: SyntheticPool, slot: int, most: int) -> None:
        self._pool = pool
        self._slot = slot
        self._most = most
        self._kept: dict[str, list[tuple[dict[str, Any], dict[str, Tensor]]]] = {}

    def __call__(self, provenance: dict[str, Any], fields: dict[str, Tensor]) -> None:
        """Takes a sample: its provenance, with its ``reason``, and its fields as they would have been stored."""
        of_reason = self._kept.setdefault(provenance["reason"], [])
        if len(of_reason) < self._most:
            of_reason.append((provenance, fields))

    def publish(self) -> None:
        """Writes them; a folder that cannot be written costs them alone, and a word."""
        kept = [one for of_reason in self._kept.values() for one in of_reason]
        if not kept:
            return
        stacked = {name: torch.stack([fields[name] for _, fields in kept]) for name in kept[0][1]}
        try:
            self._pool.rejected.put(self._slot, Shard(stacked, {}, [provenance for provenance, _ in kept]))
        except PoolError as error:
            log.warning("the rejected samples of slot %d are not kept: %s", self._slot, error)
