"""A Lightning Trainer that runs a fit inside of something else: nothing printed, written or left changed."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lightning_diffaug.generators.fit_checkpoint import FitCheckpoint
from lightning_diffaug.generators.fit_module import DenoiserFit
from lightning_diffaug.generators.fit_settings import FitSettings

log = logging.getLogger(__name__)


class _NoSignals(_SignalConnector):
    """Leaves the signals to the process that the fit runs in."""

    def register_signal_handlers(self) -> None:
        """Nothing: a refill process ends on SIGTERM at once, not after the step."""


class _Progress(Callback):
    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._total = total
        self._progress = progress

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._progress(trainer.global_step, self._total)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._progress(trainer.global_step, self._total)  # a long check is no hang


class _LastCheck(Callback):
    """Has the last step checked too, where it is no multiple of `FitSettings.check_every`."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self._steps:
            trainer.should_stop = True  # before which Lightning validates


class _FileIO(CheckpointIO):
    """Lightning's checkpoints as a `FitCheckpoint`; what was loaded to see whether it can be used is not read again."""

    def __init__(self, file: FitCheckpoint) -> None:
        self._file = file
        self.found = file.load("cpu")

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self._file.save(checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        found, self.found = self.found, None
        assert found is not None, "there is a checkpoint, or it would not be asked for"
        return found

    def remove_checkpoint(self, path: Any) -> None:
        self._file.remove()


class _Periodic(Checkpoint):
    """Saves every so many seconds, behind all other callbacks.

    Not Lightning's `ModelCheckpoint`: it looks after a folder of files under changing names, warns of one that is not
    empty, and saves in the step of a check, where a resumed run would skip that check.
    """

    def __init__(self, path: Path, settings: FitSettings) -> None:
        self._path = path
        self._settings = settings
        self._saved = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        every, step, s = self._settings.checkpoint_every, trainer.global_step, self._settings
        checked = s.hold_out > 0.0 and step % s.check_every == 0
        if every is None or checked or step == s.steps or time.monotonic() - self._saved < every:
            return
        trainer.save_checkpoint(self._path)
        self._saved = time.monotonic()


def run(
    module: DenoiserFit,
    batches: Any,
    held_out: Any | None,
    device: torch.device,
    progress: Callable[[int, int], None],
    checkpoint: FitCheckpoint | None,
) -> None:
    """Runs a fit to its end, from its checkpoint where there is one; that stays.

    Args:
        module: The fit.
        batches: As many as there are steps.
        held_out: Batches that it is judged by, or None.
        device: Where it runs.
        progress: Called as ``progress(step, total)`` after each step, and for each batch of a check.
        checkpoint: Where the state is kept, for as long as the weights are not on disk; None: nowhere.
    """
    settings = module.settings
    plugins: list[Any] = [LightningEnvironment()]  # never the cluster's, which is the outer trainer's
    callbacks: list[Callback] = [_Progress(settings.steps, progress)]
    if held_out is not None:
        callbacks.append(_LastCheck(settings.steps))
    resumed = None
    if checkpoint is not None and settings.checkpoint_every is not None:
        io = _FileIO(checkpoint)
        plugins.append(io)
        callbacks.append(_Periodic(checkpoint.path, settings))
        resumed = checkpoint.path if io.found is not None else None
    with _quiet(), _interrupts_kept():
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=1 if device.index is None or device.type == "cpu" else [device.index],
            precision=precision_of(settings.precision, device),  # type: ignore[arg-type]
            plugins=plugins,
            callbacks=callbacks,
            max_epochs=1,
            val_check_interval=min(settings.check_every, settings.steps) if held_out is not None else None,
            num_sanity_val_steps=0,
            inference_mode=False,  # weights are exchanged around a check
            logger=False,
            enable_checkpointing=len(plugins) > 1,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer._signal_connector = _NoSignals(trainer)
        trainer.fit(module, batches, held_out, ckpt_path=resumed, weights_only=True)


def precision_of(setting: str, device: torch.device) -> str:
    """The precision that a setting means on a device."""
    if setting != "auto":
        return setting
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if able else "32-true"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what Lightning says to somebody at a terminal."""
    logger = logging.getLogger("lightning.pytorch")
    loggers = [logger, *(logging.getLogger(name) for name in _names_below(logger.name))]
    levels = [known.level for known in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
        for known in loggers:
            known.setLevel(max(known.level, logging.WARNING))
        try:
            yield
        finally:
            for known, level in zip(loggers, levels, strict=True):
                known.setLevel(level)


def _names_below(name: str) -> list[str]:
    return [known for known in logging.root.manager.loggerDict if known.startswith(f"{name}.")]


@contextlib.contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Lets a KeyboardInterrupt through, of which Lightning makes the end of the process."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise ended.__context__ from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
