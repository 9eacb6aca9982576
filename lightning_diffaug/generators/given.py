"""Conditions from the data: which fields are given rather than made, and how a denoiser is told of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.conditions.derived import check_derived, derive
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.augment import AUGMENT
from lightning_diffaug.generators.denoisers import KINDS, ConditionSpec
from lightning_diffaug.generators.protocol import LABEL, MASK, NEGATIVE, OF_START, OTHER, START, WEIGHT, Condition

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import FieldSpec, SampleSpec

_LOOKED_AT = 4096
"""Rows of the training data that a field's centre and scale are taken from."""


@dataclass(frozen=True)
class ConditionSetting:
    """What a user says of one condition.

    Attributes:
        kind: One of `denoisers.KINDS`.
        of: Field that it is made of; None: it is a field itself.
        how: One of `derived.DERIVED`.
        factor: Of the low resolution.
    """

    kind: str
    of: str | None = None
    how: str | None = None
    factor: int = 4

    def derivation(self) -> dict[str, Any]:
        """How it is made of a field, as plain values."""
        return {"of": self.of, "how": self.how, "factor": self.factor}


def condition_settings(values: Any) -> dict[str, ConditionSetting] | None:
    """``generator.conditions``, checked: None, or name → kind, or name → ``{of, how, factor, kind}``.

    Raises:
        ConfigurationError: A kind is unknown, or a name cannot be one of a condition.
    """
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise ConfigurationError(
            f"conditions={values!r} is no mapping of names to kinds. Set generator.conditions to e.g. "
            "{label: class, mask: concat}, or null."
        )
    settings = {}
    for name, value in values.items():
        given = {"kind": value} if not isinstance(value, Mapping) else {"kind": "concat", **value}
        unknown = set(given) - {"kind", "of", "how", "factor"}
        if unknown or given["kind"] not in KINDS:
            raise ConfigurationError(
                f"the condition {name!r} is {value!r}. Set generator.conditions.{name} to one of {', '.join(KINDS)}, "
                "or to {of: <field>, how: low_resolution | edges, factor: 4, kind: concat | cross}."
            )
        if len(given) > 1:
            check_derived(str(name), given.get("of"), given.get("how"), given.get("factor", 4))
        if (given["kind"] == "class") != (name == LABEL) or (
            len(given) > 1 and given["kind"] not in ("concat", "cross")
        ):
            raise ConfigurationError(
                f"the condition {name!r} cannot be {given['kind']}: the field {LABEL!r} is the class, and nothing else "
                "is; what is made of another field is concat or cross. Set another kind in "
                f"generator.conditions.{name}."
            )
        settings[str(name)] = ConditionSetting(**given)
    return settings


def conditions_key(settings: Mapping[str, ConditionSetting] | None) -> dict[str, Any] | None:
    """The settings for a fingerprint: the same however they are spelled, without what has no effect."""
    if settings is None or settings == {LABEL: ConditionSetting("class")}:
        return None  # data without labels are refused with the latter, so that both are the class
    key: dict[str, Any] = {}
    for name, setting in settings.items():
        unused = ("factor",) if setting.how == "edges" else ()
        made = {part: value for part, value in asdict(setting).items() if part not in unused}
        key[name] = setting.kind if setting.of is None else made
    return key


def check_conditions(settings: Mapping[str, ConditionSetting] | None, source: str, negative_label: int | None) -> None:
    """Refuses conditions that do not go with where samples start, and names that mean something else.

    Raises:
        ConfigurationError: See above.
    """
    if settings is None:
        return
    if negative_label is not None and LABEL not in settings:
        raise ConfigurationError(
            f"negative_label={negative_label} is a class, and the denoiser is not told the class. Set "
            "generator.conditions.label=class, or generator.negative_label=null."
        )
    if source == "interpolate" and set(settings) - {LABEL}:
        raise ConfigurationError(
            f"source=interpolate lies between two real samples, and {sorted(set(settings) - {LABEL})} would be given "
            "by one of them. Set generator.source to image or noise, or leave them out of generator.conditions."
        )
    taken = {AUGMENT, START, OTHER, WEIGHT} | ({MASK} if source != "noise" else set())
    for name in settings:
        if name in taken or name.startswith((OF_START, NEGATIVE)):
            raise ConfigurationError(
                f"the condition {name!r} has a name that means something else with source={source}: there, "
                f"{', '.join(sorted(taken))} and what begins with {OF_START} or {NEGATIVE} say where a sample starts. "
                "Give the field another name in data.fields and generator.conditions, or set generator.source=noise."
            )


