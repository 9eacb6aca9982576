"""Scenes composed of real handwritten digits on crops of two real photographs, with the masks of the digits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors

from lightning_diffaug.data.aligned import AlignedDataset, AlignedSplits
from lightning_diffaug.data.dataset import ImageDataset
from lightning_diffaug.data.digits import DigitsDataModule

DIGITS = (0, 1, 4, 7)
"""Digits of the scenes: class 1, 2, …; 0 is the background."""
CLASS_NAMES = ("background", *(str(digit) for digit in DIGITS))
SIZE = 24
_SCENES = {"train": 240, "val": 120, "test": 400}
_STRIPS = {"train": (0.0, 0.5), "val": (0.5, 0.65), "test": (0.65, 1.0)}
"""Part of the photographs' width that a part takes its crops from."""
_CROP = (24, 80)
"""Smallest and largest side of a crop, in pixels of the photograph."""
_DIGIT = (12, 18)
"""Smallest and largest side of a digit's box, in pixels of the scene."""
_CONTRAST = (70, 140)
"""Grey levels between the ink and the mean of what is behind it."""
_TWO = 0.5
"""Probability that a second digit is tried."""
_TRIES = 20


def digit_scenes() -> AlignedSplits:
    """Scenes of one or two digits: ``image`` uint8 (1, 24, 24), ``mask`` int64 (24, 24), the index in `CLASS_NAMES`.

    A digit of scikit-learn's set is scaled up, and its own grey levels are the cover of the ink; the mask is where it
    covers at least half. Photographs are ``china.jpg`` and ``flower.jpg`` of scikit-learn, grey. Parts share neither
    images of digits nor regions of photographs. The seeds are fixed: the scenes are the same in each run.
    """
    digits, photos = DigitsDataModule().load(), _photographs()
    made = {part: _part(part, getattr(digits, part), photos) for part in _SCENES}
    return AlignedSplits(made["train"], made["val"], made["test"])


def _photographs() -> list[Tensor]:
    """Grey levels, float32 (H, W)."""
    from sklearn.datasets import load_sample_images  # slow to import, and only needed here

    weights = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    return [torch.from_numpy(image @ weights).to(torch.float32) for image in load_sample_images().images]


def _part(part: str, digits: ImageDataset, photos: list[Tensor]) -> AlignedDataset:
    seed = list(_SCENES).index(part)
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, 24])))  # frozen streams
    assert isinstance(digits.images, Tensor)
    ink = digits.images[:, 0].to(torch.float32) / 255
    targets = np.asarray(digits.targets)
    of_class = [np.flatnonzero(targets == digit) for digit in DIGITS]
    low, high = _STRIPS[part]
    strips = [photo[:, int(low * photo.shape[1]) : int(high * photo.shape[1])] for photo in photos]
    images = torch.empty(_SCENES[part], 1, SIZE, SIZE, dtype=torch.uint8)
    masks = torch.empty(_SCENES[part], SIZE, SIZE, dtype=torch.int64)
    for i in range(_SCENES[part]):
        scene, mask = _crop(strips[i % len(strips)], rng), torch.zeros(SIZE, SIZE, dtype=torch.int64)
        # The first digit's classes go round, so that all are about as frequent.
        wanted = [i // len(strips) % len(DIGITS)] + [rng.randint(len(DIGITS))] * int(rng.uniform() < _TWO)
        for label in wanted:
            _write(scene, mask, ink[rng.choice(of_class[label])], label + 1, rng)
        images[i, 0] = scene.clamp(0, 255).round().to(torch.uint8)
        masks[i] = mask
    fields = {"image": images, "mask": masks}
    return AlignedDataset(fields, wrap={"image": tv_tensors.Image, "mask": tv_tensors.Mask})


def _crop(strip: Tensor, rng: np.random.RandomState) -> Tensor:
    side = rng.randint(_CROP[0], _CROP[1] + 1)
    top, left = rng.randint(strip.shape[0] - side + 1), rng.randint(strip.shape[1] - side + 1)
    crop = strip[None, None, top : top + side, left : left + side]
    return functional.interpolate(crop, size=(SIZE, SIZE), mode="bilinear", antialias=True)[0, 0].clone()


def _write(scene: Tensor, mask: Tensor, ink: Tensor, label: int, rng: np.random.RandomState) -> None:
    """Puts a digit into a scene, where it covers no other; not at all where there is no room."""
    height, width = rng.randint(_DIGIT[0], _DIGIT[1] + 1, size=2)
    cover = functional.interpolate(ink[None, None], size=(int(height), int(width)), mode="bilinear")[0, 0].clamp(0, 1)
    for _ in range(_TRIES):
        top, left = rng.randint(SIZE - height + 1), rng.randint(SIZE - width + 1)
        box = (slice(top, top + height), slice(left, left + width))
        shown = cover >= 0.5
        if not (mask[box][cover > 0.1] > 0).any():
            break
    else:
        return
    behind = float(scene[box][shown].mean())
    contrast = rng.uniform(*_CONTRAST) * rng.choice([-1, 1])
    if not 0 <= behind + contrast <= 255:  # no room on this side of grey
        contrast = -contrast
    level = min(max(behind + contrast, 0.0), 255.0)
    scene[box] = scene[box] * (1 - cover) + level * cover
    mask[box][shown] = label
