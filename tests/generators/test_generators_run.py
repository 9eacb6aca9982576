"""``python train.py generator=<each>``: it runs with what it needs, and says what that is without it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny_pipeline import tiny_pipeline  # noqa: F401 - a fixture

from lightning_diffaug.pool import SyntheticPool

ROOT = Path(__file__).parents[2]
CONF = {path.stem: OmegaConf.load(path) for path in (ROOT / "conf" / "generator").glob("*.yaml")}
WORDS = "{" + ",".join(f"{name}:{word}" for name, word in tiny.WORDS_OF.items()) + "}"
SHORT = [
    "data.window=32", "data.slot_size=16", "data.planner=uniform", "trainer.max_epochs=1", "logger=none",
    "++trainer.enable_progress_bar=false", "++trainer.enable_checkpointing=false", "~callbacks.checkpoint",
    "refill.nice=0", "refill.ahead=0",
]  # fmt: skip
PIPELINE = [f"generator.names={WORDS}", "generator.num_inference_steps=3"]
ADAPTED = [*PIPELINE, "generator.fit.steps=2"]
# What else a generator is given to run here with the small pipeline.
RUN = {"pipeline": PIPELINE, "textual_inversion": ADAPTED, "sd15_lora": [*ADAPTED, "generator.variant=null"]}
# These run as they are, which other tests see to.
COMPLETE = {"control", "diffusemix", "diffusion", "distilled", "gan", "none"}


def train(root: Path, runs: dict[str, list[str]]) -> dict[str, Any]:
    """Trains with each of these generators: name → how it ended."""
    arguments = [
        [
            f"generator={name}", *SHORT, *more, f"hydra.run.dir={root / name / 'run'}",
            f"paths.cache_dir={root / name / 'cache'}",
        ]
        for name, more in runs.items()
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_CACHE": str(root / "hub")}
    environment.pop("HYDRA_FULL_ERROR", None)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "train_each.py")], cwd=root, env=environment,
        input=json.dumps(arguments), capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(runs, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.fixture(scope="module")
def ended(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:  # noqa: F811
    """How the run of each generator ends that is given the small pipeline."""
    root = tmp_path_factory.mktemp("ended")
    return root, train(root, {name: [*given, f"generator.model={tiny_pipeline}"] for name, given in RUN.items()})


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RUN)
def test_a_generator_with_a_model_makes_the_samples_of_a_run(name: str, ended: Any) -> None:
    root, run = ended[0] / name, ended[1][name]
    assert run["code"] == 0, run["said"]
    figures = json.loads((root / "run" / "metrics.json").read_text())
    assert figures["pool/admitted"] >= 32
    assert figures["mix/achieved_fraction"] == pytest.approx(0.25, abs=0.01)
    (folder,) = (root / "cache" / "pools").iterdir()
    shard = SyntheticPool.open(folder).read(0)
    assert shard.fields["image"].shape == (16, 1, 8, 8)
    assert len(set(shard.fields["image"].flatten(1).float().mean(1).tolist())) == 16
    fitted = list((root / "cache").glob("generators/*/fitted.json"))
    assert len(fitted) == (name != "pipeline")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """How the run of each generator ends that lacks a model or a server."""
    root = tmp_path_factory.mktemp("alone")
    return root, train(root, {name: [] for name in CONF if name not in COMPLETE})


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(set(CONF) - COMPLETE))
def test_a_generator_that_lacks_something_says_what_before_anything_starts(name: str, alone: Any) -> None:
    root, run = alone[0] / name, alone[1][name]
    assert run["code"] == 1, run["said"]
    assert "Traceback" not in run["said"]
    needed = {"remote": "generator.url", "captioner": "generator.text"}
    assert needed.get(name, "generator.model") in run["said"]
    if model := CONF[name].get("model"):
        assert f"hf download {model} --include" in run["said"]
        assert "--local-dir FOLDER" in run["said"]
        assert "set generator.model=FOLDER" in run["said"]
    assert not [path for path in (root / "cache").rglob("*") if path.is_file()]


README = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
OVERRIDES = re.findall(r"'([+]?generator[.][^']+)'|(?<!')([+]?generator[.]\w[\w.]*=[^\s`'<]+)", README)


@pytest.mark.parametrize("override", sorted({quoted or plain for quoted, plain in OVERRIDES}))
def test_the_readmes_settings_of_generators_are_understood_and_exist(override: str) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    key = parsed.key_or_group.split(".")[1]
    assert [name for name, config in CONF.items() if key in config], key
    assert parsed.value() != ""


def test_what_is_to_be_fetched_is_one_model_and_patterns_that_each_have_their_option() -> None:
    texts = [README, *(path.read_text() for path in (ROOT / "conf" / "generator").glob("*.yaml"))]
    commands = [line for text in texts for line in re.findall(r"^(?:#   )?(hf download .*)$", text, flags=re.MULTILINE)]
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command)[2:]
        taken = [word for i, word in enumerate(words) if not {word[:2], words[i - 1][:2]} & {"--"}]
        assert taken[0].count("/") == 1, command
        assert taken[1:] in ([], ["model_index.json"]), command
