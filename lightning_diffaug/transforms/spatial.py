"""One geometric change for all that a sample shows, and for the sound that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.structure import leaves
from lightning_diffaug.transforms.fields import as_tensor, disjoint, field, placed
from lightning_diffaug.transforms.sound import MIRROR, SceneSound

KINDS = ("image", "mask", "video", "boxes", "key_points")
BOX_FORMATS = ("XYXY", "XYWH", "CXCYWH")
_PROBE = "\0probe"  # no path of a sample
_OWNER = "JointSpatial(kinds=…)"

Restore: TypeAlias = Callable[[Any], Any]


class JointSpatial(nn.Module):
    """Applies one torchvision v2 transform to all pictures, masks, boxes and key points of a sample, in one draw.

    torchvision does the work; this says which plain tensors are what (by `kinds`, for the duration of the call) and
    lets the sound follow. tv_tensors and PIL images in the sample take part without being named, as in torchvision.
    Anything else (labels, texts) is passed through.

    The sound is mirrored when left and right of the picture change places: when the drawn map turns the direction to
    the right, at the centre of the picture, by more than 90°. A horizontal flip does, wherever it is in the transform,
    and a rotation by 180°; a vertical flip does not. It is read off key points that go through the transform with the
    sample, so it holds for every v2 transform that moves key points.

    Args:
        transform: A v2 transform, or a list of them.
        kinds: Path of a field → what it is. ``image`` (C, H, W) or (H, W); ``mask`` (…, H, W), moved by the nearest
            pixel, also where it is a PIL image; ``video`` (T, C, H, W); ``boxes`` (n, 4) in pixels; ``key_points``
            (…, 2), x and y in pixels. Tensors and arrays (images also as (H, W, C)) keep their type.
        box_format: Of ``boxes`` that are no tv_tensors: ``XYXY``, ``XYWH`` or ``CXCYWH``.
        stereo: Paths of sound (2, T), whose channels swap when mirrored.
        azimuth: Paths of angles in radians from straight ahead, which change sign when mirrored.
        ambisonics: Paths of first-order sound (4, T), whose channel Y changes sign when mirrored.
        channel_order: Of `ambisonics`: ``WXYZ`` or, by ACN, ``WYZX``.

    Raises:
        ConfigurationError: An unknown kind, format or order, a field that is named twice, or a torchvision before 0.23,
            which cannot move key points, where they are needed.
    """

    def __init__(
        self,
        transform: Callable[..., Any] | Sequence[Callable[..., Any]],
        kinds: Mapping[str, str] | None = None,
        box_format: str = "XYXY",
        stereo: str | Sequence[str] = (),
        azimuth: str | Sequence[str] = (),
        ambisonics: str | Sequence[str] = (),
        channel_order: str = "WXYZ",
    ) -> None:
        super().__init__()
        self.transform = transform if callable(transform) else v2.Compose(list(transform))
        self.kinds = {str(path): kind for path, kind in (kinds or {}).items()}
        self.box_format = box_format
        self.sound = SceneSound("JointSpatial", stereo, azimuth, ambisonics, channel_order)
        for path, kind in self.kinds.items():
            if kind not in KINDS:
                raise ConfigurationError(
                    f"JointSpatial(kinds={{{path!r}: {kind!r}}}) is no kind of field: it says how a field moves with "
                    f"the picture. Set it to one of {', '.join(KINDS)}, or leave {path!r} out of kinds."
                )
        if box_format not in BOX_FORMATS:
            raise ConfigurationError(
                f"JointSpatial(box_format={box_format!r}) is unknown. Set box_format to one of "
                f"{', '.join(BOX_FORMATS)}."
            )
        if (self.sound or "key_points" in self.kinds.values()) and not hasattr(tv_tensors, "KeyPoints"):
            raise ConfigurationError(
                "JointSpatial with stereo=, azimuth=, ambisonics= or key points needs torchvision 0.23 or newer, which "
                "moves key points. Update torchvision, or leave these out."
            )
        disjoint(
            "JointSpatial",
            kinds=tuple(self.kinds),
            stereo=self.sound.stereo,
            azimuth=self.sound.azimuth,
            ambisonics=self.sound.ambisonics,
        )

    def forward(self, sample: Any) -> Any:
        """Transforms one sample; the given one is left as it was.

        Args:
            sample: A mapping, tuple, list, dataclass or one leaf, with the named fields.

        Returns:
            A sample of the same structure.

        Raises:
            SampleStructureError: A named field is missing or not of its kind, sizes of pictures differ, or nothing in
                the sample moves.
        """
        own = {path: leaf for path, leaf in leaves(sample).items() if path not in self.kinds and _takes_part(leaf)}
        values = {path: field(sample, path, _OWNER) for path in self.kinds}
        canvas = self._canvas(own, values)
        restore: dict[str, Restore] = dict.fromkeys(own, _same)
        moving: dict[str, Any] = dict(own)
        for path, value in values.items():
            moving[path], restore[path] = self._wrapped(path, value, canvas)
        if self.sound:
            moving[_PROBE] = _probe(canvas)
        moved = self.transform(moving)
        for path, back in restore.items():
            sample = placed(sample, path, back(moved[path]))
        return self.sound.follow(sample, MIRROR) if self.sound and _is_mirrored(moved[_PROBE]) else sample

    def _canvas(self, own: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width that all pictures of a sample share."""
        sizes = {path: _size(leaf) for path, leaf in own.items()}
        for path, value in values.items():
            if self.kinds[path] in ("image", "mask", "video"):
                sizes[path] = _size(value, hwc=self.kinds[path] == "image" and _is_hwc(value))
            elif isinstance(value, tv_tensors.TVTensor):
                sizes[path] = _size(value)
        if not sizes:
            raise SampleStructureError(
                "JointSpatial found no picture in the sample: boxes and key points move with one whose size they are "
                'measured in. Name it in JointSpatial(kinds={"<path>": "image"}), or as mask or video.'
            )
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{path or 'the sample itself'}: {h} by {w}" for path, (h, w) in sizes.items())
            raise SampleStructureError(
                f"the pictures of a sample differ in size ({listed}), so that one crop or shift would be another in "
                "each. Let the dataset resize them to one size, or leave some out of JointSpatial(kinds=…)."
            )
        return next(iter(sizes.values()))

    def _wrapped(self, path: str, value: Any, canvas: tuple[int, int]) -> tuple[Any, Restore]:
        """A named field as torchvision knows it, and what makes it the user's type again."""
        kind = self.kinds[path]
        if isinstance(value, PILImage.Image):
            return _wrapped_pil(value, kind, path)
        if isinstance(value, tv_tensors.TVTensor):
            return value, _same
        tensor, restore = as_tensor(value, path, _OWNER)
        if kind == "boxes":
            _check(tensor.ndim == 2 and tensor.shape[-1] == 4, path, tensor, "boxes", "(n, 4)")
            boxes = tv_tensors.BoundingBoxes(tensor, format=self.box_format, canvas_size=canvas)
            return boxes, lambda out: restore(_plain(out))
        if kind == "key_points":
            _check(tensor.ndim > 0 and tensor.shape[-1] == 2, path, tensor, "key_points", "(…, 2)")
            shape = tensor.shape
            points = tv_tensors.KeyPoints(tensor.reshape(-1, 2), canvas_size=canvas)
            return points, lambda out: restore(_plain(out).reshape(shape))
        if kind == "mask":
            _check(tensor.ndim >= 2, path, tensor, "mask", "(…, H, W)")
            if tensor.dtype == torch.bool:  # kernels resample numbers
                return tv_tensors.Mask(tensor.to(torch.uint8)), lambda out: restore(_plain(out).to(torch.bool))
            return tv_tensors.Mask(tensor), lambda out: restore(_plain(out))
        if kind == "video":
            _check(tensor.ndim == 4, path, tensor, "video", "(T, C, H, W)")
            return tv_tensors.Video(tensor), lambda out: restore(_plain(out))
        _check(tensor.ndim in (2, 3), path, tensor, "image", "(C, H, W) or (H, W)")
        if _is_hwc(value):
            return tv_tensors.Image(tensor.permute(2, 0, 1)), lambda out: restore(_plain(out).permute(1, 2, 0))
        if tensor.ndim == 2:
            return tv_tensors.Image(tensor[None]), lambda out: restore(_plain(out)[0])
        return tv_tensors.Image(tensor), lambda out: restore(_plain(out))


