"""The demo's learner: a small convolutional classifier with the loss and figures that imbalance needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAUROC, MulticlassConfusionMatrix

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models.batch_mixing import batch_mixing
from lightning_diffaug.models.predictions import LOGITS, TARGET
from lightning_diffaug.models.schedule import warmed_up_adamw
from lightning_diffaug.models.scores import recalls

LOSSES = ("cross_entropy", "logit_adjusted")


def small_cnn(in_channels: int, num_classes: int, width: int) -> nn.Sequential:
    """Three 3×3 convolutions, pooled twice: from 1×8×8 up to 3×32×32, ``(n, C, H, W) -> (n, num_classes)``."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *block(in_channels, width),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(width, 2 * width),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, num_classes),
    )


class ImageClassifier(LightningModule):
    """A small CNN, trained with AdamW under a warm-up and a cosine to 0 over the whole run.

    Batches are ``(x, y, …)``: x float32 ``(n, C, H, W)``, y int64 ``(n,)``; what follows is ignored. Logs
    ``train/loss``, ``val/loss|acc|acc_balanced|acc_trivial`` and ``test/…`` of these, ``acc_rare``, ``auroc`` and
    ``test/acc_class_<name>``; ``acc_balanced`` is the mean recall over the classes that occur, ``acc_rare``
    over the rare ones among them, ``auroc`` the macro one-vs-rest area, which no class prior moves, and
    ``acc_trivial`` the accuracy of who always says the class that is most frequent in training.

    Args:
        num_classes: number of classes.
        in_channels: channels of an image.
        width: channels of the first convolution; the last has twice as many.
        lr: highest learning rate.
        weight_decay: AdamW's weight decay.
        mixing: how the samples of a batch are mixed in pairs, ``"mixup"``, ``"cutmix"`` or ``"remix"``; None: not.
        mixing_alpha: Beta parameter of the shares.
        remix_kappa: as the next, see `batch_mixing.Remix`.
        remix_tau: see there.
        loss: ``"cross_entropy"``, or ``"logit_adjusted"`` (Menon et al. 2021, eq. 10), which wants batches
            that follow the data: with ``data.balance=classes`` the prior would be corrected twice.
        logit_adjustment_tau: strength τ of the adjustment; 1 is the consistent one.
        class_counts: training samples per class; needed by the adjusted loss.
        rare_classes: class indices that ``test/acc_rare`` is over; none: the figure is absent.
        class_names: names for the per-class figures; by default the indices.

    Raises:
        ConfigurationError: unknown loss, a value out of range, or counts that do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        width: int = 32,
        lr: float = 1e-2,
        weight_decay: float = 1e-2,
        mixing: str | None = None,
        mixing_alpha: float = 0.2,
        remix_kappa: float = 3.0,
        remix_tau: float = 0.5,
        loss: str = "cross_entropy",
        logit_adjustment_tau: float = 1.0,
        class_counts: Sequence[int] | None = None,
        rare_classes: Sequence[int] = (),
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        # Plain lists: a ListConfig or numpy number in the hyperparameters would make resuming fail.
        class_counts = None if class_counts is None else [int(count) for count in class_counts]
        rare_classes = [int(index) for index in rare_classes]
        class_names = None if class_names is None else [str(name) for name in class_names]
        self.save_hyperparameters(logger=False)
        _check(num_classes, width, lr, loss, class_counts, rare_classes, class_names)

        self.num_classes = num_classes
        self.lr = lr
        self.weight_decay = weight_decay
        self.rare_classes = rare_classes
        self.class_names = class_names or [str(index) for index in range(num_classes)]
        self.most_frequent = 0 if class_counts is None else class_counts.index(max(class_counts))
        self.network = small_cnn(in_channels, num_classes, width)
        self.mixing = batch_mixing(mixing, mixing_alpha, num_classes, class_counts, remix_kappa, remix_tau)

        adjustment = torch.zeros(num_classes)
        if loss == "logit_adjusted" and class_counts is not None:
            counts = torch.tensor(class_counts, dtype=torch.float32)
            adjustment = logit_adjustment_tau * (counts / counts.sum()).log()
        self.register_buffer("logit_adjustment", adjustment, persistent=False)
        self.logit_adjustment: Tensor

        self.val_confusion = MulticlassConfusionMatrix(num_classes)
        self.test_confusion = MulticlassConfusionMatrix(num_classes)
        self.test_auroc = MulticlassAUROC(num_classes, average="macro")

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32 ``(n, num_classes)`` of images ``(n, C, H, W)``."""
        logits: Tensor = self.network(x)
        return logits

    def training_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss of one batch, mixed and with logit adjustment where these are on."""
        if self.mixing is not None:
            x, y = self.mixing(x, y)
        return F.cross_entropy(self(x) + self.logit_adjustment, y)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        loss = self.training_loss(batch[0], batch[1])
        self.log("train/loss", loss, batch_size=len(batch[1]))
        return loss

    def validation_step(self, batch: Sequence[Any], batch_idx: int) -> dict[str, Tensor]:
        """Collects ``val/*``; gives ``logits`` and ``target``."""
        logits, y = self._evaluate("val/loss", batch)
        self.val_confusion.update(logits, y)
        return {LOGITS: logits, TARGET: y}

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/acc`` and ``val/acc_balanced``."""
        self._log_accuracies("val", self.val_confusion)

    def test_step(self, batch: Sequence[Any], batch_idx: int) -> dict[str, Tensor]:
        """Collects ``test/*``; gives ``logits`` and ``target``."""
        logits, y = self._evaluate("test/loss", batch)
        self.test_confusion.update(logits, y)
        self.test_auroc.update(logits.softmax(dim=1), y)
        return {LOGITS: logits, TARGET: y}

    def on_test_epoch_end(self) -> None:
        """Logs all figures of the test."""
        recall = self._log_accuracies("test", self.test_confusion)
        figures = {f"acc_class_{name}": value for name, value in zip(self.class_names, recall, strict=True)}
        figures["auroc"] = self.test_auroc.compute()
        if self.rare_classes:
            figures["acc_rare"] = recall[self.rare_classes].nanmean()
        for name, value in figures.items():
            if not value.isnan():  # a class without a test sample has no figure
                self.log(f"test/{name}", value, sync_dist=True)
        self.test_auroc.reset()

    def predict_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self(batch[0])
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up and a cosine to 0."""
        return warmed_up_adamw(self, self.lr, self.weight_decay)

    def _evaluate(self, key: str, batch: Sequence[Any]) -> tuple[Tensor, Tensor]:
        x, y = batch[0], batch[1]
        logits: Tensor = self(x)
        self.log(key, F.cross_entropy(logits, y), on_step=False, on_epoch=True, batch_size=len(x), sync_dist=True)
        return logits, y

    def _log_accuracies(self, stage: str, metric: MulticlassConfusionMatrix) -> Tensor:
        confusion = metric.compute()
        metric.reset()
        recall = recalls(confusion)
        # Already the same on every rank; sync_dist only spares Lightning's warning.
        self.log(f"{stage}/acc", confusion.diagonal().sum() / confusion.sum(), sync_dist=True)
        self.log(f"{stage}/acc_balanced", recall.nanmean(), sync_dist=True)
        self.log(f"{stage}/acc_trivial", confusion[self.most_frequent].sum() / confusion.sum(), sync_dist=True)
        return recall


def _check(
    num_classes: int,
    width: int,
    lr: float,
    loss: str,
    class_counts: list[int] | None,
    rare_classes: list[int],
    class_names: list[str] | None,
) -> None:
    if num_classes < 2:
        raise ConfigurationError(
            f"model.num_classes={num_classes}: a classifier tells at least 2 classes apart. Set model.num_classes, "
            "or choose data with more classes (real=…)"
        )
    if width < 1 or lr <= 0:
        raise ConfigurationError(
            f"model.width={width}, model.lr={lr}: both must be positive. Set model.width and model.lr so"
        )
    if loss not in LOSSES:
        raise ConfigurationError(f"model.loss={loss!r} is unknown. Set model.loss to one of {', '.join(LOSSES)}")
    if loss == "logit_adjusted" and (class_counts is None or min(class_counts) < 1):
        raise ConfigurationError(
            f"model.loss=logit_adjusted with model.class_counts={class_counts}: the adjustment is the logarithm of the "
            "class prior, so every class needs a count of 1 or more. Set model.class_counts, or model.loss="
            "cross_entropy"
        )
    for key, values in (("class_counts", class_counts), ("class_names", class_names)):
        if values is not None and len(values) != num_classes:
            raise ConfigurationError(
                f"model.{key} has {len(values)} entries for model.num_classes={num_classes}: one per class is needed. "
                f"Set model.{key} accordingly"
            )
    if any(not 0 <= index < num_classes for index in rare_classes):
        raise ConfigurationError(
            f"model.rare_classes={rare_classes} holds an index outside 0..{num_classes - 1}. Set "
            "model.rare_classes to class indices"
        )
