from __future__ import annotations

from collections import OrderedDict, UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from lightning_diffaug.data import SmallAffine
from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.structure import leaves
from lightning_diffaug.transforms import JointSpatial

NEAREST = v2.InterpolationMode.NEAREST
MOVES = {
    "affine": lambda: v2.RandomAffine(40, translate=(0.2, 0.2), scale=(0.7, 1.3), shear=10, interpolation=NEAREST),
    "crop": lambda: v2.RandomCrop(20),
    "flip": lambda: v2.RandomHorizontalFlip(),
    "perspective": lambda: v2.RandomPerspective(0.3, p=1.0, interpolation=NEAREST),
    "resized": lambda: v2.RandomResizedCrop(24, scale=(0.4, 0.9), interpolation=NEAREST),
    "upside down": lambda: v2.RandomVerticalFlip(),
    "all": lambda: v2.Compose([MOVES["flip"](), MOVES["affine"](), MOVES["resized"]()]),
}


def scene(seed: int, side: int = 32) -> dict[str, Any]:
    """An image whose object, a rectangle of its own texture, is exactly where the mask is, with its box and corner."""
    rng = torch.Generator().manual_seed(seed)
    top, left = torch.randint(8, 13, (2,), generator=rng).tolist()
    height, width = torch.randint(5, 11, (2,), generator=rng).tolist()
    mask = torch.zeros(side, side, dtype=torch.int64)
    mask[top : top + height, left : left + width] = 3
    image = torch.where(mask > 0, torch.randint(100, 256, (3, side, side), generator=rng), 0).to(torch.uint8)
    return {
        "image": image,
        "mask": mask,
        "boxes": torch.tensor([[left, top, left + width, top + height]], dtype=torch.float32),
        "corner": torch.tensor([float(left), float(top)]),
        "audio": torch.arange(20.0).reshape(2, 10),
        "angle": 0.5,
        "label": 7,
    }


KINDS = {"image": "image", "mask": "mask", "boxes": "boxes", "corner": "key_points"}


@pytest.mark.parametrize("move", MOVES)
def test_mask_covers_the_object_to_the_pixel(move: str) -> None:
    transform = JointSpatial(MOVES[move](), KINDS)
    changed = 0
    for seed in range(20):
        sample = scene(seed)
        torch.manual_seed(seed)
        moved = transform(sample)
        assert (moved["mask"] == 3).any()
        assert set(moved["mask"].unique().tolist()) <= {0, 3}
        assert torch.equal((moved["image"] > 0).all(dim=0), moved["mask"] == 3)
        changed += not torch.equal(moved["image"], sample["image"])
    assert changed >= 5


@pytest.mark.parametrize("move", ["flip", "upside down", "crop", "shift", "turn"])
def test_moved_boxes_are_the_boxes_of_the_moved_mask_within_a_pixel(move: str) -> None:
    moves = MOVES | {
        "shift": lambda: v2.RandomAffine(0, translate=(0.2, 0.2), scale=(0.8, 1.2), interpolation=NEAREST),
        "turn": lambda: v2.RandomAffine(180, interpolation=NEAREST),
    }
    transform = JointSpatial(moves[move](), KINDS)
    for seed in range(20):
        torch.manual_seed(seed)
        moved = transform(scene(seed))
        found = masks_to_boxes((moved["mask"] == 3)[None]) + torch.tensor([0, 0, 1, 1])  # edges, not last pixels
        assert (moved["boxes"] - found).abs().max() <= 1.0


@pytest.mark.parametrize("move", ["flip", "upside down", "crop", "affine"])
def test_key_points_stay_on_what_they_mark_within_a_pixel(move: str) -> None:
    transform = JointSpatial(MOVES[move](), KINDS)
    for seed in range(20):
        sample = scene(seed)
        x, y = sample["corner"].long().tolist()
        marked = torch.zeros(1, 32, 32)
        marked[0, y, x] = 1.0
        torch.manual_seed(seed)
        moved = transform(sample | {"image": marked})
        found = moved["image"][0].nonzero()
        if len(found):  # neither cut off nor lost between pixels that are read
            assert (moved["corner"] - found[0].flip(0)).abs().max() <= 1.5


