"""Sound of a scene that is rotated or mirrored: stereo, an azimuth, first-order ambisonics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms.fields import changed, names

ORDERS = ("WXYZ", "WYZX")
MIRROR = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
"""Left and right change places: x points ahead, y to the left, z up."""


class SceneSound:
    """Which fields of a sample are the sound of its scene, and how they follow a map of the scene.

    x points ahead, y to the left, z up; the listener is at the origin.

    Args:
        owner: The transform's name, for errors.
        stereo: Paths of sound (2, T), left and right.
        azimuth: Paths of angles in radians, counter-clockwise from x, seen from above; any shape.
        ambisonics: Paths of first-order sound (4, T).
        channel_order: Of `ambisonics`: ``WXYZ`` or, by ACN, ``WYZX``.

    Raises:
        ConfigurationError: An unknown order.
    """

    def __init__(
        self,
        owner: str,
        stereo: str | Sequence[str] = (),
        azimuth: str | Sequence[str] = (),
        ambisonics: str | Sequence[str] = (),
        channel_order: str = "WXYZ",
    ) -> None:
        if channel_order not in ORDERS:
            raise ConfigurationError(
                f"{owner}(channel_order={channel_order!r}) is unknown: it names the channels of first-order "
                f"ambisonics. Set channel_order to one of {', '.join(ORDERS)}."
            )
        self._owner = owner
        self.stereo, self.azimuth, self.ambisonics = names(stereo), names(azimuth), names(ambisonics)
        self._directions = [channel_order.index(axis) for axis in "XYZ"]

    def __bool__(self) -> bool:
        return bool(self.stereo or self.azimuth or self.ambisonics)

    def follow(self, sample: Any, scene: Tensor) -> Any:
        """The sample with its sound as it is heard after the scene went through a map.

        Args:
            sample: Any structure with the named fields.
            scene: Rotation or reflection about the origin, float64 (3, 3); one that keeps z where there is an azimuth.
                Stereo follows reflections only, and swaps when y changes sign.

        Raises:
            SampleStructureError: A field is missing or has not its channels.
        """
        if scene[1, 1] < 0:
            for path in self.stereo:
                sample = changed(sample, path, partial(self._swapped, path=path), self._named("stereo"))
        for path in self.azimuth:
            sample = changed(sample, path, partial(turned, scene=scene), self._named("azimuth"))
        for path in self.ambisonics:
            sample = changed(sample, path, partial(self._moved, scene=scene, path=path), self._named("ambisonics"))
        return sample

    def _named(self, role: str) -> str:
        return f"{self._owner}({role}=…)"

    def _channels(self, sound: Tensor, count: int, role: str, path: str) -> None:
        if sound.ndim != 2 or len(sound) != count:
            raise SampleStructureError(
                f"{self._named(role)} names the field {path!r}, whose shape is {tuple(sound.shape)} and not "
                f"({count}, T): {count} channels are needed. Leave it out of {role}, or load the sound with them."
            )

    def _swapped(self, sound: Tensor, path: str) -> Tensor:
        self._channels(sound, 2, "stereo", path)
        return sound.flip(0)

    def _moved(self, sound: Tensor, scene: Tensor, path: str) -> Tensor:
        self._channels(sound, 4, "ambisonics", path)
        moved = sound.clone()
        moved[self._directions] = (scene @ sound[self._directions].double()).to(sound.dtype)
        return moved


def turned(angle: Tensor, scene: Tensor) -> Tensor:
    """Angles in radians about z of directions that went through a map of the scene; in [-π, π]."""
    directions = torch.stack([angle.double().cos(), angle.double().sin()], dim=-1) @ scene[:2, :2].T
    return torch.atan2(directions[..., 1], directions[..., 0]).to(angle.dtype)
