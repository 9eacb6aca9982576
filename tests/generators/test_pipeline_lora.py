"""A pipeline is fine-tuned by LoRA on the real training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
import torch
from safetensors.torch import load_file, save_file
from tiny_pipeline import tiny_pipeline  # noqa: F401 - a fixture

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators.lora import LoraGenerator
from lightning_diffaug.generators.pipeline import PipelineGenerator
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.refill.fitted import ensure_fitted

LABELS = torch.arange(20) % 2
DIGITS = torch.where(LABELS == 0, 7, 3)
SETTINGS: dict[str, Any] = {
    "names": {"x": "thing", "y": "number"}, "scheduler": "dpmsolver++", "num_inference_steps": 4,
    "guidance_scale": 2.0,
}  # fmt: skip
FIT = {"steps": 80, "batch_size": 12, "lr": 5e-3}
PRIOR = {"prior_weight": 1.0, "prior_samples": 24, "prior_prompt": "a photo of a four"}


def fitted(model: Path, folder: Path, settings: Any = None, **fit: Any) -> LoraGenerator:
    generator = LoraGenerator(**{"model": str(model), "fit": {**FIT, **fit}, **SETTINGS, **(settings or {})})
    state = torch.get_rng_state()
    ensure_fitted(generator, folder / "0123456789abcdef", tiny.two_classes, lambda step, total: None, "run")
    generator.bind(tiny.two_classes().spec, ("x", "y"))
    generator.generate({"label": LABELS[:2]}, [1, 2])
    assert torch.equal(state, torch.get_rng_state())
    return generator


@pytest.fixture(scope="module")
def adapted(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoraGenerator, Path]:  # noqa: F811
    folder = tmp_path_factory.mktemp("lora")
    return fitted(tiny_pipeline, folder), folder / "0123456789abcdef"


@pytest.fixture
def plain(tiny_pipeline: Path) -> PipelineGenerator:  # noqa: F811
    generator = PipelineGenerator(str(tiny_pipeline), **SETTINGS)
    generator.bind(tiny.two_classes().spec, ("x", "y"))
    return generator


def test_fine_tuning_makes_the_classes_that_the_model_did_not_know(adapted: Any, plain: PipelineGenerator) -> None:
    asked = {"label": LABELS}
    assert tiny.agreement(adapted[0].generate(asked, range(20)), DIGITS) > 0.8
    assert tiny.agreement(plain.generate(asked, range(20)), DIGITS) < 0.5


def test_an_adapter_acts_by_its_scale_wherever_it_comes_from(
    adapted: Any,
    plain: PipelineGenerator,
    tiny_pipeline: Path,  # noqa: F811
) -> None:
    """What is fitted is an adapter like any other: given by its path, it makes the same samples."""
    asked, file = {"label": LABELS[:6]}, adapted[1] / "adapter.safetensors"

    def made(scale: float, **where: Any) -> torch.Tensor:
        added = [{"model": str(file), "scale": scale, **where}]
        generator = PipelineGenerator(str(tiny_pipeline), adapters=added, **SETTINGS)
        generator.bind(tiny.two_classes().spec, ("x", "y"))
        return generator.generate(asked, range(6))

    without = plain.generate(asked, range(6))
    assert torch.allclose(made(1.0), adapted[0].generate(asked, range(6)), atol=1e-4)
    assert torch.allclose(made(0.0), without, atol=1e-4)
    in_a_folder = {"model": str(file.parent), "weight_name": file.name}
    assert torch.equal(made(1.0, **in_a_folder), made(1.0))
    far = [float((made(scale) - without).square().mean()) for scale in (0.3, 1.0)]
    assert 0 < far[0] < far[1]


def test_prior_preservation_keeps_what_the_model_knew(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    """Words of the classes that mean something already forget it, unless the model's own pictures of it are kept."""
    asked = {"prompt": ["a photo of a four"] * 16, "label": LABELS[:16]}
    kept = []
    for name, prior in (("without", {}), ("with", PRIOR)):
        words = {"names": {"x": "four thing", "y": "nine thing"}}
        generator = fitted(tiny_pipeline, tmp_path / name, words, **prior)
        kept.append(tiny.agreement(generator.generate(asked, range(16)), torch.full((16,), 4)))
    assert kept[0] < 0.5 < 0.8 < kept[1]


def test_rank_is_the_size_of_what_is_kept(adapted: Any, tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    fitted(tiny_pipeline, tmp_path, rank=2, steps=1)
    for folder, rank in ((adapted[1], 8), (tmp_path / "0123456789abcdef", 2)):
        kept = load_file(folder / "adapter.safetensors")
        assert {min(matrix.shape) for matrix in kept.values()} == {rank}


def test_the_same_fit_makes_the_same_adapter(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    kept = []
    for name in ("a", "b"):
        fitted(tiny_pipeline, tmp_path / name, steps=2)
        kept.append(load_file(tmp_path / name / "0123456789abcdef" / "adapter.safetensors"))
    assert all(torch.equal(matrix, kept[1][name]) for name, matrix in kept[0].items())


def test_what_the_models_own_pictures_depend_on_names_the_fit_where_they_are_fitted(
    tmp_path: Path,
) -> None:
    (tmp_path / "unet").mkdir()
    save_file({"w": torch.zeros(1)}, tmp_path / "unet" / "model.safetensors")  # a fit is named before it is loaded
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))

    def key(prior_weight: float, fit: dict[str, Any], **settings: Any) -> dict[str, Any]:
        of_fit = {**FIT, "prior_weight": prior_weight, **fit}
        return LoraGenerator(model=str(tmp_path), fit=of_fit, **{**SETTINGS, **settings}).fit_key()

    sampled: list[dict[str, Any]] = [{"num_inference_steps": 3}, {"guidance_scale": 9.0}, {"safety_checker": False}]
    for changed in sampled:
        assert key(0.0, {}, **changed) == key(0.0, {}), changed
        assert key(1.0, {}, **changed) != key(1.0, {}), changed
    for prior in ({"prior_samples": 3}, {"prior_prompt": "a thing"}):
        assert key(0.0, prior) == key(0.0, {}), prior
        assert key(1.0, prior) != key(1.0, {}), prior


def test_names_and_settings(tiny_pipeline: Path) -> None:  # noqa: F811
    generator = LoraGenerator(model=str(tiny_pipeline), fit=FIT, seed=2, **SETTINGS)
    named = name_of(generator)
    assert name_of(build(named)) == named
    assert generator.fit_key() != LoraGenerator(model=str(tiny_pipeline), fit={**FIT, "rank": 4}, **SETTINGS).fit_key()
    generator.bind(tiny.two_classes().spec, ("x", "y"))
    with pytest.raises(GeneratorError, match="load"):
        generator.generate({"label": LABELS[:2]}, [1, 2])
