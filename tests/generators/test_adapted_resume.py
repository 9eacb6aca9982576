"""A pipeline's fit that is interrupted goes on, and ends as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
import torch
from safetensors.torch import load_file
from tiny_pipeline import tiny_pipeline  # noqa: F401 - a fixture

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.lora import LoraGenerator
from lightning_diffaug.generators.pipeline_adapted import AdaptedPipelineGenerator
from lightning_diffaug.generators.textual_inversion import TextualInversionGenerator

FIT = {"steps": 6, "batch_size": 4, "lr": 0.01, "checkpoint_every": 0.0}
PRIOR = {"prior_weight": 1.0, "prior_samples": 4}


def fit(generator: Any, folder: Path, checkpoint: Path | None = None, stop_at: int = -1) -> tuple[list[int], Any]:
    """Steps that were made, and what was learned; None where it was interrupted."""
    steps: list[int] = []

    def progress(step: int, total: int) -> None:
        steps.append(step)
        if step == stop_at:
            raise InterruptedError

    folder.mkdir()
    try:
        generator.fit(tiny.two_classes(), folder, progress, checkpoint)
    except InterruptedError:
        return steps, None
    return steps, load_file(folder / generator.FILE)


@pytest.mark.parametrize(
    ("kind", "more"), [(LoraGenerator, {}), (LoraGenerator, PRIOR), (TextualInversionGenerator, {})]
)
def test_an_interrupted_fit_ends_with_the_same_weights(
    tiny_pipeline: Path,  # noqa: F811
    tmp_path: Path,
    kind: type[AdaptedPipelineGenerator],
    more: dict[str, Any],
) -> None:
    def made(**changes: Any) -> AdaptedPipelineGenerator:
        return kind(model=str(tiny_pipeline), num_inference_steps=2, fit={**FIT, **more, **changes})

    file = tmp_path / "fit.ckpt"
    _, whole = fit(made(), tmp_path / "whole")
    assert fit(made(), tmp_path / "stopped", file, 4)[1] is None
    torch.manual_seed(9)  # the global state has no say
    steps, resumed = fit(made(), tmp_path / "resumed", file)
    assert [step for step in steps if step] == [4, 5, 6], "the step is told before its checkpoint is written"
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    steps, other = fit(made(lr=0.02), tmp_path / "other", file)
    assert 1 in steps, "a checkpoint of another fit is not gone on from"
    assert not all(torch.equal(other[name], whole[name]) for name in whole)


def test_no_interval_is_no_checkpoint_and_neither_names_the_fit(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    keys = []
    for every in (None, 1000.0):
        generator = LoraGenerator(model=str(tiny_pipeline), fit={**FIT, "checkpoint_every": every})
        fit(generator, tmp_path / str(every), tmp_path / "fit.ckpt", 3)
        assert not (tmp_path / "fit.ckpt").exists()
        assert generator.config()["fit"]["checkpoint_every"] == every
        keys.append(generator.fit_key())
    assert keys[0] == keys[1]
    assert "checkpoint_every" not in keys[0]["fit"]
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.checkpoint_every"):
        LoraGenerator(model=str(tiny_pipeline), fit={"checkpoint_every": -1})