def test_each_frame_of_a_video_moves_as_the_mask_does() -> None:
    sample = scene(0)
    sample["video"] = sample["image"][None].repeat(4, 1, 1, 1)
    torch.manual_seed(3)
    moved = JointSpatial(MOVES["affine"](), {"video": "video", "mask": "mask"})(sample)
    assert moved["video"].shape == (4, 3, 32, 32)
    for frame in moved["video"]:
        assert torch.equal((frame > 0).all(dim=0), moved["mask"] == 3)
    assert torch.equal(moved["image"], sample["image"]), "a plain tensor that is not named is left alone"


def test_photometric_changes_leave_the_mask_alone() -> None:
    sample = scene(0)
    moved = JointSpatial(v2.ColorJitter(brightness=(0.3, 0.4)), KINDS)(sample)
    assert torch.equal(moved["mask"], sample["mask"])
    assert not torch.equal(moved["image"], sample["image"])


def test_our_own_small_affine_moves_masks_by_the_nearest_pixel() -> None:
    torch.manual_seed(1)
    moved = JointSpatial(SmallAffine(p=1.0, degrees=30), KINDS)(scene(0))
    assert set(moved["mask"].unique().tolist()) == {0, 3}


# Sound -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "mirrors"),
    [
        (v2.RandomHorizontalFlip(1.0), True),
        (v2.RandomHorizontalFlip(0.0), False),
        (v2.RandomVerticalFlip(1.0), False),
        ([v2.RandomHorizontalFlip(1.0), v2.RandomHorizontalFlip(1.0)], False),
        ([v2.RandomHorizontalFlip(1.0), v2.RandomAffine(30, (0.5, 0.5), (0.5, 2.0))], True),
        ([v2.RandomCrop(6), v2.RandomHorizontalFlip(1.0), v2.Resize(16)], True),
        (v2.RandomApply([v2.RandomHorizontalFlip(1.0)], p=1.0), True),
        (v2.RandomRotation((180, 180)), True),
        (v2.RandomRotation((90, 90)), False),
        (v2.RandomRotation((-90, -90)), False),
        (v2.RandomPerspective(0.5, p=1.0), False),
        (v2.ElasticTransform(), False),
        (v2.GaussianBlur(3), False),
    ],
)
def test_sound_is_mirrored_when_left_and_right_change_places(transform: Any, mirrors: bool) -> None:
    joint = JointSpatial(transform, KINDS, stereo="audio", azimuth=["angle"])
    for seed in range(5):
        sample = scene(seed)
        torch.manual_seed(seed)
        moved = joint(sample)
        assert torch.equal(moved["audio"], sample["audio"].flip(0) if mirrors else sample["audio"])
        assert moved["angle"] == pytest.approx(-0.5 if mirrors else 0.5)


def test_a_drawn_flip_swaps_stereo_exactly_when_the_image_is_flipped() -> None:
    joint, flips = JointSpatial(v2.RandomHorizontalFlip(0.5), KINDS, stereo="audio"), 0
    torch.manual_seed(0)
    for seed in range(60):
        sample = scene(seed)
        moved = joint(sample)
        flipped = torch.equal(moved["image"], sample["image"].flip(-1))
        assert flipped != torch.equal(moved["image"], sample["image"])
        assert torch.equal(moved["audio"], sample["audio"].flip(0)) == flipped
        flips += flipped
    assert 15 <= flips <= 45


@pytest.mark.parametrize(("order", "left"), [("WXYZ", 2), ("WYZX", 1)])
def test_mirrored_ambisonics_change_the_sign_of_left(order: str, left: int) -> None:
    sound = torch.randn(4, 50)
    joint = JointSpatial(v2.RandomHorizontalFlip(1.0), KINDS, ambisonics="audio", channel_order=order)
    moved = joint(scene(0) | {"audio": sound})["audio"]
    wanted = sound.clone()
    wanted[left] *= -1
    assert torch.equal(moved, wanted)


