"""Nearest neighbours among the real training samples, seen past small shifts and mirroring."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import (
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool2d,
    avg_pool3d,
    pad,
)

from lightning_diffaug.spec import IMAGE, SampleSpec

Encoder = Callable[[Tensor], Tensor]
"""Images (n, *shape) in [-1, 1] → features (n, d)."""

Reader = Callable[[Tensor], Tensor]
"""Indices, int64 (k,) → these samples, (k, *shape) float32 in [-1, 1]."""

SAME = 2e-3
"""Root mean square difference up to which two samples are one; above the rounding of matrix products."""

_AVERAGED: dict[int, Callable[[Tensor, Any], Tensor]] = {2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
_CELLS: dict[int, Callable[[Tensor, Any], Tensor]] = {2: avg_pool2d, 3: avg_pool3d}
_POSITIONS = 1024  # of a sequence that are compared: averages of a wave would all be about 0
_READ = 256  # references that are read at a time
_CHUNK = 16_384  # references that are compared at a time
_COARSE = 8  # positions along each axis of the first look at many references
_COARSE_CHUNK = 4096
_MANY = 1 << 20  # values of the references, above which there is a first look
_PAIRS = 1 << 24  # samples times references of a first look at a time
_KEPT = 32  # references that the second look is at
_FURTHER = 1024  # references that it is at where more may be nearer; above, it is at all
_ROWS = 16  # samples of which so many are compared at a time


def compared_field(spec: SampleSpec | Mapping[str, Tensor], field: str | None) -> str:
    """The field by which samples are compared: the one asked for, else the image, else the first continuous one."""
    if field is not None:
        return field
    names = [one.name for one in spec.continuous] if isinstance(spec, SampleSpec) else list(spec)
    return IMAGE if IMAGE in names else names[0]


class Neighbours:
    """Finds the nearest of some reference samples.

    The distance is the root mean square difference of values in [-1, 1], of the least different of a sample's
    variants: moved by up to `shift` along each axis, mirrored or not. Borders are left out, so that a moved copy is as
    near as one that was not moved. Large images and volumes are averaged down to `size` along each axis after they
    were moved; of long sequences, some positions are compared.

    Many images are first compared when averaged further down, and then only the nearest few of each sample as they
    are. Averaging makes no distance larger (Jensen's inequality), so wherever a reference that was left out may still
    be nearer than the nearest one found, it is looked at as well: the result is that of comparing with all.

    Args:
        read: Reads reference samples, (k, C, *spatial) or (k, d), by their indices; only a few at a time are asked for.
        count: Number of references.
        shift: Largest movement along each axis, in positions of the full resolution; 0 compares samples as they are.
        mirror: Whether a mirrored copy (last axis) is one too.
        size: Positions along each axis of images and volumes that are compared.
        encoder: Compares its features in place of values; samples are then neither moved nor mirrored.
    """

    def __init__(
        self,
        read: Reader,
        count: int,
        shift: int = 1,
        mirror: bool = True,
        size: int = 16,
        encoder: Encoder | None = None,
    ) -> None:
        self._size, self._encoder = size, encoder
        self._shift, self._mirror = 0, False
        self._reference: Tensor | None = None
        self._coarse: Tensor | None = None
        self._own: dict[int, float] = {}
        for first in range(0, count, _READ):
            rows = torch.arange(first, min(first + _READ, count))
            samples = read(rows)
            if self._reference is None:
                spatial = samples.shape[2:]
                fits = bool(spatial) and min(spatial, default=0) > 2 * shift and encoder is None
                self._shift = shift if fits else 0
                self._mirror = mirror and len(spatial) >= 2 and encoder is None
            views = self._view(samples)
            if self._reference is None:
                self._reference = torch.empty(count, views[0].numel())
                if views.ndim - 2 in _CELLS and max(views.shape[2:]) > _COARSE and self._reference.numel() > _MANY:
                    self._coarse = torch.empty(count, _coarse(views[:1]).shape[1])
            self._reference[rows] = views.flatten(1)
            if self._coarse is not None:
                self._coarse[rows] = _coarse(views)

    def __len__(self) -> int:
        return 0 if self._reference is None else len(self._reference)

    def _view(self, x: Tensor, offset: tuple[int, ...] | None = None) -> Tensor:
        """What is compared of samples: (n, C, *spatial) or (n, d)."""
        if self._encoder is not None:
            return self._encoder(x).flatten(1).float()
        spatial = x.shape[2:]
        if self._shift:
            at = offset or (0,) * len(spatial)
            inner = tuple(
                slice(self._shift + o, length - self._shift + o) for o, length in zip(at, spatial, strict=True)
            )
            x = x[(slice(None), slice(None), *inner)]
        if len(spatial) in _AVERAGED and max(x.shape[2:]) > self._size:
            return _AVERAGED[len(spatial)](x, tuple(min(length, self._size) for length in x.shape[2:]))
        if len(spatial) == 1 and x.shape[2] > _POSITIONS:
            drawn = torch.randperm(x.shape[2], generator=torch.Generator().manual_seed(0))  # equal steps would alias
            return x[:, :, drawn[:_POSITIONS]]
        return x

    def _variants(self, x: Tensor) -> Tensor:
        """(v, n, C, *spatial): the samples as they are first, then moved and mirrored."""
        dims = x.ndim - 2
        steps = range(-self._shift, self._shift + 1)
        offsets = sorted(itertools.product(steps, repeat=dims), key=lambda o: sum(map(abs, o))) if self._shift else [()]
        images = [x, x.flip(-1)] if self._mirror else [x]
        return torch.stack([self._view(image, offset or None) for image in images for offset in offsets])

    def distances(self, x: Tensor, at_least: float = -1.0) -> tuple[Tensor, Tensor]:
        """Distance to the nearest reference that is farther than `at_least`, and its index.

        Args:
            x: (n, *shape).
            at_least: References at this distance or below are passed over.

        Returns:
            float32 (n,), infinite where there is none; int64 (n,).
        """
        if self._reference is None or not len(x):
            return torch.full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.int64)
        if self._coarse is None:
            return self._nearest(self._variants(x).flatten(2), at_least)
        parts = [self._in_two_looks(part, at_least) for part in torch.split(x, max(1, _PAIRS // len(self._coarse)))]
        return torch.cat([best for best, _ in parts]), torch.cat([index for _, index in parts])

    def _in_two_looks(self, x: Tensor, at_least: float) -> tuple[Tensor, Tensor]:
        """As `distances`; of most references only what is averaged down is compared."""
        variants = self._variants(x)
        views, bounds = variants.flatten(2), self._bounds(variants)
        likely = bounds.topk(min(_KEPT, bounds.shape[1]), dim=1, largest=False).indices
        best, index = self._nearest_of(views, likely, at_least)
        nearer = (bounds < best[:, None]).sum(1)  # references that may be
        few = ((nearer > likely.shape[1]) & (nearer <= _FURTHER)).nonzero()[:, 0]
        for rows in torch.split(few, _ROWS):
            if len(rows):
                further = bounds[rows].topk(int(nearer[rows].max()), dim=1, largest=False).indices
                best[rows], index[rows] = self._nearest_of(views[:, rows], further, at_least)
        many = (nearer > max(_FURTHER, likely.shape[1])).nonzero()[:, 0]
        if len(many):
            best[many], index[many] = self._nearest(views[:, many], at_least)
        return best, index

    def _nearest(self, queries: Tensor, at_least: float) -> tuple[Tensor, Tensor]:
        """Among all references, for the variants (v, n, d) of samples."""
        assert self._reference is not None
        best = torch.full((queries.shape[1],), torch.inf)
        index = torch.zeros(queries.shape[1], dtype=torch.int64)
        root = queries.shape[-1] ** 0.5
        for first in range(0, len(self._reference), _CHUNK):
            part = self._reference[first : first + _CHUNK]
            found = torch.cdist(queries, part.expand(len(queries), *part.shape)).amin(0) / root
            found = torch.where(found > at_least, found, torch.inf)
            near, where = found.min(1)
            closer = near < best
            best = torch.where(closer, near, best)
            index = torch.where(closer, where + first, index)
        return best, index

    def _nearest_of(self, queries: Tensor, likely: Tensor, at_least: float) -> tuple[Tensor, Tensor]:
        """Among some references of each sample, (n, k), for the variants (v, n, d)."""
        assert self._reference is not None
        found = torch.cdist(queries.transpose(0, 1), self._reference[likely]).amin(1) / queries.shape[-1] ** 0.5
        best, where = torch.where(found > at_least, found, torch.inf).min(1)
        return best, likely.gather(1, where[:, None])[:, 0]

    def _bounds(self, views: Tensor) -> Tensor:
        """What no distance is below, (n, m), for the variants (v, n, C, *spatial) of samples."""
        assert self._coarse is not None
        variants, n = views.shape[:2]
        queries = _coarse(views.flatten(0, 1))
        # |q - r|² = [-2q, |q|², 1] · [r, 1, |r|²]: one product, and no pass over all pairs to add what is missing
        q = torch.cat((-2.0 * queries, queries.square().sum(1, keepdim=True), torch.ones(len(queries), 1)), 1)
        bounds = torch.empty(n, len(self._coarse))
        for first in range(0, len(self._coarse), _COARSE_CHUNK):
            r = self._coarse[first : first + _COARSE_CHUNK]
            r = torch.cat((r, torch.ones(len(r), 1), r.square().sum(1, keepdim=True)), 1)
            bounds[:, first : first + len(r)] = (q @ r.T).view(variants, n, len(r)).amin(0)
        return bounds.clamp_(min=0).div_(views[0, 0].numel()).sqrt_()

    def own(self, index: Tensor, samples: Reader) -> Tensor:
        """How far references are from their own nearest neighbour: the measure of what is near, where they lie.

        Args:
            index: int64 (n,) of the references.
            samples: Reads references by index, (k, *shape).

        Returns:
            float32 (n,), infinite where there is no other. Equal references count as one.
        """
        new = [i for i in dict.fromkeys(index.tolist()) if i not in self._own]
        if new:
            found, _ = self.distances(samples(torch.tensor(new)), at_least=SAME)
            self._own.update(zip(new, found.tolist(), strict=True))
        return torch.tensor([self._own[i] for i in index.tolist()])


def apart(distance: Tensor, own: Tensor, ratio: float) -> Tensor:
    """Whether samples are no copies, bool (n,).

    Args:
        distance: To the nearest reference, (n,).
        own: Distance of that reference to its own nearest one, (n,); where it is infinite, only equals are copies.
        ratio: Share of `own` below which a sample is a copy.
    """
    return torch.where(own.isfinite(), distance >= ratio * own, distance > SAME)


def _coarse(views: Tensor) -> Tensor:
    """Averaged in at most `_COARSE` cells along each axis, (n, d): no two are farther apart than the views are."""
    steps = [-(-length // _COARSE) for length in views.shape[2:]]
    missing = [-length % step for length, step in zip(views.shape[2:], steps, strict=True)]
    whole = pad(views, [one for last in reversed(missing) for one in (0, last)])
    return _CELLS[len(steps)](whole, steps).flatten(1) * math.sqrt(math.prod(steps))
