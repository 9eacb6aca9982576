"""What the wrapped module's own train loader says about batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from lightning_diffaug.errors import ConfigurationError

_LOADER_OPTIONS = (
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
)


@dataclass(frozen=True)
class LoaderFacts:
    """What the wrapped train loader says about batches.

    Attributes:
        dataset: The real training data, as the loader had it.
        batch_size: Samples a batch, of one rank.
        drop_last: Whether an incomplete last batch is dropped.
        shuffle: Whether real samples come in a shuffled order.
        collate_fn: Makes a batch of a list of samples.
        options: Further arguments of `torch.utils.data.DataLoader` (workers, pinning …).
    """

    dataset: Dataset[Any]
    batch_size: int
    drop_last: bool
    shuffle: bool
    collate_fn: Callable[[list[Any]], Any]
    options: dict[str, Any]


def loader_facts(loader: Any) -> LoaderFacts:
    """Reads the facts off the wrapped module's own train loader.

    Raises:
        ConfigurationError: It is not one DataLoader, or it batches in a way that a mix cannot keep.
    """
    if not isinstance(loader, DataLoader):
        raise ConfigurationError(
            f"train_dataloader() of the wrapped DataModule returns a {type(loader).__name__}: the mix is made for one "
            "torch DataLoader, because the share of each batch would be undefined over several. Wrap one loader's "
            "DataModule (real=...), and combine loaders outside."
        )
    if loader.batch_size is None:
        if loader.batch_sampler is None:
            raise ConfigurationError(
                "the wrapped train loader has batch_size=None (its dataset makes whole batches), so single samples "
                "cannot be mixed. Give real=<DataModule whose dataset yields single samples>."
            )
        raise ConfigurationError(
            f"the wrapped train loader has a batch sampler of its own ({type(loader.batch_sampler).__name__}), which "
            "the mix would override. Let it use batch_size= and shuffle=; for class-balanced batches set "
            "data.balance=classes."
        )
    if not isinstance(loader.batch_sampler, (BatchSampler, type(None))):
        raise ConfigurationError(f"batch sampler {type(loader.batch_sampler).__name__} of real= cannot be mixed.")
    dataset, shuffle = loader.dataset, True
    if isinstance(dataset, IterableDataset) or isinstance(loader.sampler, SequentialSampler):
        shuffle = False
    elif isinstance(loader.sampler, DistributedSampler):
        shuffle = loader.sampler.shuffle
    elif type(loader.sampler) is SubsetRandomSampler:
        dataset = Subset(dataset, list(loader.sampler.indices))
    elif type(loader.sampler) is not RandomSampler or loader.sampler.replacement or loader.sampler._num_samples:
        raise ConfigurationError(
            f"the wrapped train loader draws by {type(loader.sampler).__name__} with settings of its own, which the "
            "mix would override without a word. Use shuffle=True there; for class-balanced draws set "
            "data.balance=classes."
        )
    options = {name: getattr(loader, name) for name in _LOADER_OPTIONS}
    options["pin_memory"] &= torch.accelerator.is_available()  # else torch warns, and pins nothing
    return LoaderFacts(dataset, loader.batch_size, loader.drop_last, shuffle, loader.collate_fn, options)
