"""A named field of a sample of any structure: read, changed, put back in the type that it had."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.structure import describe, with_leaf


def names(value: str | Sequence[str]) -> tuple[str, ...]:
    """One path or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def disjoint(owner: str, **fields: Sequence[str]) -> None:
    """Refuses a field that is named twice.

    Raises:
        ConfigurationError: See above.
    """
    role_of: dict[str, str] = {}
    for role, paths in fields.items():
        for path in paths:
            if path in role_of:
                raise ConfigurationError(
                    f"{owner}: the field {path!r} is named in {role_of[path]} and in {role}, so it would be changed "
                    f"twice. Name it once in {owner}(…)."
                )
            role_of[path] = role


def field(sample: Any, path: str, owner: str) -> Any:
    """What a sample holds at a path, as ``sample.leaves`` names paths ("" is the sample itself).

    Args:
        sample: A mapping, tuple, list, named tuple or dataclass, nested as may be; or one leaf.
        path: Keys, positions and attribute names joined by dots.
        owner: The transform and its argument that names the path, for the error's text.

    Raises:
        SampleStructureError: There is no such field.
    """
    node = sample
    for name in path.split(".") if path else ():
        parts = _parts(node)
        if name not in parts:
            raise SampleStructureError(
                f"{owner} names the field {path!r}, and the sample has none:\n{describe(sample)}\n"
                f"Name one of these in {owner}, or leave it out there."
            )
        node = parts[name]
    return node


def _parts(node: Any) -> dict[str, Any]:
    if isinstance(node, Mapping):
        return {str(key): value for key, value in node.items()}
    if isinstance(node, (tuple, list)):
        return {str(i): value for i, value in enumerate(node)}
    if dataclasses.is_dataclass(node) and not isinstance(node, (type, Tensor)):
        return {entry.name: getattr(node, entry.name) for entry in dataclasses.fields(node)}
    return {}


def placed(sample: Any, path: str, value: Any) -> Any:
    """The sample with another value at a path that it has."""
    return with_leaf(sample, path, lambda _: value)


def changed(sample: Any, path: str, change: Callable[[Tensor], Tensor], owner: str) -> Any:
    """The sample with one field changed as a tensor; its type (tensor, tv_tensor, array, number, list) stays.

    Args:
        sample: See `field`. It is left as it was.
        path: See `field`.
        change: Maps the field's tensor to another; it must not write into the one that it gets.
        owner: See `field`.

    Raises:
        SampleStructureError: There is no such field, or it is no tensor, array, number or list of numbers.
    """
    tensor, restore = as_tensor(field(sample, path, owner), path, owner)
    return placed(sample, path, restore(change(tensor)))


def as_tensor(value: Any, path: str, owner: str) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """A field's value as a plain tensor, and what makes a tensor a value of the same type again.

    Raises:
        SampleStructureError: It is no tensor, array, number or list of numbers.
    """
    if isinstance(value, tv_tensors.TVTensor):
        return value.as_subclass(Tensor), lambda tensor: tv_tensors.wrap(tensor, like=value)
    if isinstance(value, Tensor):
        return value, lambda tensor: tensor
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value)), lambda tensor: tensor.numpy()
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return torch.tensor(float(value), dtype=torch.float64), lambda tensor: tensor.item()
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        try:
            tensor = torch.tensor(value, dtype=torch.float64)
        except (TypeError, ValueError):
            pass
        else:
            kind = type(value)
            return tensor, lambda tensor: kind(tensor.tolist())
    raise SampleStructureError(
        f"{owner} names the field {path!r}, which is a {type(value).__name__} and no tensor, array or list of numbers. "
        f"Convert it before the transform, or leave it out of {owner}."
    )
