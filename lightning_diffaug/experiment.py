"""One run of the demo, from a composed configuration to its figures: build, fit, test, report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import LightningModule, Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf

from lightning_diffaug.datamodule import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.report import draw_samples, print_table, write_metrics


@dataclass(frozen=True)
class Parts:
    """What a configuration makes."""

    data: DiffAugDataModule
    model: LightningModule
    trainer: Trainer


def build(cfg: DictConfig) -> Parts:
    """Makes the parts; every wrong value is said here, before anything runs.

    Raises:
        ConfigurationError: A value is out of range, or values do not go together.
    """
    try:
        return _build(cfg)
    except InstantiationException as error:
        if isinstance(error.__cause__, ConfigurationError):
            raise error.__cause__ from None
        raise


def _build(cfg: DictConfig) -> Parts:
    for key, least in (("seed", 0), ("threads", 1)):
        if isinstance(cfg[key], bool) or not isinstance(cfg[key], int) or cfg[key] < least:
            raise ConfigurationError(
                f"{key}={cfg[key]!r} is not a whole number from {least}. Set {key} to e.g. {least}."
            )
    logging.getLogger("lightning").handlers.clear()  # Hydra's root handler prints what Lightning's own would repeat
    seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_num_threads(cfg.threads)
    real = _make(cfg.real)
    data = _make(cfg.data, real=real, generator=_make(cfg.generator))
    callbacks = [_make(callback) for callback in (cfg.callbacks or {}).values()]
    trainer = _make(cfg.trainer, logger=_make(cfg.logger) or False, callbacks=callbacks)
    real.prepare_data()
    real.setup("fit")
    model = _make(
        cfg.model,
        num_classes=real.num_classes,
        in_channels=real.in_channels,
        class_counts=real.class_counts,
        rare_classes=real.rare_classes,
        class_names=real.class_names,
    )
    return Parts(data, model, trainer)


def _make(node: Any, **given: Any) -> Any:
    if not node or node.get("_target_") is None:
        return None
    # objects are handed over as they are, and what comes of a config is plain: a ListConfig would break resuming
    return instantiate(node, _convert_="all", **given)


def run(cfg: DictConfig) -> dict[str, float]:
    """Fits, tests on real data, and reports.

    Args:
        cfg: The composed configuration (``conf/train.yaml``).

    Returns:
        The final figures, as in ``metrics.json``.
    """
    parts = build(cfg)
    folder = Path(cfg.paths.output_dir)
    if parts.trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    parts.trainer.fit(parts.model, parts.data, ckpt_path=cfg.ckpt_path)
    steps = parts.trainer.global_step
    (tested,) = parts.trainer.test(parts.model, parts.data, verbose=False)
    figures = {**tested, **parts.data.figures(), "train/steps": float(steps)}
    if parts.trainer.is_global_zero:
        write_metrics(figures, folder)
        draw_samples(parts.data, folder / "samples.png")
        print_table(figures, folder)
    return figures
