"""The gate that asks whether a cloud of points goes through its sparse scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.aligned.fields import check_there
from lightning_diffaug.gates.aligned.thresholds import check_quantile, check_threshold
from lightning_diffaug.gates.chain import Verdict
from lightning_diffaug.gates.checks import as_set
from lightning_diffaug.spec import FieldSpec, SampleSpec

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

_CHUNK = 16  # pairs whose points are compared at a time
_PAIRS = 2048  # real pairs that say what is usual
_EQUAL = 1e-6  # of the range of the values: points that are one


def scan_distance(scan: Tensor, cloud: Tensor, others: float = -1.0) -> Tensor:
    """How far a scan is from a cloud: the mean distance from its points to the nearest one of the cloud.

    One side of the Chamfer distance (Fan et al. 2017, equation 1, without the square): a sparse scan says where the
    cloud has to be, and nothing of where it must not.

    Args:
        scan: float (n, P, d).
        cloud: float (n, Q, d).
        others: Points of the cloud that are no farther than this are passed over.

    Returns:
        float (n,), in the unit of the points.
    """
    found = []
    for some, of in zip(torch.split(scan, _CHUNK), torch.split(cloud, _CHUNK), strict=True):
        apart = torch.cdist(some, of, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(torch.where(apart > others, apart, torch.inf).amin(2).mean(1))
    return torch.cat(found) if found else torch.empty(0)


class ThroughScan:
    """Passes clouds that go through their scan. A gate of taste: off by default.

    The distance is that of `scan_distance`; where `symmetric` is set, the mean of it and of that from the cloud to the
    scan (`points.chamfer_distance`), by which a cloud has no points far from the scan either. The largest distance that
    passes is the quantile `quantile` of that of real pairs. Points of a real scan that are points of its cloud are
    compared with its other points: a cloud that is as dense and as right passes, and does not have to repeat the scan.

    Score: ``scan_distance``, in the unit of the data.

    Args:
        scan: Field of sparse points (P, d).
        cloud: Field of dense points (Q, d).
        symmetric: Whether distances from the cloud to the scan count too.
        threshold: Largest distance, in the unit of the data; None: by `quantile`.
        quantile: Of the distances of real pairs.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    name = "chamfer"

    def __init__(
        self,
        scan: str = "scan",
        cloud: str = "cloud",
        symmetric: bool = False,
        threshold: float | None = None,
        quantile: float = 0.95,
    ) -> None:
        if not isinstance(symmetric, bool):
            raise ConfigurationError(
                f"gates.chamfer.symmetric={symmetric!r} is neither true nor false: it is whether distances from the "
                f"cloud to the scan count too. Set {as_set(self.name, symmetric=True)}."
            )
        what = "the largest distance from a scan to its cloud, in the unit of the data"
        self.threshold = check_threshold(threshold, self.name, what, 0.1, 0)
        self.quantile = check_quantile(quantile, self.name, 0.95)
        self.scan, self.cloud, self.symmetric = scan, cloud, symmetric
        self._fields: tuple[FieldSpec, FieldSpec] | None = None
        self.most = torch.inf if threshold is None else float(threshold)
        """Distance up to which a pair passes."""

    @property
    def looks_at(self) -> tuple[str, str]:
        """Names of the two fields."""
        return self.scan, self.cloud

    def check(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Looks at the fields before anything is made.

        Raises:
            ConfigurationError: They are not there, or are no points of one space.
        """
        scan, cloud = (check_there(spec, self.name, key, getattr(self, key)) for key in ("scan", "cloud"))
        if len(scan.shape) != 2 or len(cloud.shape) != 2 or scan.shape[1] != cloud.shape[1]:
            raise ConfigurationError(
                f"gates.chamfer compares sets of points (P, d) and (Q, d), and {scan.name!r} has the shape "
                f"{scan.shape}, {cloud.name!r} {cloud.shape}. Name others in gates.chamfer.scan and "
                "gates.chamfer.cloud, or set gates.chamfer=false."
            )

    def bind(self, snapshot: Snapshot) -> None:
        """Learns the ranges of both fields, and how far real scans are from their clouds."""
        fields = snapshot.spec[self.scan], snapshot.spec[self.cloud]
        self._fields = fields
        if self.threshold is not None:
            return
        n = len(snapshot)
        rows = torch.linspace(0, n - 1, min(n, _PAIRS)).round().long()
        equal = _EQUAL * (fields[1].high - fields[1].low)
        scan, cloud = (snapshot.raw(field.name, rows).float() for field in fields)
        self.most = float(self._distance(scan, cloud, equal).quantile(self.quantile))

    def distances(self, samples: Mapping[str, Tensor]) -> Tensor:
        """Of samples in [-1, 1], float32 (n,), in the unit of the data."""
        assert self._fields is not None, "bind(snapshot) comes first"
        scan, cloud = (field.from_unit(samples[field.name]).float() for field in self._fields)
        return self._distance(scan, cloud)

    def _distance(self, scan: Tensor, cloud: Tensor, others: float = -1.0) -> Tensor:
        there = scan_distance(scan, cloud, others)
        return (there + scan_distance(cloud, scan, others)) / 2 if self.symmetric else there

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
        """Which clouds go through their scan, and how far it is from them."""
        distance = self.distances(samples)
        return Verdict(distance <= self.most, {"scan_distance": distance})
