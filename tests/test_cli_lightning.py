"""DiffAugDataModule in LightningCLI: typed arguments, from the command line and from a config file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from training_toys import Recorder

from lightning_diffaug import DiffAugDataModule

_QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.max_epochs=1",
]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a script of three lines with these arguments."""

    def run(*arguments: str, **settings: Any) -> Any:
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # they concern Lightning
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        return LightningCLI(
            Recorder, DiffAugDataModule, save_config_callback=None, seed_everything_default=1, **settings
        )

    return run


def test_a_mix_is_configured_and_trained_from_a_config_file(command: Any, tmp_path: Path) -> None:
    noise = {"class_path": "training_toys.Noise", "init_args": {"shape": [1, 4, 4]}}
    config = {
        "data": {
            "real": {"class_path": "training_toys.RealModule", "init_args": {"batch_size": 6}},
            "generator": noise,
            "synthetic_fraction": 0.5,
            "refill": {"mode": "local", "nice": 0},
            "window": 16,
            "slot_size": 8,
            "reuse": float("inf"),
            "cache_dir": str(tmp_path / "cache"),
        }
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    cli = command("fit", *_QUIET, f"--config={file}")
    assert len(cli.model.seen["train"]) == 4
    assert cli.datamodule.figures()["mix/achieved_fraction"] == 0.5


def test_the_command_line_says_the_same(command: Any, tmp_path: Path) -> None:
    cli = command(
        "fit",
        *_QUIET,
        "--data.real=training_toys.RealModule",
        "--data.real.batch_size=6",
        "--data.synthetic_fraction=0",
        "--data.balance=classes",
        f"--data.cache_dir={tmp_path / 'cache'}",
    )
    assert len(cli.model.seen["train"]) == 4
    assert cli.datamodule.figures()["mix/achieved_fraction"] == 0


@pytest.mark.parametrize("wrong", ["--data.mode=mixed", "--data.windows=3", "--data.window=many"])
def test_a_wrong_argument_is_refused_by_the_parser(
    wrong: str, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command("fit", *_QUIET, "--data.real=training_toys.RealModule", wrong)
    assert wrong.split("=")[0].removeprefix("--").split(".")[-1] in capsys.readouterr().err


def test_a_schedule_is_given_as_a_mapping(command: Any, tmp_path: Path) -> None:
    cli = command(
        "--data.real=training_toys.RealModule",
        "--data.generator={_target_: training_toys.Noise}",
        "--data.synthetic_fraction={name: linear, start: 0.5, end: 0.0, epochs: 2}",
        f"--data.cache_dir={tmp_path}",
        run=False,
    )
    assert [float(cli.datamodule.settings.fraction(epoch)) for epoch in range(3)] == [0.5, 0.25, 0.0]
