"""Where and how a fitted denoiser runs: it tells how far it is, and its device, type and layout are settings."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lightning_diffaug.generators import DiffusionGenerator

Loaded = Callable[..., DiffusionGenerator]


def test_a_pass_tells_of_each_step_and_makes_the_same_samples(loaded: Loaded) -> None:
    generator, condition = loaded(num_inference_steps=4, batch_size=3), {"label": torch.arange(6)}
    before = generator.generate(condition, range(6))["image"]
    told: list[int] = []
    generator.on_progress = lambda: told.append(1)
    assert torch.equal(generator.generate(condition, range(6))["image"], before)
    assert len(told) == 2 * 4
