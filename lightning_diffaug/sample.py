"""What one training sample is: which of its leaves are fields of the pool, and how they are stored.

The pool knows named tensors only. A `SampleSpec` (plain values) says which named tensors a project's sample
consists of; `lightning_diffaug.adapter` turns rows of them back into the very structure that the user's own dataset
yields: tuple, list, dict, named tuple or dataclass with PIL images, arrays, tensors or tv_tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor
from torchvision import tv_tensors

from lightning_diffaug.errors import SampleStructureError
from lightning_diffaug.spec import CAPTION, IMAGE, LABEL, FieldSpec, SampleSpec
from lightning_diffaug.structure import describe, leaves

_PIL_MODES = {"L": 1, "RGB": 3, "RGBA": 4}
TV_KINDS: dict[str, Any] = {
    "tv_image": tv_tensors.Image,
    "tv_mask": tv_tensors.Mask,
    "tv_video": tv_tensors.Video,
    "tv_boxes": tv_tensors.BoundingBoxes,
}
"""Kind of a field → class."""
if hasattr(tv_tensors, "KeyPoints"):  # torchvision 0.23
    TV_KINDS["tv_points"] = tv_tensors.KeyPoints


def _is_integer(leaf: Any) -> bool:
    if isinstance(leaf, bool):
        return False
    if isinstance(leaf, (int, np.integer)):
        return True
    if isinstance(leaf, Tensor):
        return leaf.ndim == 0 and not leaf.is_floating_point() and leaf.dtype != torch.bool
    return isinstance(leaf, np.ndarray) and leaf.ndim == 0 and np.issubdtype(leaf.dtype, np.integer)


def _image_layout(leaf: Any) -> str:
    """``"chw"``, ``"hwc"`` or ``"hw"`` for something that looks like an image, else ``""``."""
    if isinstance(leaf, (PILImage.Image, tv_tensors.Image)):
        return "chw"
    if isinstance(leaf, (Tensor, np.ndarray)) and not isinstance(leaf, tv_tensors.TVTensor):
        shape = tuple(leaf.shape)
        if len(shape) == 3 and shape[0] in (1, 3, 4):
            return "chw"
        if len(shape) == 3 and shape[2] in (1, 3, 4):
            return "hwc"
        if len(shape) == 2 and min(shape) >= 4:
            return "hw"
    return ""


def _as_tensor(leaf: Any) -> Tensor:
    if isinstance(leaf, np.ndarray):
        leaf = np.array(leaf)  # a copy: arrays may be read-only, or reversed by a negative stride
    return torch.as_tensor(leaf).as_subclass(Tensor)


def leaf_to_tensor(leaf: Any, spec: FieldSpec) -> Tensor:
    """The stored form of a leaf: a tensor of ``spec.shape`` (channels-first for images).

    Raises:
        SampleStructureError: The leaf has another shape than the probe, or a PIL mode that is not supported.
    """
    if isinstance(leaf, PILImage.Image):
        if leaf.mode != spec.mode:
            raise SampleStructureError(
                f"field {spec.path!r} is a PIL image of mode {leaf.mode!r}, the probed sample had {spec.mode!r}: "
                "a pool stores one mode. Let the dataset convert all images to one mode."
            )
        tensor = torch.from_numpy(np.array(leaf, dtype=np.uint8))
        tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    else:
        tensor = _as_tensor(leaf)
        if spec.layout == "hwc":
            tensor = tensor.permute(2, 0, 1)
        elif spec.layout == "hw":
            tensor = tensor[None]
    if tuple(tensor.shape) != spec.shape:
        raise SampleStructureError(
            f"field {spec.path!r} has shape {tuple(tensor.shape)} here and {spec.shape} in the probed sample: the "
            "pool stores samples of one shape. Give raw=<dataset that resizes to one size> (our own real configs: "
            "set real.size)."
        )
    return tensor.to(spec.torch_dtype).contiguous()


def _spec_of(name: str, path: str, leaf: Any) -> FieldSpec:
    layout = "" if name == LABEL else _image_layout(leaf)
    if name == LABEL:
        return FieldSpec(name, path, "scalar", "int64", (), 0.0, 0.0)
    if name == CAPTION:
        if not isinstance(leaf, str):
            raise SampleStructureError(
                f"field {path!r} is named {CAPTION!r} in fields= (data.fields), and is a {type(leaf).__name__} and no "
                "text. Give it another name there."
            )
        return FieldSpec(name, path, "str", "str", (), 0.0, 0.0)
    if isinstance(leaf, PILImage.Image):
        if leaf.mode not in _PIL_MODES:
            raise SampleStructureError(
                f"field {path!r} is a PIL image of mode {leaf.mode!r}; supported are {', '.join(_PIL_MODES)}. "
                'Let the dataset convert it, e.g. image.convert("RGB").'
            )
        shape = (_PIL_MODES[leaf.mode], leaf.height, leaf.width)
        return FieldSpec(name, path, "pil", "uint8", shape, 0.0, 255.0, "chw", leaf.mode)
    kind = "tensor"
    if isinstance(leaf, np.ndarray):
        kind = "ndarray"
    elif isinstance(leaf, tv_tensors.TVTensor):
        kind = next((key for key, cls in TV_KINDS.items() if type(leaf) is cls), "")
        if not kind:
            raise SampleStructureError(
                f"field {path!r} is a {type(leaf).__name__}, which the pool cannot rebuild; supported are "
                f"{', '.join(cls.__name__ for cls in TV_KINDS.values())} of tv_tensors. Give it a value with "
                "fill={...} or leave it out of fields=."
            )
    elif not isinstance(leaf, Tensor):
        if not isinstance(leaf, (int, float, np.generic)):
            raise SampleStructureError(
                f"field {path!r} ({type(leaf).__name__}) cannot be stored as a tensor; remove it from fields= and "
                "give it a value with fill={...}."
            )
        kind = "scalar"
    tensor = _as_tensor(leaf)
    dims = tuple(tensor.shape)
    dims = {"hwc": dims[-1:] + dims[:-1], "hw": (1, *dims)}.get(layout, dims)
    low, high = (0.0, 255.0) if tensor.dtype == torch.uint8 else (0.0, 1.0)
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point() and (tensor.ndim < 2 or name == IMAGE):
        raise SampleStructureError(
            f"field {path!r} is of dtype {tensor.dtype}, and generators make continuous values: uint8 or floating, or "
            "masks of class numbers, which have two axes or more. Let the dataset convert it (give the result as raw= "
            "where the training transform does), or leave it out of fields= and give it a value with fill={...}."
        )
    return FieldSpec(name, path, kind, str(tensor.dtype).removeprefix("torch."), dims, low, high, layout)


def value_range(low: float, high: float) -> tuple[float, float]:
    """The range of floating-point data from its extremes: [0, 1] or [-1, 1] where they fit, else as found."""
    for bounds in ((0.0, 1.0), (-1.0, 1.0)):
        if bounds[0] <= low and high <= bounds[1]:
            return bounds
    return low, high


def probe(sample: Any, fields: Mapping[str, str] | None = None) -> SampleSpec:
    """Finds the image and the label in one raw sample, or takes them from `fields`.

    Args:
        sample: One raw training sample (transform off).
        fields: Path of a leaf → its name in the pool, e.g. ``{"pixels": "image", "target": "label"}``; a string that is
            named ``"caption"`` is the sample's. None: one image-like leaf and at most one integer leaf are inferred.

    Returns:
        The specification; value ranges of floating-point fields are to be set from the data (`value_range`).

    Raises:
        SampleStructureError: The structure is ambiguous, or a path is not in it.
    """
    found = leaves(sample)
    if fields is None:
        images = [path for path, leaf in found.items() if _image_layout(leaf)]
        labels = [path for path, leaf in found.items() if _is_integer(leaf)]
        if len(images) != 1 or len(labels) > 1:
            raise SampleStructureError(
                f"the sample has {len(images)} image-like and {len(labels)} integer leaves, so what is the image and "
                f"what the label is a guess:\n{describe(sample)}\nSay it with "
                'fields={"<path of the image>": "image", "<path of the label>": "label"} (key data.fields).'
            )
        fields = {images[0]: IMAGE} | ({labels[0]: LABEL} if labels else {})
    unknown = [path for path in fields if path not in found]
    if unknown or len(set(fields.values())) != len(fields):
        raise SampleStructureError(
            f"fields={dict(fields)} (data.fields) does not fit the sample"
            + (f": there is no {unknown[0]!r}" if unknown else ": a name is given twice")
            + f". The sample is:\n{describe(sample)}"
        )
    return SampleSpec(tuple(_spec_of(name, path, found[path]) for path, name in fields.items()))
