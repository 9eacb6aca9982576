"""The structure of a user's sample: its leaves by path, and samples of the same structure from other leaves."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from PIL import Image as PILImage
from torch import Tensor

Columns: TypeAlias = "list[list[Any]]"


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


def builder(template: Any) -> Callable[[Columns], list[Any]]:
    """A function from columns (a list of values for each leaf, in order) to a list of samples."""
    children = _children(template)
    if children is None:
        return lambda columns: columns.pop(0)
    parts = [builder(child) for _, child in children]

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


def with_leaf(sample: Any, path: str, change: Callable[[Any], Any]) -> Any:
    """The sample with one leaf changed; containers on the way are copied."""
    if not path:
        return change(sample)
    name, _, rest = path.partition(".")
    if isinstance(sample, Mapping):
        key = next(key for key in sample if str(key) == name)
        made: Any = copy.copy(sample)  # a defaultdict or a user's own stays one
        made[key] = with_leaf(sample[key], rest, change)
        return made
    if isinstance(sample, (tuple, list)):
        items = list(sample)
        items[int(name)] = with_leaf(items[int(name)], rest, change)
        return type(sample)(*items) if hasattr(sample, "_fields") else type(sample)(items)
    changed = copy.copy(sample)
    object.__setattr__(changed, name, with_leaf(getattr(sample, name), rest, change))
    return changed
