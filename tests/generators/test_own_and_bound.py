"""Generators at the door: whose they are, what is imported for them, and that they are told of the data first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_toys import Noise, RealModule, unnamed

from lightning_diffaug import DiffAugDataModule, generators
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import Bindable, PipelineGenerator, RemoteGenerator, Reporting
from lightning_diffaug.naming import name_of
from lightning_diffaug.spec import SampleSpec

URL = "http://127.0.0.1:9/v1"


def mixed(tmp_path: Path, generator: Any, **settings: Any) -> DiffAugDataModule:
    chosen = {"refill": "local", "window": 16, "slot_size": 8, **settings}
    return DiffAugDataModule(RealModule(), generator, cache_dir=tmp_path / "cache", **chosen)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# A generator of the user's ----------------------------------------------------------------------------------

FUNCTION = """
import torch

def stripes(condition, seeds):
    steps = [torch.rand((), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(steps).view(-1, 1, 1, 1).expand(-1, 1, 4, 4) * 0.1 + condition["label"].view(-1, 1, 1, 1) * 0.3
"""


def test_a_plain_function_of_the_users_fills_the_pool_in_the_refill_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_stripes.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    from my_stripes import stripes  # type: ignore[import-not-found]

    data = mixed(tmp_path, stripes, synthetic_fraction=0.5, return_source=True, gates=[])
    data.setup("fit")
    try:
        batches = list(data.train_dataloader())
        figures = data.figures()
    finally:
        data.close()
    assert figures["pool/admitted"] >= 16
    images, labels, made = (torch.cat([of(batch) for batch in batches]) for of in (_image, _label, _made))
    assert int(made.sum()) == 12
    unit = images[made].flatten(1).float() / 127.5 - 1.0
    assert torch.equal(unit.amin(1), unit.amax(1))
    assert ((unit[:, 0] - labels[made] * 0.3).round(decimals=1).abs() <= 0.1).all()
    assert len(unit[:, 0].unique()) > 6


def _image(batch: Any) -> Tensor:
    return torch.as_tensor(batch[0])


def _label(batch: Any) -> Tensor:
    return torch.as_tensor(batch[1])


def _made(batch: Any) -> Tensor:
    return torch.as_tensor(batch[2]["is_synthetic"]).bool()


# What is wrong is said before anything starts ---------------------------------------------------------------


class Bound(Noise):
    """Counts how often it is told what the data are, and by whom it is refused."""

    def __init__(self, shape: Sequence[int] = (1, 4, 4), refuse: bool = False) -> None:
        super().__init__(shape)
        self.refuse = refuse
        self.told: list[tuple[tuple[int, ...], tuple[str, ...]]] = []

    def config(self) -> dict[str, Any]:
        return {"shape": self.shape, "refuse": self.refuse}

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        self.told.append((spec.continuous[0].shape, tuple(class_names)))
        torch.rand(1)  # a careless one
        if self.refuse:
            raise ConfigurationError("no such data. Set generator.refuse.")


@pytest.mark.parametrize("refill", ["local", "sync"])
def test_what_does_not_suit_the_data_is_said_in_the_trainers_process_before_anything_starts(
    refill: str, tmp_path: Path
) -> None:
    wrong: list[tuple[Any, str]] = [
        (RemoteGenerator(url=URL, prompts={"cat": "a cat"}), r"generator\.prompts"),
        (name_of(RemoteGenerator(url=URL, prompts="a photo")), r"generator\.prompts"),
        (RemoteGenerator(), r"generator\.url"),
        (RemoteGenerator(url=URL, api_key_env="NO_SUCH_KEY_HERE"), "NO_SUCH_KEY_HERE"),
        (PipelineGenerator(str(tmp_path / "nowhere")), r"generator\.model"),
        (Bound(refuse=True), r"generator\.refuse"),
    ]
    for generator, key in wrong:
        data = mixed(tmp_path, generator, refill=refill)
        data.setup("fit")
        try:
            with pytest.raises(ConfigurationError, match=key):
                data.train_dataloader()
        finally:
            data.close()
        assert not files(tmp_path / "cache"), generator


def test_a_live_generator_is_told_of_the_data_and_may_draw_random_numbers(tmp_path: Path) -> None:
    generator = Bound()
    state = torch.get_rng_state()
    for refill, told in (("none", 0), ("local", 1)):
        data = mixed(tmp_path, generator, refill=refill, when_short="real")
        data.setup("fit")
        try:
            data.train_dataloader()
        finally:
            data.close()
        assert generator.told == [((1, 4, 4), ("0", "1", "2"))] * told
    assert torch.equal(state, torch.get_rng_state())


# What is exported -------------------------------------------------------------------------------------------


def test_the_optional_parts_are_what_generators_have() -> None:
    remote = RemoteGenerator(url=URL)
    assert isinstance(remote, Bindable)
    assert isinstance(remote, Reporting)
    assert not isinstance(Noise(), Bindable)
    assert not isinstance(unnamed(), Reporting)


def test_generators_that_are_not_used_are_not_imported() -> None:
    names = ("PipelineGenerator", "LoraGenerator", "TextualInversionGenerator", "RemoteGenerator")
    code = (
        "import sys, lightning_diffaug.generators as g\n"
        "loaded = [name.split('.')[2] for name in sys.modules if name.startswith('lightning_diffaug.generators.')]\n"
        "print([name for name in loaded if name in ('pipeline', 'lora', 'textual_inversion', 'remote')])\n"
        f"names = {names!r}\n"
        "print([getattr(g, name).__name__ for name in names] == list(names), set(names) <= set(g.__all__))\n"
    )
    root = str(Path(__file__).parents[2])
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=200)
    assert said.stdout.splitlines() == ["[]", "True True"], said.stderr
    with pytest.raises(AttributeError, match="NoGenerator"):
        generators.NoGenerator  # noqa: B018
