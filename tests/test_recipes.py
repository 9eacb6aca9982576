"""The recipes of the literature: each runs in small, does what its name says, and has its row in the docs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from torch import Tensor

from lightning_diffaug.conditions.pairs import soft_label
from lightning_diffaug.data import DigitsDataModule
from lightning_diffaug.experiment import build, run
from lightning_diffaug.generators.composed import HALVES, half
from lightning_diffaug.naming import build as build_named
from lightning_diffaug.paths import config_dir
from lightning_diffaug.planning import named_planner
from lightning_diffaug.pool import SyntheticPool

FOLDER = config_dir() / "experiment" / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DOCS = Path(__file__).parents[1] / "docs" / "recipes.md"
SMALL = [
    "refill=sync", "refill.nice=0", "logger=none", "data.window=20", "data.slot_size=10", "trainer.max_epochs=4",
    "real.shots=8", "real.rare_classes=0", "real.rare_shots=null", "real.batch_size=16",
    "+trainer.limit_val_batches=0", "+trainer.enable_progress_bar=false",
]  # fmt: skip
FIT = {"steps": 2, "channels": [8, 8]}
OWN = {name: ["+gates.class.fit.steps=3", "++gates.class.top_k=10"] for name in ("gif", "saspa")}


def _config(name: str, root: Path, cache: Path) -> DictConfig:
    GlobalHydra.instance().clear()
    generator = "generator.generator" if name == "diffusemix" else "generator"
    fit = [f"{generator}.fit.{key}={value}" for key, value in FIT.items()] + [f"{generator}.num_inference_steps=3"]
    files = [f"paths.output_dir={root}", f"paths.cache_dir={cache}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", [f"experiment=recipes/{name}", *SMALL, *fit, *OWN.get(name, []), *files])


class Made:
    """What a run's pool holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pool = SyntheticPool.open(folder)
        shards = [pool.read(slot) for slot in pool.slots()]
        self.rows: list[dict[str, Any]] = [row for shard in shards for row in shard.rows]
        self.images = torch.cat([shard.fields["image"] for shard in shards])
        self.fields: dict[str, Tensor] = {
            name: torch.cat([shard.fields[name] for shard in shards]) for name in shards[0].fields
        }
        self.rejected = [reason for shard in shards for reason in shard.made["rejections"]]

    def of(self, name: str) -> Tensor:
        """A value of provenance, for each row."""
        values = [row[name] for row in self.rows]
        return torch.tensor(values, dtype=torch.float64 if isinstance(values[0], float) else torch.int64)


def _real() -> Any:
    real = DigitsDataModule(shots=8)
    real.setup()
    return real.splits.train


def _starts_from_its_class(made: Made) -> None:
    real = _real()
    index = made.of("source_index")
    assert torch.equal(torch.tensor(real.targets)[index], made.of("label"))
    assert len(set(index.tolist())) > 10


def real_guidance(made: Made, figures: dict[str, float]) -> None:
    _starts_from_its_class(made)
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5, abs=0.01)


def da_fusion(made: Made, figures: dict[str, float]) -> None:
    _starts_from_its_class(made)
    assert set(made.of("strength").tolist()) == {0.25, 0.5, 0.75, 1.0}
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5, abs=0.1)
    assert figures["mix/achieved_fraction"] != 0.5, "each draw decides by itself"


def gif(made: Made, figures: dict[str, float]) -> None:
    _starts_from_its_class(made)
    assert all("class_probability" in row["scores"] for row in made.rows)
    assert {row["attempt"] for row in made.rows} > {0, 1, 2}, "of four candidates any may be the one"
    assert "class" in made.rejected, "the others are not kept"
    assert figures["mix/achieved_fraction"] == pytest.approx(0.8, abs=0.01)


def diffusemix(made: Made, figures: dict[str, float]) -> None:
    _starts_from_its_class(made)
    real = torch.stack([_real().images[i] for i in made.of("source_index")]).float()
    # 0.8 of the real half, and at most 0.2 of the fractal
    near = (made.images.float() - 0.8 * real - 25.5).abs() <= 26.5
    kept = torch.stack([near[:, 0, half(name, (8, 8))].all(1) for name in HALVES])
    assert bool(kept.any(0).all())
    assert bool(kept.any(1).all()), "each half is kept of some"


def diff_mix(made: Made, figures: dict[str, float]) -> None:
    label, start, strength = made.of("label"), made.of("start_label"), made.of("strength")
    assert not torch.equal(label, start)
    assert set(strength.tolist()) == {0.5, 0.7, 0.9}
    wanted = soft_label(label, start, strength, 0.5, 10)
    torch.testing.assert_close(made.fields["soft_label"], wanted)


