"""Where models come from: what is missing is said with what to fetch, and what comes with a model is never run."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
import torch
from safetensors.torch import load_file, save_file
from tiny_pipeline import tiny_pipeline  # noqa: F401 - a fixture

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.pipeline import PipelineGenerator
from lightning_diffaug.generators.pipeline_load import load_pipeline, quiet
from lightning_diffaug.generators.pipeline_model import fetch

ROOT = Path(__file__).parents[2]


def bound(model: Any, **settings: Any) -> PipelineGenerator:
    generator = PipelineGenerator(str(model), names=tiny.WORDS_OF, num_inference_steps=2, **settings)
    generator.bind(tiny.spec(3, 16, 16), tiny.CLASSES)
    return generator


def made(generator: PipelineGenerator) -> torch.Tensor:
    return generator.generate({"label": torch.tensor([3, 7])}, [1, 2])


@pytest.fixture
def copied(tiny_pipeline: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A copy of the small pipeline that may be spoiled."""
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


# What is missing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["sd_turbo", "sdxl_turbo", "sd15_lora", "sd3", "flux", "dit_xl"])
def test_a_model_that_is_not_here_is_said_with_what_to_fetch_and_where_to_put_it(config: str) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.utils import instantiate

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        node = compose("train", [f"generator={config}"]).generator
    generator = instantiate(node, _convert_="all")
    for asked in (generator.sample_key, lambda: generator.bind(tiny.spec(3, 16, 16), tiny.CLASSES)):
        with pytest.raises(ConfigurationError) as error:
            asked()
        said = str(error.value)
        assert "generator.model=FOLDER" in said
        (command,) = [line.strip() for line in said.splitlines() if line.startswith("  hf download ")]
        assert command == f"{fetch(node.model, 'main', node.variant)} --local-dir FOLDER"
        assert (
            f"#   {command}".removesuffix(" --local-dir FOLDER")
            in (ROOT / "conf" / "generator" / f"{config}.yaml").read_text()
        )


def test_an_unset_model_or_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    for model in (None, str(tmp_path / "nowhere"), "./nowhere"):
        with pytest.raises(ConfigurationError, match=r"generator\.model"):
            PipelineGenerator(model).sample_key()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"generator\.model.*model_index\.json"):
        bound(tmp_path / "empty")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_is_fetched_is_what_is_read_and_no_other_copy_of_the_weights(variant: str | None) -> None:
    from huggingface_hub.utils import filter_repo_objects

    read = ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt", "tokenizer_3/spiece.model"]
    full = ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model-00001-of-00002.safetensors"]
    half = ["unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16-00001-of-00002.safetensors"]
    other = ["one_file.safetensors", "one_file_fp16.safetensors", "unet/diffusion_pytorch_model.bin", "README.md"]
    command = shlex.split(fetch("someone/model", "v1", variant))
    assert command[:3] == ["hf", "download", "someone/model"]
    assert command[-2:] == ["--revision", "v1"]
    assert command[3:-2:2] == ["--include"] * 4, "each pattern needs the option: a word without is a file's name"
    got = filter_repo_objects([*read, *full, *half, *other], allow_patterns=command[4:-2:2])
    assert list(got) == [*read, *(half if variant else [*full, *half])]


