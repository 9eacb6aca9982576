"""A loaded pipeline at work: from conditions and seeds to samples of the data's own form."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import NEGATIVE_PROMPT, PROMPT
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import pipeline_call as call
from lightning_diffaug.generators.pipeline_load import without_deprecations
from lightning_diffaug.generators.pipeline_parts import native_size
from lightning_diffaug.generators.pipeline_prompts import PromptEncoder
from lightning_diffaug.generators.pipeline_settings import FROM_REAL, pixels
from lightning_diffaug.generators.protocol import LABEL, MASK, START, Condition
from lightning_diffaug.generators.remote_prompts import Prompts

if TYPE_CHECKING:
    from lightning_diffaug.spec import FieldSpec

log = logging.getLogger(__name__)

PIPELINE_VERSION = 1
"""Part of the pool's name; raised with any change of how a pipeline is called or its result becomes a sample."""


class PipelineRun:
    """Calls a pipeline, one batch at a time.

    Args:
        pipe: The pipeline, on its device.
        settings: Of the `PipelineGenerator`.
        field: The field that is made.
        class_names: Class names in order; () for data without labels.
        prompts: The prompts of the classes.
        beat: Called after each step that the pipeline tells of.

    Raises:
        ConfigurationError: The model lacks a class, or knows no such argument of a call.
    """

    def __init__(
        self,
        pipe: Any,
        settings: Mapping[str, Any],
        field: FieldSpec,
        class_names: Sequence[str],
        prompts: Prompts,
        beat: Callable[[], None],
    ) -> None:
        self.pipe = pipe
        self._settings = settings
        self._field = field
        self._class_names = class_names
        self._prompts = prompts
        self._beat = beat
        self._known = set(inspect.signature(type(pipe).__call__).parameters)
        self._ids: list[int] = []
        self._encoder: PromptEncoder | None = None
        if settings["task"] == "class-conditional":
            self._ids = call.class_ids(class_names, settings["names"], pipe)
        else:
            self._encoder = PromptEncoder(pipe, settings["guidance_scale"] > 1.0, settings["negative_prompt"])

    def __call__(self, condition: Condition, seeds: Sequence[int], strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """Samples (n, *shape) in [-1, 1] on the CPU; where the safety checker objects, bool (n,), they are NaN.

        Args:
            condition: See `PipelineGenerator.generate`.
            seeds: n seeds.
            strength: How far all of the real samples are noised, where the task starts from some.
        """
        given, shape, n = self._settings, self._field.shape, len(seeds)
        arguments = {
            "num_inference_steps": given["num_inference_steps"],
            "guidance_scale": float(given["guidance_scale"]),
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "output_type": "np",
            **self._asked(condition, seeds),
            **self._formed(condition, n, strength),
        }
        if "callback_on_step_end" in self._known:
            arguments["callback_on_step_end"] = self._step_done
        if unknown := [name for name in given["extra"] if name not in self._known or name in arguments]:
            raise ConfigurationError(
                f"generator.extra.{unknown[0]} is no argument of {type(self.pipe).__name__}, or the generator sets it "
                "itself. Leave it out."
            )
        with without_deprecations():
            result = self.pipe(**arguments, **given["extra"])
        if given["task"] == "audio":
            sound = call.from_audio(result.audios, call.audio_rate(self.pipe), shape, given["sample_rate"])
            return sound, torch.zeros(n, dtype=torch.bool)
        samples = call.from_pictures(result.images, shape)
        if given["task"] == "inpainting":
            keep = call.real_samples(condition, MASK, n) > 0.5
            samples = torch.where(keep, call.real_samples(condition, START, n), samples)
        objected = torch.tensor([bool(flag) for flag in getattr(result, "nsfw_content_detected", None) or [False] * n])
        if objected.any():
            log.info("the safety checker of %s rejects %d of %d samples", given["model"], int(objected.sum()), n)
            samples[objected] = float("nan")
        return samples, objected

    def _asked(self, condition: Condition, seeds: Sequence[int]) -> dict[str, Any]:
        """What the samples shall be, as arguments of the pipeline's call."""
        labels = [int(label) for label in condition[LABEL]] if LABEL in condition and self._class_names else []
        if self._encoder is None:
            return {"class_labels": [self._ids[label] for label in labels]}
        if PROMPT in condition:
            prompts = [str(text) for text in condition[PROMPT]]
        else:
            names = [self._class_names[label] for label in labels] or [""] * len(seeds)
            prompts = [self._prompts.of(name, seed) for name, seed in zip(names, seeds, strict=True)]
        negative = condition.get(NEGATIVE_PROMPT)
        return self._encoder(prompts, None if negative is None else [str(text) for text in negative])

    def _formed(self, condition: Condition, n: int, strength: float) -> dict[str, Any]:
        """What form they shall have and what they start from, as arguments of the pipeline's call."""
        given, size = self._settings, pixels(self._settings["size"])
        if given["task"] == "audio":
            length = "audio_end_in_s" if "audio_end_in_s" in self._known else "audio_length_in_s"
            return {length: self._field.shape[-1] / given["sample_rate"]}
        if given["task"] in FROM_REAL:
            return call.started(condition, n, given, strength, size or native_size(self.pipe), self._known)
        if size is not None and "height" in self._known:
            return {"height": size[0], "width": size[1]}
        return {}

    def _step_done(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self._beat()
        return tensors
