"""Samples of several fields that belong together: images with masks or captions, clips, clouds with scans."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from gate_data import IMAGE, digits
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.gates.aligned.fields import Values
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import CAPTION, FieldSpec, SampleSpec

FRAME_RATE, SAMPLE_RATE = 16, 2000
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEMPLATES = ("a handwritten {}", "the digit {} in white on black", "somebody wrote {}")


def scenes(n: int, seed: int = 0, size: int = 16) -> dict[str, Tensor]:
    """Discs (class 1) and squares (class 2) of any grey above a noisy ground: ``image``, ``mask``."""
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy")
    mask = torch.zeros(n, size, size, dtype=torch.int64)
    for i in range(n):
        for kind in (1, 2):
            cx, cy = torch.randint(3, size - 3, (2,), generator=rng).tolist()
            r = int(torch.randint(size // 8, size // 3, (), generator=rng))
            inside = (x - cx) ** 2 + (y - cy) ** 2 <= r**2 if kind == 1 else (x - cx).abs().maximum((y - cy).abs()) < r
            mask[i][inside] = kind
    grey = torch.tensor([-0.6, 0.0, 0.6])[mask] + 0.2 * torch.randn(n, size, size, generator=rng)
    return {"image": grey.clamp(-1, 1)[:, None], "mask": mask}


def clips(n: int, seed: int = 0, frames: int = 48) -> dict[str, Tensor]:
    """A square that flashes up for a while, and a tone that begins with it: ``video``, ``audio``."""
    rng = torch.Generator().manual_seed(seed)
    each = SAMPLE_RATE // FRAME_RATE
    onset = torch.randint(2, frames - 10, (n,), generator=rng)
    video = -0.9 + 0.03 * torch.randn(n, frames, 1, 6, 6, generator=rng)
    audio = 0.01 * torch.randn(n, 1, frames * each, generator=rng)
    tone = torch.sin(torch.arange(8 * each) * 2 * math.pi * 220 / SAMPLE_RATE) * torch.linspace(1, 0, 8 * each)
    for i, begin in enumerate(onset.tolist()):
        video[i, begin : begin + 8, :, 1:5, 1:5] += 1.2
        audio[i, 0, begin * each : (begin + 8) * each] += 0.6 * tone
    return {"video": video.clamp(-1, 1), "audio": audio.clamp(-1, 1)}


def terrain(n: int, seed: int = 0, cloud: int = 256, scan: int = 32) -> dict[str, Tensor]:
    """Points of smooth random heights, in metres, and few of them: ``scan``, ``cloud``, ``again`` (drawn anew)."""
    rng = torch.Generator().manual_seed(seed)
    rough = 60.0 * torch.randn(n, 1, 4, 4, generator=rng)
    heights = functional.interpolate(rough, (32, 32), mode="bicubic", align_corners=True)

    def points(count: int) -> Tensor:
        at = 2 * torch.rand(n, count, 1, 2, generator=rng) - 1
        z = functional.grid_sample(heights, at, align_corners=True)[:, 0, :, :, None]
        return torch.cat((100 * at, z), 3)[:, :, 0]

    dense = points(cloud)
    return {"scan": dense[:, :scan].clone(), "cloud": dense, "again": points(cloud)}


def captioned(first: int, n: int) -> tuple[dict[str, Tensor], list[str]]:
    """Handwritten digits, ``image``, with one of three captions each."""
    images, labels = digits()
    texts = [_TEMPLATES[i % 3].format(_WORDS[c]) for i, c in enumerate(labels[first : first + n].tolist())]
    return {"image": images[first : first + n]}, texts


def spec_of(fields: Mapping[str, Tensor], texts: bool = False) -> SampleSpec:
    """The fields of a sample, with the ranges that the data hold."""
    found = []
    for name, value in fields.items():
        dtype, shape = str(value.dtype).removeprefix("torch."), tuple(value.shape[1:])
        if name == "image" and dtype == "uint8":
            found.append(IMAGE)
            continue
        whole = not value.is_floating_point()
        low, high = (0.0, float(value.max())) if whole else (float(value.min()), float(value.max()))
        kind = "tv_mask" if whole else "tensor"
        found.append(FieldSpec(name, name, kind, dtype, shape, low, high))
    if texts:
        found.append(FieldSpec(CAPTION, CAPTION, "str", "str", (), 0.0, 0.0))
    return SampleSpec(tuple(found))


def snapshot_of(fields: Mapping[str, Tensor], texts: list[str] | None = None) -> Snapshot:
    """Real training samples."""
    return Snapshot(spec_of(fields, texts is not None), fields, texts=None if texts is None else {CAPTION: texts})


def seen(spec: SampleSpec, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Samples as gates see them, float32 in [-1, 1]."""
    return {name: spec[name].to_unit(value) for name, value in fields.items()}


def shuffled(samples: Mapping[str, Any], second: str) -> dict[str, Any]:
    """The same, each with the second field of another."""
    turned: Values = samples[second]
    n = len(turned)
    order = (torch.arange(n) + max(1, n // 3)) % n
    turned = turned[order] if isinstance(turned, Tensor) else [turned[i] for i in order.tolist()]
    return {**samples, second: turned}
