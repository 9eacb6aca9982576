"""The few things that ranks of a distributed run must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of a run.

    Attributes:
        rank: Global rank, from 0.
        local_rank: Rank on this node; 0 leads the node.
        world_size: Ranks in all.
        strategy: Lightning's strategy, which broadcasts; None for a single process.
        gpus: Indices of the GPUs on this node that training computes on, this process's own first.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    strategy: Any = None
    gpus: tuple[int, ...] = ()

    @classmethod
    def of(cls, trainer: Any) -> Ranks:
        """The ranks of a trainer; a single one where there is none."""
        if trainer is None:
            return cls()
        own = trainer.strategy.root_device
        gpus: tuple[int, ...] = ()
        if own.type == "cuda":
            first = own.index or 0
            gpus = (first, *(index for index in trainer.device_ids if index != first))
        if trainer.world_size == 1:
            return cls(gpus=gpus)
        return cls(trainer.global_rank, trainer.local_rank, trainer.world_size, trainer.strategy, gpus)

    @property
    def leads(self) -> bool:
        """Whether this process decides for all."""
        return self.rank == 0

    @property
    def leads_node(self) -> bool:
        """Whether this process acts for its node (the refill process, the epoch cache)."""
        return self.local_rank == 0

    def agree(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        return value if self.strategy is None else self.strategy.broadcast(value, src=0)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in order, on every rank."""
        if self.strategy is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Waits until every rank is here."""
        if self.strategy is not None:
            self.strategy.barrier()