def asked_for(settings: Mapping[str, ConditionSetting] | None, spec: SampleSpec) -> Mapping[str, ConditionSetting]:
    """The settings; None: the class, where there are labels."""
    if settings is not None:
        return settings
    return {} if spec.get(LABEL) is None else {LABEL: ConditionSetting("class")}


def told_as(
    name: str, setting: ConditionSetting, spec: SampleSpec, classes: int, shape: tuple[int, ...]
) -> tuple[ConditionSpec, tuple[int, ...]]:
    """What a denoiser is told of one condition, and the shape of one raw value; no data are looked at.

    Args:
        name: Of the condition.
        setting: What the user says of it.
        spec: The fields of a sample.
        classes: Number of classes.
        shape: Of one sample, as it is denoised.

    Raises:
        ConfigurationError: A field is missing, or cannot be told as its kind says.
    """
    field = spec.get(setting.of or name)
    if field is None or (setting.of is not None and not field.continuous):
        raise ConfigurationError(
            f"the condition {name!r} needs the field {setting.of or name!r}, and the samples have "
            f"{[field.name for field in spec.fields]}. Name it in data.fields, e.g. "
            f"{{<path in the sample>: {setting.of or name}}}, or leave it out of generator.conditions."
        )
    if setting.kind == "class":
        return ConditionSpec("class", classes=classes), ()
    if field.is_text:
        raise ConfigurationError(
            f"the condition {name!r} is a text, which a denoiser is told as tokens. Set generator.codecs.{name} to "
            "e.g. {_target_: lightning_diffaug.generators.field_codecs.Words}, or leave it out of generator.conditions."
        )
    value = field.shape
    if setting.of is not None and setting.how is not None:
        value = tuple(derive(torch.zeros(1, *value), setting.how, setting.factor).shape[1:])
    return ConditionSpec(setting.kind, _told_shape(name, setting.kind, value, shape)), value


