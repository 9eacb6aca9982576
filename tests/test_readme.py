"""The README's Python is run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


class Dicts(Dataset[Any]):
    targets = tuple(i % 2 for i in range(16))

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"id": f"{i:03}", "pixels": torch.rand(1, 8, 8, generator=_rng(i)), "target": i % 2, "age": float(i)}


class Tuples(Dicts):
    def __getitem__(self, i: int) -> Any:
        return torch.rand(1, 8, 8, generator=_rng(i)), i % 2


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Pairs(Dicts):
    def __getitem__(self, i: int) -> dict[str, Any]:
        image = torch.rand(1, 8, 8, generator=_rng(i))
        return {"image": image, "mask": (image > 0.5).float(), "label": i % 2}


class Real(LightningDataModule):
    def __init__(self, dataset: Dataset[Any]) -> None:
        super().__init__()
        self.dataset = dataset

    def train_dataloader(self) -> Any:
        return DataLoader(self.dataset, batch_size=8, shuffle=True)


class Learner(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 2)
        self.ids: list[str] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = (batch["pixels"], batch["target"]) if isinstance(batch, dict) else batch
        if isinstance(batch, dict):
            self.ids += batch["id"]
        return torch.nn.functional.cross_entropy(self.layer(x.flatten(1)), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the README takes for granted, and a fit that a test can wait for."""
    import lightning_diffaug
    from lightning_diffaug import DiffAugDataModule, DiffusionGenerator

    def quick(*arguments: Any, **settings: Any) -> Any:
        return DiffAugDataModule(*arguments, **settings, window=64, refill={"nice": 0}, cache_dir=tmp_path)

    monkeypatch.setattr(lightning_diffaug, "DiffAugDataModule", quick, raising=False)
    monkeypatch.setattr(
        lightning_diffaug,
        "DiffusionGenerator",
        lambda **settings: DiffusionGenerator(fit={"steps": 2}, **settings),
        raising=False,
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    yield {
        "trainer": trainer,
        "model": Learner(),
        "your_datamodule": Real(Tuples()),
        "your_dict_datamodule": Real(Dicts()),
        "real": Real(Pairs()),
    }
    sys.modules.pop("my_generator", None)


def test_the_readmes_python_runs_as_it_stands(words: dict[str, Any], tmp_path: Path) -> None:
    three_lines, dicts, module, own, conditions = BLOCKS
    exec(three_lines, words)
    assert words["mixed"].figures()["mix/achieved_fraction"] == 0.25

    exec(dicts, words)
    words["trainer"].fit_loop.max_epochs = 2
    words["trainer"].fit(words["model"], datamodule=words["mixed"])
    ids = words["model"].ids
    assert len(ids) == 16
    assert sum(name.startswith("synthetic/") for name in ids) == 4

    (tmp_path / "my_generator.py").write_text(module)
    exec("from my_generator import Blobs", words)
    exec(own, words)
    words["trainer"].fit_loop.max_epochs = 3
    words["trainer"].fit(words["model"], datamodule=words["mixed"])
    assert words["mixed"].figures()["pool/admitted"] >= 64

    exec(conditions, words)
    batch = next(iter(words["mixed"].train_dataloader()))
    assert set(batch) == {"image", "mask", "label"}
    words["mixed"].close()


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w[\w-]*)", README.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def _commands() -> list[str]:
    """Every training command of the README and the pages, as it would be typed."""
    texts = [page.read_text(encoding="utf-8").replace("\\\n", " ") for page in (README, *PAGES)]
    lines = [line for text in texts for line in text.splitlines()]
    found = [re.search(r"python train\.py ([^|`]*)", line) for line in lines]
    typed = [match[1].split("  #")[0].strip() for match in found if match is not None]
    return sorted({command for command in typed if command and "--" not in command})


@pytest.mark.parametrize("command", _commands())
def test_every_command_composes_as_the_shell_hands_it_over(command: str) -> None:
    command = command.replace("<date>/<time>", "some/run")
    said = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    arguments = [argument for argument in said.stdout.splitlines() if argument != "-m"]
    parsed = OverridesParser.create().parse_overrides(arguments)
    single = [
        f"{one.get_key_element()}={next(one.sweep_string_iterator())}" if one.is_sweep_override() else one.input_line
        for one in parsed
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("train", overrides=[str(override) for override in single])["data"]


def test_the_pages_are_there_and_linked() -> None:
    text = README.read_text(encoding="utf-8")
    linked = set(re.findall(r"\(docs/(\w+\.md)\)", text))
    assert linked == {page.name for page in PAGES}


def _anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [README, *PAGES, *ROOT.glob("C*.md")], ids=lambda page: page.name)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8"))
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in _anchors(target), f"{path}#{anchor}"
