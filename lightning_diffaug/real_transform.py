"""What raw samples go through so that they look like real ones: given and checked, or found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.probing import signature
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.spec import LABEL, SampleSpec
from lightning_diffaug.structure import describe
from lightning_diffaug.wrapping import SampleTransform, find_transform

if TYPE_CHECKING:
    from lightning_diffaug.real import RealTraining


def transform_of_synthetic(
    real: LightningDataModule,
    dataset: Dataset[Any],
    raw: Dataset[Any] | None,
    raw_given: bool,
    template: Any,
    real_sample: Any,
    spec: SampleSpec,
    given: Callable[[Any], Any] | None,
    augment_synthetic: bool,
) -> Callable[[Any], Any] | None:
    """What pooled samples go through so that they look like real ones; checked on a raw sample."""
    if given is not None and not augment_synthetic:
        raise ConfigurationError(
            "data.synthetic_transform says all that synthetic samples go through, so data.augment_synthetic=False has "
            "nothing to take off. Set one of data.synthetic_transform and data.augment_synthetic."
        )
    change = given
    if not augment_synthetic:
        change = getattr(real, "eval_transform", None)
        if change is None:
            raise ConfigurationError(
                f"data.augment_synthetic=False needs to know the conversion without augmentation, and "
                f"{type(real).__name__} has no attribute eval_transform. Give synthetic_transform=<conversion of a raw "
                "sample> (data.synthetic_transform)."
            )
    image = spec.continuous[0] if spec.continuous else spec.fields[0]
    if change is not None:
        candidates = _ways(change, image.path)
    elif raw_given:
        candidates = [SampleTransform()]
    else:
        assert raw is not None
        found = find_transform(dataset, raw, image, spec.get(LABEL))
        return None if found.is_identity else found
    wanted = signature(real_sample)
    for candidate in candidates:
        try:
            if signature(candidate(template)) == wanted:
                return None if candidate.is_identity else candidate
        except Exception:
            continue
    raise SampleStructureError(
        f"a synthetic sample would not look like a real one: the raw sample\n{describe(template)}\ndoes not become\n"
        f"{describe(real_sample)}\nGive synthetic_transform=<callable on the raw image or the raw sample> that does it."
    )


def _ways(change: Callable[[Any], Any], image_path: str) -> list[SampleTransform]:
    """What a given transform may be one of: the image, or the whole sample."""
    return [SampleTransform(of_image=change, image_path=image_path), SampleTransform(of_sample=change)]


def fitting_transform(change: Any, image_path: str, raw_sample: Any, data: RealTraining) -> SampleTransform | None:
    """A transform of the image or of the sample that makes samples like the training data's own; None: it does not.

    Args:
        change: The transform, if there is one.
        image_path: Where the image is.
        raw_sample: A sample without transform.
        data: The training data.
    """
    if not callable(change):
        return None
    with untouched_rng():
        dataset = data.facts.dataset
        wanted = signature(next(iter(dataset)) if data.is_stream else dataset[0])
        for candidate in _ways(change, image_path):
            with contextlib.suppress(Exception):  # the user's own code
                if signature(candidate(raw_sample)) == wanted:
                    return candidate
    return None
