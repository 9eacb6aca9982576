"""The network in whose features samples are compared. None is downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.pairs import checked

if TYPE_CHECKING:
    from lightning_diffaug.gates.classifier_fit import FittedClassifier

AUTO, CLASS, PIXELS, INCEPTION = "auto", "class", "pixels", "inception"
_SIDE = 16  # positions along each axis to which pixels are averaged down
_BATCH = 256
_AT_299 = 16  # images that Inception, which enlarges them to 299 by 299, sees at a time
_AVERAGED: dict[int, Callable[[Tensor, Any], Tensor]] = {4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}
_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity names what it keeps
_FROM = "https://github.com/toshas/torch-fidelity/releases (file weights-inception-2015-12-05-6726825d.pth)"


@dataclass(frozen=True)
class FeatureNetwork:
    """What samples are compared by.

    Attributes:
        name: What it is, for the reader.
        encode: Samples (n, *shape) in [-1, 1] → features (n, d).
    """

    name: str
    encode: Callable[[Tensor], Tensor]

    def __call__(self, values: Tensor, whose: str) -> Tensor:
        """Features, float32 (n, d) on the CPU.

        Args:
            values: float32 (n, *shape) in [-1, 1].
            whose: What they are, for errors.

        Raises:
            ConfigurationError: A feature is not finite, or there is not one row for each sample.
        """
        found = torch.cat([self.encode(part).detach().cpu().float().flatten(1) for part in torch.split(values, _BATCH)])
        if len(found) != len(values):
            raise ConfigurationError(
                f"features={self.name} gave {len(found)} rows for {len(values)} samples: one for each is needed. Set "
                "features to another network."
            )
        return checked(found, whose)


def feature_network(features: Any, classifier: FittedClassifier | None, device: str) -> FeatureNetwork:
    """The network of a setting; see `FidelitySettings.features`.

    Args:
        features: The setting.
        classifier: Fitted on the real reference part; None where there are no classes.
        device: Where a given network computes.

    Raises:
        ConfigurationError: It is none, or is not there.
    """
    if features == AUTO:
        features = PIXELS if classifier is None else CLASS
    if features == PIXELS:
        return FeatureNetwork(f"pixels, averaged down to at most {_SIDE} along each axis", _pixels)
    if features == CLASS:
        if classifier is None:
            raise ConfigurationError(
                "features=class compares what a classifier of the real data sees, and these have no two classes. Set "
                "features to pixels, to a local folder of a vision model, or to the import path of a module."
            )
        return FeatureNetwork("a classifier fitted on the real reference part", classifier.features)
    if features == INCEPTION or (isinstance(features, Mapping) and set(features) == {INCEPTION}):
        file = features[INCEPTION] if isinstance(features, Mapping) else _kept()
        return FeatureNetwork("Inception v3 (torch-fidelity), 2048 dimensions", _inception(Path(file).expanduser()))
    from lightning_diffaug.gates.encoders import ChosenEncoder

    chosen = ChosenEncoder(features, None, device, "features")
    return FeatureNetwork(str(chosen.named), chosen.encode)


def _pixels(x: Tensor) -> Tensor:
    averaged = _AVERAGED.get(x.ndim)
    if averaged is None or max(x.shape[2:]) <= _SIDE:
        return x.flatten(1)
    return averaged(x, tuple(min(side, _SIDE) for side in x.shape[2:])).flatten(1)


def _kept() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS


def _inception(file: Path) -> Callable[[Tensor], Tensor]:
    if not file.is_file():
        raise ConfigurationError(
            f"features=inception needs its weights, and there is no file {file}; nothing is downloaded. Fetch them "
            f"where there is a network, from {_FROM}, and set features to {{inception: <file>}}."
        )
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # type: ignore
    except ImportError as error:
        raise ConfigurationError(
            "features=inception is torch-fidelity's network, which is not installed: pip install torch-fidelity, or "
            "set features to class."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        # its constructor would run code that a file holds: it gets a copy of the tensors alone
        copy = Path(folder) / "weights.pth"
        torch.save(_tensors(file), copy)
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(copy))

    def encode(x: Tensor) -> Tensor:
        levels = ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
        with torch.inference_mode():
            found = [network(part)[0] for part in torch.split(levels, _AT_299)]
        return torch.cat(found).clone()

    return encode


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ConfigurationError(
            f"features=inception: {file} is no file of tensors ({str(error).splitlines()[0]}). Fetch it anew, from "
            f"{_FROM}, and set features to {{inception: <file>}}."
        ) from error
