"""LoRA fine-tuning: a pipeline's UNet adapted to the real training data by small matrices (Hu et al. 2022)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.generators.pipeline_adapted import AdaptedPipelineGenerator, Learning
from lightning_diffaug.generators.pipeline_fit import AdaptSettings, LatentLoss, RealBatches, picture_size, token_ids
from lightning_diffaug.generators.pipeline_load import quiet, without_deprecations
from lightning_diffaug.generators.pipeline_parts import check_peft

if TYPE_CHECKING:
    from lightning_diffaug.spec import SampleSpec

_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
_NAME = "fitted"
_OF_PRIOR = ("prior_samples", "prior_prompt")
_OF_OWN_PICTURES = ("num_inference_steps", "guidance_scale", "safety_checker")


class LoraGenerator(AdaptedPipelineGenerator):
    """A pipeline whose UNet is fine-tuned on the real training data, DreamBooth-style (Ruiz et al. 2023).

    Low-rank matrices are added to its attention and fitted to pictures with the prompts of their classes; with
    ``fit.prior_weight`` also to pictures that the model itself made before. Needs the package peft.

    Args:
        fit: Fields of `AdaptSettings`.
        seed: Of the fit, from 0.
        **settings: As `PipelineGenerator`.

    Raises:
        ConfigurationError: A setting is out of its range.
    """

    KIND = "lora"
    METHOD = "LoRA fine-tuning"
    FILE = "adapter.safetensors"
    DEFAULT = AdaptSettings(steps=800, lr=1e-4)
    FIT_KEYS = tuple(DEFAULT.to_json())

    def fit_key(self) -> dict[str, Any]:
        """See `Fittable`; with prior preservation, also what the model's own pictures depend on, and only then."""
        key = super().fit_key()
        if self.fit_settings.prior_weight:
            return key | {"prior": {name: self._settings[name] for name in _OF_OWN_PICTURES}}
        return key | {"fit": {name: value for name, value in key["fit"].items() if name not in _OF_PRIOR}}

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """As `AdaptedPipelineGenerator.bind`.

        Raises:
            ConfigurationError: The package peft is missing, or see there.
        """
        check_peft(f"{self.METHOD} (generator=sd15_lora)")
        super().bind(spec, class_names)

    def _learning(
        self,
        pipe: Any,
        batches: RealBatches,
        loss: LatentLoss,
        rng: torch.Generator,
        progress: Callable[[int, int], None],
    ) -> Learning:
        settings, encoded = self.fit_settings, dict[str, Tensor]()
        prior = self._own_pictures(pipe, progress) if settings.prior_weight else torch.empty(0)
        peft: Any = importlib.import_module("peft")
        with quiet():
            torch.default_generator.manual_seed(self.seed)
            pipe.unet.add_adapter(peft.LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=_TARGETS))

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

        def save(file: Path) -> None:
            to_diffusers = importlib.import_module("diffusers.utils").convert_state_dict_to_diffusers
            layers = to_diffusers(peft.get_peft_model_state_dict(pipe.unet))
            pipe.save_lora_weights(str(file.parent), unet_lora_layers=layers, weight_name=file.name)

        return Learning([p for p in pipe.unet.parameters() if p.requires_grad], step, save)

    def _own_pictures(self, pipe: Any, progress: Callable[[int, int], None]) -> Tensor:
        """What the model itself makes of the prior prompt, (n, 3, H, W) in [-1, 1]."""
        settings, made = self.fit_settings, []
        height, width = picture_size(pipe, self._settings["size"])
        for first in range(0, settings.prior_samples, settings.batch_size):
            seeds = range(first, min(first + settings.batch_size, settings.prior_samples))
            rng = [torch.Generator().manual_seed(self.seed * 2**20 + seed) for seed in seeds]
            with without_deprecations():
                result = pipe(
                    [settings.prior_prompt] * len(seeds), generator=rng, height=height, width=width,
                    num_inference_steps=self._settings["num_inference_steps"], output_type="pt",
                    guidance_scale=float(self._settings["guidance_scale"]),
                )  # fmt: skip
            made.append(result.images.float().cpu() * 2.0 - 1.0)
            progress(0, settings.steps)
        return torch.cat(made)

    def _add_fitted(self, pipe: Any, file: Path) -> None:
        given = self._settings["adapters"]
        with quiet():
            pipe.unet.load_lora_adapter(
                str(file.parent), prefix="unet", weight_name=file.name, adapter_name=_NAME, use_safetensors=True,
                local_files_only=True,
            )  # fmt: skip
        names = [f"adapter_{i}" for i in range(len(given))]
        pipe.set_adapters([*names, _NAME], [*(one["scale"] for one in given), 1.0])
