from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms import JointFlip3D, JointRotation3D
from lightning_diffaug.transforms.scene import rotation


def scene(seed: int = 0) -> dict[str, Any]:
    """A sound source that is a point, the middle of a box that points at it from the listener, and heard from there."""
    rng = torch.Generator().manual_seed(seed)
    cloud = torch.randn(40, 5, generator=rng)
    source = cloud[0, :3]
    azimuth = float(torch.atan2(source[1], source[0]))
    signal = torch.randn(30, generator=rng)
    sound = torch.cat([signal[None], source[:, None] / source.norm() * signal])
    normals = torch.randn(40, 6, generator=rng)
    normals[:, 3:] = torch.nn.functional.normalize(normals[:, :3], dim=1)  # outwards from the origin
    boxes = torch.tensor([[*source.tolist(), 3.0, 2.0, 1.0, azimuth]])
    return {"cloud": cloud, "surface": normals, "boxes": boxes, "azimuth": azimuth, "sound": sound, "signal": signal}


ALL = {"points": "cloud", "normals": "surface", "boxes": "boxes", "azimuth": "azimuth", "ambisonics": "sound"}
TRANSFORMS = [
    JointRotation3D(**ALL),
    JointRotation3D(**ALL, max_degrees=20),
    JointFlip3D(**ALL, axis="x"),
    JointFlip3D(**ALL, axis="y"),
    JointFlip3D(**ALL, axis="z"),
]


def close(one: float, other: float) -> bool:
    return abs(math.remainder(one - other, 2 * math.pi)) < 1e-4


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_points_boxes_azimuth_and_ambisonics_still_agree(transform: Any) -> None:
    changed = 0
    for seed in range(20):
        sample = scene(seed)
        torch.manual_seed(seed)
        moved = transform(sample)
        source = moved["cloud"][0, :3]
        heard = (moved["sound"][1:] @ moved["signal"]) / (moved["signal"] @ moved["signal"])
        assert torch.allclose(heard, source / source.norm(), atol=1e-5)
        assert torch.equal(moved["sound"][0], sample["sound"][0])
        assert close(moved["azimuth"], math.atan2(source[1], source[0]))
        assert torch.allclose(moved["boxes"][0, :3], source, atol=1e-5)
        assert torch.equal(moved["boxes"][0, 3:6], sample["boxes"][0, 3:6])
        assert close(float(moved["boxes"][0, 6]), moved["azimuth"])
        outwards = torch.nn.functional.normalize(moved["surface"][:, :3], dim=1)
        assert torch.allclose(moved["surface"][:, 3:], outwards, atol=1e-5)
        assert torch.equal(moved["cloud"][:, 3:], sample["cloud"][:, 3:]), "features stay"
        before, after = ([torch.pdist(one["cloud"][:, :3].double())] for one in (sample, moved))
        assert torch.allclose(before[0], after[0], atol=1e-5)
        changed += not torch.allclose(moved["cloud"], sample["cloud"], atol=1e-3)
    assert changed >= (5 if isinstance(transform, JointFlip3D) else 19)