# Structures --------------------------------------------------------------------------------------------


class Named(NamedTuple):
    image: Any
    mask: Any
    boxes: Any
    audio: Any
    label: int


@dataclass(frozen=True)
class Pair:
    image: Any
    mask: Any
    boxes: Any
    audio: Any
    label: int = 7


def parts(seed: int) -> list[Any]:
    sample = scene(seed)
    return [sample[name] for name in ("image", "mask", "boxes", "audio", "label")]


NAMES = ("image", "mask", "boxes", "audio", "label")
STRUCTURES: dict[str, tuple[Callable[[list[Any]], Any], list[str]]] = {
    "dict": (lambda p: dict(zip(NAMES, p, strict=True)), list(NAMES)),
    "ordered": (lambda p: OrderedDict(zip(NAMES, p, strict=True)), list(NAMES)),
    "own mapping": (lambda p: UserDict(zip(NAMES, p, strict=True)), list(NAMES)),
    "tuple": (tuple, list("01234")),
    "list": (list, list("01234")),
    "named tuple": (lambda p: Named(*p), list("01234")),
    "dataclass": (lambda p: Pair(*p), list(NAMES)),
    "nested": (lambda p: (p[0], {"mask": p[1], "more": [p[2], p[3], p[4]]}), ["0", "1.mask", "1.more.0", "1.more.1"]),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_gives_what_the_dict_gives(structure: str) -> None:
    make, paths = STRUCTURES[structure]
    sample = make(parts(5))
    kinds = dict(zip(paths[:3], ("image", "mask", "boxes"), strict=True))
    torch.manual_seed(5)
    moved = JointSpatial(MOVES["all"](), kinds, stereo=paths[3])(sample)
    torch.manual_seed(5)
    wanted = JointSpatial(MOVES["all"](), {n: KINDS[n] for n in NAMES[:3]}, stereo="audio")(scene(5))
    assert type(moved) is type(sample)
    found = list(leaves(moved).values())
    for value, name in zip(found, NAMES, strict=True):
        assert type(value) in (Tensor, int)
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(wanted[name]))


def test_tv_tensors_take_part_unnamed_and_stay_what_they_are() -> None:
    plain = scene(2)
    boxes = tv_tensors.BoundingBoxes(plain["boxes"], format="XYXY", canvas_size=(32, 32))
    target = {"mask": tv_tensors.Mask(plain["mask"]), "boxes": boxes}
    sample = (tv_tensors.Image(plain["image"]), target, plain["audio"])
    torch.manual_seed(2)
    image, target, audio = JointSpatial(MOVES["all"](), stereo="2")(sample)
    torch.manual_seed(2)
    wanted = JointSpatial(MOVES["all"](), KINDS, stereo="audio")(plain)
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(target["mask"], tv_tensors.Mask)
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert torch.equal(image, wanted["image"])
    assert torch.equal(target["mask"], wanted["mask"])
    assert torch.allclose(target["boxes"], wanted["boxes"])
    assert torch.equal(audio, wanted["audio"])


def test_arrays_and_pil_images_keep_their_type() -> None:
    plain = scene(4)
    pil_mask = PILImage.fromarray(plain["mask"].numpy().astype(np.uint8))
    pil_mask.putpalette(list(range(256)) * 3)
    sample = {
        "array": plain["image"].permute(1, 2, 0).numpy(),
        "grey": plain["image"][0].numpy(),
        "mask": plain["mask"].numpy(),
        "there": plain["mask"] > 0,
        "pil": PILImage.fromarray(plain["image"].permute(1, 2, 0).numpy()),
        "pil_mask": pil_mask,
    }
    kinds = {"array": "image", "grey": "image", "mask": "mask", "there": "mask", "pil_mask": "mask"}
    torch.manual_seed(4)
    moved = JointSpatial(MOVES["affine"](), kinds)(sample)
    assert {name: type(value) for name, value in moved.items()} == {
        "array": np.ndarray, "grey": np.ndarray, "mask": np.ndarray, "there": Tensor, "pil": PILImage.Image,
        "pil_mask": PILImage.Image,
    }  # fmt: skip
    mask = moved["mask"] == 3
    assert mask.any()
    assert moved["there"].dtype == torch.bool
    assert moved["mask"].dtype == np.int64
    assert moved["pil_mask"].mode == "P"
    assert moved["pil_mask"].getpalette() == pil_mask.getpalette()
    assert moved["array"].shape == (32, 32, 3)
    assert (moved["array"].min(axis=2) > 0).tolist() == mask.tolist()
    assert (moved["grey"] > 0).tolist() == mask.tolist()
    assert moved["there"].tolist() == mask.tolist()
    assert (np.array(moved["pil_mask"]) == 3).tolist() == mask.tolist()


