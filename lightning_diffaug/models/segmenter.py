"""The demo's learner for images with class masks."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_diffaug.data.mask_boxes import mask_regions
from lightning_diffaug.data.mask_files import IGNORED
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models.schedule import warmed_up_adamw
from lightning_diffaug.segmentation_network import SmallFCN


class SegmentationModel(LightningModule):
    """A small fully convolutional network (Long et al. 2015; `SmallFCN`), trained by cross-entropy.

    Batches are dicts: ``image`` float32 (n, C, H, W) in [0, 1]; ``mask`` int64 (n, H, W) or (n, 1, H, W), in which -100
    is left out; and, where there are boxes, ``boxes`` (k, 4), XYXY in pixels, and ``labels`` (k,), lists of n.

    Logs ``train/loss``; ``<part>/miou``, the intersection over union of all pixels of the part, the mean of the classes
    that occur in its masks; ``test/miou_trivial``, that of the most frequent class everywhere; ``test/iou_<class>``;
    and ``test/map`` where pycocotools is installed (extra ``detection``): mean average precision (COCO, IoU 0.5 … 0.95)
    of boxes around connected regions of the predicted mask, whose score is their mean probability, against the boxes of
    the batch, or those around the regions of its masks.

    Args:
        num_classes: Background included.
        class_names: Of the classes.
        in_channels: Of an image.
        width: Channels of the first layer.
        lr: Highest learning rate.
        weight_decay: AdamW's.

    Raises:
        ConfigurationError: A value is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: Sequence[str] = (),
        in_channels: int = 1,
        width: int = 24,
        lr: float = 5e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__()
        class_names = [str(name) for name in class_names] or [str(i) for i in range(num_classes)]
        self.save_hyperparameters(logger=False)
        if num_classes < 2 or len(class_names) != num_classes or width < 4 or not 0 < lr < float("inf"):
            raise ConfigurationError(
                f"model.num_classes={num_classes} (from 2, with as many names; here {len(class_names)}), model.width="
                f"{width} (from 4) or model.lr={lr} (above 0) is out of range. Leave the classes to the data, and set "
                "model.width to e.g. 24, model.lr to e.g. 0.005."
            )
        self.class_names, self.lr, self.weight_decay = class_names, lr, weight_decay
        self.network = SmallFCN(in_channels, num_classes, width)
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED)
        self.precision: Any = None
        if importlib.util.find_spec("pycocotools") is not None:
            from torchmetrics.detection import MeanAveragePrecision

            self.precision = MeanAveragePrecision(box_format="xyxy", iou_type="bbox")
            self.precision.warn_on_many_detections = False

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, classes, H, W) of images in [0, 1]."""
        logits: Tensor = self.network(image * 2.0 - 1.0)
        return logits

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of the pixels."""
        target = _numbers(batch)
        errors = functional.cross_entropy(self(batch["image"]), target, ignore_index=IGNORED, reduction="sum")
        loss = errors / (target != IGNORED).sum().clamp(min=1)  # a crop may show nothing but void
        self.log("train/loss", loss, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Counts pixels."""
        self.confusion.update(self(batch["image"]), _numbers(batch))

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Counts pixels, and compares boxes."""
        logits, target = self(batch["image"]), _numbers(batch)
        self.confusion.update(logits, target)
        if self.precision is not None:
            probabilities, void = logits.softmax(1), target == IGNORED
            masks = logits.argmax(1).masked_fill(void, IGNORED)  # what is found there counts for nothing
            found = [_detections(one, probability) for one, probability in zip(masks, probabilities, strict=True)]
            self.precision.update(found, _objects(batch, target))

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/miou``."""
        _, present, iou = self._counted()
        self.log("val/miou", iou[present].mean())

    def on_test_epoch_end(self) -> None:
        """Logs ``test/*``."""
        pixels, present, iou = self._counted()
        self.log("test/miou", iou[present].mean())
        self.log("test/miou_trivial", pixels.max() / pixels.sum() / present.sum())
        for name, value, there in zip(self.class_names, iou, present, strict=True):
            if there:
                self.log(f"test/iou_{name}", value)
        if self.precision is not None:
            value = self.precision.compute()["map"]
            if value >= 0:  # else there is no object in the whole test set
                self.log("test/map", value.to(iou))
            self.precision.reset()

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Masks, int64 (n, H, W)."""
        result: Tensor = self(batch["image"]).argmax(1)
        return result

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up and a cosine to 0."""
        return warmed_up_adamw(self, self.lr, self.weight_decay)

    def _counted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels of each class, whether there are any, and its intersection over union; of all ranks."""
        counts = self.confusion.compute().to(torch.float32)
        self.confusion.reset()
        pixels, right = counts.sum(1), counts.diagonal()
        union = pixels + counts.sum(0) - right
        return pixels, pixels > 0, right / union.clamp(min=1.0)


def _numbers(batch: Mapping[str, Tensor]) -> Tensor:
    """Class numbers, int64 (n, H, W)."""
    mask = batch["mask"]
    return mask.as_subclass(Tensor).reshape(len(mask), *mask.shape[-2:]).long()


def _objects(batch: Mapping[str, Any], masks: Tensor) -> list[dict[str, Tensor]]:
    """The objects of each image, as torchmetrics takes them."""
    if "boxes" not in batch:
        return [_detections(mask) for mask in masks]
    pairs = zip(batch["boxes"], batch["labels"], strict=True)
    return [{"boxes": boxes.as_subclass(Tensor), "labels": labels} for boxes, labels in pairs]


def _detections(mask: Tensor, probabilities: Tensor | None = None) -> dict[str, Tensor]:
    """Boxes as torchmetrics takes them; with scores where probabilities (classes, H, W) are given."""
    regions = mask_regions(mask)
    found = {"boxes": regions.boxes, "labels": regions.labels}
    if probabilities is not None:
        own = probabilities.cpu()[regions.labels]
        found["scores"] = (own * regions.masks).sum((1, 2)) / regions.masks.sum((1, 2)).clamp(min=1)
    return {name: value.to(mask.device) for name, value in found.items()}
