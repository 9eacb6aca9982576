"""Points turn in the fit, and their scans with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DenoiserFit
from lightning_diffaug.generators.augment import RandomAffine, check_augmented
from lightning_diffaug.generators.denoisers import ConditionSpec
from lightning_diffaug.generators.fit_settings import FitSettings


class _Pointwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conditions = {"scan": ConditionSpec("cross", (4, 3))}
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        return self.layer(x)


def _points() -> Tensor:
    return torch.rand(6, 9, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_points_turn_about_z_and_keep_their_distances() -> None:
    points = _points()
    augment = RandomAffine(p=0.7, degrees=180.0, pixels=5.0, scale=0.0)
    active, how = augment.drawn(6, torch.Generator().manual_seed(1))
    moved = augment.moved_points(points, active, how)
    assert 0 < int(active.sum()) < 6
    torch.testing.assert_close(moved[~active], points[~active])
    assert not torch.allclose(moved[active], points[active])
    torch.testing.assert_close(moved[..., 2], points[..., 2])
    torch.testing.assert_close(moved.norm(dim=2), points.norm(dim=2))
    i = int(active.nonzero()[0])
    cross = points[i, :, 0] * moved[i, :, 1] - points[i, :, 1] * moved[i, :, 0]
    sine = cross / points[i, :, :2].square().sum(1)
    torch.testing.assert_close(sine, torch.sin(how[i, 0] * torch.pi).expand(9))


def test_a_scan_turns_with_its_cloud_in_the_fit() -> None:
    fit = DenoiserFit(_Pointwise(), FitSettings(augment_p=1.0, augment_degrees=180.0, augment_scale=0.2))
    points = _points()
    moved, condition, told = fit._augmented(points, {"scan": points[:, :4], "other": points[:, :4]})
    assert not torch.allclose(moved, points)
    torch.testing.assert_close(condition["scan"], moved[:, :4])
    assert torch.equal(condition["other"], points[:, :4]), "the denoiser is not told of it"
    assert told == {}


def test_points_that_would_not_turn_about_the_origin_are_refused() -> None:
    check_augmented((128, 3), -1.25, 1.25)
    check_augmented((3, 8, 8), 0.0, 255.0)
    with pytest.raises(ConfigurationError, match=r"data\.image_range"):
        check_augmented((128, 3), -1.0, 0.7)
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.augment_p=0"):
        check_augmented((12, 100), -1.0, 1.0)
