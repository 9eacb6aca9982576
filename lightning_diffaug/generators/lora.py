"""LoRA fine-tuning: a pipeline's UNet adapted to the real training data by small matrices (Hu et al. 2022)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.device import resolve_device
from lightning_diffaug.generators.pipeline import PipelineGenerator
from lightning_diffaug.generators.pipeline_fit import (
    AdaptSettings,
    LatentLoss,
    RealBatches,
    check_adaptable,
    descend,
    picture_size,
    token_ids,
)
from lightning_diffaug.generators.pipeline_load import quiet, without_deprecations
from lightning_diffaug.generators.pipeline_parts import check_peft

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec

FIT_VERSION = 1
"""Raised with every change that makes other weights from the same settings; part of the fit's fingerprint."""

_DEFAULT = AdaptSettings(steps=800, lr=1e-4)
_FILE = "adapter.safetensors"
_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
_NAME = "fitted"


class LoraGenerator(PipelineGenerator):
    """A pipeline whose UNet is fine-tuned on the real training data, DreamBooth-style (Ruiz et al. 2023).

    Low-rank matrices are added to its attention and fitted to pictures with the prompts of their classes; with
    ``fit.prior_weight`` also to pictures that the model itself made before. Needs the package peft.

    Args:
        fit: Fields of `AdaptSettings`.
        seed: Of the fit.
        **settings: As `PipelineGenerator`.

    Raises:
        ConfigurationError: A setting is out of its range.
    """

    def __init__(self, *, fit: Mapping[str, Any] | None = None, seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        if self._settings["task"] in ("class-conditional", "audio"):
            raise ConfigurationError(
                f"task={self._settings['task']!r} cannot be fine-tuned here. Set generator.task=text-to-image, or "
                "generator=pipeline."
            )
        self.fit_settings = AdaptSettings.of(fit, _DEFAULT)
        self.seed = seed
        self._fitted: Path | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {**super().config(), "fit": self.fit_settings.to_json(), "seed": self.seed}

    def fit_key(self) -> dict[str, Any]:
        """What the adapter depends on, besides the data."""
        return {
            "adaptation": "lora",
            "fit_version": FIT_VERSION,
            "seed": self.seed,
            "fit": self.fit_settings.to_json(),
            **self._base_key(),
        }

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """As `PipelineGenerator.bind`.

        Raises:
            ConfigurationError: The package peft is missing, or see there.
        """
        check_peft("LoRA fine-tuning (generator=sd15_lora)")
        super().bind(spec, class_names)

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Fits the adapter and writes it; see `Fittable`.

        Raises:
            ConfigurationError: The model cannot be adapted so, or the package peft is missing.
            GeneratorError: The fit diverged.
        """
        self.bind(snapshot.spec, snapshot.class_names)
        settings, rng = self.fit_settings, torch.Generator().manual_seed(self.seed)
        pipe = self._loaded(torch.float32).to(resolve_device(self._settings["device"]))
        check_adaptable(pipe, "LoRA fine-tuning")
        size = picture_size(pipe, self._settings["size"])
        prior = self._own_pictures(pipe, size, progress) if settings.prior_weight else torch.empty(0)
        peft: Any = importlib.import_module("peft")
        for part in (pipe.vae, pipe.unet, pipe.text_encoder):
            part.requires_grad_(False)
        with quiet():
            torch.default_generator.manual_seed(self.seed)
            pipe.unet.add_adapter(peft.LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=_TARGETS))
        batches, loss = RealBatches(snapshot, self._prompts, size, settings, rng), LatentLoss(pipe, rng)
        encoded: dict[str, Tensor] = {}

        def states(prompts: list[str]) -> Tensor:
            with torch.no_grad():
                for prompt in set(prompts) - set(encoded):
                    encoded[prompt] = pipe.text_encoder(token_ids(pipe, [prompt]))[0]
            return torch.cat([encoded[prompt] for prompt in prompts])

        def step() -> Tensor:
            pictures, prompts = batches.draw()
            value = loss(pictures, states(prompts))
            if len(prior):
                rows = torch.randint(len(prior), (settings.batch_size,), generator=rng)
                own = loss(prior[rows], states([settings.prior_prompt] * settings.batch_size))
                value = value + settings.prior_weight * own
            return value

        losses = descend([p for p in pipe.unet.parameters() if p.requires_grad], step, settings, progress)
        to_diffusers = importlib.import_module("diffusers.utils").convert_state_dict_to_diffusers
        layers = to_diffusers(peft.get_peft_model_state_dict(pipe.unet))
        pipe.save_lora_weights(str(folder), unet_lora_layers=layers, weight_name=_FILE, safe_serialization=True)
        last = losses[-50:]
        about = {**self.fit_key(), "snapshot": snapshot.hash, "loss": sum(last) / len(last)}
        (folder / "fit.json").write_text(json.dumps(about, indent=2, sort_keys=True), encoding="utf-8")

    def _own_pictures(self, pipe: Any, size: tuple[int, int], progress: Callable[[int, int], None]) -> Tensor:
        """What the model itself makes of the prior prompt, (n, 3, *size) in [-1, 1]."""
        settings, made = self.fit_settings, []
        for first in range(0, settings.prior_samples, settings.batch_size):
            seeds = range(first, min(first + settings.batch_size, settings.prior_samples))
            rng = [torch.Generator().manual_seed(self.seed * 2**20 + seed) for seed in seeds]
            with without_deprecations():
                result = pipe(
                    [settings.prior_prompt] * len(seeds), generator=rng, height=size[0], width=size[1],
                    num_inference_steps=self._settings["num_inference_steps"], output_type="pt",
                    guidance_scale=float(self._settings["guidance_scale"]),
                )  # fmt: skip
            made.append(result.images.float().cpu() * 2.0 - 1.0)
            progress(0, settings.steps)
        return torch.cat(made)

    def load(self, folder: Path) -> None:
        """Makes `generate` ready with what `fit` wrote."""
        if not (folder / _FILE).is_file():
            raise GeneratorError(f"{folder} holds no adapter. Remove it, to fit again.")
        self._fitted, self._run = folder, None

    def _prepare(self, pipe: Any) -> None:
        if self._fitted is None:
            raise GeneratorError("the generator has no adapter yet. Call fit(...) and load(folder) first.")
        given = self._settings["adapters"]
        with quiet():
            pipe.unet.load_lora_adapter(
                str(self._fitted), prefix="unet", weight_name=_FILE, adapter_name=_NAME, use_safetensors=True,
                local_files_only=True,
            )  # fmt: skip
        names = [f"adapter_{i}" for i in range(len(given))]
        pipe.set_adapters([*names, _NAME], [*(one["scale"] for one in given), 1.0])
