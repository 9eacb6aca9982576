"""A script that trains under ``strategy="ddp"`` on two CPU processes and writes down what each rank saw.

``python ddp_run.py <folder>``; Lightning runs it a second time for rank 1.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import feedback_toys
import psutil
import torch
from lightning.pytorch import Callback
from training_toys import Images, Noise, RealModule, Recorder, jitter, trainer, unnamed

from lightning_diffaug import DiffAugDataModule


class Watch(Callback):
    """Counts the refill processes below this rank, and saves a checkpoint in the middle of the second epoch."""

    def __init__(self, checkpoint: Path | None) -> None:
        self.refills: set[int] = set()
        self._checkpoint = checkpoint

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        for child in psutil.Process().children():
            command = " ".join(child.cmdline()) if child.status() != psutil.STATUS_ZOMBIE else ""
            if "lightning_diffaug.refill" in command:
                self.refills.add(child.pid)
        if self._checkpoint is not None and trainer.global_step == 4:
            trainer.save_checkpoint(self._checkpoint)


def fit(root: Path, name: str, checkpoint: Path | None = None, ckpt_path: Path | None = None) -> None:
    mixed = DiffAugDataModule(
        RealModule(Images(transform=jitter)),
        Noise(),
        0.5,
        refill={"mode": "local", "nice": 0},
        when_short="wait",
        reuse=1,
        window=16,
        slot_size=8,
        return_source=True,
        cache_dir=root / "cache",
    )
    model, watch = Recorder(), Watch(checkpoint)
    run = trainer(root, max_epochs=2, strategy="ddp", devices=2, callbacks=[watch])
    run.fit(model, mixed, ckpt_path=ckpt_path, weights_only=True)
    batches = [
        {"images": images.flatten().tolist(), **{key: value.tolist() for key, value in source.items()}}
        for images, _, source in model.seen["train"]
    ]
    figures = {key: value for key, value in mixed.figures().items() if key.startswith("mix/")}
    record = {"batches": batches, "refills": len(watch.refills), "figures": figures}
    (root / f"{name}-{run.global_rank}.json").write_text(json.dumps(record))


def fit_with_feedback(root: Path) -> None:
    """The learner is asked by both ranks, a half of the samples each."""
    mixed = feedback_toys.mixed(root / "feedback", generator=unnamed(feedback_toys.Rows()))
    learner = feedback_toys.Learner()
    run = trainer(root, max_epochs=2, strategy="ddp", devices=2, limit_val_batches=0)
    run.fit(learner, mixed)
    logged = {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("feedback/")}
    slots = [batch[2]["slot"].tolist() for batch in learner.seen["train"]]
    (root / f"feedback-{run.global_rank}.json").write_text(json.dumps({"logged": logged, "slots": slots}))


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    root = Path(sys.argv[1])
    checkpoint = root / "middle.ckpt"
    fit(root, "whole", checkpoint)
    fit(root, "resumed", ckpt_path=checkpoint)
    fit_with_feedback(root)


if __name__ == "__main__":
    main()
