"""Nearest neighbours among the real training samples, seen past small shifts and mirroring."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from lightning_diffaug.spec import IMAGE, SampleSpec

Encoder = Callable[[Tensor], Tensor]
"""Images (n, *shape) in [-1, 1] → features (n, d)."""

_POOL: dict[int, Callable[[Tensor, Any], Tensor]] = {
    1: adaptive_avg_pool1d,
    2: adaptive_avg_pool2d,
    3: adaptive_avg_pool3d,
}
_CHUNK = 16_384  # reference rows that are compared at a time
_COARSE = 8  # positions along each axis of the first look at many references
_COARSE_CHUNK = 4096
_MANY = 1 << 20  # values of the references, above which there is a first look
_KEPT = 32  # references that the second look is at
_SAME = 2e-3  # root mean square at which two samples are one; above the rounding of matrix products


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
    near as one that was not moved. Large samples are averaged down to `size` along each axis after they were moved.

    Many references are first compared when averaged further down, and then only the nearest few of each sample as they
    are. No distance is above its true value by averaging (Jensen's inequality), so a copy is always among these; a
    nearest one that is no copy is now and then the second nearest.

    Args:
        reference: (m, C, *spatial) or (m, d) float32 in [-1, 1].
        shift: Largest movement along each axis, in positions of the full resolution; 0 compares samples as they are.
        mirror: Whether a mirrored copy (last axis) is one too.
        size: Positions along each axis that are compared.
        encoder: Compares its features in place of values; samples are then neither moved nor mirrored.
    """

    def __init__(
        self, reference: Tensor, shift: int = 1, mirror: bool = True, size: int = 16, encoder: Encoder | None = None
    ) -> None:
        spatial = reference.shape[2:]
        fits = bool(spatial) and min(spatial, default=0) > 2 * shift and encoder is None
        self._shift = shift if fits else 0
        self._mirror = mirror and len(spatial) >= 2 and encoder is None
        self._size, self._encoder = size, encoder
        self._reference: Tensor | None = None
        self._coarse: Tensor | None = None
        if len(reference):
            views = torch.cat([self._view(part) for part in torch.split(reference, _CHUNK)])
            if views.ndim > 2 and max(views.shape[2:]) > _COARSE and views.numel() > _MANY:
                self._coarse = _coarse(views)
            self._reference = views.flatten(1)
        self._own: dict[int, float] = {}

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
        if spatial and len(spatial) in _POOL and max(x.shape[2:]) > self._size:
            x = _POOL[len(spatial)](x, tuple(min(length, self._size) for length in x.shape[2:]))
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
        views = self._variants(x)
        if self._coarse is not None:
            best, index = self._nearest_of(views.flatten(2), self._likely(views), at_least)
            left = best.isinf().nonzero()[:, 0]  # there are so many that are passed over
            if len(left):
                best[left], index[left] = self._nearest(views[:, left].flatten(2), at_least)
            return best, index
        return self._nearest(views.flatten(2), at_least)

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

    def _likely(self, views: Tensor) -> Tensor:
        """The references that are nearest when averaged down, int64 (n, k)."""
        assert self._coarse is not None
        variants, n = views.shape[:2]
        queries = _coarse(views.flatten(0, 1))
        # |q - r|² = [-2q, |q|², 1] · [r, 1, |r|²]: one product, and no pass over all pairs to add what is missing
        q = torch.cat((-2.0 * queries, queries.square().sum(1, keepdim=True), torch.ones(len(queries), 1)), 1)
        best, index = torch.empty(n, 0), torch.empty(n, 0, dtype=torch.int64)
        for first in range(0, len(self._coarse), _COARSE_CHUNK):
            r = self._coarse[first : first + _COARSE_CHUNK]
            r = torch.cat((r, torch.ones(len(r), 1), r.square().sum(1, keepdim=True)), 1)
            squared = (q @ r.T).view(variants, n, len(r)).amin(0)
            near, where = squared.topk(min(_KEPT, len(r)), dim=1, largest=False)
            best, index = torch.cat((best, near), 1), torch.cat((index, where + first), 1)
        return index.gather(1, best.topk(min(_KEPT, best.shape[1]), dim=1, largest=False).indices)

    def own(self, index: Tensor, samples: Callable[[Tensor], Tensor]) -> Tensor:
        """How far references are from their own nearest neighbour: the measure of what is near, where they lie.

        Args:
            index: int64 (n,) of the references.
            samples: Reads references by index, (k, *shape).

        Returns:
            float32 (n,). Equal references count as one.
        """
        new = [i for i in dict.fromkeys(index.tolist()) if i not in self._own]
        if new:
            found, _ = self.distances(samples(torch.tensor(new)), at_least=_SAME)
            self._own.update(zip(new, found.tolist(), strict=True))
        return torch.tensor([self._own[i] for i in index.tolist()])


def _coarse(views: Tensor) -> Tensor:
    """Averaged down to at most `_COARSE` along each axis, in whole cells where that can be: (n, d)."""
    smaller = tuple(-(-length // -(-length // _COARSE)) for length in views.shape[2:])
    return _POOL[len(smaller)](views, smaller).flatten(1)
