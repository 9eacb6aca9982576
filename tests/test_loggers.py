from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_diffaug.loggers import close, log_final

FIGURES = {"test/acc": 0.75, "cost/fit_seconds": 12.5, "train/steps": 4.0}


class Learner(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = (self.weight - batch[0]).square().mean()
        self.log("train/loss", loss)
        return loss

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/acc", 0.75)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def _ran(folder: Path, *loggers: Any) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder, logger=list(loggers), accelerator="cpu", max_epochs=1, log_every_n_steps=1,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(TensorDataset(torch.ones(4, 1)))
    learner = Learner()
    trainer.fit(learner, loader)
    trainer.test(learner, loader, verbose=False)
    return trainer


def test_final_figures_reach_csv_at_the_last_step(tmp_path: Path) -> None:
    log_final(_ran(tmp_path, CSVLogger(tmp_path, name="csv", version="")), FIGURES)
    with (tmp_path / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = [row for row in rows if row["cost/fit_seconds"]]
    assert (row["step"], row["test/acc"], row["cost/fit_seconds"]) == ("4", "0.75", "12.5")
    assert any(row["train/loss"] for row in rows), "what was logged before is still there"


def test_final_figures_reach_tensorboard_at_the_last_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_final(_ran(tmp_path, TensorBoardLogger(tmp_path, name="tb", version="")), FIGURES)
    read = EventAccumulator(str(tmp_path / "tb"))
    read.Reload()
    for key, value in FIGURES.items():
        assert [(event.step, event.value) for event in read.Scalars(key)][-1] == (4, value)


class Refusing(CSVLogger):
    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        if "cost/fit_seconds" in metrics:
            raise ConnectionError("the server is gone")


def test_a_logger_that_refuses_is_a_warning_and_the_others_get_theirs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = _ran(tmp_path, Refusing(tmp_path, name="one"), CSVLogger(tmp_path, name="two", version=""))
    with caplog.at_level(logging.WARNING, "lightning_diffaug"):
        log_final(trainer, FIGURES)
    assert "Refusing (ConnectionError: the server is gone)" in caplog.text
    assert "12.5" in (tmp_path / "two" / "metrics.csv").read_text()


def test_without_loggers_nothing_happens(tmp_path: Path) -> None:
    log_final(_ran(tmp_path), FIGURES)
    assert not list(tmp_path.iterdir())


def test_each_run_of_a_process_is_one_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    for _ in range(2):
        trainer = _ran(tmp_path, WandbLogger(save_dir=str(tmp_path), project="test", offline=True))
        log_final(trainer, FIGURES)
        close(trainer, failed=False)
    wandb.teardown()  # its service process
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
