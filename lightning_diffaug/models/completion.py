"""A small model that completes sparse scans to dense clouds, and how far it is from real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models.gathering import of_all_ranks
from lightning_diffaug.models.schedule import warmed_up_adamw
from lightning_diffaug.points import chamfer_distance


class Attend(nn.Module):
    """Queries look at the tokens of a scan: a transformer's cross-attention block, without one among the queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(n, Q, width), (n, S, width) → (n, Q, width)."""
        queries = queries + self.attention(self.norm(queries), tokens, tokens, need_weights=False)[0]
        result: Tensor = queries + self.feed_forward(queries)
        return result


class CloudCompletion(LightningModule):
    """From a sparse scan (n, S, 3) to a dense cloud (n, P, 3), by moving the points of a mean cloud.

    The scan is read by a PointNet (Qi et al. 2017): a network of each point and the maximum over all. Each point of the
    mean cloud is folded to its place (Yang et al. 2018, "FoldingNet", whose grid it stands for) by what it sees of the
    scan. Neither the order of the scan's points nor their number matters.

    Batches are dicts: ``scan`` and ``cloud``, float32 (n, S, 3) and (n, P, 3), and ``label`` where there are classes;
    other keys are ignored. The loss is the Chamfer distance (`points.chamfer_distance`, plain distances), and with
    classes a share of the cross-entropy of a head beside it.

    Logs ``train/loss``, and of validation and test ``chamfer``, and ``chamfer_trivial``: the lower one of what the mean
    cloud and the scan itself would reach. With classes also ``acc`` of the head, and ``acc_trivial`` of the most
    frequent class of what is tested.

    Args:
        mean_cloud: P points that are moved, such as `points.mean_cloud` of the training data.
        num_classes: 0: no head.
        width: Of features.
        depth: Blocks that look at the scan.
        heads: Of attention.
        label_weight: Of the cross-entropy in the loss.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.

    Raises:
        ConfigurationError: A value is out of range.
    """

    def __init__(
        self,
        mean_cloud: Sequence[Sequence[float]],
        num_classes: int = 0,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        label_weight: float = 0.02,
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__()
        mean_cloud = [[float(value) for value in point] for point in mean_cloud]  # plain: else resuming fails
        self.save_hyperparameters(logger=False)
        _check(mean_cloud, num_classes, width, depth, heads, label_weight, lr)
        self.lr, self.weight_decay, self.label_weight = lr, weight_decay, label_weight
        self.mean_cloud: Tensor
        self.register_buffer("mean_cloud", torch.tensor(mean_cloud))
        self.each = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width))
        self.joined = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.places = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Attend(width, heads) for _ in range(depth))
        self.move = nn.Linear(width, 3)
        nn.init.zeros_(self.move.weight)  # it begins as the mean
        nn.init.zeros_(self.move.bias)
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_classes))
        self.num_classes = num_classes
        self._seen: list[dict[str, Tensor]] = []

    def forward(self, scan: Tensor) -> Tensor:
        """Dense clouds, float32 (n, P, 3)."""
        return self._dense(*self._read(scan))

    def classify(self, scan: Tensor) -> Tensor:
        """Logits of the classes, (n, num_classes)."""
        result: Tensor = self.head(self._read(scan)[1])
        return result

    def _read(self, scan: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the scan's points, (n, S, width), and of the whole, (n, width)."""
        each = self.each(scan)
        tokens = self.joined(torch.cat([each, each.amax(1, keepdim=True).expand_as(each)], -1))
        return tokens, tokens.amax(1)

    def _dense(self, tokens: Tensor, whole: Tensor) -> Tensor:
        queries = self.places(self.mean_cloud) + whole[:, None]
        for block in self.blocks:
            queries = block(queries, tokens)
        result: Tensor = self.mean_cloud + self.move(queries)
        return result

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        tokens, whole = self._read(batch["scan"])
        loss = chamfer_distance(self._dense(tokens, whole), batch["cloud"]).mean()
        if self.num_classes:
            loss = loss + self.label_weight * functional.cross_entropy(self.head(whole), batch["label"])
        self.log("train/loss", loss, batch_size=len(whole))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forgets what was seen."""
        self._seen = []

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor] | None:
        """Measures a batch."""
        return self._measured(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/*``."""
        self._log("val")

    def on_test_epoch_start(self) -> None:
        """Forgets what was seen."""
        self._seen = []

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor] | None:
        """Measures a batch."""
        return self._measured(batch)

    def on_test_epoch_end(self) -> None:
        """Logs ``test/*``."""
        self._log("test")

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Dense clouds."""
        result: Tensor = self(batch["scan"])
        return result

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up and a cosine to 0."""
        return warmed_up_adamw(self, self.lr, self.weight_decay)

    def _measured(self, batch: Mapping[str, Any]) -> dict[str, Tensor] | None:
        scan, cloud = batch["scan"], batch["cloud"]
        tokens, whole = self._read(scan)
        seen = {
            "chamfer": chamfer_distance(self._dense(tokens, whole), cloud),
            "mean": chamfer_distance(self.mean_cloud.expand(len(cloud), -1, -1), cloud),
            "scan": chamfer_distance(scan, cloud),
        }
        predicted = None
        if self.num_classes:
            predicted = {"logits": self.head(whole), "target": batch["label"]}
            seen |= {"right": (predicted["logits"].argmax(1) == batch["label"]).float(), "label": batch["label"]}
        self._seen.append(seen)
        return predicted

    def _log(self, stage: str) -> None:
        if not self._seen:
            return
        found = {name: torch.cat([of_all_ranks(self, seen[name]) for seen in self._seen]) for name in self._seen[0]}
        self._seen = []
        figures = {
            "chamfer": found["chamfer"].mean(),
            "chamfer_trivial": torch.minimum(found["mean"].mean(), found["scan"].mean()),
        }
        if self.num_classes:
            most = torch.bincount(found["label"], minlength=self.num_classes).max() / len(found["label"])
            figures |= {"acc": found["right"].mean(), "acc_trivial": most}
        self.log_dict({f"{stage}/{name}": value for name, value in figures.items()}, sync_dist=True)


def _check(
    mean_cloud: Sequence[Sequence[float]],
    num_classes: int,
    width: int,
    depth: int,
    heads: int,
    label_weight: float,
    lr: float,
) -> None:
    if not mean_cloud or any(len(point) != 3 for point in mean_cloud):
        raise ConfigurationError(
            "model.mean_cloud holds no points of three numbers, so there is nothing to move. Leave it to the data "
            "(real.model_facts()), or give (P, 3)."
        )
    for name, value, least in (("num_classes", num_classes, 0), ("width", width, 1), ("depth", depth, 1),
                               ("heads", heads, 1)):  # fmt: skip
        if value < least:
            raise ConfigurationError(f"model.{name}={value} is below {least}. Set model.{name} to {least} or more.")
    if width % heads:
        raise ConfigurationError(
            f"model.heads={heads} does not divide model.width={width}, among which features are shared. Set "
            "model.heads to a divisor, such as 4."
        )
    if not (0 <= label_weight < float("inf") and 0 < lr < float("inf")):
        raise ConfigurationError(
            f"model.label_weight={label_weight} is negative, or model.lr={lr} is not above 0. Set model.label_weight "
            "to e.g. 0.02, model.lr to e.g. 0.003."
        )
