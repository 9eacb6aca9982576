"""Mixing the samples of a batch in pairs, with their labels: Mixup, CutMix and Remix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from lightning_diffaug.errors import ConfigurationError

MIXINGS = ("mixup", "cutmix", "remix")


class Remix(nn.Module):
    """Mixup whose labels favour the rarer class of a pair (Chou et al. 2020, arXiv 2007.03943).

    Images are mixed as ``λ x_i + (1 - λ) x_j`` with λ ~ Beta(α, α), one for a batch, each with the one before. Where
    class i has at least κ times as many samples as j and λ < τ, the label is j's alone; where j has as many more and
    1 - λ < τ, it is i's alone; else it is mixed as the images are (eq. 9 there). The count of a soft label is the mean
    of its classes' counts.

    Args:
        alpha: Parameter of the Beta distribution.
        class_counts: Training samples of each class.
        kappa: κ, from which ratio of counts on a label is not mixed; 1 or more.
        tau: τ, up to which share of the frequent class's image the label is the rare one's alone; in [0, 1].
    """

    def __init__(self, alpha: float, class_counts: Sequence[int], kappa: float, tau: float) -> None:
        super().__init__()
        self.kappa = kappa
        self.tau = tau
        self._beta = torch.distributions.Beta(torch.tensor(float(alpha)), torch.tensor(float(alpha)))
        self.register_buffer("counts", torch.tensor(class_counts, dtype=torch.float32), persistent=False)
        self.counts: Tensor

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images and labels; as what `batch_mixing` returns."""
        share = float(self._beta.sample())  # λ
        labels = F.one_hot(y, len(self.counts)).float() if y.ndim == 1 else y.float()
        counts = labels @ self.counts
        other, other_counts = labels.roll(1, 0), counts.roll(1, 0)
        of_label = torch.full_like(counts, share)
        if share < self.tau:
            of_label[counts >= self.kappa * other_counts] = 0.0
        if 1.0 - share < self.tau:
            of_label[other_counts >= self.kappa * counts] = 1.0
        weight = of_label[:, None]
        return share * x + (1.0 - share) * x.roll(1, 0), weight * labels + (1.0 - weight) * other


def batch_mixing(
    mixing: str | None,
    alpha: float,
    num_classes: int,
    class_counts: Sequence[int] | None = None,
    kappa: float = 3.0,
    tau: float = 0.5,
) -> nn.Module | None:
    """What mixes the batches of a training.

    Args:
        mixing: ``"mixup"`` (Zhang et al. 2018), ``"cutmix"`` (Yun et al. 2019), ``"remix"``, or None.
        alpha: Parameter of the Beta distribution that the shares are drawn from; above 0.
        num_classes: C.
        class_counts: Training samples of each class, which Remix needs.
        kappa: As the next, see `Remix`.
        tau: See `Remix`.

    Returns:
        ``(x, y) -> (x, y)`` for x float ``(n, C, H, W)`` and y int64 ``(n,)`` or probabilities ``(n, C)``; y becomes
        probabilities float32 ``(n, C)``. It draws from torch's global random state. None where nothing is mixed.

    Raises:
        ConfigurationError: An unknown mixing, a value out of its range, or counts that are missing.
    """
    if mixing is None:
        return None
    if mixing not in MIXINGS:
        raise ConfigurationError(
            f"model.mixing={mixing!r} is unknown: it says how the samples of a batch are mixed in pairs. Set "
            f"model.mixing to one of {', '.join(MIXINGS)}, or to null"
        )
    if not alpha > 0.0:
        raise ConfigurationError(
            f"model.mixing_alpha={alpha} is not above 0: shares are drawn from Beta(alpha, alpha). Set "
            "model.mixing_alpha to e.g. 0.2, or model.mixing=null to mix nothing"
        )
    if mixing != "remix":
        kinds = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
        of_batch: nn.Module = kinds[mixing](alpha=alpha, num_classes=num_classes)
        return of_batch
    if kappa < 1.0 or not 0.0 <= tau <= 1.0:
        raise ConfigurationError(
            f"model.remix_kappa={kappa}, model.remix_tau={tau}: the ratio of counts must be 1 or more and the share in "
            "[0, 1]. Set model.remix_kappa and model.remix_tau so"
        )
    if class_counts is None or min(class_counts) < 1:
        raise ConfigurationError(
            f"model.mixing=remix with model.class_counts={class_counts}: labels are mixed by the ratio of class "
            "counts, so every class needs one of 1 or more. Set model.class_counts, or model.mixing=mixup"
        )
    return Remix(alpha, class_counts, kappa, tau)