def _takes_part(leaf: Any) -> bool:
    return isinstance(leaf, (tv_tensors.TVTensor, PILImage.Image))


def _same(value: Any) -> Any:
    return value


def _plain(value: Tensor) -> Tensor:
    return value.as_subclass(Tensor)


def _check(fits: bool, path: str, tensor: Tensor, kind: str, shape: str) -> None:
    if not fits:
        raise SampleStructureError(
            f"the field {path!r} has shape {tuple(tensor.shape)}, and JointSpatial(kinds={{{path!r}: {kind!r}}}) is "
            f"for {shape}. Set kinds[{path!r}] to another of {', '.join(KINDS)}, or let the dataset change the shape."
        )


def _is_hwc(value: Any) -> bool:
    if not isinstance(value, np.ndarray) or value.ndim != 3:
        return False
    return value.shape[2] in (1, 3, 4) and value.shape[0] not in (1, 3, 4)


def _size(value: Any, hwc: bool = False) -> tuple[int, int]:
    if isinstance(value, PILImage.Image):
        return value.height, value.width
    if hasattr(value, "canvas_size"):  # boxes and key points
        return tuple(value.canvas_size)
    shape = tuple(getattr(value, "shape", ()))
    if len(shape) < 2:
        raise SampleStructureError(
            f"a {type(value).__name__} of shape {shape} is named as a picture in {_OWNER}, which needs at least "
            "(H, W). Name another field there."
        )
    return (shape[0], shape[1]) if hwc else (shape[-2], shape[-1])


