"""The automatic policies work on the images that a data set hands to its transform, however small."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors

from lightning_diffaug.data import DigitsDataModule, autoaugment, randaugment, trivialaugment
from lightning_diffaug.errors import ConfigurationError

POLICIES: dict[str, Callable[[], nn.Module]] = {
    "randaugment": randaugment,
    "strongest randaugment": lambda: randaugment(magnitude=30),
    "trivialaugment": trivialaugment,
    "wide trivialaugment": lambda: trivialaugment(wide=True),
    "autoaugment": autoaugment,
    "autoaugment of objects": lambda: autoaugment("imagenet"),
}


def _digits() -> Tensor:
    """Raw training images, uint8 (n, 1, 8, 8)."""
    data = DigitsDataModule(shots=5)
    data.setup()
    images = data.splits.train.images
    assert isinstance(images, Tensor)
    return images


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_type_shape_dtype_and_range_are_kept(name: str, channels: int) -> None:
    policy = POLICIES[name]()
    image = torch.randint(0, 256, (channels, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    torch.manual_seed(0)
    for _ in range(40):
        changed = policy(image)
        assert (changed.shape, changed.dtype) == (image.shape, torch.uint8)
        values = policy(image / 255)
        assert (values.shape, values.dtype) == (image.shape, torch.float32)
        assert values.min() >= 0
        assert values.max() <= 1
        assert isinstance(policy(tv_tensors.Image(image)), tv_tensors.Image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("name", POLICIES)
def test_channels_of_any_number_are_moved_together(name: str) -> None:
    policy = POLICIES[name]()
    image = torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8).expand(4, 8, 8)
    for _ in range(20):
        changed = policy(image)
        assert torch.equal(changed, changed[:1].expand(4, 8, 8))


def test_pictures_are_taken_too() -> None:
    for policy in POLICIES.values():
        assert policy()(Image.new("L", (8, 8), color=9)).size == (8, 8)


@pytest.mark.parametrize("name", [name for name in POLICIES if not name.startswith(("wide", "strongest"))])
def test_real_digits_are_changed_and_stay_in_sight(name: str) -> None:
    images, policy = _digits(), POLICIES[name]()
    torch.manual_seed(0)
    changed = torch.stack([policy(image) for image in images.repeat(8, 1, 1, 1)])
    same = (changed == images.repeat(8, 1, 1, 1)).flatten(1).all(1).float().mean()
    assert same < 0.5, "colour is nothing to a grey image, and black and white leave little contrast to gain"
    blank = (changed.float().flatten(1).std(1) < 20).float().mean()
    assert blank < 0.04


@pytest.mark.parametrize("size", [8, 64])
def test_translations_are_in_proportion_to_the_image(size: int) -> None:
    """Half of an image of 8 pixels can't be moved out of it, as by the 32 pixels of the wide space."""
    image = torch.zeros(1, size, size, dtype=torch.uint8)
    image[:, size // 2, : size // 2], image[:, size // 2, size // 2 :] = 255, 90  # solarizing blanks one alone
    torch.manual_seed(0)
    seen = [policy(image) for policy in (trivialaugment(), randaugment(1, 30)) for _ in range(150)]
    assert all(changed.max() > changed.min() for changed in seen if not torch.equal(changed, image))


def test_the_magnitude_of_trivialaugment_is_drawn_anew() -> None:
    image, policy = torch.full((1, 16, 16), 100, dtype=torch.uint8), trivialaugment()
    torch.manual_seed(0)
    seen = {int(policy(image)[0, 8, 8]) for _ in range(400)}
    assert len(seen) > 20, "brightness alone has 31 magnitudes either way"


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: randaugment(num_ops=0), "num_ops"),
        (lambda: randaugment(magnitude=31), "magnitude"),
        (lambda: autoaugment("mnist"), "policy"),
    ],
)
def test_a_wrong_setting_names_its_key(make: Callable[[], nn.Module], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"real\.augment\.{key}"):
        make()
