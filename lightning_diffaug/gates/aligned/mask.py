"""The gate that asks whether a mask is that of its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.aligned.fields import check_there
from lightning_diffaug.gates.aligned.segmenter import FittedSegmenter
from lightning_diffaug.gates.aligned.thresholds import check_quantile, check_threshold
from lightning_diffaug.gates.chain import Verdict
from lightning_diffaug.spec import SampleSpec


class MaskAgreement:
    """Passes samples whose mask is what a segmenter of the real pairs sees. A gate of taste: off by default.

    The agreement is the intersection over union of prediction and mask, the mean of the classes that either shows. The
    least agreement that passes is the quantile `quantile` of that of real pairs, each with the segmenter that was not
    fitted on it (`CrossFitted`).

    Score: ``mask_iou``.

    Args:
        image: Field of images (C, H, W).
        mask: Field of masks: class numbers (H, W) or (1, H, W), or (K, H, W) with a channel for each class.
        threshold: Least agreement, in [0, 1]; None: by `quantile`.
        quantile: Share of real pairs that would be rejected.
        fit: `AlignedSettings` by name; None: the defaults.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    name = "mask"

    def __init__(
        self,
        image: str = "image",
        mask: str = "mask",
        threshold: float | None = None,
        quantile: float = 0.05,
        fit: Mapping[str, Any] | None = None,
    ) -> None:
        self.threshold = check_threshold(threshold, self.name, "the least IoU of prediction and mask", 0.5, 0, 1)
        self.quantile = check_quantile(quantile, self.name, 0.05)
        self.image, self.mask = image, mask
        self.fitted = FittedSegmenter(image, mask, fit)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "image": self.image, "mask": self.mask, "threshold": self.threshold, "quantile": self.quantile,
            "fit": self.fitted.config()["settings"],
        }  # fmt: skip

    @property
    def looks_at(self) -> tuple[str, str]:
        """Names of the two fields."""
        return self.image, self.mask

    def check(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Looks at the fields before anything is made.

        Raises:
            ConfigurationError: They are not there, or are no image and no mask.
        """
        image, mask = (check_there(spec, self.name, key, getattr(self, key)) for key in ("image", "mask"))
        if len(image.shape) != 3:
            raise ConfigurationError(
                f"gates.mask.image={image.name!r} of shape {image.shape} is no image (C, H, W). Name one in "
                "gates.mask.image, or set gates.mask=false."
            )
        if len(mask.shape) not in (2, 3) or mask.shape[-2:] != image.shape[-2:]:
            raise ConfigurationError(
                f"gates.mask.mask={mask.name!r} of shape {mask.shape} is no mask of images of shape {image.shape}. "
                "Name one in gates.mask.mask, or set gates.mask=false."
            )

    @property
    def least(self) -> float:
        """Agreement from which a pair passes."""
        return float(self.fitted.held_out.quantile(self.quantile)) if self.threshold is None else self.threshold

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
        """Which masks are those of their images, and how well they agree."""
        agreement = self.fitted.scores(samples[self.image], samples[self.mask])
        return Verdict(agreement >= self.least, {"mask_iou": agreement})
