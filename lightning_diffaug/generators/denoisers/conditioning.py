"""What a denoiser is told of a sample: kinds of conditions, their null values, and how they enter a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.protocol import Condition

KINDS = ("class", "labels", "vector", "concat", "cross")
"""A class index; several labels; a vector of numbers; a tensor that is joined to the channels; tokens to attend to."""


@dataclass(frozen=True)
class ConditionSpec:
    """One condition that a denoiser knows. Plain values: it travels with the weights.

    Attributes:
        kind: One of `KINDS`.
        shape: Of one sample's condition, float32: ``class`` (), as int64; ``labels`` (labels,), 1 where the sample has
            it, -1 where it has not, 0 where nothing is said; ``vector`` (d,), about unit variance; ``concat``
            (C, *the sample's size) in [-1, 1]; ``cross`` (tokens, d), a set without order, or (d, *size), whose places
            are tokens that know where they are.
        classes: Number of classes, for ``class``; index ``classes`` is the null class.
        auxiliary: Told only while the denoiser is fitted (parameters of an augmentation). It is zeros where it is
            missing, and guidance leaves it as it is.

    Raises:
        ConfigurationError: The kind is unknown, or the shape is not one of that kind.
    """

    kind: str
    shape: tuple[int, ...] = ()
    classes: int = 0
    auxiliary: bool = False

    def __post_init__(self) -> None:
        ranks = {"class": (0, 0), "labels": (1, 1), "vector": (1, 1), "concat": (2, 9), "cross": (2, 9)}
        if self.kind not in ranks:
            raise ConfigurationError(
                f"{self.kind!r} is no kind of condition. Set generator.conditions to {{<field>: <kind>}} with one of "
                f"{', '.join(KINDS)}."
            )
        low, high = ranks[self.kind]
        if not low <= len(self.shape) <= high or (self.kind == "class") != (self.classes > 0):
            raise ConfigurationError(
                f"a value of shape {self.shape} cannot be a condition of kind {self.kind!r}. Set generator.conditions "
                "to another kind for it: labels and vector are (d,), concat (C, *size), cross (tokens, d) or (d, "
                "*size)."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ConditionSpec:
        """The inverse of `to_json`."""
        return cls(**{**values, "shape": tuple(values["shape"])})

    def null(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The value that says nothing, n times: zeros, or the null class."""
        if self.kind == "class":
            return torch.full((n,), self.classes, dtype=torch.int64, device=device)
        return torch.zeros(n, *self.shape, device=device)


Conditions: TypeAlias = Mapping[str, ConditionSpec]
"""Name → what it is; the order is that in which they enter a network."""


def class_condition(name: str, classes: int) -> dict[str, ConditionSpec]:
    """The conditions of a denoiser that knows the class alone; none where there are no classes."""
    return {name: ConditionSpec("class", classes=classes)} if classes else {}


def null_condition(conditions: Conditions, condition: Condition) -> dict[str, Tensor] | None:
    """A condition in which nothing is asked for, as large as the one given; auxiliary ones stay as they are.

    Args:
        conditions: What the denoiser knows.
        condition: n entries for each name.

    Returns:
        The same names; None where there is nothing to ask for.
    """
    if all(spec.auxiliary for spec in conditions.values()):
        return None
    null = {}
    for name, spec in conditions.items():
        given = cast(Tensor, condition[name])
        null[name] = given if spec.auxiliary else spec.null(len(given), given.device)
    return null


def check_condition(conditions: Conditions, condition: Condition, n: int) -> dict[str, Tensor]:
    """The part of a condition that a denoiser uses, checked and in its own dtype.

    Raises:
        GeneratorError: Something is missing, has another shape, or is no class.
    """
    return {name: _checked(name, spec, condition, n) for name, spec in conditions.items()}


def _checked(name: str, spec: ConditionSpec, condition: Condition, n: int) -> Tensor:
    if name not in condition:
        if spec.auxiliary:
            return spec.null(n)
        of = f"{spec.classes} classes" if spec.kind == "class" else f"the condition {name!r} ({spec.kind})"
        how = "int64 class indices" if spec.kind == "class" else f"a float tensor (n, {_dims(spec.shape)})"
        raise GeneratorError(
            f"the condition has {sorted(condition)} and no {name!r}, but this generator was fitted with {of}. Give "
            f"condition[{name!r}] as {how}."
        )
    if spec.kind == "class":
        label = torch.as_tensor(condition[name], dtype=torch.int64)
        if label.shape != (n,) or (n and not 0 <= int(label.min()) <= int(label.max()) < spec.classes):
            raise GeneratorError(
                f"condition[{name!r}] has shape {tuple(label.shape)} and values "
                f"{sorted(set(label.flatten().tolist()))[:20]}; needed are {n} class indices in 0..{spec.classes - 1}, "
                "one for each seed."
            )
        return label
    value = torch.as_tensor(condition[name], dtype=torch.float32)
    if value.shape != (n, *spec.shape):
        raise GeneratorError(
            f"condition[{name!r}] has shape {tuple(value.shape)}; needed is ({n}, {_dims(spec.shape)}), one value for "
            "each seed."
        )
    if not bool(value.isfinite().all()):
        raise GeneratorError(f"condition[{name!r}] is not finite, so what is made of it would not be. Give numbers.")
    return value


def _dims(shape: Sequence[int]) -> str:
    return ", ".join(str(size) for size in shape)


def of_kind(conditions: Conditions, *kinds: str) -> dict[str, ConditionSpec]:
    """The conditions of these kinds, in order."""
    return {name: spec for name, spec in conditions.items() if spec.kind in kinds}


def check_kinds(denoiser: str, conditions: Conditions, kinds: Sequence[str]) -> None:
    """Refuses conditions that a denoiser has no way to use.

    Raises:
        ConfigurationError: See above.
    """
    for name, spec in conditions.items():
        if spec.kind not in kinds:
            raise unknown_kind(denoiser, name, spec.kind, kinds)


def unknown_kind(denoiser: str, name: str, kind: str, kinds: Sequence[str]) -> ConfigurationError:
    """What is said of a condition that a denoiser has no way to use."""
    return ConfigurationError(
        f"the denoiser {denoiser} cannot be told {name!r} as {kind}: it knows {', '.join(kinds)}. Set "
        "generator.fit.denoiser=auto, or another kind in generator.conditions."
    )


def with_channels(x: Tensor, conditions: Conditions, condition: Condition) -> Tensor:
    """(n, C, *size) samples with the channels of the ``concat`` conditions behind their own."""
    more = [cast(Tensor, condition[name]) for name in of_kind(conditions, "concat")]
    return torch.cat((x, *more), dim=1) if more else x


def further_channels(conditions: Conditions) -> int:
    """How many channels `with_channels` adds."""
    return sum(spec.shape[0] for spec in of_kind(conditions, "concat").values())


class ConditionEmbedding(nn.Module):
    """The sum of the embeddings of classes, labels and vectors, to be added to that of the time.

    Args:
        conditions: What the denoiser knows; other kinds are passed over.
        width: Of the embedding.
    """

    def __init__(self, conditions: Conditions, width: int) -> None:
        super().__init__()
        self._names = list(of_kind(conditions, "class", "labels", "vector"))
        self.parts = nn.ModuleList()  # a list: the name of a field need not be one that a module can have
        for name in self._names:
            spec = conditions[name]
            if spec.kind == "class":
                self.parts.append(nn.Embedding(spec.classes + 1, width))
            else:
                self.parts.append(nn.Sequential(nn.Linear(spec.shape[0], width), nn.SiLU(), nn.Linear(width, width)))

    def forward(self, condition: Condition) -> Tensor:
        """(n, width); there must be at least one condition."""
        embedded = [part(condition[name]) for name, part in zip(self._names, self.parts, strict=True)]
        return torch.stack(embedded).sum(0)


class ConditionTokens(nn.Module):
    """All ``cross`` conditions as one sequence of tokens to attend to.

    Args:
        conditions: What the denoiser knows; other kinds are passed over.
        width: Of a token.
    """

    def __init__(self, conditions: Conditions, width: int) -> None:
        super().__init__()
        self._specs = of_kind(conditions, "cross")
        # The bias tells the conditions apart.
        self.parts = nn.ModuleList(nn.Linear(_token_width(spec), width) for spec in self._specs.values())
        self.places = nn.ParameterList(
            torch.randn(math.prod(spec.shape[1:]) if len(spec.shape) > 2 else 0, width) * 0.5
            for spec in self._specs.values()
        )

    def forward(self, condition: Condition) -> Tensor:
        """(n, tokens, width)."""
        sequences = []
        for (name, spec), part, place in zip(self._specs.items(), self.parts, self.places, strict=True):
            value = cast(Tensor, condition[name])
            if len(spec.shape) > 2:
                sequences.append(part(value.flatten(2).transpose(1, 2)) + place)
            else:
                sequences.append(part(value))
        return torch.cat(sequences, dim=1)


def _token_width(spec: ConditionSpec) -> int:
    return spec.shape[0] if len(spec.shape) > 2 else spec.shape[1]