@dataclass(frozen=True)
class GivenField:
    """How a denoiser is told of one field. Plain values: it travels with the weights.

    Attributes:
        spec: What the denoiser is told.
        shape: Of one raw value, as the data hold it.
        center: Subtracted from raw values, one number or one for each entry of a vector.
        scale: Then divided by.
        linear: Whether it is resized by interpolation; else the nearest value is taken, as classes and masks need.
    """

    spec: ConditionSpec
    shape: tuple[int, ...]
    center: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    linear: bool = True

    def told(self, raw: Tensor) -> Tensor:
        """Raw values (n, *shape) → what the denoiser is told, (n, *spec.shape)."""
        if self.spec.kind == "class":
            return raw
        value = (raw.to(torch.float32) - torch.tensor(self.center)) / torch.tensor(self.scale)
        if self.spec.kind != "concat":
            return value.reshape(len(value), *self.spec.shape)
        value = value.reshape(len(value), self.spec.shape[0], *self.shape[-(len(self.spec.shape) - 1) :])
        return _resized(value, self.spec.shape[1:], self.linear)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "spec": self.spec.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GivenField:
        """The inverse of `to_json`."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        plain["spec"] = ConditionSpec.from_json(values["spec"])
        return cls(**plain)


class Given:
    """The conditions of a fitted generator: from rows of the training data, or from a planner, to its denoiser.

    Args:
        fields: Name → how the denoiser is told of it, in order.
    """

    def __init__(self, fields: Mapping[str, GivenField]) -> None:
        self.fields = dict(fields)

    @property
    def specs(self) -> dict[str, ConditionSpec]:
        """What the denoiser is told."""
        return {name: field.spec for name, field in self.fields.items()}

    @classmethod
    def of(cls, settings: Mapping[str, ConditionSetting] | None, snapshot: Snapshot, shape: tuple[int, ...]) -> Given:
        """Looks at the training data.

        Args:
            settings: `condition_settings`; None: the class, where there are labels.
            snapshot: The training data.
            shape: Of one sample, as it is denoised.

        Raises:
            ConfigurationError: A field is missing, or cannot be told as its kind says.
        """
        settings = asked_for(settings, snapshot.spec)
        return cls({name: _looked_at(name, setting, snapshot, shape) for name, setting in settings.items()})

    def rows(
        self, settings: Mapping[str, ConditionSetting] | None, snapshot: Snapshot
    ) -> Callable[[Tensor], dict[str, Tensor]]:
        """Conditions of training samples: row numbers, int64 (n,) → what the denoiser is told."""
        settings = settings or {}

        def conditions(rows: Tensor) -> dict[str, Tensor]:
            return {
                name: field.told(_raw(name, settings.get(name), snapshot, rows)) for name, field in self.fields.items()
            }

        return conditions

    def told(self, condition: Condition) -> dict[str, Any]:
        """A condition as planners and users give it, raw values by field name, as the denoiser is told it.

        Raises:
            GeneratorError: A value has another shape than the field.
        """
        told = dict(condition)
        for name, field in self.fields.items():
            for key in (name, OF_START + name, NEGATIVE + name):
                if key in told and field.spec.kind != "class":
                    raw = torch.as_tensor(told[key])
                    if tuple(raw.shape[1:]) != field.shape:
                        raise GeneratorError(
                            f"condition[{key!r}] has shape {tuple(raw.shape)}; needed is (n, "
                            f"{', '.join(map(str, field.shape))}), in the values of the training data."
                        )
                    told[key] = field.told(raw)
        return told

    def to_json(self) -> list[Any]:
        """Plain values for a JSON file; a list, as the order matters."""
        return [[name, field.to_json()] for name, field in self.fields.items()]

    @classmethod
    def from_json(cls, values: list[Any]) -> Given:
        """The inverse of `to_json`."""
        return cls({name: GivenField.from_json(field) for name, field in values})


def _raw(name: str, setting: ConditionSetting | None, snapshot: Snapshot, rows: Tensor) -> Tensor:
    if setting is not None and setting.of is not None and setting.how is not None:
        return derive(snapshot.unit(setting.of, rows), setting.how, setting.factor)
    return snapshot.raw(name, rows)


def _looked_at(name: str, setting: ConditionSetting, snapshot: Snapshot, shape: tuple[int, ...]) -> GivenField:
    spec, value_shape = told_as(name, setting, snapshot.spec, len(snapshot.class_names), shape)
    if setting.kind == "class" or setting.of is not None:
        return GivenField(spec, value_shape)
    rows = torch.linspace(0, len(snapshot) - 1, min(len(snapshot), _LOOKED_AT)).long()
    center, scale = _normalisation(setting.kind, snapshot.raw(name, rows).to(torch.float32))
    return GivenField(spec, value_shape, center, scale, _interpolates(snapshot.spec[name]))


def _told_shape(name: str, kind: str, value: tuple[int, ...], sample: tuple[int, ...]) -> tuple[int, ...]:
    if kind == "cross":
        return (1, *value) if len(value) == 1 else value
    if kind != "concat":
        return value
    if len(value) == len(sample) - 1:  # a mask (H, W) beside an image (C, H, W)
        value = (1, *value)
    if len(value) != len(sample) or len(sample) < 2:
        raise ConfigurationError(
            f"the condition {name!r} of shape {value} cannot be joined to the channels of samples of shape {sample}: "
            f"it needs as many axes. Set generator.conditions.{name} to cross or vector."
        )
    return (value[0], *sample[1:])


def _normalisation(kind: str, raw: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Centre and scale: [low, high] → [-1, 1], for vectors and tokens zero mean and unit variance."""
    if kind == "vector":
        std = raw.std(0, correction=0)
        return tuple(raw.mean(0).tolist()), tuple(torch.where(std > 1e-6, std, 1.0).tolist())
    if kind == "cross":
        return (float(raw.mean()),), (float(raw.std(correction=0)) or 1.0,)
    low, high = float(raw.min()), float(raw.max())
    return ((low + high) / 2,), ((high - low) / 2 or 1.0,)


def _interpolates(field: FieldSpec) -> bool:
    return field.torch_dtype.is_floating_point or field.kind in ("pil", "tv_image")


def _resized(value: Tensor, size: tuple[int, ...], linear: bool) -> Tensor:
    if tuple(value.shape[2:]) == tuple(size):
        return value
    if not linear:
        return functional.interpolate(value, size=size, mode="nearest-exact")
    shrinks = math.prod(size) < math.prod(value.shape[2:])
    mode = "area" if shrinks else ("linear", "bilinear", "trilinear")[len(size) - 1]
    return functional.interpolate(value, size=size, mode=mode)
