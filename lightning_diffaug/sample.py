"""What one training sample is: its structure, its fields, and how pooled tensors become such samples again.

The pool knows named tensors only. A `SampleSpec` (plain values) says which named tensors a project's sample
consists of, and a `SampleAdapter` turns rows of them back into the very structure that the user's own
dataset yields: tuple, list, dict, named tuple or dataclass with PIL images, arrays, tensors or tv_tensors.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor
from torchvision import tv_tensors

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.spec import CAPTION, IMAGE, LABEL, FieldSpec, LabelValue, SampleSpec

_PIL_MODES = {"L": 1, "RGB": 3, "RGBA": 4}
_TV_KINDS: dict[str, Any] = {
    "tv_image": tv_tensors.Image,
    "tv_mask": tv_tensors.Mask,
    "tv_video": tv_tensors.Video,
    "tv_boxes": tv_tensors.BoundingBoxes,
}
if hasattr(tv_tensors, "KeyPoints"):  # torchvision 0.23
    _TV_KINDS["tv_points"] = tv_tensors.KeyPoints

Columns: TypeAlias = "list[list[Any]]"


# Structure: leaves and their paths ------------------------------------------------------------------


def _children(node: Any) -> list[tuple[str, Any]] | None:
    """Names and values one level down, or None for a leaf. An empty container is a leaf."""
    return _parts(node) or None


def _parts(node: Any) -> list[tuple[str, Any]] | None:
    if isinstance(node, Mapping):
        return [(str(key), value) for key, value in node.items()]
    if dataclasses.is_dataclass(node) and not isinstance(node, (type, Tensor)):
        return [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node) if field.init]
    if isinstance(node, (tuple, list)):
        return [(str(i), value) for i, value in enumerate(node)]
    return None


def leaves(sample: Any) -> dict[str, Any]:
    """The leaves of a sample by their path, in order; a sample that is one leaf has the path ``""``."""
    children = _children(sample)
    if children is None:
        return {"": sample}
    found: dict[str, Any] = {}
    for name, child in children:
        for path, leaf in leaves(child).items():
            found[f"{name}.{path}" if path else name] = leaf
    return found


def _builder(template: Any) -> Callable[[Columns], list[Any]]:
    """A function from columns (a list of values for each leaf, in order) to a list of samples."""
    children = _children(template)
    if children is None:
        return lambda columns: columns.pop(0)
    parts = [_builder(child) for _, child in children]

    def columns_of(columns: Columns) -> list[list[Any]]:
        return [part(columns) for part in parts]

    if isinstance(template, Mapping):
        keys = list(template)

        def filled(row: Sequence[Any]) -> Any:
            made: Any = copy.copy(template)  # a defaultdict or a user's own is not made from pairs
            made.update(zip(keys, row, strict=True))
            return made

        return lambda columns: [filled(row) for row in zip(*columns_of(columns), strict=True)]
    kind = type(template)
    if dataclasses.is_dataclass(template):
        names = [name for name, _ in children]
        return lambda columns: [
            kind(**dict(zip(names, row, strict=True))) for row in zip(*columns_of(columns), strict=True)
        ]
    if hasattr(template, "_fields"):  # a named tuple takes its values one by one
        return lambda columns: [kind(*row) for row in zip(*columns_of(columns), strict=True)]
    if kind is tuple:
        return lambda columns: list(zip(*columns_of(columns), strict=True))
    return lambda columns: [kind(row) for row in zip(*columns_of(columns), strict=True)]


def describe(sample: Any) -> str:
    """The structure of a sample in a few lines, for error messages."""
    lines = []
    for path, leaf in leaves(sample).items():
        shape = getattr(leaf, "shape", None)
        detail = f" shape {tuple(shape)} {leaf.dtype}" if shape is not None else ""
        if isinstance(leaf, PILImage.Image):
            detail = f" size {leaf.size} mode {leaf.mode}"
        lines.append(f"  {path or '(the sample itself)'}: {type(leaf).__name__}{detail}")
    return "\n".join(lines)


# Leaves to tensors ----------------------------------------------------------------------------------


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
        kind = next((key for key, cls in _TV_KINDS.items() if type(leaf) is cls), "")
        if not kind:
            raise SampleStructureError(
                f"field {path!r} is a {type(leaf).__name__}, which the pool cannot rebuild; supported are "
                f"{', '.join(cls.__name__ for cls in _TV_KINDS.values())} of tv_tensors. Give it a value with "
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


# Tensors to samples ---------------------------------------------------------------------------------


class SampleAdapter:
    """Turns rows of pooled tensors into samples of the user's structure.

    Args:
        template: One raw sample of the user's dataset; gives the structure and the types.
        spec: The fields that the pool stores.
        label_values: The user's label for each class index; () when unlabelled.
        fill: Value, or callable ``(fields: dict[str, Tensor]) -> value``, for leaves that no generator makes, by path.
            Strings need none: but for the caption they become ``synthetic/<slot>/<row>``.

    Raises:
        ConfigurationError: A leaf has neither a field nor a fill.
    """

    def __init__(
        self,
        template: Any,
        spec: SampleSpec,
        label_values: Sequence[LabelValue] = (),
        fill: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec = spec
        self._arguments = (template, spec, label_values, fill)
        self._label_values = list(label_values)
        self._fill = dict(fill or {})
        self._leaves = leaves(template)
        self._by_path = {field.path: field for field in spec.fields}
        self._build = _builder(template)
        unknown = set(self._fill) - set(self._leaves)
        if unknown:
            raise ConfigurationError(
                f"fill names {sorted(unknown)}, which the sample does not have:\n{describe(template)}"
            )
        for path, leaf in self._leaves.items():
            if path not in self._by_path and path not in self._fill and not isinstance(leaf, (str, type(None))):
                raise ConfigurationError(
                    f"field {path!r} ({type(leaf).__name__}) is neither made by the generator nor filled, so a "
                    f'synthetic sample would lack it. Give fill={{"{path}": <value or callable>}} (key data.fill); '
                    "for a target of regression, which has to fit the sample, name it beside the others, e.g. "
                    f'fields={{…, "{path}": "target"}} (key data.fields), with a generator that makes it by that name.'
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments  # to loader workers that are spawned

    def label_leaves(self) -> list[Any]:
        """The label of each class, as a raw sample holds it."""
        field = self.spec[LABEL]
        return self._decode(torch.arange(len(self._label_values)), field, self._leaves[field.path])

    def samples(
        self,
        fields: Mapping[str, Tensor],
        origin: Callable[[], Sequence[tuple[int, int]]],
        changes: Mapping[str, Callable[[Any], Any]] | None = None,
        texts: Callable[[], Mapping[str, list[str]]] = dict,
    ) -> list[Any]:
        """Builds one sample for each row.

        Args:
            fields: Name → (n, *shape) tensors in the stored dtype; ``label`` holds class indices.
            origin: Says slot and row in the slot of each; called where the sample has a string to name it by.
            changes: What each leaf goes through before the sample is built, by path.
            texts: Says the texts of each, by name; called where the sample has such a field. Without: the template's.

        Returns:
            n samples with the template's structure, types and ranges (but for `changes`).
        """
        columns = [self._column(path, leaf, fields, origin, texts) for path, leaf in self._leaves.items()]
        for i, path in enumerate(self._leaves):
            if changes and path in changes:
                columns[i] = [changes[path](leaf) for leaf in columns[i]]
        return self._build(columns)

    def _column(
        self,
        path: str,
        leaf: Any,
        fields: Mapping[str, Tensor],
        origin: Callable[[], Sequence[tuple[int, int]]],
        texts: Callable[[], Mapping[str, list[str]]],
    ) -> list[Any]:
        field, n = self._by_path.get(path), len(next(iter(fields.values())))
        if field is not None and field.is_text:
            return list(texts().get(field.name) or [leaf] * n)
        if field is not None:
            return self._decode(fields[field.name], field, leaf)
        if path in self._fill:
            value = self._fill[path]
            if not callable(value):
                return [value] * n
            return [value({name: tensor[i] for name, tensor in fields.items()}) for i in range(n)]
        if leaf is None:
            return [None] * n
        return [f"synthetic/{slot}/{row}" for slot, row in origin()]

    def _decode(self, tensor: Tensor, field: FieldSpec, leaf: Any) -> list[Any]:
        if field.name == LABEL:
            values = [self._label_values[i] for i in tensor.tolist()]
            if isinstance(leaf, Tensor):
                return [torch.tensor(value, dtype=leaf.dtype) for value in values]
            return values if isinstance(leaf, (int, str)) else [np.asarray(v, dtype=leaf.dtype)[()] for v in values]
        if field.kind == "scalar":
            return [type(leaf)(value) for value in tensor.tolist()]
        if field.layout == "hwc":
            tensor = tensor.permute(0, 2, 3, 1)
        elif field.layout == "hw":
            tensor = tensor[:, 0]
        if field.kind == "tensor":
            return list(tensor.unbind(0))
        if field.kind in _TV_KINDS:  # boxes also have a format and a canvas
            return [tv_tensors.wrap(row, like=leaf) for row in tensor.unbind(0)]
        if field.kind == "ndarray":
            return list(tensor.numpy())
        arrays = tensor[:, 0].numpy() if field.mode == "L" else tensor.permute(0, 2, 3, 1).contiguous().numpy()
        return [PILImage.fromarray(array) for array in arrays]
