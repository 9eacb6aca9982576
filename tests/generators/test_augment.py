"""Affine augmentation inside the fit."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from lightning_diffaug.generators.augment import RandomAffine


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(n: int = 8, height: int = 12, width: int = 20) -> Tensor:
    """Smooth images: neighbouring pixels alike, so that interpolation hardly blurs them."""
    coarse = torch.rand(n, 3, 4, 5, generator=_rng(1)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(-1, 1)


def test_off_changes_nothing() -> None:
    x = _images()
    assert torch.equal(RandomAffine(p=0.0)(x, _rng()), x)
    still = RandomAffine(p=1.0, degrees=0, pixels=0, scale=0)(x, _rng())
    torch.testing.assert_close(still, x, atol=1e-5, rtol=0)


def test_about_p_of_the_samples_are_transformed_each_in_its_own_way() -> None:
    x = _images(1).expand(500, -1, -1, -1)
    moved = RandomAffine(p=0.8)(x, _rng())
    changed = (moved != x).flatten(1).any(1)
    assert 0.74 < float(changed.float().mean()) < 0.86
    assert len({round(float(row.sum()), 3) for row in moved[changed]}) > 300


def test_a_translation_is_in_pixels_along_both_axes_of_an_oblong_image() -> None:
    x = torch.zeros(200, 1, 10, 30)
    x[:, :, 5, 15] = 1.0
    moved = RandomAffine(p=1.0, degrees=0, pixels=2, scale=0)(x, _rng())
    rows, columns = torch.arange(10.0)[:, None], torch.arange(30.0)
    mass = moved.sum((1, 2, 3))
    dy = (moved[:, 0] * rows).sum((1, 2)) / mass - 5
    dx = (moved[:, 0] * columns).sum((1, 2)) / mass - 15
    for shift in (dy, dx):
        assert 1.8 < float(shift.abs().max()) <= 2.001
        assert abs(float(shift.mean())) < 0.3


def test_a_rotation_of_an_oblong_image_does_not_shear_it() -> None:
    """Equal to torchvision's rotation by some angle in the range."""
    x = _images(1, 24, 40)
    moved = RandomAffine(p=1.0, degrees=20, pixels=0, scale=0)(x, _rng(3))
    inner = (slice(None), slice(None), slice(8, 16), slice(12, 28))
    errors = [
        float((tv.rotate(x, angle / 4, tv.InterpolationMode.BILINEAR) - moved)[inner].abs().max())
        for angle in range(-80, 81)
    ]
    assert min(errors) < 0.03 < errors[80]


def test_the_same_generator_state_gives_the_same_images_and_no_global_state_is_used() -> None:
    x = _images()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = RandomAffine()(x, _rng(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(RandomAffine()(x, _rng(5)), first)
    assert not torch.equal(RandomAffine()(x, _rng(6)), first)


def test_edges_are_continued_so_values_stay_in_range() -> None:
    x = -torch.ones(50, 1, 8, 8)
    torch.testing.assert_close(RandomAffine(p=1.0, pixels=4)(x, _rng()), x)


def test_latents_keep_their_range() -> None:
    x = 3.0 * _images()
    moved = RandomAffine(p=1.0)(x, _rng())
    assert 2.0 < float(moved.abs().max()) <= float(x.abs().max())
