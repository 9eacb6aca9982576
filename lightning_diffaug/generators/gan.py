"""A small class-conditional GAN as a generator: a generative baseline of another kind than diffusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import weights
from lightning_diffaug.generators.device import resolve_device
from lightning_diffaug.generators.diffusion_fit import made_together
from lightning_diffaug.generators.gan_fit import fit_gan
from lightning_diffaug.generators.gan_networks import LARGEST, GanNetwork
from lightning_diffaug.generators.gan_settings import GanSettings
from lightning_diffaug.generators.protocol import LABEL, Condition
from lightning_diffaug.randomness import seeded

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec

GAN_VERSION = 1
"""Raised with every change that makes other weights or samples from the same settings; in both fingerprints."""


class GanGenerator:
    """Fits a small class-conditional GAN to the snapshot, and samples from it in one pass.

    For images of up to 64 pixels. All continuous fields of a sample are made together, joined along their channels; so
    they must have the same height and width. Data without labels are one class.

    Args:
        seed: Of the fit. The seeds of samples are given to `generate`.
        batch_size: Most samples made at a time.
        device: ``"auto"``, ``"cpu"``, ``"cuda:1"``, …; see `device.choose_device`.
        fit: `GanSettings`, or its fields by name.

    Attributes:
        network_passes: Passes of the network so far, one for each sample.

    Raises:
        ConfigurationError: A setting is unknown or out of its range.
    """

    def __init__(
        self,
        seed: int = 0,
        batch_size: int = 128,
        device: str = "auto",
        fit: Mapping[str, Any] | GanSettings | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(
                f"batch_size={batch_size} is below 1: it is how many samples are made at a time. Set "
                "generator.batch_size to e.g. 128."
            )
        self.fit_settings = GanSettings.of(fit)
        self.seed = seed
        self.batch_size = batch_size
        self.device = device
        self.trainer_devices: Sequence[int] = ()
        self.network_passes = 0
        self._network: GanNetwork | None = None
        self._channels: dict[str, int] = {}
        self._labelled = False

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Says what would be wrong in the fit before anything starts.

        Raises:
            ConfigurationError: The samples are no images of a size that it makes.
        """
        _joined(spec)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": self.device,
            "fit": self.fit_settings.to_json(),
        }

    def fit_key(self) -> dict[str, Any]:
        """What the fitted weights depend on, besides the data."""
        return {"gan_version": GAN_VERSION, "seed": self.seed, "fit": self.fit_settings.to_json()}

    def sample_key(self) -> dict[str, Any]:
        """What a sample depends on, besides weights, condition and seed."""
        return {"gan_version": GAN_VERSION}

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Fits to the snapshot, and writes weights and `fit.json`; see `Fittable`.

        Raises:
            ConfigurationError: The samples are no images of a size that it makes.
            GeneratorError: The fit diverged.
        """
        channels, shape = _joined(snapshot.spec)
        labels = snapshot.labels
        classes = 1 if labels is None else max(len(snapshot.class_names), int(labels.max()) + 1)
        network = fit_gan(
            snapshot, list(channels), shape, classes, self.fit_settings, self.seed, self._device(), progress
        )
        description = {
            "channels": list(channels.items()),  # a list: the order of the fields matters
            "labelled": labels is not None,
            "network": [list(shape), classes, self.fit_settings.latent, self.fit_settings.width],
        }
        about = {**self.fit_key(), "snapshot": snapshot.hash, "versions": {"torch": torch.__version__}}
        weights.save(folder, network.state_dict(), description, about)

    def load(self, folder: Path) -> None:
        """Reads what `fit` wrote, verified by hash.

        Raises:
            GeneratorError: The folder is incomplete or damaged.
        """
        state, description = weights.load(folder)
        shape, classes, latent, width = description["network"]
        with seeded(0):  # first weights are drawn, and at once written over
            network = GanNetwork(tuple(shape), classes, latent, width)
        network.load_state_dict(state)
        self._network = network.to(self._device()).eval().requires_grad_(False)
        self._channels, self._labelled = dict(description["channels"]), description["labelled"]

    def generate(self, condition: Condition, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Makes one sample for each seed; see `Generator`.

        Args:
            condition: ``label``: int64 (n,) class indices, where the data have labels. Other keys are ignored.
            seeds: n seeds.

        Returns:
            Field name → (n, *shape) float32 in [-1, 1] on the CPU.

        Raises:
            GeneratorError: Nothing was loaded, or the condition does not fit.
        """
        network = self._network
        if network is None:
            raise GeneratorError("the generator has no weights yet. Call fit(...) and load(folder) first.")
        labels = self._labels(condition, len(seeds), network.embedding.num_embeddings)
        rngs = (torch.Generator().manual_seed(seed) for seed in seeds)
        latent = torch.stack([torch.randn(network.latent, generator=rng) for rng in rngs])
        device = network.last.weight.device
        with torch.no_grad():
            parts = [
                network(z.to(device), c.to(device)).cpu()
                for z, c in zip(*(torch.split(values, self.batch_size) for values in (latent, labels)), strict=True)
            ]
        self.network_passes += len(seeds)
        joint = torch.split(torch.cat(parts), list(self._channels.values()), dim=1)
        return {name: part.contiguous() for name, part in zip(self._channels, joint, strict=True)}

    def _labels(self, condition: Condition, n: int, classes: int) -> Tensor:
        if not self._labelled:
            return torch.zeros(n, dtype=torch.int64)
        label = condition.get(LABEL)
        if not isinstance(label, Tensor) or label.shape != (n,) or not bool(((label >= 0) & (label < classes)).all()):
            raise GeneratorError(
                f"condition[{LABEL!r}] is {label!r}: this GAN was fitted with {classes} classes, and needs one index "
                f"below that for each of {n} samples."
            )
        return label.to(torch.int64)

    def _device(self) -> torch.device:
        return resolve_device(self.device, self.trainer_devices)


def _joined(spec: SampleSpec) -> tuple[dict[str, int], tuple[int, int, int]]:
    """The channels of each field, and the shape of all of them joined.

    Raises:
        ConfigurationError: They are no images, or too large.
    """
    channels, shape = made_together(spec)
    if len(shape) != 3 or max(shape[1:]) > LARGEST:
        raise ConfigurationError(
            f"generator=gan makes images (C, H, W) of up to {LARGEST} pixels, and samples are {shape}. Set real.size "
            "lower where the data have it, or another generator."
        )
    return channels, (shape[0], shape[1], shape[2])
