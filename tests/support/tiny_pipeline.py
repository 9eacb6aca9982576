"""A complete small latent text-to-image pipeline, trained on captioned digits, as a folder of `save_pretrained`.

Everything is real and small: a CLIP tokenizer whose vocabulary is written here, a CLIP text encoder, an autoencoder and
a conditional UNet, which are trained together once in a test session.
"""

from __future__ import annotations

import functools
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = (*NAMES, "a", "photo", "of", "digit", "the", "number", "thing")
SIZE = 16
CLASSES = tuple("0123456789")
WORDS_OF = dict(zip(CLASSES, NAMES, strict=True))
CAPTIONS = ("a photo of a {}", "the number {}", "a digit {}", "{}")

_VAE_STEPS, _UNET_STEPS, _BATCH = 110, 190, 64


def pictures(rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Digits as float32 (n, 3, 16, 16) in [-1, 1], and their labels."""
    data = load_digits()
    images = torch.from_numpy(data.images[rows]).float()[:, None] / 8.0 - 1.0
    images = functional.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(data.target[rows]).long()


def spec(*shape: int) -> SampleSpec:
    """Images of this shape, with labels."""
    image = FieldSpec("image", "0", "tensor", "uint8", shape, 0.0, 255.0, "chw")
    return SampleSpec((image, FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0)))


@functools.cache
def _classifier() -> SVC:
    images, labels = pictures()
    return SVC(C=10).fit(images.mean(1).flatten(1).numpy(), labels.numpy())


def agreement(samples: Tensor, digits: Tensor) -> float:
    """Share of samples (n, 3, 16, 16) that a classifier of the real digits takes for these."""
    return float((_classifier().predict(samples.mean(1).flatten(1).numpy()) == digits.numpy()).mean())


def two_classes(labelled: bool = True) -> Snapshot:
    """Forty real sevens, of class x, and forty threes, of class y."""
    images, digits = pictures()
    rows = torch.cat([torch.nonzero(digits == digit)[:40, 0] for digit in (7, 3)])
    raw = {"image": ((images[rows] + 1) * 127.5).round().byte()}
    if not labelled:
        return Snapshot(SampleSpec(spec(3, SIZE, SIZE).fields[:1]), raw)
    return Snapshot(spec(3, SIZE, SIZE), {**raw, "label": (digits[rows] == 3).long()}, ["x", "y"], [0, 1])


def write_tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer that knows `WORDS` as one token each, and spells all other words."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789<>-_,."
    vocabulary, merges = [*letters, *(letter + "</w>" for letter in letters)], []
    for word in WORDS:
        left = word[0] if len(word) > 1 else ""
        for i in range(1, len(word)):
            right = word[i] + ("</w>" if i == len(word) - 1 else "")
            if (left, right) not in merges:
                merges.append((left, right))
                vocabulary.append(left + right)
            left += right
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=12)


def text_config(tokenizer: Any, hidden_size: int, **more: Any) -> Any:
    """Of a small text encoder for a tokenizer of `write_tokenizer`."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=2 * hidden_size, num_attention_heads=2,
        max_position_embeddings=12, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **more,
    )  # fmt: skip