def _wrapped_pil(value: PILImage.Image, kind: str, path: str) -> tuple[Any, Restore]:
    if kind == "image":
        return value, _same
    if kind != "mask":
        raise SampleStructureError(
            f"the field {path!r} is a PIL image, and JointSpatial(kinds={{{path!r}: {kind!r}}}) is for tensors. "
            f"Set kinds[{path!r}] to image or mask."
        )

    def restore(out: Tensor) -> PILImage.Image:
        made = PILImage.fromarray(_plain(out).numpy())
        if (palette := value.getpalette()) is not None:
            made.putpalette(palette)
        return made

    return tv_tensors.Mask(torch.from_numpy(np.array(value))), restore


# Whether left and right changed places ----------------------------------------------------------------


def _probe(canvas: tuple[int, int]) -> Any:
    """The centre of the picture and the point one pixel to its right."""
    y, x = canvas[0] / 2, canvas[1] / 2
    return tv_tensors.KeyPoints(torch.tensor([[x, y], [x + 1, y]], dtype=torch.float64), canvas_size=canvas)


def _is_mirrored(probe: Tensor) -> bool:
    centre, right = probe.as_subclass(Tensor)
    if torch.equal(centre, right):
        raise ConfigurationError(
            "JointSpatial(transform=…) moves neighbouring points of the picture to one place (it clamps key points, or "
            "shrinks the picture to nothing), so whether the sound is mirrored cannot be told. Take that step out of "
            "transform, or leave stereo=, azimuth= and ambisonics= out."
        )
    return bool(right[0] < centre[0] - 1e-6 * (right - centre).norm())  # a quarter turn mirrors nothing
