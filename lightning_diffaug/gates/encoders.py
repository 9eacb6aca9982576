"""What features a gate compares samples by: the fitted classifier's, a local vision model's, or a module's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.classifier_fit import FittedClassifier
from lightning_diffaug.gates.models import GivenModule, LocalModel, is_folder
from lightning_diffaug.gates.nearest import Encoder

CLASS = "class"
_FORM = ("args", "weights", "size", "mean", "std")


class VisionFeatures:
    """Images (n, C, H, W) → what a local vision model of transformers says of them, (n, d), of length 1."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model

    def __call__(self, x: Tensor) -> Tensor:
        """Features, float32."""
        model, _ = self._model()
        ask = getattr(model, "get_image_features", model)
        with torch.inference_mode():
            found = [unit_vectors(ask(pixel_values=given)) for given in self._model.pixels(x)]
        return torch.cat(found).clone()


def unit_vectors(said: Any) -> Tensor:
    """One vector of length 1 for each image or text, float32 on the CPU, of whatever a model returns."""
    return functional.normalize(_vectors(said).float(), dim=1).cpu()


def _vectors(said: Any) -> Tensor:
    if isinstance(said, Tensor):
        return said.flatten(1)
    for name in ("image_embeds", "pooler_output"):
        value = getattr(said, name, None)
        if isinstance(value, Tensor):
            return value.flatten(1)
    tokens: Tensor = said.last_hidden_state
    return tokens.mean(1) if tokens.ndim == 3 else tokens.mean((2, 3))


class ChosenEncoder:
    """The encoder of a setting, and the model behind it.

    Args:
        encoder: ``"class"`` or ``{class: <ClassifierSettings>}``: what the last layer of the classifier of gate
            ``class`` sees, the same fit; a local folder of a vision model of transformers; the import path of a module:
            images → (n, d), or ``{model: <import path>}`` with ``args``, ``weights``, ``size``, ``mean`` and ``std``
            beside, as of gate ``class``.
        field: The field that is looked at.
        device: Where a given model computes.
        key: The setting, for errors.

    Raises:
        ConfigurationError: It is none of these.
    """

    def __init__(self, encoder: Any, field: str | None, device: str, key: str) -> None:
        self.fitted: FittedClassifier | None = None
        self.asks: LocalModel | GivenModule | None = None
        self.named: Any = None
        """The setting, as plain values, the same however it was given."""
        if encoder == CLASS or (isinstance(encoder, Mapping) and set(encoder) == {CLASS}):
            self.fitted = FittedClassifier(encoder[CLASS] if isinstance(encoder, Mapping) else None, field)
            self.encode: Encoder = self.fitted.features
            self.named = {CLASS: self.fitted.config()["settings"]}
        elif is_folder(encoder):
            self.asks = LocalModel(str(encoder), device, key, "AutoImageProcessor")
            self.encode, self.named = VisionFeatures(self.asks), str(encoder)
        else:
            form = dict(encoder) if isinstance(encoder, Mapping) and "_target_" not in encoder else {"model": encoder}
            if "model" not in form or set(form) - {"model", *_FORM}:
                raise ConfigurationError(
                    f"{key}={encoder!r} is no encoder. Set it to class, {{class: {{steps: 400}}}}, a local folder of a "
                    f"vision model, the import path of a module, or {{model: <import path>}} with {', '.join(_FORM)}."
                )
            given = GivenModule(**form, device=device, key=key)
            self.asks = self.encode = given
            self.named = {**form, **given.setting}

    def model_key(self) -> Any:
        """Hash of the files of a given model."""
        return None if self.asks is None else self.asks.model_key()
