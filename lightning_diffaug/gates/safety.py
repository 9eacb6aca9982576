"""The gate that asks a safety checker, for generators that bring none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.chain import SAFETY
from lightning_diffaug.gates.checks import as_set, check_image
from lightning_diffaug.gates.models import GivenModule, LocalModel, image_of, is_folder
from lightning_diffaug.generators.device import resolve_device
from lightning_diffaug.generators.pipeline_load import quiet

_KEY = "gates.safety"


class Safety:
    """Rejects samples that a safety checker objects to. Off unless it is asked for.

    A pipeline's own checker needs no gate: what it objects to is counted under the same reason.

    Args:
        model: Local folder of a ``StableDiffusionSafetyChecker`` of diffusers, such as ``safety_checker`` of a pipeline
            (with ``feature_extractor`` beside it, or the processor in it), .safetensors only; or the import path of a
            function or class of one's own: images (n, C, H, W) in [-1, 1] → bool (n,), True where it objects, or
            numbers, how strongly.
        args: Arguments that it is made with; None: a function is the checker itself.
        threshold: From which number on a checker of one's own objects.
        field: The image to look at; None: the one called ``image``.
        device: Where the model computes.

    Raises:
        ConfigurationError: There is no model.
    """

    name = SAFETY
    unnamed = ("device",)

    def __init__(
        self,
        model: Any = None,
        args: Mapping[str, Any] | None = None,
        threshold: float = 0.5,
        field: str | None = None,
        device: str = "auto",
    ) -> None:
        if model is None:
            raise ConfigurationError(
                f"{_KEY}.model is not set: it is the local folder of a safety checker of diffusers, or the import "
                f"path of a function that says which images it objects to. Set {as_set(self.name, model='FOLDER')}, or "
                f"{_KEY}=false."
            )
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise ConfigurationError(
                f"{_KEY}.threshold={threshold!r} is no number. Set {as_set(self.name, model=model, threshold=0.5)}."
            )
        self._threshold, self._field, self._device = threshold, field, device
        self.asks: _Checker | GivenModule
        if is_folder(model):
            self.asks = _Checker(str(model), device, f"{_KEY}.model")
        else:
            self.asks = GivenModule(model, args, device=device, key=_KEY)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **self.asks.setting, "threshold": self._threshold, "field": self._field, "device": self._device,
        }  # fmt: skip

    def model_key(self) -> Any:
        """Hash of the checker's files, or of its code."""
        return self.asks.model_key()

    def check(self, spec: Any, class_names: Sequence[str]) -> None:
        """Refuses data without images, and a checker that is not there or cannot be made, before anything is made."""
        self.asks.check()
        check_image(spec, self.name, self._field)

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Bool (n,): nothing is objected to."""
        x = image_of(samples, self._field, _KEY)
        if isinstance(self.asks, _Checker):
            return ~self.asks.objects(x)
        said = self.asks(x)
        if said.shape != (len(x),):
            raise ConfigurationError(
                f"{_KEY}.model returned {tuple(said.shape)} for {len(x)} images: it has to return one bool or number "
                "for each. Correct it."
            )
        return ~said if said.dtype == torch.bool else said.float() < self._threshold


class _Checker(LocalModel):
    """A `StableDiffusionSafetyChecker` and the processor of its images."""

    def __call__(self) -> tuple[Any, Any]:
        if self._parts is None:
            from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
            from transformers import CLIPImageProcessor

            # It warns that it returns black images, which nobody looks at here.
            logging.getLogger(StableDiffusionSafetyChecker.__module__).setLevel(logging.ERROR)
            path = Path(self.path())
            places = (path, path.parent / "feature_extractor")
            near = next((place for place in places if (place / "preprocessor_config.json").is_file()), None)
            try:
                with quiet():
                    checker = StableDiffusionSafetyChecker.from_pretrained(
                        str(path), use_safetensors=True, local_files_only=True
                    )
                    processor = (
                        CLIPImageProcessor()
                        if near is None
                        else CLIPImageProcessor.from_pretrained(str(near), local_files_only=True)
                    )
            except Exception as error:
                raise ConfigurationError(
                    f"{self._key}={self.folder!r} cannot be loaded: {str(error).splitlines()[0]} It has to be the "
                    f"folder of a StableDiffusionSafetyChecker with .safetensors files. Set {self._key} to one."
                ) from error
            self.on = resolve_device(self._device, self.trainer_devices)
            self._parts = checker.eval().requires_grad_(False).to(self.on), processor
        return self._parts

    def objects(self, x: Tensor) -> Tensor:
        """Bool (n,): it objects to the image."""
        checker, _ = self()
        found: list[bool] = []
        with torch.inference_mode():
            for given in self.pixels(x):
                blanked = np.zeros((len(given), 1, 1, 3))  # it blacks out what it objects to
                found += [bool(flag) for flag in checker(clip_input=given, images=blanked)[1]]
        return torch.tensor(found)
