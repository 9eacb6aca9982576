"""From a snapshot to a fitted denoiser and the description that its samples are read by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.augment import AUGMENT, PARAMETERS, check_augmented
from lightning_diffaug.generators.codec import Codec, latent_shape
from lightning_diffaug.generators.denoisers import Architecture, Conditions, ConditionSpec
from lightning_diffaug.generators.fit import Fitted, fit_denoiser
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.given import ConditionSetting, Given, asked_for, told_as
from lightning_diffaug.generators.latents import LATENT, latent_snapshot

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec


def fit_to(
    snapshot: Snapshot,
    settings: FitSettings,
    conditions: Mapping[str, ConditionSetting] | None,
    codec: Codec | None,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None],
    checkpoint: Path | None = None,
    fit: Callable[..., Fitted] = fit_denoiser,
    key: Mapping[str, Any] | None = None,
) -> tuple[Fitted, dict[str, Any]]:
    """Fits a denoiser to the fields of a snapshot that are to be made, told of those that are given.

    Args:
        snapshot: The real training data.
        settings: The recipe.
        conditions: What the denoiser is told; None: the class, where there are labels.
        codec: Encodes samples first; None: they are denoised as they are.
        seed: See `fit_denoiser`, as for the rest.
        device: Where the network is fitted.
        progress: Called after each step.
        checkpoint: From which an interrupted fit goes on.
        fit: What makes the fit, called as `fit_denoiser`.
        key: What names the fit: `Fittable.fit_key`.

    Returns:
        The fit, and plain values: ``denoiser`` (`Architecture`), ``given`` (`Given`), ``channels`` (of each field
        that is made), ``prediction_type``, ``latent`` (shape and scale, with a codec).

    Raises:
        ConfigurationError: Samples, conditions and denoiser do not go together.
        GeneratorError: The fit diverged.
    """
    channels, shape = made_together(snapshot.spec, given_fields(conditions))
    data, names, latent = snapshot, list(channels), None
    if codec is not None:
        data, scale = latent_snapshot(snapshot, names, codec)
        latent = {"scale": scale, "shape": list(shape)}
        names, shape = [LATENT], data.spec[LATENT].shape
    told = Given.of(conditions, snapshot, shape)
    architecture = _architecture(settings, shape, told.specs)
    fitted = fit(
        architecture.build, data, names, settings, seed, device, progress, told.rows(conditions, snapshot), checkpoint,
        key,
    )  # fmt: skip
    return fitted, {
        "denoiser": architecture.to_json(),
        "given": told.to_json(),
        "channels": list(channels.items()),  # a list: the order of the fields matters
        "prediction_type": settings.prediction_type,
        "latent": latent,
    }


def check_fit(
    spec: SampleSpec,
    classes: int,
    settings: FitSettings,
    conditions: Mapping[str, ConditionSetting] | None,
    codec: str | None,
) -> None:
    """Refuses what `fit_to` would, as far as it shows before any data are read or any network is built.

    Args:
        spec: The fields of a sample.
        classes: Number of classes.
        settings: As the next, see `fit_to`.
        conditions: What the denoiser is told.
        codec: Folder of the autoencoder, or None.

    Raises:
        ConfigurationError: Samples, conditions and denoiser do not go together.
    """
    channels, shape = made_together(spec, given_fields(conditions))
    if codec is not None:
        shape = latent_shape(codec, shape)
    if settings.augment_p > 0.0:
        made = next(field for field in spec.continuous if field.name in channels)
        check_augmented(shape, made.low, made.high)
    told = {
        name: told_as(name, setting, spec, classes, shape)[0] for name, setting in asked_for(conditions, spec).items()
    }
    _architecture(settings, shape, told).check()


def _architecture(settings: FitSettings, shape: tuple[int, ...], told: Conditions) -> Architecture:
    specs = dict(told)
    if settings.augment_told:
        specs[AUGMENT] = ConditionSpec("vector", (PARAMETERS,), auxiliary=True)
    return Architecture.of(settings.denoiser, shape, specs, settings.denoiser_arguments())


def given_fields(conditions: Mapping[str, ConditionSetting] | None) -> list[str]:
    """Fields of the sample that are conditions, and that the planner gives."""
    return [name for name, setting in (conditions or {}).items() if setting.kind != "class" and setting.of is None]


def made_together(spec: SampleSpec, given: Collection[str] = ()) -> tuple[dict[str, int], tuple[int, ...]]:
    """The fields that are denoised together: their channels, and the shape of all of them joined.

    Args:
        spec: The fields of a sample.
        given: Those that are conditions.

    Raises:
        ConfigurationError: There is none, or they cannot be joined along their first axis.
    """
    made = [field for field in spec.continuous if field.name not in given]
    shapes = {field.name: field.shape for field in made}
    alone = len(made) == 1 and len(made[0].shape) > 0
    if not alone and (len({field.shape[1:] for field in made}) != 1 or any(len(field.shape) < 2 for field in made)):
        raise ConfigurationError(
            f"the continuous fields {shapes} cannot be denoised together: needed is one field, or several (C, *size) "
            "of one size. Set data.fields to those, say which are conditions (generator.conditions), or set generator "
            "to one that is made for this kind of data."
        )
    channels = {field.name: field.shape[0] for field in made}
    return channels, (sum(channels.values()), *made[0].shape[1:])
