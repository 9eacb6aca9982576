"""What the wrapped loader says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler
from training_toys import Images

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.loader_facts import loader_facts


def _collate(samples: list[Any]) -> list[Any]:
    return samples


def test_facts_are_read_off_the_loader() -> None:
    data = Images()
    facts = loader_facts(
        DataLoader(data, batch_size=5, shuffle=True, drop_last=True, collate_fn=_collate, num_workers=1, timeout=9)
    )
    assert facts.dataset is data
    assert (facts.batch_size, facts.drop_last, facts.shuffle, facts.collate_fn) == (5, True, True, _collate)
    assert (facts.options["num_workers"], facts.options["timeout"]) == (1, 9)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_distributed_sampler_tells_whether_to_shuffle(shuffle: bool) -> None:
    sampler = DistributedSampler(Images(), num_replicas=2, rank=1, shuffle=shuffle)
    facts = loader_facts(DataLoader(Images(), batch_size=2, sampler=sampler))
    assert facts.shuffle is shuffle
    assert len(facts.dataset) == 24  # type: ignore[arg-type] # the mix itself shares the draws out


@pytest.mark.parametrize("options", [{"replacement": True}, {"num_samples": 5}])
def test_a_random_sampler_with_settings_of_its_own_is_refused(options: dict[str, Any]) -> None:
    loader = DataLoader(Images(), batch_size=2, sampler=RandomSampler(Images(), **options))
    with pytest.raises(ConfigurationError, match=r"RandomSampler(.|\n)*shuffle=True"):
        loader_facts(loader)
