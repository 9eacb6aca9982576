"""One run of the demo, from a composed configuration to its figures: build, fit, test, report."""

from __future__ import annotations

import json
import logging
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import DictConfig, OmegaConf

from lightning_diffaug.ablation.settings import check_settings
from lightning_diffaug.config_check import check_values
from lightning_diffaug.datamodule import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.loggers import close, log_final
from lightning_diffaug.models.predictions import Predictions
from lightning_diffaug.models.scores import corrected_scores, scores
from lightning_diffaug.pictures import draw_samples
from lightning_diffaug.report import print_line, print_table, write_classes, write_metrics

log = logging.getLogger(__name__)

# Advice of Lightning that tells a user of this program nothing.
_CKPT_WORDS = ("last", "hpc")  # Lightning looks for the file itself
_TIPS = ("💡 Tip", "TPU available", "Loading `train_dataloader`")
_HINTS = (
    ".*LeafSpec.*is deprecated",
    ".*smaller than the logging interval",
    ".*does not have many workers",
    "The dirpath has changed",  # each run has a folder of its own
)


@dataclass(frozen=True)
class Parts:
    """What a configuration makes; `real` is what `data` wraps."""

    real: Any
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
        cause = error.__cause__
        if isinstance(cause, ConfigurationError):
            raise cause from None
        if isinstance(cause, (TypeError, ValueError, ImportError, MisconfigurationException)):
            key = str(error).rpartition("full_key: ")[2].strip()
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
            if unknown is not None:
                raise ConfigurationError(
                    f"{key}.{unknown[1]} is no setting. Remove it; `python train.py --cfg job` lists those of {key}."
                ) from error
            raise ConfigurationError(
                f"{key} cannot be made ({type(cause).__name__}: {cause}): look at {key}.*."
            ) from error
        raise


def _build(cfg: DictConfig) -> Parts:
    for key, least in (("seed", 0), ("threads", 1)):
        if isinstance(cfg[key], bool) or not isinstance(cfg[key], int) or cfg[key] < least:
            raise ConfigurationError(
                f"{key}={cfg[key]!r} is not a whole number from {least}. Set {key} to e.g. {least}."
            )
    path = cfg.ckpt_path
    if path is not None and path not in _CKPT_WORDS and "://" not in path and not Path(path).exists():
        raise ConfigurationError(
            f"ckpt_path={path} does not exist, so there is nothing to go on from. Set it to a checkpoint such as "
            "outputs/…/checkpoints/last.ckpt, or to null."
        )
    check_settings(cfg.ablation)
    for key in ("real", "generator", "data", "model", "trainer", "logger"):
        check_values(cfg[key], key)
    for name, callback in (cfg.callbacks or {}).items():
        check_values(callback, f"callbacks.{name}")
    logging.getLogger("lightning").handlers.clear()  # Hydra's root handler prints what Lightning's own would repeat
    seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_num_threads(cfg.threads)
    real = _make(cfg.real)
    data = _make(cfg.data, real=real, generator=_make(cfg.generator))
    callbacks = [_make(callback) for callback in (cfg.callbacks or {}).values()]
    trainer = _make(cfg.trainer, logger=_make(cfg.logger) or False, callbacks=callbacks)
    real.prepare_data()
    real.setup("fit")
    if cfg.ablation.equal == "steps":
        _limit_steps(trainer, real, cfg.data.epoch_length)
    model = _make(cfg.model, **real.model_facts())
    return Parts(real, data, model, trainer)


