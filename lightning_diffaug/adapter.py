"""Rows of pooled tensors as samples of the user's structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor
from torchvision import tv_tensors

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.sample import TV_KINDS
from lightning_diffaug.spec import LABEL, FieldSpec, LabelValue, SampleSpec
from lightning_diffaug.structure import builder, describe, leaves


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
        self._build = builder(template)
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
        if field.kind in TV_KINDS:  # boxes also have a format and a canvas
            return [tv_tensors.wrap(row, like=leaf) for row in tensor.unbind(0)]
        if field.kind == "ndarray":
            return list(tensor.numpy())
        arrays = tensor[:, 0].numpy() if field.mode == "L" else tensor.permute(0, 2, 3, 1).contiguous().numpy()
        return [PILImage.fromarray(array) for array in arrays]
