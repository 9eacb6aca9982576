"""How fidelity is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lightning_diffaug.errors import ConfigurationError


@dataclass(frozen=True)
class FidelitySettings:
    """What is measured, on how many samples, in which features.

    Attributes:
        features: The feature network: ``"auto"`` (``class`` where there are classes, else ``pixels``); ``"class"``,
            what the last layer of a classifier sees that is fitted on the real reference part; ``"pixels"``; a local
            folder of a vision model of transformers; the import path of a module, or ``{model: <import path>, args: …,
            weights: <.safetensors>, size: …, mean: …, std: …}``; ``"inception"`` or ``{inception: <file>}``. Nothing
            is downloaded.
        samples: How many of each kind are compared at most.
        seed: Of all draws and of the classifiers.
        quantile: Share of real data that counts as near to the training data by its nature, in (0, 1).
        least_per_class: Samples that a class has to have of each kind to be measured by itself.
        classifier: `ClassifierSettings` by name, of the classifiers that are fitted; None: the defaults.
        train_on_synthetic: Whether a classifier is fitted on the synthetic samples too (TSTR).
        caption_model: Local folder of a CLIP-like model, or the import path of a scorer, as of gate ``caption``.
        pairs: What of samples with several fields is to belong together: ``mask``, ``sync``, ``chamfer`` or ``pair`` →
            true, or the arguments of the gate of that name; None: nothing.
        lpips: A .safetensors file with torchvision's weights of AlexNet, or ``{net: alex|vgg|squeeze, weights: …}``.
        device: Where given networks compute.

    Raises:
        ConfigurationError: A value is out of range.
    """

    features: Any = "auto"
    samples: int = 2048
    seed: int = 0
    quantile: float = 0.05
    least_per_class: int = 25
    classifier: Mapping[str, Any] | None = None
    train_on_synthetic: bool = True
    caption_model: Any = None
    pairs: Mapping[str, Any] | None = None
    lpips: Any = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, least in (("samples", 8), ("seed", 0), ("least_per_class", 8)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigurationError(
                    f"{name}={value!r} of fidelity is no whole number from {least}. Set {name} to e.g. "
                    f"{getattr(FidelitySettings, name)}."
                )
        if not isinstance(self.quantile, float) or not 0.0 < self.quantile < 1.0:
            raise ConfigurationError(f"quantile={self.quantile!r} of fidelity is not in (0, 1). Set it to e.g. 0.05.")
        if self.pairs is not None:
            from lightning_diffaug.fidelity.alignment import gates_of  # networks; only pairs need them

            gates_of(self.pairs)

    @classmethod
    def of(cls, values: Mapping[str, Any] | FidelitySettings | None) -> FidelitySettings:
        """The settings of a mapping.

        Raises:
            ConfigurationError: A name is unknown, or a value out of range.
        """
        if isinstance(values, FidelitySettings):
            return values
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in values or {} if name not in known]:
            raise ConfigurationError(f"{unknown[0]} is no setting of fidelity, which has {', '.join(known)}.")
        return cls(**(values or {}))