def _limit_steps(trainer: Any, real: Any, epoch_length: int | None) -> None:
    """As many steps for every arm as real data alone take in ``trainer.max_epochs``, however long its epochs are."""
    if trainer.max_epochs is None or trainer.max_epochs < 1:
        raise ConfigurationError(
            f"ablation.equal=steps: as many steps as real data take in trainer.max_epochs={trainer.max_epochs}, which "
            "is no number of epochs. Set trainer.max_epochs to one, or ablation.equal=epochs."
        )
    # of a stream only the setting says how long an epoch is
    batches = len(real.train_dataloader()) if epoch_length is None else -(-epoch_length // real.batch_size)
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = -(-batches // (trainer.accumulate_grad_batches * trainer.world_size))
    trainer.fit_loop.epoch_loop.max_steps = trainer.max_epochs * steps
    trainer.fit_loop.max_epochs = -1


def _make(node: Any, **given: Any) -> Any:
    if not node or node.get("_target_") is None:
        return None
    # objects are handed over as they are, and what comes of a config is plain: a ListConfig would break resuming
    return instantiate(node, _convert_="all", **given)


def run(cfg: DictConfig, brief: bool = False) -> dict[str, float]:
    """Fits, tests on real data, and reports.

    Args:
        cfg: The composed configuration (``conf/train.yaml``).
        brief: Print a line instead of a table: it is one run of many.

    Returns:
        The final figures, as in ``metrics.json``.
    """
    with _quiet():
        parts = build(cfg)
        try:
            figures = _run(parts, cfg, brief)
        except BaseException:
            close(parts.trainer, failed=True)
            raise
        close(parts.trainer, failed=False)
        return figures


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what is noise in this program off its console; whoever uses the library hears it."""
    source = logging.getLogger("lightning.pytorch.utilities.rank_zero")

    def telling(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_TIPS)

    source.addFilter(telling)
    try:
        with warnings.catch_warnings():
            for hint in _HINTS:
                warnings.filterwarnings("ignore", hint)
            yield
    finally:
        source.removeFilter(telling)


def _run(parts: Parts, cfg: DictConfig, brief: bool) -> dict[str, float]:
    folder = Path(cfg.paths.output_dir)
    if parts.trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
        if parts.real.class_names:
            write_classes(parts.real.class_names, parts.real.class_counts, parts.real.rare_classes, folder)
    started: list[float] = []
    trainer: Any = parts.trainer
    predictions = Predictions()
    trainer.callbacks += [
        LambdaCallback(
            on_train_start=lambda *_: started.append(time.perf_counter()),
            on_train_end=lambda *_: started.append(time.perf_counter()),
        ),
        predictions,
    ]
    try:
        trainer.fit(parts.model, parts.data, ckpt_path=cfg.ckpt_path)
    except RuntimeError as error:
        if cfg.ckpt_path is None or "loading state_dict" not in str(error):
            raise
        raise ConfigurationError(
            f"ckpt_path={cfg.ckpt_path} is of another model than this configuration's, so it cannot go on from there. "
            f"Give the settings of that run (its folder's .hydra/overrides.yaml), or set ckpt_path=null. {error}"
        ) from error
    if cfg.ckpt_path and not started:
        log.warning(
            "nothing was left to train: %s is of a run that reached epoch %d, and trainer.max_epochs=%s. The figures "
            "of training are the checkpoint's. Set trainer.max_epochs higher to go on.",
            cfg.ckpt_path, trainer.current_epoch, cfg.trainer.max_epochs,
        )  # fmt: skip
    steps = parts.trainer.global_step
    validated = trainer.validate(parts.model, parts.data, verbose=False)  # [] with trainer.limit_val_batches=0
    evaluations = _count_evaluation(folder, trainer.is_global_zero)
    (tested,) = trainer.test(parts.model, parts.data, verbose=False)
    figures = {
        **(validated[0] if validated else {}),
        **tested,
        **parts.data.figures(),
        **parts.data.costs(),
        **parts.data.audit(),
    }
    figures |= _of_predictions(predictions, parts.real)
    seconds = started[-1] - started[0] if len(started) > 1 else 0.0
    figures |= {
        "train/steps": float(steps),
        "train/seconds": max(seconds - figures["train/wait_seconds"], 0.0),
        "test/evaluations": float(evaluations),
    }
    if parts.trainer.is_global_zero:
        predictions.write(folder)
        draw_samples(parts.data, folder / "samples.png")
        log_final(trainer, figures)
        write_metrics(figures, folder)  # last: a run that has it came to its end
        pool = parts.data.pool
        if brief:
            print_line(figures, folder)
        else:
            print_table(figures, folder, None if pool is None or not pool.folder.is_dir() else pool.folder)
    return figures


def _count_evaluation(folder: Path, leads: bool) -> int:
    """How often the test set is scored in a run's folder with this time: a run that failed behind it is run again."""
    path = folder / "evaluations.json"
    count = 1 + (int(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else 0)
    if leads:
        path.write_text(json.dumps(count), encoding="utf-8")
    return count


def _of_predictions(predictions: Predictions, real: Any) -> dict[str, float]:
    """Scores of validation, and of both parts with the class prior corrected."""
    val, test = predictions.of("val"), predictions.of("test")
    if val is None or test is None or not real.class_names:
        return {}
    about = (real.class_names, real.rare_classes)
    return {f"val/{name}": value for name, value in scores(*val, *about).items()} | corrected_scores(val, test, *about)
