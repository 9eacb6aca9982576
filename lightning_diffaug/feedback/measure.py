"""Measures what a learner finds hard, and leaves no trace of it in the learner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_diffaug.conditions.feedback import METRICS, scores_of
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.feedback.samples import LearnerSamples
from lightning_diffaug.randomness import untouched_rng

Scores = Callable[[Any, Any], Mapping[str, Tensor]]
"""(module, batch) → metric → (n,)."""


@contextmanager
def asked(trainer: Any, module: Any) -> Iterator[Callable[[Any], Any]]:
    """The learner in eval mode, without gradients, logging nothing; all of it as before at the end.

    Kept are the mode of every part, buffers, the states of torchmetrics, and the global random states.

    Args:
        trainer: The Trainer; its precision and its transfer of batches apply.
        module: The LightningModule.

    Yields:
        Moves a batch to the learner's device, as training does.
    """
    modes = {part: part.training for part in module.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    metrics = [(part, _metric_state(part)) for part in module.modules() if isinstance(part, Metric)]
    device = trainer.strategy.root_device
    gpus = [device] if device.type == "cuda" else []
    module.log = module.log_dict = _log_nothing
    try:
        module.eval()
        with (
            untouched_rng(),
            torch.random.fork_rng(devices=gpus),
            torch.no_grad(),
            trainer.precision_plugin.forward_context(),
        ):
            yield trainer.strategy.batch_to_device
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        del module.log, module.log_dict
        for part, mode in modes.items():
            part.training = mode
        for part, state in metrics:
            part.__dict__.update(state)


def _log_nothing(*_: Any, **__: Any) -> None:
    """Stands for ``log``: what the learner is asked between epochs is no figure of training."""


def _metric_state(metric: Any) -> dict[str, Any]:
    kept = [*metric._defaults, "_update_count", "_computed"]
    return {
        name: list(value) if isinstance(value, list) else value.clone() if isinstance(value, Tensor) else value
        for name in kept
        for value in [getattr(metric, name)]
    }


def by_logits(samples: LearnerSamples, module: nn.Module, batch: Any, classes: Sequence[int]) -> Mapping[str, Tensor]:
    """`METRICS` by the logits that the module gives for the images of a batch.

    Args:
        samples: Whose batch it is.
        module: The learner.
        batch: On its device.
        classes: Class of each sample.

    Raises:
        ConfigurationError: What it gives are no logits.
    """
    logits = module(samples.image_of(batch))
    target = torch.tensor([samples.columns[c] for c in classes], device=getattr(logits, "device", None))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not bool((target < logits.shape[1]).all()):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigurationError(
            f"data.feedback takes what {type(module).__name__} returns for images for logits (n, classes), one for "
            f"each label, and it is {shape} with labels up to {int(target.max())}. Give it a method "
            "feedback_scores(batch) that returns {loss: (n,)}, or set feedback.scores."
        )
    return scores_of(logits, target)


def measure(
    trainer: Any, module: Any, samples: LearnerSamples, indices: Sequence[int], batch_size: int, scores: Scores | None
) -> dict[str, Tensor]:
    """What the learner makes of training samples.

    Args:
        trainer: The Trainer.
        module: The LightningModule.
        samples: The training samples.
        indices: Which of them.
        batch_size: How many at a time.
        scores: How it is measured; None: by the module's ``feedback_scores``, else by its logits.

    Returns:
        Metric → float32 (len(indices),) on the CPU.

    Raises:
        ConfigurationError: The learner does not say what is needed.
    """
    own = getattr(module, "feedback_scores", None)
    found: dict[str, list[Tensor]] = {}
    with asked(trainer, module) as to_device:
        for start in range(0, len(indices), batch_size):
            part = list(indices[start : start + batch_size])
            batch = to_device(samples.batch(part))
            if scores is not None:
                said = scores(module, batch)
            elif callable(own):
                said = own(batch)
            elif samples.class_index is None:
                raise ConfigurationError(
                    "data.feedback asks for the learner's loss on each training sample, and the data have no labels. "
                    "Give the LightningModule a method feedback_scores(batch) that returns {loss: (n,)}, or set "
                    "feedback=none."
                )
            else:
                said = by_logits(samples, module, batch, samples.class_index[part].tolist())
            for metric, value in _checked(said, len(part)).items():
                found.setdefault(metric, []).append(value.detach().float().cpu())
    return {metric: torch.cat(values) for metric, values in found.items()}


def _checked(said: Any, n: int) -> dict[str, Tensor]:
    fine = isinstance(said, Mapping) and all(
        metric in METRICS and isinstance(value, Tensor) and value.shape == (n,) for metric, value in said.items()
    )
    if not fine:
        shapes = {key: tuple(getattr(v, "shape", ())) for key, v in said.items()} if isinstance(said, Mapping) else said
        raise ConfigurationError(
            f"feedback_scores (or feedback.scores) returned {shapes} for {n} samples: it has to return a mapping of "
            f"some of {', '.join(METRICS)} to tensors of shape ({n},)."
        )
    return dict(said)


def by_class(values: Tensor, classes: np.ndarray[Any, Any] | None, count: int) -> list[float]:
    """Means over the finite values of each class; NaN for a class without any. [] without labels.

    Args:
        values: (n,).
        classes: Class of each, int64 (n,).
        count: Classes there are.
    """
    if classes is None:
        return []
    value = values.double().numpy()
    finite = np.isfinite(value)
    total = np.bincount(classes[finite], weights=value[finite], minlength=count)
    seen = np.bincount(classes[finite], minlength=count)
    return [float(t / s) if s else float("nan") for t, s in zip(total, seen, strict=True)]