def feedback_guided(made: Made, figures: dict[str, float]) -> None:
    assert list((made.folder / "plans").glob("*.json")), "the learner was asked"
    assert list((made.folder / "scorers").glob("*.safetensors")), "and handed over"


def deliberate_practice(made: Made, figures: dict[str, float]) -> None:
    feedback_guided(made, figures)
    assert "hard" in made.rejected
    assert any("learner_entropy" in row.get("scores", {}) for row in made.rows)


def saspa(made: Made, figures: dict[str, float]) -> None:
    _starts_from_its_class(made)
    assert all("class_probability" in row["scores"] for row in made.rows)
    assert figures["mix/achieved_fraction"] == pytest.approx(0.4, abs=0.1)


CHECKS: dict[str, Callable[[Made, dict[str, float]], None]] = {
    check.__name__: check
    for check in (
        real_guidance, da_fusion, gif, diffusemix, diff_mix, feedback_guided, deliberate_practice, saspa,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes share a fit where their settings do."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_and_does_what_it_says(name: str, tmp_path: Path, cache: Path) -> None:
    before = set((cache / "pools").glob("*"))
    figures = run(_config(name, tmp_path, cache))
    (folder,) = set((cache / "pools").glob("*")) - before
    assert figures["pool/admitted"] >= 20
    assert figures["train/steps"] > 0
    CHECKS[name](Made(folder), figures)


def test_recipes_with_one_fit_share_it(cache: Path, tmp_path: Path) -> None:
    """After all of them: the denoiser, that of SaSPA, which is told edges, and the classifier of the gate of class."""
    fits = list((cache / "generators").glob("*/fitted.json"))
    assert 0 < len(fits) <= 3


@pytest.mark.parametrize("name", ["da_fusion", "gif", "saspa", "diffusemix"])
def test_a_recipe_makes_as_many_for_each_real_image_whatever_its_class(name: str, tmp_path: Path) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose(
            "train", [f"experiment=recipes/{name}", f"paths.cache_dir={tmp_path}", f"paths.output_dir={tmp_path}"]
        )
    parts = build(cfg)
    parts.data.prepare_data()
    parts.data.setup("fit")
    parts.data.train_dataloader()
    parts.data.close()
    data, pool = parts.data.real_training, parts.data._pool_settings
    assert data is not None
    planner = build_named(
        named_planner(pool.planner, pool.text, pool.real_guided, parts.data.settings, data, pool.generator, 0),
        "planner",
    )
    planner.bind(data.snapshot())
    slots = [planner.plan(k, 64)["source_index"] for k in range(-(-int(cfg.data.window) // 64))]
    counts = torch.bincount(torch.cat(slots), minlength=425)
    assert int(counts.max() - counts.min()) <= 2
    assert int(counts.min()) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_a_recipe_can_be_built(name: str, tmp_path: Path) -> None:
    """Also those that want a model in a folder: the settings go together."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    commands = [shlex.split(line.lstrip("# "))[2:] for line in lines if re.match(r"# +python train.py ", line)]
    assert commands[0] == [f"experiment=recipes/{name}"]
    page = [shlex.split(line)[2:] for line in DOCS.read_text().splitlines() if line.startswith("    python train.py ")]
    commands += [overrides for overrides in page if f"experiment=recipes/{name}" in overrides]
    for overrides in commands:
        GlobalHydra.instance().clear()
        files = [f"paths.output_dir={tmp_path}", f"paths.cache_dir={tmp_path / 'cache'}"]
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            parts = build(compose("train", [*overrides, *files]))
        if not any("FOLDER" in override for override in overrides):
            parts.data.prepare_data()
            parts.data.setup("fit")
            parts.data.train_dataloader()  # checks what goes with the data, and starts nothing
            parts.data.close()


def test_every_recipe_is_tested_and_has_its_source() -> None:
    assert set(NAMES) == set(CHECKS)
    for name in NAMES:
        comment = "".join(line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line[:1] == "#")
        assert re.search(r"arXiv[ #]*\d{4}\.\d{5}", comment), name
        assert "Differs:" in comment, name


def test_every_recipe_has_a_row_and_its_command_in_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for name in NAMES:
        identifier = re.search(r"arXiv[ #\n]*(\d{4}\.\d{5})", (FOLDER / f"{name}.yaml").read_text())
        assert identifier is not None
        (row,) = [row for row in rows if f"`python train.py experiment=recipes/{name}`" in row]
        assert identifier[1] in row
        assert len([cell for cell in row.strip("|").split("|") if cell.strip()]) == 5
    named = set(re.findall(r"experiment=recipes/(\w+)", text))
    assert named == set(NAMES)
