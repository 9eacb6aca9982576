"""A real sample's own field, which a generator is told, is not taken for what was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from training_toys import Noise, Recorder, trainer

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.pooled import field_of

SHAPES = {"image": (1, 6, 6), "sound": (1, 32)}


class Clips(Dataset[Any]):
    """Random images and sounds, no two alike."""

    def __init__(self, n: int, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.fields = {
            name: torch.randint(256, (n, *shape), dtype=torch.uint8, generator=rng) for name, shape in SHAPES.items()
        }
        self.targets = [i % 2 for i in range(n)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**{name: of[i] for name, of in self.fields.items()}, "label": self.targets[i]}


class Real(LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(Clips(24, 0), batch_size=8)

    def val_dataloader(self) -> Any:
        return DataLoader(Clips(12, 1), batch_size=8)

    def test_dataloader(self) -> Any:
        return DataLoader(Clips(12, 2), batch_size=8)


class Dubbed(Noise):
    """Makes one field and is told the other."""

    def __init__(self, made: str) -> None:
        super().__init__(SHAPES[made])
        self.made = made
        self.given = [name for name in SHAPES if name != made]

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Any:
        return {self.made: super().generate(condition, seeds)}


class Silent:
    """Makes nothing that could be compared: all tensors are real ones."""

    def __init__(self) -> None:
        self.given = list(SHAPES)

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Any:
        return {}


def _run(generator: Any, root: Path, **settings: Any) -> DiffAugDataModule:
    mixed = DiffAugDataModule(
        Real(), generator, 0.5, fields={"image": "image", "sound": "sound", "label": "label"},
        slot_size=16, window=32, cache_dir=root / "cache", **{"refill": "sync", **settings},
    )  # fmt: skip
    trainer(root, 1, limit_val_batches=0).fit(Recorder(), mixed)
    return mixed


@pytest.mark.parametrize("made", ["image", "sound"])
def test_default_gates_and_the_gates_by_name_judge_what_was_made(made: str, tmp_path: Path) -> None:
    gates = {"contamination": True, "class": {"confidence": 0.0, "top_k": 2, "fit": {"steps": 3}}}
    mixed = _run(Dubbed(made), tmp_path, gates=gates)
    pool, figures = mixed.pool, mixed.audit()
    assert pool is not None
    assert [pool.read(k).n for k in pool.slots()] == [16] * len(pool.slots())
    assert [figures[f"pool/near_copies_{part}"] for part in ("train", "val", "test")] == [0.0] * 3
    assert figures["pool/near_duplicates"] == 0.0
    given = next(name for name in SHAPES if name != made)
    real = {bytes(one.numpy()) for one in Clips(24, 0).fields[given]}
    stored: Tensor = pool.read(0).fields[given]
    assert {bytes(one.numpy()) for one in stored} <= real
    looked_at = {gate["name"]["field"] for gate in pool.header.parts["gates"] if "field" in gate["name"]}
    assert looked_at == ({None} if made == "image" else {"sound"})  # by default the image: names stay
    assert field_of(pool).name == made


def test_a_field_that_the_user_names_is_compared_though_it_is_given(tmp_path: Path) -> None:
    mixed = _run(Dubbed("sound"), tmp_path, gates={"copy": {"field": "image"}}, when_short="real", wait_timeout=1.0,
                 refill={"mode": "sync", "min_acceptance": 0.0})  # fmt: skip
    assert mixed.pool is not None
    assert sum(mixed.pool.read(k).n for k in mixed.pool.slots()) == 0


def test_where_all_that_could_be_compared_is_given_nothing_is(tmp_path: Path) -> None:
    mixed = _run(Silent(), tmp_path)
    assert mixed.pool is not None
    assert mixed.pool.read(0).n == 16
    assert set(mixed.audit()) == {"pool/audited", "gates/contamination"}
    with pytest.raises(ConfigurationError, match=r"gates\.contamination=false"):
        _run(Silent(), tmp_path, gates={"contamination": True})
