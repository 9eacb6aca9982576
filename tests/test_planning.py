"""What the pool holds is what `data.planner` and `data.text` say, from the setting to the slots on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_toys import Images, Noise, RealModule

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.pool import Shard

LABELS = [0] * 20 + [1] * 2 + [2] * 8 + [3] * 14


def _slots(root: Path, real: Any = None, generator: Any = None, window: int = 40, **settings: Any) -> list[Shard]:
    """The slots that a short run has made."""
    mixed = DiffAugDataModule(
        RealModule(Images(labels=LABELS)) if real is None else real,
        Noise() if generator is None else generator,
        **{"synthetic_fraction": 0.5, "refill": "sync", "slot_size": 10, "cache_dir": root, **settings},
        window=window,
    )
    try:
        next(iter(mixed.train_dataloader()))
        assert mixed.pool is not None
        return [mixed.pool.read(slot) for slot in range(window // 10)]
    finally:
        mixed.close()


def _classes(slots: list[Shard]) -> list[int]:
    assert all(slot.n == 10 for slot in slots)
    labels = np.concatenate([slot.fields["label"].numpy() for slot in slots])
    counts: list[int] = np.bincount(labels, minlength=4).tolist()
    return counts


@pytest.mark.parametrize(
    ("planner", "expected"),
    [
        ({"fill": 12}, [0, 10 / 14, 4 / 14, 0]),
        ({"fill": 12, "uniform": 0.4}, [0.1, 0.6 * 10 / 14 + 0.1, 0.6 * 4 / 14 + 0.1, 0.1]),
        ({"temperature": 2}, [20**0.5, 2**0.5, 8**0.5, 14**0.5]),
        ({"temperature": "inf"}, [1, 1, 1, 1]),
        ({"shares": {"1": 0.75, "3": 0.25}}, [0, 3, 0, 1]),
        ({"1": 3, "3": 1}, [0, 3, 0, 1]),
        ("uniform", [1, 1, 1, 1]),
        ("as_real", [20, 2, 8, 14]),
    ],
)
def test_the_pools_class_histogram_is_what_the_plan_says(planner: Any, expected: list[float], tmp_path: Path) -> None:
    wanted = 80 * np.array(expected) / sum(expected)
    found = _classes(_slots(tmp_path, planner=planner, window=80))
    assert np.abs(found - wanted).max() < 2, (found, wanted)  # a slot rounds; eight of them do not add up
    assert all(made == 0 for made, share in zip(found, expected, strict=True) if share == 0)


def test_quotas_depend_on_data_and_allocation_and_never_on_the_fraction(tmp_path: Path) -> None:
    found = [
        _classes(_slots(tmp_path / str(fraction), planner={"fill": 12, "uniform": 0.1}, synthetic_fraction=fraction))
        for fraction in (0.1, 0.9)
    ]
    assert found[0] == found[1]


def test_a_rule_that_gives_nothing_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.planner\.fill=2: no class lacks anything"):
        _slots(tmp_path, planner={"fill": 2})
    with pytest.raises(ConfigurationError, match=r"data\.planner names the class 'bird'"):
        _slots(tmp_path, planner={"bird": 2})
    with pytest.raises(ConfigurationError, match=r"data\.planner='evenly' is none of auto"):
        _slots(tmp_path, planner="evenly")
    assert not (tmp_path / "pools").exists()
