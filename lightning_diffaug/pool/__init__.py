"""The pool: an append-only log of slots on disk, and the window of it that an epoch sees."""

from __future__ import annotations

from lightning_diffaug.pool.epoch_cache import EpochCache, UnavailableSlotsError
from lightning_diffaug.pool.fingerprint import fingerprint, tensors_digest
from lightning_diffaug.pool.header import PoolHeader
from lightning_diffaug.pool.lease import Lease, LeaseInfo
from lightning_diffaug.pool.pool import PoolInfo, SyntheticPool
from lightning_diffaug.pool.segment import Segment, open_segment
from lightning_diffaug.pool.shard import FORMAT_VERSION, Shard
from lightning_diffaug.pool.window import capacity_slots, check_reuse, first_slot, newest_window, window_slots

__all__ = [
    "FORMAT_VERSION",
    "EpochCache",
    "Lease",
    "LeaseInfo",
    "PoolHeader",
    "PoolInfo",
    "Segment",
    "Shard",
    "SyntheticPool",
    "UnavailableSlotsError",
    "capacity_slots",
    "check_reuse",
    "fingerprint",
    "first_slot",
    "newest_window",
    "open_segment",
    "tensors_digest",
    "window_slots",
]
