"""A pipeline learns a word for each class, and nothing else of it changes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipeline as tiny
import torch
from safetensors.torch import load_file
from tiny_pipeline import tiny_pipeline  # noqa: F401 - a fixture

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.pipeline import PipelineGenerator
from lightning_diffaug.generators.textual_inversion import TextualInversionGenerator
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.refill.fitted import ensure_fitted

LABELS = torch.arange(20) % 2
SETTINGS: dict[str, Any] = {
    "names": {"x": "thing", "y": "thing of"}, "scheduler": "dpmsolver++", "num_inference_steps": 4,
    "guidance_scale": 2.0,
}  # fmt: skip
FIT = {"steps": 40, "batch_size": 12, "lr": 0.05}


@pytest.fixture(scope="module")
def learned(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The words for sevens and threes, as they are fitted and kept by the refill process."""
    folder = tmp_path_factory.mktemp("learned") / "0123456789abcdef"
    generator = TextualInversionGenerator(model=str(tiny_pipeline), fit=FIT, **SETTINGS)
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    steps: list[tuple[int, int]] = []
    weights, seconds = ensure_fitted(
        generator, folder, lambda: tiny.two_classes(), lambda step, total: steps.append((step, total)), "run"
    )
    assert len(weights) >= 16
    assert seconds > 0
    assert steps == [(step, 40) for step in range(1, 41)]
    few(generator, 2)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    return folder


def few(generator: Any, n: int = 20) -> torch.Tensor:
    spec = tiny.two_classes().spec
    generator.bind(spec, ("x", "y"))
    return generator.generate({"label": LABELS[:n]}, range(n))


def test_the_learned_words_make_their_classes_where_the_first_words_did_not(
    tiny_pipeline: Path,  # noqa: F811
    learned: Path,
) -> None:
    generator = TextualInversionGenerator(model=str(tiny_pipeline), fit=FIT, **SETTINGS)
    generator.load(learned)
    digits = torch.where(LABELS == 0, 7, 3)
    assert tiny.agreement(few(generator), digits) > 0.8
    assert tiny.agreement(few(PipelineGenerator(str(tiny_pipeline), **SETTINGS)), digits) < 0.4


def test_other_words_keep_their_meaning(tiny_pipeline: Path, learned: Path) -> None:  # noqa: F811
    asked = {"prompt": ["a photo of a four", "the number one"], "label": torch.tensor([0, 1])}
    samples = []
    for generator in (
        TextualInversionGenerator(model=str(tiny_pipeline), fit=FIT, **SETTINGS),
        PipelineGenerator(str(tiny_pipeline), **SETTINGS),
    ):
        if isinstance(generator, TextualInversionGenerator):
            generator.load(learned)
        generator.bind(tiny.two_classes().spec, ("x", "y"))
        samples.append(generator.generate(asked, [1, 2]))
    assert torch.equal(*samples)


def test_what_is_kept_are_the_words_alone(learned: Path) -> None:
    assert sorted(path.name for path in learned.iterdir()) == ["embeddings.safetensors", "fit.json", "fitted.json"]
    words = load_file(learned / "embeddings.safetensors")
    assert {name: tuple(word.shape) for name, word in words.items()} == {"<class-0>": (32,), "<class-1>": (32,)}


def test_the_same_fit_learns_the_same_words(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        generator = TextualInversionGenerator(model=str(tiny_pipeline), fit={**FIT, "steps": 2}, seed=seed, **SETTINGS)
        generator.fit(tiny.two_classes(), tmp_path / name, lambda step, total: None)
        found.append(load_file(tmp_path / name / "embeddings.safetensors")["<class-0>"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_fit_is_named_by_what_it_depends_on_and_not_by_how_it_is_sampled(tiny_pipeline: Path) -> None:  # noqa: F811
    def key(**settings: Any) -> dict[str, Any]:
        return TextualInversionGenerator(**{"model": str(tiny_pipeline), **SETTINGS, **settings}).fit_key()

    assert key(num_inference_steps=9, guidance_scale=1.0, scheduler="ddim", batch_size=3) == key()
    other: list[dict[str, Any]] = [{"fit": {"steps": 3}}, {"seed": 1}, {"names": {"x": "one"}}, {"size": 32}]
    for changed in (*other, {"prompts": "the {label}"}):
        assert key(**changed) != key(), changed
    named = name_of(TextualInversionGenerator(model=str(tiny_pipeline), fit=FIT, seed=3, **SETTINGS))
    assert name_of(build(named)) == named


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"fit": {"stepz": 1}}, "generator.fit.stepz"),
        ({"fit": {"rank": 4}}, "generator.fit.rank"),
        ({"seed": -1}, "generator.seed"),
        ({"fit": {"steps": 0}}, "generator.fit.steps"),
        ({"fit": {"lr": 0}}, "generator.fit.lr"),
        ({"fit": {"class_balance": 2}}, "generator.fit.class_balance"),
        ({"task": "class-conditional"}, "generator.task"),
        ({"prompts": {"x": "a {label}", "y": "a photo"}}, "generator.prompts"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(settings: Any, key: str, tiny_pipeline: Path) -> None:  # noqa: F811
    def made() -> None:
        generator = TextualInversionGenerator(**{"model": str(tiny_pipeline), **SETTINGS, **settings})
        generator.bind(tiny.two_classes().spec, ("x", "y"))

    with pytest.raises(ConfigurationError) as error:
        made()
    assert key in str(error.value)


def test_a_rate_that_diverges_says_so_and_writes_nothing(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    snapshot = tiny.two_classes()
    snapshot._fields["image"] = torch.full((80, 3, 16, 16), float("nan"))
    generator = TextualInversionGenerator(model=str(tiny_pipeline), fit={**FIT, "steps": 3}, **SETTINGS)
    with pytest.raises(GeneratorError, match=r"generator\.fit\.lr"):
        generator.fit(snapshot, tmp_path, lambda step, total: None)
    assert not list(tmp_path.iterdir())


def test_models_and_data_that_have_no_words_to_learn_are_refused(
    tiny_pipeline: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    import tiny_families

    generator = TextualInversionGenerator(model=str(tiny_families.save(tiny_families.sdxl, tmp_path)), **SETTINGS)
    with pytest.raises(ConfigurationError, match=r"StableDiffusionXLPipeline.*generator\.model"):
        generator.bind(tiny.two_classes().spec, ("x", "y"))
    generator = TextualInversionGenerator(model=str(tiny_pipeline), **SETTINGS)
    with pytest.raises(ConfigurationError, match="no labels"):
        generator.fit(tiny.two_classes(labelled=False), tmp_path, lambda step, total: None)
    generator = TextualInversionGenerator(model=str(tiny_pipeline), **SETTINGS)
    with pytest.raises(GeneratorError, match="load"):
        few(generator, 2)