def test_what_is_added_and_not_here_is_said_before_the_model_is_loaded(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    for settings, key in (
        ({"adapters": [str(tmp_path / "a.safetensors")]}, "generator.adapters"),
        ({"adapters": ["someone/adapter"]}, "generator.adapters"),
        ({"embeddings": ["someone/words"]}, "generator.embeddings"),
        ({"task": "controlnet", "controlnet": "someone/edges"}, "generator.controlnet"),
        ({"task": "controlnet", "controlnet": str(tmp_path / "edges")}, "generator.controlnet"),
    ):
        with pytest.raises(ConfigurationError) as error:
            bound(tiny_pipeline, **settings)
        assert str(error.value).startswith(f"{key}=")
    generator = PipelineGenerator(str(tiny_pipeline), task="controlnet", controlnet=str(tmp_path / "edges"))
    with pytest.raises(ConfigurationError, match=r"^generator\.controlnet="):
        generator.sample_key()


_ELSEWHERE = """
import sys
sys.modules["peft"] = None  # as if it were not installed
import tiny_pipeline as tiny, torch
from lightning_diffaug.generators.pipeline import PipelineGenerator
for settings in (
    {"model": "someone/tiny"},
    {"model": "nobody/nothing", "revision": "v1", "download": True},
    {"model": "someone/tiny", "adapters": ["x/y"]},
    {"model": "someone/tiny", "revision": "v2"},
):
    generator = PipelineGenerator(**settings, names=tiny.WORDS_OF, num_inference_steps=1)
    try:
        generator.bind(tiny.spec(3, 16, 16), tiny.CLASSES)
        print(generator.sample_key()["model"], generator.generate({"label": torch.tensor([1])}, [1]).shape)
    except Exception as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
"""


@pytest.fixture(scope="module")
def elsewhere(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:  # noqa: F811
    """What is said in a process with a hub's cache, no network and no peft."""
    cache, commit = tmp_path_factory.mktemp("hub"), "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny_pipeline, cache / "models--someone--tiny" / "snapshots" / commit)
    (cache / "models--someone--tiny" / "refs").mkdir()
    (cache / "models--someone--tiny" / "refs" / "main").write_text(commit)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
    }  # fmt: skip
    command = [sys.executable, "-c", _ELSEWHERE]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_model_in_the_hubs_cache_is_used_without_a_network(elsewhere: list[str]) -> None:
    assert elsewhere[0] == "{'id': 'someone/tiny', 'revision': 'main'} torch.Size([1, 3, 16, 16])"


def test_a_download_that_is_allowed_and_fails_says_what_to_fetch(elsewhere: list[str]) -> None:
    assert elsewhere[1].startswith("ConfigurationError")
    assert "hf download nobody/nothing --include" in elsewhere[1]
    assert "--revision v1 --local-dir FOLDER" in elsewhere[1]


def test_a_revision_that_is_not_in_the_hubs_cache_is_not_replaced_by_another(elsewhere: list[str]) -> None:
    assert elsewhere[3].startswith("ConfigurationError generator.model='someone/tiny', revision 'v2'")


def test_an_adapter_without_its_package_says_what_to_install(elsewhere: list[str]) -> None:
    assert elsewhere[2].startswith("ConfigurationError generator.adapters needs the package peft")
    assert "lightning-diffaug[lora]" in elsewhere[2]


# What is not run ------------------------------------------------------------------------------------------


def test_a_pipeline_with_code_of_its_own_is_refused_and_its_code_is_not_run(copied: Path) -> None:
    trap = copied.parent / "run"
    code = f"from pathlib import Path\nPath({str(trap)!r}).touch()\nfrom diffusers import *\n"
    index = json.loads((copied / "model_index.json").read_text())
    for name, value in (("_class_name", ["pipeline", "Mine"]), ("unet", ["mine", "UNet2DConditionModel"])):
        (copied / "model_index.json").write_text(json.dumps({**index, name: value}))
        for file in (copied / "pipeline.py", copied / "unet" / "mine.py", copied / "mine.py"):
            file.write_text(code)
        with pytest.raises(ConfigurationError, match=f"code of its own.*{name}.*generator.model"):
            bound(copied)
    assert not trap.exists()


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_weights_that_are_pickled_are_refused_unread(copied: Path) -> None:
    trap = copied.parent / "unpickled"
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = copied / part / f"{name}.safetensors"
        kept = weights.read_bytes()
        weights.unlink()
        other = copied / part / ("pytorch_model.bin" if part == "text_encoder" else f"{name}.bin")
        other.write_bytes(pickle.dumps(_Trap(trap)))
        with pytest.raises(ConfigurationError, match=rf"generator\.model.*{part}/{other.name}.*safetensors"):
            bound(copied)
        with pytest.raises(ConfigurationError, match=r"generator\.model.*safetensors"):
            load_pipeline(str(copied), "main", None, torch.float32, False, False)
        other.unlink()
        weights.write_bytes(kept)
    assert not trap.exists()


def test_weights_of_a_variant_are_used_and_none_is_said(copied: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.variant=null"):
        bound(copied, variant="fp16")
    plain = made(bound(copied))
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        weights = copied / part / f"{name}.safetensors"
        save_file(
            {key: value * 0.9 for key, value in load_file(weights).items()}, copied / part / f"{name}.fp16.safetensors"
        )
    assert torch.equal(made(bound(copied)), plain)
    assert not torch.allclose(made(bound(copied, variant="fp16")), plain, atol=0.1)


def test_a_folder_without_weights_is_refused_with_what_to_do(copied: Path) -> None:
    for file in copied.rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(ConfigurationError, match=r"no \.safetensors files(.|\n)*generator\.model=FOLDER"):
        bound(copied)


def test_the_command_that_converts_a_pickled_model_does_so(copied: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ConfigurationError) as error:
        bound(copied)
    (command,) = [line.strip() for line in str(error.value).splitlines() if line.startswith("  python")]
    program, option, code = shlex.split(command)
    assert (program, option) == ("python", "-c")
    with quiet():
        exec(code.replace("FOLDER", repr(str(copied.parent / "converted"))))
    assert made(bound(copied.parent / "converted")).isfinite().all()


# Names ----------------------------------------------------------------------------------------------------


def test_a_local_model_is_named_by_its_content_not_by_its_place(tiny_pipeline: Path, copied: Path) -> None:  # noqa: F811
    before = PipelineGenerator(str(tiny_pipeline)).sample_key()
    assert PipelineGenerator(str(copied)).sample_key() == before
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["conv_out.bias"] = state["conv_out.bias"] + 1e-3
    save_file(state, weights)
    assert PipelineGenerator(str(copied)).sample_key() != before


def test_a_hub_model_is_named_by_id_and_revision() -> None:
    one, two = (PipelineGenerator("someone/tiny", revision=name, download=True).sample_key() for name in ("v1", "v2"))
    assert one != two
    assert one["model"] == {"id": "someone/tiny", "revision": "v1"}


# Embeddings -----------------------------------------------------------------------------------------------


def test_an_embedding_gives_a_word_its_meaning(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    """The embedding of a word that the model knows, under another token, makes the same pictures."""
    from transformers import CLIPTextModel, CLIPTokenizer

    table = CLIPTextModel.from_pretrained(str(tiny_pipeline / "text_encoder")).get_input_embeddings().weight
    known = CLIPTokenizer.from_pretrained(str(tiny_pipeline / "tokenizer"))
    row = table[known.convert_tokens_to_ids("seven</w>")].detach().clone()
    file = tmp_path / "thing.safetensors"
    save_file({"emb_params": row[None]}, file)
    added = [{"model": str(file), "token": "<thing>"}]
    words, token, without = (
        PipelineGenerator(
            str(tiny_pipeline), names={"x": name}, num_inference_steps=4, guidance_scale=2.0, embeddings=embeddings
        )
        for name, embeddings in (("seven", None), ("<thing>", added), ("<thing>", None))
    )
    samples = []
    for generator in (words, token, without):
        generator.bind(tiny.spec(3, 16, 16), ("x",))
        samples.append(generator.generate({"label": torch.tensor([0, 0])}, [1, 2]))
    assert torch.allclose(samples[0], samples[1], atol=1e-4)
    assert not torch.allclose(samples[0], samples[2], atol=0.1)
    before = token.sample_key()
    save_file({"emb_params": row[None] + 1}, file)
    assert token.sample_key() != before


def test_an_embedding_that_is_pickled_is_refused_unread(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    trap = tmp_path / "unpickled"
    for name in ("words.bin", "learned_embeds.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(_Trap(trap)))
        for model in (tmp_path / name, tmp_path):
            with pytest.raises(ConfigurationError, match=r"generator\.embeddings"):
                made(bound(tiny_pipeline, embeddings=[str(model)]))
    assert not trap.exists()
