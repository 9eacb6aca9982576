"""The refill process knows which GPUs training computes on, and tells the generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from refill_toys import Told, job_for, need, until, worker

from lightning_diffaug.ranks import Ranks
from lightning_diffaug.refill.job import Job


def test_it_crosses_the_process_boundary_and_names_nothing(tmp_path: Path) -> None:
    generator = Told(str(tmp_path / "told"))
    job = job_for(generator, tmp_path, trainer_devices=[2, 0])
    assert Job.read(job.write(tmp_path / "job.json")) == job
    need(job, 1)
    with worker(job):
        until(lambda: (tmp_path / "told").exists() and (tmp_path / "told").read_text() == "[2, 0]")
    elsewhere = job_for(generator, tmp_path, trainer_devices=[])
    assert elsewhere.pool_header(generator, None).fingerprint == job.pool_header(generator, None).fingerprint


def test_a_trainer_on_the_cpu_uses_no_gpu() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    assert Ranks.of(trainer).gpus == ()
    assert Ranks.of(None).gpus == ()


@pytest.mark.parametrize(("own", "on_node", "gpus"), [(0, [0], (0,)), (2, [0, 1, 2], (2, 0, 1)), (None, [0], (0,))])
def test_the_gpus_of_a_node_begin_with_this_processs_own(
    own: int | None, on_node: Sequence[int], gpus: tuple[int, ...]
) -> None:
    device = torch.device("cuda") if own is None else torch.device("cuda", own)
    trainer: Any = SimpleNamespace(  # what Lightning's Trainer says on a machine with GPUs, of which there is none here
        strategy=SimpleNamespace(root_device=device), device_ids=on_node, world_size=len(on_node), global_rank=0,
        local_rank=0,
    )  # fmt: skip
    assert Ranks.of(trainer).gpus == gpus
