"""Where and how a fitted denoiser runs: it tells how far it is, and its device, type and layout are settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DiffusionGenerator, pipeline_load
from lightning_diffaug.generators.execution import Execution

Loaded = Callable[..., DiffusionGenerator]


def test_a_pass_tells_of_each_step_and_makes_the_same_samples(loaded: Loaded) -> None:
    generator, condition = loaded(num_inference_steps=4, batch_size=3), {"label": torch.arange(6)}
    before = generator.generate(condition, range(6))["image"]
    told: list[int] = []
    generator.on_progress = lambda: told.append(1)
    assert torch.equal(generator.generate(condition, range(6))["image"], before)
    assert len(told) == 2 * 4


def test_bfloat16_and_channels_last_make_nearly_the_same_samples(loaded: Loaded) -> None:
    condition = {"label": torch.arange(20) % 10}
    usual = loaded().generate(condition, range(20))["image"]
    for settings, near in (({"dtype": "float32", "channels_last": False}, 0.0), ({"channels_last": True}, 1e-3)):
        other = loaded(**settings).generate(condition, range(20))["image"]
        assert (other - usual).abs().max() <= near, settings
    rounded = loaded(dtype="bfloat16").generate(condition, range(20))["image"]
    assert rounded.dtype == torch.float32
    assert 1e-4 < (rounded - usual).abs().mean() < 0.03, "another number type, the same pictures"


def test_what_changes_a_sample_is_in_its_key_and_auto_on_a_cpu_is_nothing_new() -> None:
    usual = DiffusionGenerator().sample_key()
    assert DiffusionGenerator(dtype="float32", channels_last=False).sample_key() == usual
    keys = [
        DiffusionGenerator(**{name: value}).sample_key()
        for name, value in (("dtype", "bfloat16"), ("channels_last", True), ("compile", True))
    ]
    assert all(key != usual for key in keys)
    assert len({str(key) for key in keys}) == 3
    assert DiffusionGenerator(device="cpu").sample_key() == usual, "a device is in no fingerprint"
    assert len({str(DiffusionGenerator(**changes).fit_key()) for changes in ({}, {"dtype": "bfloat16"})}) == 1


def test_auto_is_for_gpus_and_their_types() -> None:
    on_cpu = Execution().on(torch.device("cpu"))
    assert (on_cpu.dtype, on_cpu.channels_last, on_cpu.compile) == ("float32", False, False)
    on_gpu = Execution().on(torch.device("cuda", 0))  # there is none here that computes with bfloat16
    assert (on_gpu.dtype, on_gpu.channels_last) == ("float32", True)
    assert Execution("bfloat16", False).on(torch.device("cuda", 0)) == Execution("bfloat16", False)


@pytest.mark.parametrize(
    ("key", "value"), [("dtype", "float16"), ("channels_last", "yes"), ("compile", "max-autotune")]
)
def test_a_wrong_setting_is_refused_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"generator\.{key}"):
        DiffusionGenerator(**{key: value})


class Tiny(nn.Module):
    """A denoiser that is compiled in seconds."""

    shape = (1, 8, 8)
    conditions: Mapping[str, Any] = {}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        return functional.silu(self.conv(x_t))

    def null(self, condition: Any) -> None:
        return None


def test_a_compiled_denoiser_predicts_the_same_and_shows_life_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_load, "_BEAT_SECONDS", 0.01)
    denoiser, x = Tiny().eval().requires_grad_(False), torch.randn(4, 1, 8, 8)
    expected = denoiser(x, torch.tensor(5), {})
    beats: list[int] = []
    compiled = Execution("float32", False, True).prepare(denoiser, lambda: beats.append(1))
    with torch.inference_mode():
        assert (compiled(x, torch.tensor(5), {}) - expected).abs().max() < 1e-5
    assert denoiser._compiled_call_impl is not None
    assert beats
    assert compiled.shape == (1, 8, 8)
    assert compiled.null({}) is None


def test_a_missing_compiler_is_said_with_the_key(tmp_path: Path) -> None:
    code = """
import torch
from test_running import Tiny
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.execution import Execution
compiled = Execution("float32", False, True).prepare(Tiny().eval())
try:
    with torch.inference_mode():
        compiled(torch.randn(4, 1, 8, 8), torch.tensor(5), {})
except ConfigurationError as error:
    print(error)
"""
    caches = {name: str(tmp_path / name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, **caches, "CXX": str(tmp_path / "no-compiler"), "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "generator.compile=false" in done.stdout, done.stderr