def train(folder: Path) -> Path:
    """Builds, trains and saves the pipeline; about half a minute on one core."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        tokenizer = write_tokenizer(folder / "vocabulary")
        text = CLIPTextModel(text_config(tokenizer, hidden_size=32, num_hidden_layers=2))
        vae = AutoencoderKL(
            block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=SIZE,
            mid_block_add_attention=False,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=SIZE // 2, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
            attention_head_dim=8, norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        scheduler = DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
            clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True,
        )  # fmt: skip
        images, labels = pictures()
        _train_vae(vae, images)
        _train_unet(unet, text, tokenizer, vae, scheduler, images, labels)
        pipeline = StableDiffusionPipeline(
            vae, text, tokenizer, unet, scheduler, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


def _optimizer(parameters: Any, lr: float, steps: int) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(parameters, lr, fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)


def _train_vae(vae: Any, images: Tensor) -> None:
    optimizer, schedule = _optimizer(vae.parameters(), 3e-3, _VAE_STEPS)
    for _ in range(_VAE_STEPS):
        x = images[torch.randint(len(images), (_BATCH,))]
        posterior = vae.encode(x).latent_dist
        loss = functional.mse_loss(vae.decode(posterior.sample()).sample, x) + 1e-4 * posterior.kl().mean() / 16
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=1.0 / float(vae.encode(images[:256]).latent_dist.mean.std()))


def _train_unet(unet: Any, text: Any, tokenizer: Any, vae: Any, scheduler: Any, images: Tensor, labels: Tensor) -> None:
    with torch.no_grad():
        latents = (
            torch.cat([vae.encode(part).latent_dist.mean for part in images.split(256)]) * vae.config.scaling_factor
        )
    captions = [template.format(name) for template in CAPTIONS for name in NAMES] + [""]
    ids = tokenizer(captions, padding="max_length", max_length=12, return_tensors="pt").input_ids
    optimizer, schedule = _optimizer([*unet.parameters(), *text.parameters()], 4e-3, _UNET_STEPS)
    for _ in range(_UNET_STEPS):
        rows = torch.randint(len(images), (_BATCH,))
        which = torch.randint(len(CAPTIONS), (_BATCH,)) * 10 + labels[rows]
        which[torch.rand(_BATCH) < 0.1] = len(captions) - 1
        x, noise, t = latents[rows], torch.randn(_BATCH, *latents.shape[1:]), torch.randint(1000, (_BATCH,))
        used, place = which.unique(return_inverse=True)
        states = text(ids[used])[0][place]
        predicted = unet(scheduler.add_noise(x, noise, t), t, states).sample
        loss = functional.mse_loss(predicted, scheduler.get_velocity(x, noise, t))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    unet.eval().requires_grad_(False)
    text.eval().requires_grad_(False)


def with_safety_checker(model: Path, folder: Path, samples: Tensor) -> Path:
    """The pipeline with a safety checker that objects to about half of these samples (n, 3, 16, 16) in [-1, 1]."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    size = {"height": SIZE, "width": SIZE}
    extractor = CLIPImageProcessor(size=size, crop_size=size)
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": SIZE, "patch_size": 4,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
    embedded = _embedded(checker, extractor, samples)
    bad = embedded[0] - embedded.mean(0)
    cosine = functional.cosine_similarity(embedded, bad[None])
    with torch.no_grad():
        checker.concept_embeds.copy_(bad.expand(17, -1))
        checker.concept_embeds_weights.fill_(float(cosine.median()))
        checker.special_care_embeds_weights.fill_(2.0)
    pipe = StableDiffusionPipeline.from_pretrained(str(model), safety_checker=None, use_safetensors=True)
    parts = {**pipe.components, "safety_checker": checker, "feature_extractor": extractor}
    StableDiffusionPipeline(**parts, requires_safety_checker=True).save_pretrained(folder)
    return folder


def _embedded(checker: Any, extractor: Any, samples: Tensor) -> Tensor:
    pictures = [((s + 1) * 127.5).round().byte() for s in samples]
    with torch.no_grad():
        pooled = checker.vision_model(extractor(pictures, return_tensors="pt").pixel_values)[1]
        embedded: Tensor = checker.visual_projection(pooled)
    return embedded


def objections(folder: Path, samples: Tensor) -> Tensor:
    """Which samples the checker in a pipeline's folder objects to, bool (n,)."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    checker = StableDiffusionSafetyChecker.from_pretrained(str(folder / "safety_checker"))
    extractor = CLIPImageProcessor.from_pretrained(str(folder / "feature_extractor"))
    cosine = functional.cosine_similarity(_embedded(checker, extractor, samples), checker.concept_embeds[:1])
    return cosine > checker.concept_embeds_weights[0] + 5e-4


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trained pipeline, made once in a session whichever module and process of it asks."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "tiny_pipeline"
    model = folder / "model"
    with FileLock(root / "tiny_pipeline.lock"):
        return model if (model / "model_index.json").exists() else train(folder)
