"""What the pool repeats is counted after training, by the gates' thresholds, and never decides what is trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from audit_toys import KINDS, Module, Pictures, Repeats, kind_of, pictures, written
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler
from training_toys import Recorder, prefilled, trainer

import lightning_diffaug.real
import lightning_diffaug.start
from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.audit import repeated
from lightning_diffaug.errors import ConfigurationError

# nothing that is made is rejected, unless a test says so
NONE = {"copy": False, "duplicate": False}
Mixed = Callable[..., DiffAugDataModule]


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mixed:
    """A mix whose pool has its first four slots of 16; with reuse=inf that is the window."""
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1, 2, 3]))

    def make(real: Any = None, gates: Any = None, kinds: Any = KINDS, **settings: Any) -> DiffAugDataModule:
        real = Module() if real is None else real
        defaults: dict[str, Any] = {"refill": "none", "window": 64, "slot_size": 16, "reuse": float("inf")}
        path = written(Module(), tmp_path / "images.safetensors")
        gates = {**NONE, **(gates or {})}
        return DiffAugDataModule(
            real, Repeats(path, kinds), 0.5, gates=gates, cache_dir=tmp_path / "cache", **(defaults | settings)
        )

    return make


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., DiffAugDataModule]:
    def run(mix: DiffAugDataModule, *callbacks: Callback) -> DiffAugDataModule:
        trainer(tmp_path, 1, limit_val_batches=0, callbacks=list(callbacks)).fit(Recorder(), mix)
        return mix

    return run


def _kinds(mix: DiffAugDataModule, kinds: Any = KINDS) -> dict[str, int]:
    """What is in the pool, by the seeds of its rows."""
    pool = mix.pool
    assert pool is not None
    found = [kind_of(row["seed"], kinds) for k in pool.slots() for row in pool.read(k).rows]
    return {kind: found.count(kind) for kind in kinds}


def test_copies_are_counted_where_they_come_from_and_nowhere_else(mixed: Mixed, fit: Any) -> None:
    mix = fit(mixed())
    made = _kinds(mix)
    assert all(count > 5 for count in made.values())
    figures = mix.audit()
    assert figures["pool/audited"] == 64
    assert {kind: figures[f"pool/near_copies_{kind}"] for kind in ("train", "val", "test")} == {
        kind: made[kind] for kind in ("train", "val", "test")
    }
    assert figures["gates/contamination"] == 0


def test_nothing_of_validation_and_test_is_read_before_the_end_of_training(mixed: Mixed, fit: Any) -> None:
    real = Module()
    mix = fit(mixed(real))
    assert len(real.parts["val"].read) == len(real.parts["test"].read) == 0
    assert len(real.parts["train"].read) > 0
    mix.audit()
    assert len(real.parts["val"].read) == len(real.parts["test"].read) == 12


class Asks(Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.datamodule.audit()


def test_an_audit_while_training_is_refused(mixed: Mixed, fit: Any) -> None:
    with pytest.raises(RuntimeError, match="after training"):
        fit(mixed(), Asks())


def test_duplicates_are_counted_across_slots(mixed: Mixed, fit: Any) -> None:
    mix = fit(mixed(kinds=["test"]))
    pool = mix.pool
    assert pool is not None
    images = torch.cat([pool.read(k).fields["image"] for k in range(4)])
    distinct = len(images.flatten(1).unique(dim=0))
    assert distinct <= 24, "twelve images, mirrored and moved"
    assert mix.audit()["pool/near_duplicates"] == 64 - distinct
    assert fit(mixed(kinds=["fresh"])).audit()["pool/near_duplicates"] == 0


def test_an_earlier_sample_counts_and_a_later_or_the_same_does_not() -> None:
    x = torch.rand(150, 3, 4, generator=torch.Generator().manual_seed(0))
    assert repeated(x, 1e-3) == 0
    x[140], x[3] = x[2] + 1e-4, x[2]
    assert repeated(x, 1e-3) == 2
    assert repeated(x, 10.0) == 149


def test_the_number_looked_at_is_bounded_and_spread_over_the_slots(mixed: Mixed, fit: Any) -> None:
    mix = fit(mixed())
    figures = mix.audit(samples=32)
    assert figures["pool/audited"] == 32
    pool = mix.pool
    assert pool is not None
    first_and_last = [kind_of(row["seed"]) for k in (0, 3) for row in pool.read(k).rows]
    assert figures["pool/near_copies_test"] == first_and_last.count("test")


def test_thresholds_are_those_of_the_runs_own_gate(mixed: Mixed, fit: Any) -> None:
    """Copies that are mirrored are none to a gate that does not see through it."""
    mix = fit(mixed(gates={"copy": {"mirror": False, "ratio": 0.01}}, kinds=["test"]))
    pool = mix.pool
    assert pool is not None
    mirrored = sum(row["seed"] // 4 % 2 for k in range(4) for row in pool.read(k).rows)
    assert 0 < mirrored < 64
    assert mix.audit()["pool/near_copies_test"] == 64 - mirrored


def _stream() -> Any:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([])

    return DataLoader(Stream())


def _broken() -> Any:
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("loader", "why"),
    [
        (_broken, "the disk is gone"),
        (_stream, "stream"),
        (lambda: DataLoader(Pictures(pictures(4, 9, (1, 6, 6)))), "(1, 6, 6)"),
        (lambda: DataLoader([(normal, 0) for normal in pictures(4, 9).float()]), "float32"),
        (lambda: DataLoader([{"image": image} for image in pictures(4, 9)]), "has no '0'"),
        (lambda: 3, "int is no torch DataLoader"),
    ],
    ids=["raises", "stream", "other size", "other type", "other structure", "no loader"],
)
def test_what_cannot_be_read_is_absent_and_said_once(
    loader: Any, why: str, mixed: Mixed, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    real = Module()
    real.val_dataloader = loader  # type: ignore[method-assign]
    mix = fit(mixed(real))
    figures = mix.audit()
    assert "pool/near_copies_val" not in figures
    assert figures["pool/near_copies_test"] == _kinds(mix)["test"]
    said = [record.getMessage() for record in caplog.records if "near_copies" in record.getMessage()]
    assert len(said) == 1
    assert why in said[0]
    with pytest.raises(ConfigurationError, match=r"gates\.contamination"):
        fit(mixed(real, {"contamination": True}))


def test_a_module_without_validation_lacks_the_figure_quietly(
    mixed: Mixed, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class TrainAndTest(Module):
        pass

    real = TrainAndTest()
    real.val_dataloader = super(Module, real).val_dataloader  # type: ignore[method-assign]
    mix = mixed(real)
    with pytest.warns(UserWarning, match="no `val_dataloader`"):
        fit(mix)
    figures = mix.audit()
    assert "pool/near_copies_val" not in figures
    assert figures["pool/near_copies_test"] > 0
    assert not [r for r in caplog.records if "near_copies" in r.getMessage() and r.levelno > logging.INFO]


def test_held_out_samples_of_one_dataset_are_those_that_the_sampler_names(mixed: Mixed, fit: Any) -> None:
    """A validation part that is a sampler over all the data: the training images in it are not held out."""
    real = Module()
    every = Pictures(torch.cat([real.parts["train"].images, real.parts["val"].images]))
    real.val_dataloader = lambda: DataLoader(every, sampler=SubsetRandomSampler(range(24, 36)))  # type: ignore[method-assign]
    mix = fit(mixed(real))
    assert mix.audit()["pool/near_copies_val"] == _kinds(mix)["val"]


def test_the_gate_keeps_copies_of_held_out_images_out_and_the_run_says_so(mixed: Mixed, fit: Any) -> None:
    plain = fit(mixed())
    real = Module()
    mix = fit(mixed(real, {"contamination": True}, refill={"mode": "sync", "nice": 0}))  # through a real process
    assert len(real.parts["val"].read) == len(real.parts["test"].read) == 12
    made = _kinds(mix)
    assert (made["val"], made["test"]) == (0, 0)
    assert min(made["train"], made["fresh"]) > 5, "it is about held-out images alone"
    figures = mix.audit()
    assert figures["gates/contamination"] == 1
    assert (figures["pool/near_copies_val"], figures["pool/near_copies_test"]) == (0, 0)
    assert figures["pool/near_copies_train"] == made["train"]

    # It names another pool, and other held-out images yet another one.
    assert mix.pool.fingerprint != plain.pool.fingerprint
    other = Module()
    other.parts["test"] = Pictures(pictures(12, 77))
    assert fit(mixed(other, {"contamination": True})).pool.fingerprint != mix.pool.fingerprint


def test_a_run_without_synthetic_samples_has_all_figures(tmp_path: Path, fit: Any) -> None:
    mix = fit(DiffAugDataModule(Module(), synthetic_fraction=0, cache_dir=tmp_path))
    figures = mix.audit()
    assert set(figures.values()) == {0.0}
    assert {"pool/audited", "pool/near_duplicates", "pool/near_copies_test", "gates/contamination"} < set(figures)
    assert not mix.real.parts["test"].read


def test_training_data_that_can_no_longer_be_read_take_no_figures_with_them(
    mixed: Mixed, fit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mix = fit(mixed())

    def gone(self: Any) -> Any:
        raise OSError("stale file handle")

    monkeypatch.setattr(lightning_diffaug.real.RealTraining, "snapshot", gone)
    figures = mix.audit()
    assert figures["pool/audited"] == 0.0
    assert "pool/near_copies_train" not in figures
    assert "stale file handle" in caplog.text