# Draws -------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_and_two_draws_differ() -> None:
    transform, sample = JointSpatial(MOVES["affine"](), KINDS, stereo="audio"), scene(0)
    torch.manual_seed(0)
    first, second = transform(sample), transform(sample)
    torch.manual_seed(0)
    again = transform(sample)
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["boxes"], again["boxes"])
    assert not torch.equal(first["image"], second["image"])


def test_given_sample_is_left_as_it_was() -> None:
    sample, before = scene(0), scene(0)
    for seed in range(10):
        torch.manual_seed(seed)
        JointSpatial(MOVES["all"](), KINDS, stereo="audio", azimuth="angle")(sample)
    assert sample.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(torch.as_tensor(sample[name]), torch.as_tensor(value))


# Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "options", "text"),
    [
        ({"image": "picture"}, {}, "is no kind of field"),
        ({"image": "image"}, {"box_format": "XY"}, "box_format='XY'"),
        ({"image": "image"}, {"channel_order": "ZYXW"}, "channel_order='ZYXW'"),
        ({"image": "image"}, {"stereo": "image"}, "named in kinds and in stereo"),
        ({"image": "image"}, {"stereo": "audio", "ambisonics": "audio"}, "named in stereo and in ambisonics"),
    ],
)
def test_wrong_settings_are_refused(kinds: dict[str, str], options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        JointSpatial(v2.RandomHorizontalFlip(), kinds, **options)


@pytest.mark.parametrize(
    ("kinds", "options", "text"),
    [
        ({"image": "image", "masks": "mask"}, {}, "names the field 'masks', and the sample has none"),
        ({"image": "image"}, {"stereo": "sound"}, r"JointSpatial\(stereo=…\) names the field 'sound'"),
        ({"image": "image"}, {"stereo": "image3"}, r"whose shape is \(3, 4\) and not \(2, T\)"),
        ({"image": "image"}, {"ambisonics": "audio"}, r"not \(4, T\): 4 channels"),
        ({"image": "image", "label": "mask"}, {}, "needs at least"),
        ({"image": "image", "text": "boxes"}, {}, "is a str and no tensor"),
        ({"image": "image", "audio": "boxes"}, {}, r"is for \(n, 4\)"),
        ({"image": "video"}, {}, r"is for \(T, C, H, W\)"),
        ({"boxes": "boxes"}, {}, "found no picture"),
        ({"image": "image", "small": "mask"}, {}, "image: 32 by 32, small: 8 by 8"),
    ],
)
def test_samples_that_do_not_fit_are_refused(kinds: dict[str, str], options: dict[str, Any], text: str) -> None:
    sample = scene(0) | {"small": torch.zeros(8, 8), "text": "a", "image3": torch.zeros(3, 4)}
    with pytest.raises(SampleStructureError, match=text):
        JointSpatial(v2.RandomHorizontalFlip(1.0), kinds, **options)(sample)


def test_a_transform_that_hides_its_flips_is_refused_where_sound_has_to_follow() -> None:
    hides = v2.Lambda(lambda points: points * 0, tv_tensors.KeyPoints)
    with pytest.raises(ConfigurationError, match="whether the sound is mirrored cannot be told"):
        JointSpatial(hides, KINDS, stereo="audio")(scene(0))
