"""A CLIP that learns two colours on the spot, and a safety checker that objects to one of them, as local folders."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from tiny_pipeline import text_config, write_tokenizer
from torch import Tensor

COLOURS = ("seven", "three")
"""Words of the tokenizer that stand for red and blue here."""
SIZE = 16


def coloured(labels: Tensor, seed: int = 0) -> Tensor:
    """Red (0) and blue (1) images with noise, float32 (n, 3, 16, 16) in [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    plain = torch.full((len(labels), 3, SIZE, SIZE), -0.6)
    plain[labels == 0, 0] = 0.7
    plain[labels == 1, 2] = 0.7
    return (plain + 0.2 * torch.randn(plain.shape, generator=rng)).clamp(-1, 1)


def _vision() -> Any:
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=SIZE, patch_size=8,
        projection_dim=16,
    )  # fmt: skip


def _processor() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def save_clip(folder: Path) -> Path:
    """Builds a CLIP, trains it a few steps on the two colours, and saves it with its processor."""
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        tokenizer = write_tokenizer(folder / "vocabulary")
        text = text_config(tokenizer, hidden_size=16, num_hidden_layers=1, projection_dim=16)
        model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=_vision().to_dict(), projection_dim=16))
        processor = CLIPProcessor(_processor(), tokenizer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        forms = ("a photo of a {}", "{}", "a {} thing", "the number {}")
        for step in range(60):
            labels = torch.randperm(2).repeat(4)
            words = [forms[(step + i) % 4].format(COLOURS[c]) for i, c in enumerate(labels.tolist())]
            levels = ((coloured(labels, step) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
            given = processor(text=words, images=list(levels), padding="max_length", return_tensors="pt")
            said = model(**given)
            same = (labels[:, None] == labels[None]).float()
            scores = 5.0 * said.image_embeds @ said.text_embeds.T
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, same)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
    return folder / "model"


def save_checker(folder: Path) -> Path:
    """A safety checker of diffusers whose concepts are what it sees of red images; as in a pipeline's folder."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        config = CLIPConfig(vision_config=_vision().to_dict(), projection_dim=16)
        checker, processor = StableDiffusionSafetyChecker(config).eval(), _processor()

        def seen(label: int) -> Tensor:
            levels = ((coloured(torch.full((32,), label)) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
            pixels = processor(images=list(levels), return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                return torch.nn.functional.normalize(checker.visual_projection(checker.vision_model(pixels)[1]), dim=1)

        red, blue = seen(0), seen(1)
        concept = torch.nn.functional.normalize(red.mean(0) - blue.mean(0), dim=0)
        between = float((red @ concept).mean() + (blue @ concept).mean()) / 2
        checker.concept_embeds.data[:] = concept
        checker.concept_embeds_weights.data[:] = between
        checker.special_care_embeds_weights.data[:] = 2.0  # never
        checker.save_pretrained(folder / "safety_checker")
        processor.save_pretrained(folder / "feature_extractor")
    return folder / "safety_checker"
