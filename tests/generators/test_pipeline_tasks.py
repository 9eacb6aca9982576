"""Tasks of pipelines beside text-to-image, and the families of models whose configs are ready."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_families
import tiny_pipeline as tiny
import torch
from tiny_pipeline import tiny_pipeline  # noqa: F401 - a fixture
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.pipeline import PipelineGenerator
from lightning_diffaug.generators.pipeline_call import called_strength, edges, from_audio, resized
from lightning_diffaug.generators.pipeline_load import without_deprecations
from lightning_diffaug.spec import FieldSpec, SampleSpec

Make = Callable[..., PipelineGenerator]


@pytest.fixture
def make(tiny_pipeline: Path) -> Make:  # noqa: F811
    def made(shape: tuple[int, ...] = (3, 16, 16), **settings: Any) -> PipelineGenerator:
        defaults = {"num_inference_steps": 6, "guidance_scale": 2.0, "names": tiny.WORDS_OF}
        generator = PipelineGenerator(**{"model": str(tiny_pipeline), **defaults, **settings})
        generator.bind(tiny.spec(*shape), tiny.CLASSES)
        return generator

    return made


@pytest.fixture(scope="module")
def started() -> dict[str, Tensor]:
    """Eight real digits, as a planner gives them."""
    images, labels = tiny.pictures(slice(8))
    return {"start": images, "label": labels}


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


# Real samples ---------------------------------------------------------------------------------------------


def test_image_to_image_goes_further_from_its_start_with_strength(make: Make, started: Any) -> None:
    far = []
    for strength in (0.2, 0.5, 1.0):
        generator = make(task="image-to-image", strength=strength)
        assert generator.source == "image"
        far.append(distance(generator.generate(started, range(8)), started["start"]))
    assert far[0] < far[1] < far[2]
    assert far[0] < 0.5 * far[2]


def test_grey_samples_of_another_size_are_started_from(make: Make, started: Any) -> None:
    small = resized(started["start"], (8, 8)).mean(1, keepdim=True)
    samples = make((1, 8, 8), task="image-to-image", strength=0.2).generate({**started, "start": small}, range(8))
    assert samples.shape == small.shape
    assert distance(samples, small) < 0.4 < distance(samples, small.flip(0))


def test_inpainting_keeps_what_is_masked_exactly_and_makes_the_rest_anew(make: Make, started: Any) -> None:
    generator = make(task="inpainting", repaint=0.25)
    assert generator.repaint == 0.25
    keep = torch.ones(8, 1, 16, 16)
    keep[:, :, 4:12, 4:12] = 0
    samples = generator.generate({**started, "mask": keep}, range(8))
    kept = keep.bool().expand_as(samples)
    assert torch.equal(samples[kept], started["start"][kept])
    assert distance(samples[~kept], started["start"][~kept]) > 0.1


def test_a_controlnet_follows_the_edges_of_a_real_sample(
    tiny_pipeline: Path,  # noqa: F811
    tmp_path: Path,
    make: Make,
    started: Any,
) -> None:
    from diffusers import ControlNetModel, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(str(tiny_pipeline / "unet"), low_cpu_mem_usage=False)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
    rng, seen = torch.Generator().manual_seed(0), net.controlnet_cond_embedding
    with torch.no_grad():  # untrained, a ControlNet does nothing
        for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            layer.weight.normal_(0, 0.05, generator=rng)
        for layer in (seen.conv_in, *seen.blocks, seen.conv_out):
            layer.weight.normal_(0, 0.3, generator=rng)
    net.save_pretrained(tmp_path / "net")

    def made(condition: Any = started, **settings: Any) -> Tensor:
        generator = make(task="controlnet", controlnet=str(tmp_path / "net"), **settings)
        return generator.generate(condition, range(8))

    followed, text_alone = made(), make().generate(started, range(8))
    assert distance(made(control_scale=0.0), text_alone) < 1e-4
    assert 1e-3 < distance(made(control_scale=0.5), text_alone) < distance(followed, text_alone)
    others = {**started, "start": started["start"].flip(0)}
    assert distance(made(others), followed) > 1e-3
    own = {"label": started["label"], "control": edges((started["start"] + 1) / 2) * 2 - 1}
    assert distance(made(own), followed) < 1e-4
    assert distance(made(control="image"), followed) > 1e-3


@pytest.mark.parametrize("task", ["image-to-image", "inpainting"])
def test_a_start_that_is_missing_is_said(task: str, make: Make, started: Any) -> None:
    with pytest.raises(GeneratorError, match=r"no 'start'.*generator\.task"):
        make(task=task).generate({"label": started["label"]}, range(8))


def test_edges_are_where_the_picture_changes() -> None:
    picture = torch.zeros(1, 3, 8, 8)
    picture[..., 4:] = 0.5
    found = edges(picture)
    assert found.shape == picture.shape
    assert found[..., 3:5].min() == 1
    assert found[..., :3].max() == found[..., 5:].max() == 0


def test_pictures_are_cropped_around_their_centre_not_squeezed() -> None:
    wide = torch.zeros(1, 3, 8, 16)
    wide[..., 4:12] = 1.0
    assert torch.equal(resized(wide, (8, 8)), torch.ones(1, 3, 8, 8))


# Classes --------------------------------------------------------------------------------------------------


def test_a_class_conditional_model_makes_the_classes_that_the_names_say(tmp_path: Path) -> None:
    model = tiny_families.save(tiny_families.dit, tmp_path)
    index = json.loads((model / "model_index.json").read_text())
    index["id2label"] = {"1": "goldfish, Carassius auratus", "7": "cock"}
    (model / "model_index.json").write_text(json.dumps(index))
    generator = PipelineGenerator(
        str(model), task="class-conditional", names={"a": 3, "fish": "goldfish"}, num_inference_steps=3
    )
    generator.bind(tiny.spec(3, 16, 16), ("a", "fish", "cock"))
    samples = generator.generate({"label": torch.tensor([0, 1, 2, 1])}, [5, 6, 7, 8])
    rng = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7, 8)]
    pipe = generator._ready().pipe
    made = pipe([3, 1, 7, 1], guidance_scale=5.0, generator=rng, num_inference_steps=3, output_type="np").images
    assert torch.allclose(samples, torch.from_numpy(made).permute(0, 3, 1, 2) * 2 - 1, atol=1e-5)
    for names in ({"fish": "goldfish"}, {"a": 1000, "fish": 1}, {"a": 7, "fish": 1}):
        generator = PipelineGenerator(str(model), task="class-conditional", names=names)
        generator.bind(tiny.spec(3, 16, 16), ("a", "fish", "cock"))
        with pytest.raises(ConfigurationError, match=r"generator\.names.*goldfish"):
            generator.generate({"label": torch.tensor([0])}, [5])


# Sound ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")  # weight norm in diffusers' audio autoencoder
def test_an_audio_pipeline_makes_sound_of_the_datas_rate_and_length(tmp_path: Path) -> None:
    model = tiny_families.save(tiny_families.stable_audio, tmp_path)
    fields = (FieldSpec("sound", "0", "tensor", "float32", (1, 20), -1.0, 1.0), tiny.spec(1)["label"])
    generator = PipelineGenerator(
        str(model), task="audio", sample_rate=50, num_inference_steps=2, prompts="the {label}"
    )
    generator.bind(SampleSpec(fields), ("one", "two"))
    samples = generator.generate({"label": torch.tensor([0, 1])}, [5, 6])
    assert samples.shape == (2, 1, 20)
    assert samples.std() > 0
    pipe, rng = generator._ready().pipe, [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    with without_deprecations():
        made = pipe(
            ["the one", "the two"], negative_prompt=["", ""], audio_end_in_s=0.4, guidance_scale=5.0, generator=rng,
            num_inference_steps=2,
        ).audios  # fmt: skip
    assert made.shape == (2, 2, 40), "stereo, at 100 samples a second"
    assert torch.allclose(samples, from_audio(made, 100, (1, 20), 50), atol=1e-4)


def test_sound_is_resampled_and_mixed_and_keeps_its_pitch() -> None:
    time = torch.arange(4000) / 4000
    tone = torch.sin(2 * torch.pi * 100 * time)
    sound = from_audio(torch.stack((tone, tone))[None], 4000, (1000,), 1000)
    assert sound.shape == (1, 1000)
    assert int(torch.fft.rfft(sound[0]).abs().argmax()) == 100
    longer = from_audio(tone[None], 4000, (2, 6000), 4000)
    assert torch.equal(longer[0, 0, :4000], tone)
    assert longer[..., 4000:].abs().max() == 0


# Families -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "scheduler", "guidance"),
    [
        (tiny_families.sdxl, None, 3.0),
        (tiny_families.sdxl, "dpmsolver++", 0.0),
        (tiny_families.sd3, "flow_euler", 3.0),
        (tiny_families.sd3, "unipc", 3.0),
        (tiny_families.flux, "flow_euler", 0.0),
        (tiny_families.flux_dev, "dpmsolver++", 3.0),
    ],
)
def test_every_family_samples_from_embeddings_what_it_makes_of_the_text(
    family: Any, scheduler: str | None, guidance: float, tmp_path: Path
) -> None:
    """SDXL, SD3 and FLUX give their embeddings in forms of their own; each text is encoded once."""
    model = tiny_families.save(family, tmp_path)
    generator = PipelineGenerator(
        str(model), scheduler=scheduler, num_inference_steps=2, guidance_scale=guidance, size=16, prompts="a {label}",
        negative_prompt="the number",
    )  # fmt: skip
    generator.bind(tiny.spec(3, 16, 16), ("three", "seven"))
    encoded: list[int] = []
    pipe = generator._ready().pipe
    pipe.text_encoder_2.register_forward_hook(lambda module, given, made: encoded.append(1))
    samples = generator.generate({"label": torch.tensor([0, 1, 0, 0])}, [5, 6, 7, 8])
    once = len(encoded)
    generator.generate({"label": torch.tensor([0, 1, 0, 0])}, [5, 6, 7, 8])
    assert len(encoded) == once
    rng = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7, 8)]
    negative = {"negative_prompt": ["the number"] * 4} if family in (tiny_families.sdxl, tiny_families.sd3) else {}
    prompts = ["a three", "a seven", "a three", "a three"]
    with without_deprecations():
        made = pipe(
            prompts, generator=rng, num_inference_steps=2, guidance_scale=guidance, height=16, width=16,
            output_type="np", **negative,
        ).images  # fmt: skip
    assert torch.allclose(samples, torch.from_numpy(made).permute(0, 3, 1, 2) * 2 - 1, atol=1e-4)


@pytest.mark.parametrize(("family", "scheduler"), [(tiny_families.sd3, "heun"), (tiny_families.flux, "dpmsolver++")])
def test_a_scheduler_that_does_not_suit_a_flow_model_is_refused(family: Any, scheduler: str, tmp_path: Path) -> None:
    generator = PipelineGenerator(str(tiny_families.save(family, tmp_path)), scheduler=scheduler)
    generator.bind(tiny.spec(3, 16, 16), ("three", "seven"))
    with pytest.raises(ConfigurationError, match=r"generator\.scheduler to one of .*flow_euler"):
        generator.generate({"label": torch.tensor([0])}, [1])


# Strengths of rows ----------------------------------------------------------------------------------------


STRENGTHS = [0.2, 1.0, 0.5, 0.55, 0.2, 1.0, 0.9, 0.5]


@pytest.mark.parametrize("task", ["image-to-image", "inpainting"])
def test_each_sample_is_what_a_call_at_its_strength_makes_of_it(task: str, make: Make, started: Any) -> None:
    condition = {**started, "mask": torch.zeros(8, 1, 16, 16), "strength": torch.tensor(STRENGTHS, dtype=torch.float64)}
    generator = make(task=task, strength=[0.2, 1.0], batch_size=3)
    together = generator.generate(condition, range(8))
    for strength in set(STRENGTHS):
        rows = [row for row, own in enumerate(STRENGTHS) if own == strength]
        alone = make(task=task, strength=strength).generate({n: v[rows] for n, v in condition.items()}, rows)
        assert distance(alone, together[rows]) < 1e-4, strength
    backwards = list(range(7, -1, -1))
    again = generator.generate({name: value[backwards] for name, value in condition.items()}, backwards)
    assert distance(again, together[backwards]) < 1e-4


def test_like_strengths_share_a_call_whatever_way_a_pipeline_rounds() -> None:
    def rounded(strength: float, steps: int) -> tuple[int, int]:
        """As Stable Diffusion has it, and as the flow models."""
        return min(int(steps * strength), steps), int(max(steps - steps * strength, 0))

    for steps in (2, 7, 10, 49):
        for strength in torch.linspace(1.001 / steps, 1, 97, dtype=torch.float64).tolist():
            called = called_strength(strength, steps)
            assert rounded(called, steps) == rounded(strength, steps)
        assert called_strength(1.0, steps) == 1.0
    assert called_strength(0.52, 10) == called_strength(0.58, 10) != called_strength(0.61, 10)
    with pytest.raises(GeneratorError, match=r"less than one step.*generator\.num_inference_steps"):
        called_strength(0.05, 10)


def test_strengths_of_samples_are_a_setting_of_a_pipeline(make: Make, started: Any) -> None:
    for strength in (0.5, [0.25, 0.5], {"low": 0.25, "high": 1.0}):
        generator = make(task="image-to-image", strength=strength)
        assert generator.strength == strength
        assert PipelineGenerator(**json.loads(json.dumps(generator.config()))).sample_key() == generator.sample_key()
    with pytest.raises(GeneratorError, match=r"'strength'.*generator\.strength"):
        generator.generate(started, range(8))
    for settings in ({"strength": [0.5, 1.0]}, {"strength": [0.0, 1.0], "task": "image-to-image"},
                     {"strength": [0.1, 1.0], "task": "inpainting"}):  # fmt: skip
        with pytest.raises(ConfigurationError, match=r"generator\.strength"):
            make(**settings)
