"""The fidelity of the samples that a run used, and of a run's real data by its configuration."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.alignment import Paired, fields_of
from lightning_diffaug.fidelity.measuring import measure
from lightning_diffaug.fidelity.pooled import (
    field_of,
    held_out_fields,
    held_out_samples,
    pooled_fields,
    pooled_samples,
    snapshot_samples,
)
from lightning_diffaug.fidelity.result import Fidelity
from lightning_diffaug.fidelity.samples import Samples
from lightning_diffaug.fidelity.settings import FidelitySettings
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from lightning_diffaug.datamodule import DiffAugDataModule
    from lightning_diffaug.real import RealTraining

log = logging.getLogger(__name__)

_STREAM = (
    "the training data are a stream, which has no index, so there is nothing to compare with. Give raw=<map-style "
    "dataset> (key data.raw)."
)


def fidelity_figures(
    data: DiffAugDataModule, settings: FidelitySettings | Mapping[str, Any] | None = None
) -> dict[str, float]:
    """The flat figures of `measure_run`; none where they cannot be had, which is logged."""
    found = measured_or_said(data, settings)
    return {} if found is None else found.figures()


def measured_or_said(
    data: DiffAugDataModule, settings: FidelitySettings | Mapping[str, Any] | None = None
) -> Fidelity | None:
    """`measure_run`; None where it cannot be had, which is logged: a run's figures must not go with it."""
    try:
        return measure_run(data, settings)
    except Exception as error:
        log.warning("fidelity is not measured, and its figures are absent (%s: %s)", type(error).__name__, error)
        return None


def measure_run(data: DiffAugDataModule, settings: FidelitySettings | Mapping[str, Any] | None = None) -> Fidelity:
    """Measures the pooled samples that a run's windows held, after training; on the rank that decides (0).

    Validation data are the held-out real ones; where there are none that can be read, halves of the training data are
    compared. Nothing that is trained on follows from it.

    Args:
        data: After its run.
        settings: `FidelitySettings`, or a mapping of it.

    Raises:
        ConfigurationError: The run drew nothing from a pool, or its samples or real data cannot be read.
        RuntimeError: Training is under way.
    """
    if data.trainer is not None and data.trainer.training:
        raise RuntimeError("fidelity reads validation data, so it is for the time after training.")
    chosen = FidelitySettings.of(settings)
    run, real, pool = data.mix_run, data.real_training, data.pool
    if run is None or real is None or pool is None or not run.progress.synthetic:
        raise ConfigurationError("the run drew nothing from a pool, so there are no samples to measure.")
    if not pool.folder.is_dir():
        raise ConfigurationError("the pool went with the run: its generator has no name.")
    field = field_of(pool)
    # twice as many: of classes that are frequent some are left over
    synthetic = pooled_samples(pool, run.slots_used, field, 2 * chosen.samples)
    training, held_out = real_samples(data.real, real, field, chosen.seed)
    paired = None
    if chosen.pairs is not None:
        names = fields_of(chosen.pairs)
        made = pooled_fields(pool, run.slots_used, names, chosen.samples)
        paired = real_pairs(data.real, real, made, names)
    return measure(training, synthetic, held_out, real.class_names, chosen, paired=paired)


def real_samples(
    module: LightningDataModule, data: RealTraining, field: FieldSpec, seed: int
) -> tuple[Samples, Samples | None]:
    """Training samples, and validation samples where they can be read, which is logged where they cannot.

    Raises:
        ConfigurationError: The training data have no index.
    """
    snapshot = data.snapshot()
    if snapshot is None:
        raise ConfigurationError(_STREAM)
    training = snapshot_samples(snapshot, field, seed)
    try:
        return training, held_out_samples(module, data, field)
    except Exception as error:  # the user's own module and dataset may raise anything
        log.warning("halves of the training data are compared: validation data cannot be read (%s)", error)
        return training, None


def real_pairs(module: LightningDataModule, data: RealTraining, made: Snapshot, names: Collection[str]) -> Paired:
    """Made samples with several fields, and beside them real ones of training and, where they can be read, validation.

    Raises:
        ConfigurationError: The training data have no index.
    """
    snapshot = data.snapshot()
    if snapshot is None:
        raise ConfigurationError(_STREAM)
    try:
        return Paired(snapshot, made, held_out_fields(module, data, names))
    except Exception as error:  # the user's own module and dataset may raise anything
        log.warning("halves of the training pairs are compared: validation data cannot be read (%s)", error)
        return Paired(snapshot, made, None)


def real_of_config(folder: Path) -> tuple[LightningDataModule, RealTraining]:
    """The real data of a run, made again after its ``config.yaml``.

    Raises:
        ConfigurationError: The configuration makes no real data.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from lightning_diffaug.real import RealTraining

    cfg = OmegaConf.load(folder / "config.yaml")
    try:
        real = instantiate(cfg.real, _convert_="all")
        about = {"generator": None, "synthetic_fraction": 0, "feedback": None}
        data = instantiate(cfg.data, real=real, _convert_="all", **about)
    except Exception as error:
        raise ConfigurationError(
            f"the real data of {folder}/config.yaml cannot be made again ({str(error).splitlines()[0]}). Give --real a "
            "snapshot (…/snapshots/<hash>.safetensors)."
        ) from error
    data.prepare_data()
    data.setup("fit")
    return data.real, RealTraining.of(data.real, **data._about_data)
