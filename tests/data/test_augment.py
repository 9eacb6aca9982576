from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from lightning_diffaug.data import SmallAffine, classical
from lightning_diffaug.errors import ConfigurationError

IMAGE = torch.randint(0, 256, (1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def changed(transform: torch.nn.Module, rounds: int = 400) -> float:
    torch.manual_seed(0)
    return sum(not torch.equal(transform(IMAGE), IMAGE) for _ in range(rounds)) / rounds


def test_p_is_the_share_of_changed_images() -> None:
    assert changed(classical(p=0.0)) == 0
    assert changed(classical(p=1.0)) > 0.99
    assert 0.42 < changed(classical(p=0.5)) < 0.58


def test_type_shape_and_dtype_are_kept() -> None:
    transform = classical(p=1.0)
    assert transform(IMAGE).dtype == torch.uint8
    assert transform(IMAGE).shape == IMAGE.shape
    assert isinstance(transform(tv_tensors.Image(IMAGE)), tv_tensors.Image)
    picture = transform(Image.new("L", (8, 8), color=9))
    assert isinstance(picture, Image.Image)
    assert picture.size == (8, 8)


def test_source_image_is_left_as_it_was() -> None:
    before = IMAGE.clone()
    changed(classical(p=1.0), rounds=20)
    assert torch.equal(IMAGE, before)


@pytest.mark.parametrize("size", [8, 32])
def test_translation_is_in_pixels_whatever_the_size(size: int) -> None:
    transform = SmallAffine(p=1.0, degrees=0.0, pixels=1.0, scale=0.0)
    image = torch.zeros(1, size, size)
    image[:, size // 2, size // 2] = 1.0
    torch.manual_seed(0)
    reached = sum(transform(image) for _ in range(50))[0] > 1e-6
    rows = reached.any(dim=1).nonzero().flatten()
    assert (rows.min() - size // 2, rows.max() - size // 2) == (-1, 1)


def test_drawn_changes_fill_their_ranges_and_no_more() -> None:
    transform = SmallAffine(p=1.0, degrees=15.0, pixels=1.0, scale=0.1)
    torch.manual_seed(0)
    drawn = [transform.make_params([IMAGE]) for _ in range(2000)]
    for values, bound in (
        (torch.tensor([d["angle"] for d in drawn]), 15.0),
        (torch.tensor([d["translate"] for d in drawn]), 1.0),
        (torch.tensor([d["scale"] - 1 for d in drawn]), 0.1),
    ):
        assert values.abs().max() <= bound
        assert values.min() < -0.95 * bound
        assert values.max() > 0.95 * bound


def test_mirroring_only_where_it_is_asked_for() -> None:
    flips = classical(p=0.0, horizontal_flip=True)
    torch.manual_seed(0)
    results = [flips(IMAGE) for _ in range(50)]
    mirrored = [torch.equal(result, IMAGE.flip(-1)) for result in results]
    assert any(mirrored)
    assert not all(mirrored)
    assert changed(classical(p=0.0)) == 0


@pytest.mark.parametrize("settings", [{"p": 1.5}, {"p": -0.1}, {"scale": 1.0}, {"degrees": -1.0}, {"pixels": -1.0}])
def test_a_value_out_of_range_names_its_key(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"real\.augment"):
        classical(**settings)