def corners(box: Tensor) -> Tensor:
    """The eight corners of an oriented box."""
    x, y, z, length, width, height, yaw = box.tolist()
    turn = torch.tensor([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    signs = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    return signs * torch.tensor([length, width, height]) @ turn.T + torch.tensor([x, y, z])


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_corners_of_moved_boxes_are_the_moved_corners(transform: Any) -> None:
    for seed in range(10):
        sample = scene(seed)
        sample["cloud"] = corners(sample["boxes"][0])
        torch.manual_seed(seed)
        moved = transform(sample)
        apart = torch.cdist(corners(moved["boxes"][0]), moved["cloud"])
        assert apart.min(dim=0).values.max() < 1e-3, "the same set of corners"
        assert apart.min(dim=1).values.max() < 1e-3


def turned_by(transform: Any) -> float:
    moved = transform({"cloud": torch.tensor([[1.0, 0.0, 0.5]])})["cloud"][0]
    assert moved[2] == 0.5
    return math.degrees(math.atan2(moved[1], moved[0]))


def test_angles_fill_their_range_evenly_and_no_more() -> None:
    transform = JointRotation3D(points="cloud", max_degrees=30)
    torch.manual_seed(0)
    angles = np.array([turned_by(transform) for _ in range(600)])
    assert -30 <= angles.min() < -28
    assert 28 < angles.max() <= 30
    assert np.abs(np.quantile(angles, [0.25, 0.5, 0.75]) - [-15, 0, 15]).max() < 3


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_named_axis_is_left_alone_and_turns_counter_clockwise(axis: str) -> None:
    number = "xyz".index(axis)
    cloud = torch.eye(3)
    torch.manual_seed(0)
    for _ in range(20):
        moved = JointRotation3D(points="cloud", axis=axis, max_degrees=90)({"cloud": cloud})["cloud"]
        assert torch.allclose(moved[number], cloud[number], atol=1e-6)
        following, last = (number + 1) % 3, (number + 2) % 3
        angle = math.atan2(moved[following, last], moved[following, following])
        assert math.isclose(math.atan2(-moved[last, following], moved[last, last]), angle, abs_tol=1e-5)
    quarter = rotation(torch.eye(3, dtype=torch.float64)[number], math.pi / 2)
    assert torch.allclose(
        quarter @ torch.eye(3, dtype=torch.float64)[following], torch.eye(3, dtype=torch.float64)[last]
    )


def test_any_axis_reaches_all_directions_and_turns_ambisonics_along() -> None:
    transform = JointRotation3D(points="cloud", ambisonics="sound", axis="any", max_degrees=180)
    torch.manual_seed(0)
    ends = []
    for seed in range(200):
        sample = scene(seed % 5)
        moved = transform(sample)
        source = moved["cloud"][0, :3]
        heard = (moved["sound"][1:] @ moved["signal"]) / (moved["signal"] @ moved["signal"])
        assert torch.allclose(heard, source / source.norm(), atol=1e-5)
        ends.append(transform({"cloud": torch.tensor([[0.0, 0.0, 1.0]]), "sound": sample["sound"]})["cloud"][0])
    ends_ = torch.stack(ends)
    assert (ends_.min(dim=0).values < -0.8).all()
    assert (ends_.max(dim=0).values > 0.8).all()


def test_flip_of_left_and_right_swaps_stereo_and_other_flips_do_not() -> None:
    for axis, swaps in (("x", False), ("y", True), ("z", False)):
        transform = JointFlip3D(points="cloud", stereo="stereo", axis=axis)
        torch.manual_seed(0)
        flips = 0
        for _ in range(60):
            sample = {"cloud": torch.ones(1, 3), "stereo": torch.arange(6.0).reshape(2, 3)}
            moved = transform(sample)
            flipped = bool((moved["cloud"] < 0).any())
            flips += flipped
            wanted = sample["stereo"].flip(0) if flipped and swaps else sample["stereo"]
            assert torch.equal(moved["stereo"], wanted)
        assert 15 <= flips <= 45


def test_acn_order_of_channels_is_turned_as_the_other() -> None:
    sample = scene(1)
    torch.manual_seed(0)
    wanted = JointRotation3D(ambisonics="sound")(sample)["sound"]
    torch.manual_seed(0)
    order = [0, 2, 3, 1]
    found = JointRotation3D(ambisonics="sound", channel_order="WYZX")({"sound": sample["sound"][order]})["sound"]
    assert torch.allclose(found, wanted[order])


class Pair(NamedTuple):
    cloud: Any
    rest: dict[str, Any]


def test_structures_and_types_are_kept() -> None:
    plain = scene(3)
    sample = Pair(plain["cloud"].numpy(), {"azimuth": plain["azimuth"], "boxes": [plain["boxes"].double()], "label": 2})
    torch.manual_seed(0)
    moved = JointRotation3D(points="0", azimuth=["1.azimuth"], boxes=["1.boxes.0"])(sample)
    torch.manual_seed(0)
    wanted = JointRotation3D(**ALL)(plain)
    assert isinstance(moved, Pair)
    assert isinstance(moved.cloud, np.ndarray)
    assert moved.cloud.dtype == np.float32
    assert torch.equal(torch.from_numpy(moved.cloud), wanted["cloud"])
    assert type(moved.rest["azimuth"]) is float
    assert moved.rest["azimuth"] == wanted["azimuth"]
    assert moved.rest["boxes"][0].dtype == torch.float64
    assert moved.rest["label"] == 2


@pytest.mark.parametrize("transform", TRANSFORMS[:3], ids=str)
def test_same_seed_gives_the_same_two_draws_differ_and_the_source_stays(transform: Any) -> None:
    sample, before = scene(), scene()
    torch.manual_seed(0)
    drawn = [transform(sample)["cloud"] for _ in range(8)]
    torch.manual_seed(0)
    assert all(torch.equal(one, transform(sample)["cloud"]) for one in drawn)
    assert any(not torch.equal(one, drawn[0]) for one in drawn)
    assert all(torch.equal(torch.as_tensor(sample[name]), torch.as_tensor(before[name])) for name in before)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: JointRotation3D(), "names no field"),
        (lambda: JointFlip3D(), "names no field"),
        (lambda: JointRotation3D(points="a", axis="w"), "axis='w'"),
        (lambda: JointFlip3D(points="a", axis="any"), "axis='any'"),
        (lambda: JointRotation3D(points="a", max_degrees=0), "max_degrees=0"),
        (lambda: JointRotation3D(points="a", max_degrees=270), "max_degrees=270"),
        (lambda: JointFlip3D(points="a", p=1.5), "p=1.5"),
        (lambda: JointRotation3D(boxes="a", axis="any"), "tilts the scene"),
        (lambda: JointRotation3D(azimuth="a", axis="x"), "tilts the scene"),
        (lambda: JointRotation3D(points="a", boxes="a"), "named in points and in boxes"),
        (lambda: JointRotation3D(ambisonics="a", channel_order="XYZ"), "channel_order='XYZ'"),
    ],
)
def test_wrong_settings_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"points": "clouds"}, "names the field 'clouds', and the sample has none"),
        ({"points": "flat"}, r"shape \(4, 2\)"),
        ({"points": "whole"}, "is torch.int64"),
        ({"normals": "cloud"}, r"JointRotation3D\(normals=…\) is for floating-point \(…, 6 or more\)"),
        ({"boxes": "cloud"}, r"\(…, 7\): centre, size, yaw"),
        ({"ambisonics": "cloud"}, "4 channels"),
    ],
)
def test_samples_that_do_not_fit_are_refused(named: dict[str, str], text: str) -> None:
    sample = scene() | {"flat": torch.zeros(4, 2), "whole": torch.zeros(4, 3, dtype=torch.int64)}
    with pytest.raises(SampleStructureError, match=text):
        JointRotation3D(**named)(sample)
