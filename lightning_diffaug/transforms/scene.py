"""One rotation or reflection of a 3-D scene: points, oriented boxes, and where its sound comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms.fields import changed, disjoint, names
from lightning_diffaug.transforms.sound import SceneSound, turned

AXES = "xyz"


class _Scene:
    """Which fields of a sample lie in its scene, and how they follow a map of it."""

    def __init__(
        self, owner: str, points: str | Sequence[str], normals: str | Sequence[str], boxes: str | Sequence[str],
        sound: SceneSound,
    ) -> None:  # fmt: skip
        self._owner = owner
        self.points, self.normals, self.boxes, self.sound = names(points), names(normals), names(boxes), sound
        fields = {"points": self.points, "normals": self.normals, "boxes": self.boxes}
        heard = {"stereo": sound.stereo, "azimuth": sound.azimuth, "ambisonics": sound.ambisonics}
        disjoint(owner, **fields, **heard)
        if not any(fields.values()) and not sound:
            raise ConfigurationError(
                f"{owner} names no field, so nothing would move. Set points to the path of a point cloud, or boxes, "
                "azimuth or ambisonics."
            )

    def follow(self, sample: Any, scene: Tensor) -> Any:
        """The sample after its scene went through a rotation or reflection, float64 (3, 3)."""
        for path in (*self.points, *self.normals):
            role, count = ("normals", 6) if path in self.normals else ("points", 3)
            moved = partial(self._moved, scene=scene, path=path, role=role, count=count)
            sample = changed(sample, path, moved, f"{self._owner}({role}=…)")
        for path in self.boxes:
            boxed = partial(self._moved_boxes, scene=scene, path=path)
            sample = changed(sample, path, boxed, f"{self._owner}(boxes=…)")
        return self.sound.follow(sample, scene)

    def _check(self, tensor: Tensor, fits: bool, path: str, role: str, shape: str) -> None:
        if not fits or not tensor.is_floating_point():
            raise SampleStructureError(
                f"the field {path!r} is {tensor.dtype} of shape {tuple(tensor.shape)}, and {self._owner}({role}=…) is "
                f"for floating-point {shape}. Leave {path!r} out of {role}, or let the dataset change it."
            )

    def _moved(self, points: Tensor, scene: Tensor, path: str, role: str, count: int) -> Tensor:
        fits = points.ndim >= 1 and points.shape[-1] >= count
        self._check(points, fits, path, role, f"(…, {count} or more)")
        moved = points.clone()
        for first in range(0, count, 3):
            vectors = points[..., first : first + 3].double() @ scene.T
            moved[..., first : first + 3] = vectors.to(points.dtype)
        return moved

    def _moved_boxes(self, boxes: Tensor, scene: Tensor, path: str) -> Tensor:
        self._check(boxes, boxes.ndim >= 1 and boxes.shape[-1] == 7, path, "boxes", "(…, 7): centre, size, yaw")
        moved = boxes.clone()
        moved[..., :3] = (boxes[..., :3].double() @ scene.T).to(boxes.dtype)
        moved[..., 6] = turned(boxes[..., 6], scene)
        return moved


class JointRotation3D(nn.Module):
    """Rotates all that lies in a sample's scene about the origin, by one drawn angle, and its sound with it.

    x points ahead, y to the left, z up, and the listener is at the origin: centre point clouds before, where they are
    to turn about their own middle.

    Args:
        points: Paths of point clouds (P, 3 + f); only the first three columns turn.
        normals: Paths of point clouds (P, 6 + f) with normals in columns 3 to 5, which turn too.
        boxes: Paths of oriented boxes (n, 7): centre, size, yaw in radians about z.
        azimuth: Paths of angles in radians about z, counter-clockwise from x.
        ambisonics: Paths of first-order sound (4, T).
        axis: ``x``, ``y``, ``z``, or ``any``: an axis drawn uniformly from all directions.
        max_degrees: The angle is uniform in [-max_degrees, max_degrees]; in (0, 180]. (With ``any`` and 180 that is not
            the uniform distribution of rotations, which has fewer small angles.)
        channel_order: Of `ambisonics`: ``WXYZ`` or, by ACN, ``WYZX``.

    Raises:
        ConfigurationError: A value out of its range, no field, one that is named twice, or boxes or an azimuth with an
            axis other than z: a yaw cannot say how they are tilted.
    """

    def __init__(
        self,
        points: str | Sequence[str] = (),
        normals: str | Sequence[str] = (),
        boxes: str | Sequence[str] = (),
        azimuth: str | Sequence[str] = (),
        ambisonics: str | Sequence[str] = (),
        axis: str = "z",
        max_degrees: float = 180.0,
        channel_order: str = "WXYZ",
    ) -> None:
        super().__init__()
        sound = SceneSound("JointRotation3D", (), azimuth, ambisonics, channel_order)
        self.scene = _Scene("JointRotation3D", points, normals, boxes, sound)
        self.axis = axis
        self.max_degrees = max_degrees
        if axis not in ("x", "y", "z", "any"):
            raise ConfigurationError(f"JointRotation3D(axis={axis!r}) is unknown. Set axis to x, y, z or any.")
        if not 0 < max_degrees <= 180:
            raise ConfigurationError(
                f"JointRotation3D(max_degrees={max_degrees}) is not in (0, 180]: it is the largest angle to either "
                "side. Set max_degrees so."
            )
        if axis != "z" and (self.scene.boxes or sound.azimuth):
            raise ConfigurationError(
                f"JointRotation3D(axis={axis!r}) tilts the scene, and boxes with a yaw and azimuths turn about z only. "
                "Set axis=z, or leave boxes and azimuth out."
            )

    def forward(self, sample: Any) -> Any:
        """Rotates one sample; the given one is left as it was.

        Raises:
            SampleStructureError: A named field is missing or not of its shape.
        """
        turn, *direction = torch.cat([torch.rand(1, dtype=torch.float64), torch.randn(3, dtype=torch.float64)])
        angle = (2 * float(turn) - 1) * math.radians(self.max_degrees)
        axis = torch.stack(direction)
        if self.axis != "any":
            axis = torch.eye(3, dtype=torch.float64)[AXES.index(self.axis)]
        return self.scene.follow(sample, rotation(axis, angle))


class JointFlip3D(nn.Module):
    """Mirrors all that lies in a sample's scene, and its sound with it, with probability p.

    x points ahead, y to the left, z up. The mirror image of an oriented box has its yaw mirrored.

    Args:
        points: Paths of point clouds (P, 3 + f); only the first three columns are mirrored.
        normals: Paths of point clouds (P, 6 + f) with normals in columns 3 to 5, which are mirrored too.
        boxes: Paths of oriented boxes (n, 7): centre, size, yaw in radians about z.
        stereo: Paths of sound (2, T), left and right, which swap when y is mirrored.
        azimuth: Paths of angles in radians about z, counter-clockwise from x.
        ambisonics: Paths of first-order sound (4, T).
        axis: The coordinate that changes its sign: ``x``, ``y`` or ``z``.
        p: Probability that a sample is mirrored.
        channel_order: Of `ambisonics`: ``WXYZ`` or, by ACN, ``WYZX``.

    Raises:
        ConfigurationError: A value out of its range, no field, or one that is named twice.
    """

    def __init__(
        self,
        points: str | Sequence[str] = (),
        normals: str | Sequence[str] = (),
        boxes: str | Sequence[str] = (),
        stereo: str | Sequence[str] = (),
        azimuth: str | Sequence[str] = (),
        ambisonics: str | Sequence[str] = (),
        axis: str = "y",
        p: float = 0.5,
        channel_order: str = "WXYZ",
    ) -> None:
        super().__init__()
        sound = SceneSound("JointFlip3D", stereo, azimuth, ambisonics, channel_order)
        self.scene = _Scene("JointFlip3D", points, normals, boxes, sound)
        self.axis = axis
        self.p = p
        if axis not in ("x", "y", "z"):
            raise ConfigurationError(f"JointFlip3D(axis={axis!r}) is unknown. Set axis to x, y or z.")
        if not 0 <= p <= 1:
            raise ConfigurationError(
                f"JointFlip3D(p={p}) is not in [0, 1]: it is the probability that a sample is mirrored. Set p so."
            )

    def forward(self, sample: Any) -> Any:
        """Mirrors one sample, or returns it as it is.

        Raises:
            SampleStructureError: A named field is missing or not of its shape.
        """
        if float(torch.rand(())) >= self.p:
            return sample
        signs = [-1.0 if name == self.axis else 1.0 for name in AXES]
        return self.scene.follow(sample, torch.diag(torch.tensor(signs, dtype=torch.float64)))


def rotation(axis: Tensor, angle: float) -> Tensor:
    """The rotation matrix about an axis by an angle in radians, counter-clockwise (Rodrigues' formula); (3, 3)."""
    x, y, z = (axis / axis.norm()).tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
