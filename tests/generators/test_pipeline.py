"""A real, small text-to-image pipeline: its text steers, and every control of it has its effect."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipeline as tiny
import torch
from tiny_pipeline import tiny_pipeline  # noqa: F401 - a fixture
from torch import Tensor

from lightning_diffaug.conditions import QuotaPlanner
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates import Finite, InRange
from lightning_diffaug.generators.pipeline import PipelineGenerator
from lightning_diffaug.generators.pipeline_load import without_deprecations
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe

Make = Callable[..., PipelineGenerator]
LABELS = torch.arange(60) % 10


@pytest.fixture
def make(tiny_pipeline: Path) -> Make:  # noqa: F811
    """A generator of the small pipeline, bound to data of its size."""

    def made(shape: tuple[int, ...] = (3, 16, 16), **settings: Any) -> PipelineGenerator:
        defaults = {"scheduler": "dpmsolver++", "num_inference_steps": 4, "guidance_scale": 2.0, "names": tiny.WORDS_OF}
        generator = PipelineGenerator(**{"model": str(tiny_pipeline), **defaults, **settings})
        generator.bind(tiny.spec(*shape), tiny.CLASSES)
        return generator

    return made


def few(generator: PipelineGenerator, *labels: int, seeds: range = range(100)) -> Tensor:
    labels = labels or (3, 7, 1, 0)
    return generator.generate({"label": torch.tensor(labels)}, list(seeds)[: len(labels)])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


# Text -----------------------------------------------------------------------------------------------------


def test_the_text_steers_the_picture(make: Make) -> None:
    samples = make().generate({"label": LABELS}, range(60))
    assert samples.shape == (60, 3, 16, 16)
    assert samples.dtype == torch.float32
    assert samples.abs().max() <= 1
    assert tiny.agreement(samples, LABELS) > 0.85
    assert tiny.agreement(samples, (LABELS + 1) % 10) < 0.3


def test_a_prompt_of_the_condition_goes_before_the_class(make: Make) -> None:
    asked = {"label": LABELS[:30], "prompt": [f"the number {tiny.NAMES[9 - int(i)]}" for i in LABELS[:30]]}
    assert tiny.agreement(make().generate(asked, range(30)), 9 - LABELS[:30]) > 0.7


@pytest.mark.parametrize("suffix", [".json", ".csv", ".txt"])
def test_captions_come_from_a_file(suffix: str, tmp_path: Path, make: Make) -> None:
    """Each caption of a class is used, by the seed; the same captions given as prompts make the same samples."""
    import csv
    import json

    texts = {name: [f"the number {word}", f"a digit {word}"] for name, word in tiny.WORDS_OF.items()}
    file = tmp_path / f"captions{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps(texts))
    elif suffix == ".csv":
        with file.open("w", newline="") as out:
            csv.writer(out).writerows(
                [("label", "caption"), *((n, text) for n, both in texts.items() for text in both)]
            )
    else:
        file.write_text("the number {label}\n\na digit {label}\n")
    from_file, as_prompts = make(captions=str(file)), make(prompts=texts)
    assert torch.equal(few(from_file, 3, 7), few(as_prompts, 3, 7))
    assert not torch.equal(few(from_file, 3, 3), few(make(prompts="the number {label}"), 3, 3))
    before = from_file.sample_key()
    file.write_text(file.read_text().replace("a digit", "a photo"))
    assert from_file.sample_key() != before


def test_guidance_raises_agreement_and_lowers_diversity(make: Make) -> None:
    free, guided = (make(guidance_scale=scale).generate({"label": LABELS}, range(60)) for scale in (1.0, 5.0))
    assert tiny.agreement(guided, LABELS) > tiny.agreement(free, LABELS) + 0.05

    def spread(samples: Tensor) -> float:
        return float(torch.stack([samples[c == LABELS].std(0).mean() for c in range(10)]).mean())

    assert spread(guided) < spread(free)


def test_a_negative_prompt_moves_away_from_it(make: Make) -> None:
    plain, away = few(make(prompts="the {label}")), few(make(prompts="the {label}", negative_prompt="the number zero"))
    assert distance(plain, away) > 0.02
    unguided = [few(make(guidance_scale=1.0, negative_prompt=text)) for text in ("", "the number zero")]
    assert torch.equal(*unguided), "without guidance there is nothing to move away"


def test_a_rows_own_negative_prompt_goes_before_that_of_the_setting(make: Make) -> None:
    label = torch.tensor([3, 7])
    told = {"label": label, "negative_prompt": ["the number zero", ""]}
    rows = make(negative_prompt="the number one").generate(told, range(2))
    zero = make(negative_prompt="the number zero").generate({"label": label}, range(2))
    one = make(negative_prompt="the number one").generate({"label": label}, range(2))
    assert torch.allclose(rows, torch.stack([zero[0], one[1]]), atol=1e-5)
    assert distance(zero[:1], one[:1]) > 0.01


def test_captions_of_samples_are_none_of_classes(tmp_path: Path, make: Make) -> None:
    file = tmp_path / "captions.csv"
    file.write_text("index,caption\n0,a red one\n")
    with pytest.raises(ConfigurationError, match=r"data\.text\.captions"):
        make(captions=str(file)).bind(tiny.SPEC, tiny.NAMES)


def test_each_prompt_is_encoded_once(make: Make) -> None:
    generator, texts = make(batch_size=4), []
    encoder = generator._ready().pipe.text_encoder
    encoder.register_forward_hook(lambda module, given, made: texts.append(1))
    generator.generate({"label": torch.tensor([3, 7] * 6)}, range(12))
    assert len(texts) == 4, "two prompts, each with its negative one"
    generator.generate({"label": torch.tensor([3, 7])}, range(2))
    assert len(texts) == 4


def test_embeddings_computed_once_make_what_the_pipeline_itself_makes_of_the_text(make: Make) -> None:
    generator = make(negative_prompt="the number zero")
    pipe = generator._ready().pipe
    rng = [torch.Generator().manual_seed(seed) for seed in range(3)]
    prompts = [f"a photo of a {tiny.NAMES[c]}" for c in (3, 7, 1)]
    arguments = {"num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "pt", "generator": rng}
    with without_deprecations():
        made = pipe(prompts, negative_prompt=["the number zero"] * 3, **arguments).images
    assert torch.allclose(few(generator, 3, 7, 1), made * 2 - 1, atol=1e-4)


# Sampling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "unipc", "heun", "euler", "lcm"])
def test_every_scheduler_samples_in_its_own_way(scheduler: str, make: Make) -> None:
    samples = few(make(scheduler=scheduler))
    assert samples.isfinite().all()
    assert distance(samples, few(make())) > 1e-3
    assert torch.equal(samples, few(make(scheduler=scheduler)))


def test_more_steps_come_nearer_to_the_limit(make: Make) -> None:
    limit = few(make(num_inference_steps=40))
    coarse, fine = (distance(few(make(num_inference_steps=steps)), limit) for steps in (2, 12))
    assert fine < 0.7 * coarse


def test_a_flow_scheduler_is_refused_for_a_diffusion_model(make: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.scheduler"):
        few(make(scheduler="flow_euler"))


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "ddpm"])
def test_a_sample_depends_on_its_seed_and_not_on_the_batch(scheduler: str, make: Make) -> None:
    generator = make(scheduler=scheduler, batch_size=3)
    together = few(generator, 3, 7, 1, 0)
    assert torch.equal(together, few(generator, 3, 7, 1, 0))
    assert torch.allclose(few(generator, 7, seeds=range(1, 2))[0], together[1], atol=1e-4)
    assert distance(few(generator, 7, seeds=range(2, 3))[0], together[1]) > 0.05


def test_global_random_states_are_left_alone(make: Make) -> None:
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    few(make(scheduler="ddpm"))
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 16, 16), (3, 12, 24)])
def test_samples_have_the_size_and_channels_of_the_data(shape: tuple[int, ...], make: Make) -> None:
    samples, whole = few(make(shape)), few(make())
    assert samples.shape == (4, *shape)
    assert samples.abs().max() <= 1
    if shape == (1, 8, 8):
        small = torch.nn.functional.avg_pool2d(whole, 2).mean(1, keepdim=True)
        assert distance(samples, small) < 0.15


def test_the_models_own_size_can_be_set(make: Make) -> None:
    generator, sizes = make(size=[16, 24]), []
    vae = generator._ready().pipe.vae
    vae.decoder.register_forward_hook(lambda module, given, made: sizes.append(tuple(made.shape[2:])))
    assert few(generator).shape == (4, 3, 16, 16)
    assert sizes == [(16, 24)]


def test_slicing_decodes_one_at_a_time_and_changes_nothing(make: Make) -> None:
    sliced, batches = make(vae_slicing=True), []
    sliced._ready().pipe.vae.decoder.register_forward_hook(lambda module, given, made: batches.append(len(made)))
    assert torch.allclose(few(sliced), few(make()), atol=1e-4)
    assert batches == [1, 1, 1, 1]


def test_weights_can_be_of_half_precision(make: Make) -> None:
    half = make(dtype="bfloat16")
    samples = few(half)
    assert half._ready().pipe.unet.dtype == torch.bfloat16
    assert 0 < distance(samples, few(make())) < 0.3


def test_further_arguments_reach_the_call(make: Make) -> None:
    assert distance(few(make(extra={"guidance_rescale": 0.9})), few(make())) > 1e-3
    for name in ("guidance_rescue", "prompt_embeds"):
        with pytest.raises(ConfigurationError, match=f"generator.extra.{name}"):
            few(make(extra={name: 1}))


def test_each_step_shows_progress(make: Make) -> None:
    generator, beats = make(num_inference_steps=7, batch_size=2), []
    generator._ready()
    generator.on_progress = lambda: beats.append(1)
    few(generator)
    assert len(beats) >= 2 * 7


# Rejection ------------------------------------------------------------------------------------------------


def test_what_the_safety_checker_objects_to_is_counted_as_that(tiny_pipeline: Path, tmp_path: Path, make: Make) -> None:  # noqa: F811
    folder = tiny.with_safety_checker(tiny_pipeline, tmp_path / "checked", few(make(), *range(10)))
    checked, free = (
        few(make(model=str(folder)), *range(10)),
        few(make(model=str(folder), safety_checker=False), *range(10)),
    )
    assert free.isfinite().all()
    rejected = checked.isnan().flatten(1).all(1)
    assert 2 <= int(rejected.sum()) <= 8
    assert torch.equal(checked[~rejected], free[~rejected])
    flagged = tiny.objections(folder, free)
    assert torch.equal(rejected, flagged)

    planner = QuotaPlanner([1.0] * 10)
    recipe = Recipe(planner, make(model=str(folder)), (Finite(), InRange()), tiny.spec(3, 16, 16), 12, attempts=1)
    shard = fill_slot(0, recipe)
    assert 2 <= shard.n <= 10
    assert shard.made["rejections"] == {"safety": 12 - shard.n}
    assert {row["reason"] for row in shard.rejected} == {"safety"}
    again = fill_slot(0, dataclasses.replace(recipe, attempts=6))
    assert shard.n < again.n <= 12, "what was rejected is made again with other seeds"
    assert again.made["rejections"] == {"safety": again.made["generated"] - again.n}


# Names and settings ---------------------------------------------------------------------------------------


def test_the_pool_is_named_by_all_that_changes_a_sample_and_nothing_else(make: Make) -> None:
    key = make().sample_key()
    assert make(batch_size=2, device="cpu", vae_slicing=True, download=True).sample_key() == key
    for setting, value in {
        "scheduler": "ddim", "num_inference_steps": 5, "guidance_scale": 3.0, "prompts": "the {label}", "size": 32,
        "negative_prompt": "a", "dtype": "bfloat16", "safety_checker": False, "extra": {"clip_skip": 1},
    }.items():  # fmt: skip
        assert make(**{setting: value}).sample_key() != key, setting


def test_auto_is_named_by_the_number_type_that_it_stands_for(make: Make) -> None:
    def key(**settings: Any) -> dict[str, Any]:
        return make(**settings).sample_key()

    assert key(device="cpu") == key(device="cpu", dtype="float32")
    # The name of a device is enough: none is touched for a fingerprint.
    assert key(device="cuda:0") == key(device="cuda:0", dtype="bfloat16") != key(device="cpu")


def test_a_generator_is_rebuilt_from_its_name(make: Make, tmp_path: Path) -> None:
    words = tmp_path / "words.safetensors"
    words.touch()  # binding looks whether it is there
    named = name_of(make(embeddings=[str(words)]))
    again = build(named)
    assert isinstance(again, PipelineGenerator)
    assert name_of(again) == named


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"task": "video"}, "generator.task"),
        ({"scheduler": "fast"}, "generator.scheduler"),
        ({"dtype": "int4"}, "generator.dtype"),
        ({"num_inference_steps": 0}, "generator.num_inference_steps"),
        ({"guidance_scale": -1}, "generator.guidance_scale"),
        ({"strength": 0.5}, "generator.strength"),
        ({"task": "image-to-image", "strength": 0}, "generator.strength"),
        ({"task": "image-to-image", "strength": 0.1}, "generator.num_inference_steps"),
        ({"task": "inpainting", "repaint": 1.0}, "generator.repaint"),
        ({"task": "controlnet"}, "generator.controlnet"),
        ({"controlnet": "x"}, "generator.controlnet"),
        ({"task": "audio"}, "generator.sample_rate"),
        ({"size": 100}, "generator.size"),
        ({"size": "512x512"}, "generator.size"),
        ({"batch_size": 0}, "generator.batch_size"),
        ({"revision": None}, "generator.revision"),
        ({"prompts": ""}, "generator.prompts"),
        ({"prompts": "a photo"}, "generator.prompts"),
        ({"prompts": {"zero": "x"}}, "generator.prompts"),
        ({"names": {"ten": "x"}}, "generator.names"),
        ({"names": {"0": "one", "1": "one"}}, "generator.names"),
        ({"captions": "nowhere.json"}, "generator.captions"),
        ({"adapters": [{"modell": "x"}]}, "generator.adapters"),
        ({"adapters": [{"model": "x/y", "weight_name": "a.bin"}]}, "generator.adapters"),
        ({"embeddings": [3]}, "generator.embeddings"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(settings: dict[str, Any], key: str, make: Make) -> None:
    with pytest.raises(ConfigurationError) as error:
        make(**settings)
    assert key in str(error.value)


def test_data_that_are_no_image_are_refused(make: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.fields"):
        make((2, 8, 8))


def test_samples_need_to_know_the_data(tiny_pipeline: Path) -> None:  # noqa: F811
    with pytest.raises(GeneratorError, match="bind"):
        PipelineGenerator(str(tiny_pipeline)).generate({}, [1])
