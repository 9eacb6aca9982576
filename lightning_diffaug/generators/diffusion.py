"""The default generator: a small class-conditional diffusion model, fitted on the user's training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import weights
from lightning_diffaug.generators.denoisers import UNetConfig, UNetDenoiser
from lightning_diffaug.generators.fit import FIT_VERSION, fit_denoiser
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.loop import SAMPLER_VERSION, check_sampling, sample
from lightning_diffaug.generators.protocol import START, Condition
from lightning_diffaug.generators.schedulers import check_scheduler, make_scheduler

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec


def resolve_device(device: str) -> torch.device:
    """The device that a setting names; ``"auto"`` is the last CUDA device where there is one, else the CPU.

    The last one: a trainer takes the first unless told otherwise.

    Raises:
        ConfigurationError: There is no such device.
    """
    try:
        if device == "auto":
            count = torch.cuda.device_count()
            return torch.device("cuda", count - 1) if count else torch.device("cpu")
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"device={device!r} cannot be used here ({error}). Set generator.device to auto or cpu."
        ) from error
    return resolved


class DiffusionGenerator:
    """Fits a UNet to the snapshot and samples from it.

    All continuous fields of a sample (image, mask, depth, …) are denoised together, joined along their
    channels; so they must have the same height and width.

    Args:
        scheduler: Solver of the reverse process, one of `schedulers.SCHEDULERS`.
        num_inference_steps: Solver steps from noise to a sample.
        guidance_scale: Weight of classifier-free guidance; 1 is none.
        strength: Below 1, real samples given as ``condition["start"]`` are noised this far and denoised again
            (SDEdit).
        seed: Of the fit. The seeds of samples are given to `generate`.
        batch_size: Most samples denoised at a time.
        device: ``"auto"``, ``"cpu"``, ``"cuda:1"``, …
        fit: `FitSettings`, or its fields by name.

    Raises:
        ConfigurationError: A setting is unknown or out of its range.
    """

    def __init__(
        self,
        scheduler: str = "dpmsolver++",
        num_inference_steps: int = 10,
        guidance_scale: float = 1.0,
        strength: float = 1.0,
        seed: int = 0,
        batch_size: int = 256,
        device: str = "auto",
        fit: Mapping[str, Any] | FitSettings | None = None,
    ) -> None:
        self.fit_settings = FitSettings.of(fit)
        check_scheduler(scheduler, self.fit_settings.prediction_type)
        check_sampling(num_inference_steps, guidance_scale, strength)
        if batch_size < 1:
            raise ConfigurationError(
                f"batch_size={batch_size} is below 1: it is how many samples are denoised at a time. "
                "Set generator.batch_size to e.g. 256."
            )
        self.scheduler = scheduler
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = float(guidance_scale)
        self.strength = float(strength)
        self.seed = seed
        self.batch_size = batch_size
        self.device = device
        self._denoiser: UNetDenoiser | None = None
        self._channels: dict[str, int] = {}

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {
            "scheduler": self.scheduler,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "strength": self.strength,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": self.device,
            "fit": self.fit_settings.to_json(),
        }

    def fit_key(self) -> dict[str, Any]:
        """What the fitted weights depend on, besides the data."""
        return {
            "denoiser": "unet",
            "fit_version": FIT_VERSION,
            "seed": self.seed,
            "fit": self.fit_settings.to_json(),
        }

    def sample_key(self) -> dict[str, Any]:
        """What a sample depends on, besides weights, condition and seed."""
        return {
            "scheduler": self.scheduler,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "strength": self.strength,
            "sampler_version": SAMPLER_VERSION,
        }

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Fits to the snapshot, and writes weights and `fit.json`; see `Fittable`.

        Raises:
            ConfigurationError: The samples do not suit a UNet.
            GeneratorError: The fit diverged.
        """
        channels, shape = _joint_shape(snapshot.spec)
        settings = self.fit_settings
        config = UNetConfig.for_data(
            shape,
            0 if snapshot.labels is None else len(snapshot.class_names),
            settings.channels,
            settings.layers_per_block,
            settings.attention,
        )
        fitted = fit_denoiser(
            lambda: UNetDenoiser(config),
            snapshot,
            list(channels),
            settings,
            self.seed,
            resolve_device(self.device),
            progress,
        )
        weights.save(
            folder,
            fitted.denoiser.state_dict(),
            {
                "unet": config.to_json(),
                "channels": list(channels.items()),  # a list: the order of the fields matters
                "prediction_type": settings.prediction_type,
            },
            {
                **self.fit_key(),
                "snapshot": snapshot.hash,
                "seconds": round(fitted.seconds, 3),
                "loss": sum(fitted.losses[-50:]) / len(fitted.losses[-50:]),
                "versions": {"torch": torch.__version__},
            },
        )

    def load(self, folder: Path) -> None:
        """Loads what `fit` wrote, verified by hash.

        Raises:
            GeneratorError: The folder is incomplete, damaged, or was fitted for another prediction type.
        """
        state, description = weights.load(folder)
        if description["prediction_type"] != self.fit_settings.prediction_type:
            raise GeneratorError(
                f"{folder} was fitted with prediction_type={description['prediction_type']!r}, this "
                f"generator is set to {self.fit_settings.prediction_type!r}. Set "
                "generator.fit.prediction_type to the former, or fit anew."
            )
        # Building the network draws initial weights, which are overwritten.
        with torch.random.fork_rng(devices=[]):
            denoiser = UNetDenoiser(UNetConfig.from_json(description["unet"]))
        denoiser.load_state_dict(state)
        self._denoiser = denoiser.to(resolve_device(self.device)).eval().requires_grad_(False)
        self._channels = dict(description["channels"])

    def generate(self, condition: Condition, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Samples one set of fields for each seed; see `Generator`.

        Args:
            condition: ``label``: int64 (n,) class indices, where the data have labels; ``start``: real
                samples in [-1, 1] to vary, a tensor (n, *shape) or one for each field, where `strength` is
                below 1. Other keys are ignored.
            seeds: n seeds.

        Returns:
            Field name → (n, *shape) float32 in [-1, 1] on the CPU.

        Raises:
            GeneratorError: Nothing was fitted or loaded, or the condition does not fit.
        """
        if self._denoiser is None:
            raise GeneratorError("the generator has no weights yet. Call fit(...) and load(folder) first.")
        checked = self._denoiser.check(condition, len(seeds))
        start = self._start(condition, len(seeds))
        scheduler = make_scheduler(self.scheduler, self.fit_settings.prediction_type, self.num_inference_steps)
        parts = []
        for first in range(0, max(1, len(seeds)), self.batch_size):
            rows = slice(first, first + self.batch_size)
            parts.append(
                sample(
                    self._denoiser,
                    scheduler,
                    self._denoiser.config.shape,
                    {name: value[rows] for name, value in checked.items()},
                    seeds[rows],
                    self.num_inference_steps,
                    self.guidance_scale,
                    None if start is None else start[rows],
                    self.strength,
                    next(self._denoiser.parameters()).device,
                )
            )
        joint = torch.split(torch.cat(parts), list(self._channels.values()), dim=1)
        return {name: part.contiguous() for name, part in zip(self._channels, joint, strict=True)}

    def _start(self, condition: Condition, n: int) -> Tensor | None:
        """The real samples to vary, fields joined along their channels; None starts from noise."""
        assert self._denoiser is not None
        if START not in condition or self.strength == 1.0:
            return None
        given = condition[START]
        start = torch.cat([given[name] for name in self._channels], dim=1) if isinstance(given, Mapping) else given
        if tuple(start.shape) != (n, *self._denoiser.config.shape):
            raise GeneratorError(
                f"condition['start'] has shape {tuple(start.shape)}; needed is "
                f"{(n, *self._denoiser.config.shape)}, one real sample for each seed."
            )
        return start


def _joint_shape(spec: SampleSpec) -> tuple[dict[str, int], tuple[int, ...]]:
    """Channels of each continuous field, and the shape of all of them joined."""
    made = spec.continuous
    shapes = {field.name: field.shape for field in made}
    if not made or len({field.shape[1:] for field in made}) != 1 or any(len(field.shape) != 3 for field in made):
        raise ConfigurationError(
            f"the continuous fields {shapes} cannot be denoised together: needed are images (C, H, W) of "
            "one height and width. Set data.fields to those, or generator to one that is made for this kind "
            "of data."
        )
    channels = {field.name: field.shape[0] for field in made}
    return channels, (sum(channels.values()), *made[0].shape[1:])
