"""Codecs of single fields: from what the data hold to the tensor that is denoised, or told, and back."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.protocol import MASK, NEGATIVE, OF_START, OTHER, START, Condition
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

KEY = "generator.codecs"
_BATCH = 256
_NO_REPAINT = (
    f"a part of each sample is to be kept, and {KEY} turns samples into tensors in which it has no place. Set "
    "generator.repaint=null, or leave the codecs out."
)

Raw: TypeAlias = "Tensor | Sequence[str]"


@runtime_checkable
class FieldCodec(Protocol):
    """Between one field of a sample and the tensor that a denoiser makes, or is told. A pure function of its arguments.

    Its arguments are plain values; with them it is part of the names of fit and pool, but for those that a class
    attribute ``unnamed`` lists: paths (whose files' hash is an argument) and what changes no result.
    """

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """Shape of one encoded sample.

        Raises:
            ConfigurationError: The field does not suit it.
        """
        ...

    def encode(self, raw: Raw, field: FieldSpec) -> Tensor:
        """Encodes samples.

        Args:
            raw: (n, *field.shape) in the values of the training data; n texts of a text field.
            field: The field.

        Returns:
            float32 (n, *shape), about in [-1, 1].
        """
        ...

    def decode(self, encoded: Tensor, field: FieldSpec) -> Tensor:
        """The inverse, of fields that are made: (n, *field.shape) floating-point values of the data's range."""
        ...


class Codecs:
    """The codecs of a generator, by field.

    Args:
        given: Field name → codec, or ``{"_target_": …}``; None: none.

    Raises:
        ConfigurationError: Something is no codec.
    """

    def __init__(self, given: Mapping[str, Any] | None) -> None:
        self._names = {str(name): name_of(codec, f"{KEY}.{name}") for name, codec in (given or {}).items()}
        self._codecs: dict[str, FieldCodec] = {}
        for name, target in self._names.items():
            codec = build(target, f"{KEY}.{name}")
            if not isinstance(codec, FieldCodec):
                raise ConfigurationError(
                    f"{KEY}.{name}={target} is no codec: it needs the methods shape, encode and decode "
                    f"(generators.field_codecs.FieldCodec). Set {KEY}.{name} to one, or leave it out."
                )
            self._codecs[name] = codec

    def __bool__(self) -> bool:
        return bool(self._codecs)

    def config(self) -> dict[str, Any] | None:
        """As given, in plain values."""
        return dict(self._names) or None

    def key(self) -> dict[str, Any]:
        """What names fit and pool: with all arguments, also those that were left out."""
        return {} if not self._codecs else {"codecs": {name: _whole(self._names[name]) for name in sorted(self._names)}}

    def check(
        self, spec: SampleSpec, given: Sequence[str], source: str, feedback_scale: float, repaint: float | None
    ) -> None:
        """Refuses settings of a generator that do not go with codecs.

        Args:
            spec: The fields of the data.
            given: Those that are conditions.
            source: Where samples start, one of `controls.SOURCES`.
            feedback_scale: Of guidance by the learner.
            repaint: Share of each real sample that is made anew, or None.

        Raises:
            ConfigurationError: See above.
        """
        made = [field.name for field in spec.continuous if field.name not in given]
        encoded = [name for name in made if name in self._codecs]
        if encoded and feedback_scale:
            raise ConfigurationError(
                f"feedback_scale={feedback_scale}: the learner sees samples as the data hold them, and {encoded} are "
                "denoised encoded. Set generator.feedback_scale=0, or leave the codecs out."
            )
        if encoded and repaint is not None:
            raise ConfigurationError(_NO_REPAINT)
        if encoded and source != "noise" and len(made) > 1:
            raise ConfigurationError(
                f"source={source} starts from real samples of the fields {made} joined, which have no joint shape "
                "before they are encoded. Set generator.source=noise, or name all but one of them as conditions."
            )

    def spec(self, spec: SampleSpec) -> SampleSpec:
        """The fields as they are encoded: float32 in [-1, 1] where there is a codec, else as they are.

        Raises:
            ConfigurationError: The samples lack a field, or it does not suit its codec.
        """
        for name in self._codecs:
            if name not in spec:
                raise ConfigurationError(
                    f"{KEY} has a codec for the field {name!r}, and the samples have {[f.name for f in spec.fields]}. "
                    "Name it in data.fields, or leave the codec out."
                )
        return SampleSpec(tuple(self._encoded(field) for field in spec.fields))

    def _encoded(self, field: FieldSpec) -> FieldSpec:
        codec = self._codecs.get(field.name)
        if codec is None:
            return field
        shape = tuple(codec.shape(field))
        return replace(field, kind="tensor", dtype="float32", shape=shape, low=-1.0, high=1.0, layout="", mode=None)

    def snapshot(self, snapshot: Snapshot) -> Snapshot:
        """The training data as the denoiser sees them, encoded once; the same object where there is no codec."""
        if not self._codecs:
            return snapshot
        encoded = {name: self._of_all(name, snapshot) for name in self._codecs}
        spec = self.spec(snapshot.spec)
        rest = [field.name for field in spec.tensors if field.name not in encoded]
        fields = {name: snapshot.raw(name) for name in rest} | encoded
        texts = {name: texts for name, texts in snapshot.texts.items() if name not in encoded}
        return Snapshot(spec, fields, snapshot.class_names, snapshot.label_values, texts=texts)

    def _of_all(self, name: str, snapshot: Snapshot) -> Tensor:
        field, n = snapshot.spec[name], len(snapshot)
        parts = []
        for rows in torch.split(torch.arange(n), _BATCH):
            raw: Raw = [snapshot.texts[name][i] for i in rows] if field.is_text else snapshot.raw(name, rows)
            parts.append(self.encode(name, raw, field))
        return torch.cat(parts)

    def encode(self, name: str, raw: Raw, field: FieldSpec) -> Tensor:
        """Encodes samples of a field; see `FieldCodec.encode`.

        Raises:
            GeneratorError: What the codec gave is not of its shape.
        """
        encoded = self._codecs[name].encode(raw, field)
        wanted = (len(raw), *self._codecs[name].shape(field))
        if tuple(encoded.shape) != wanted:
            raise GeneratorError(f"{KEY}.{name} encoded to {tuple(encoded.shape)} in place of {wanted}.")
        return encoded.to(torch.float32)

    def condition(self, condition: Condition, spec: SampleSpec, given: Collection[str] = ()) -> dict[str, Any]:
        """A condition as planners give it, encoded: values of its fields, and the real samples that it starts from.

        Args:
            condition: Raw values by field name; `START` and `OTHER` in [-1, 1], as a tensor where one field is made.
            spec: The fields of the data.
            given: Those that are conditions: no sample starts from them.

        Raises:
            ConfigurationError: A part of a sample is to be kept (`MASK`) of a field that is encoded.
        """
        if not self._codecs:
            return dict(condition)
        told = dict(condition)
        made = [field for field in spec.continuous if field.name not in given]
        for name in self._codecs:
            if spec[name].is_text and name not in told and PROMPT in told:
                told[name] = told[PROMPT]
            for key in (name, NEGATIVE + name, OF_START + name):
                if key in told:
                    told[key] = self.encode(name, told[key], spec[name])
        for key in (START, OTHER):
            if key in told:
                told[key] = self._started(told[key], made)
        if START in told and MASK in told and any(field.name in self._codecs for field in made):
            raise ConfigurationError(_NO_REPAINT)
        return told

    def _started(self, start: Any, made: Sequence[FieldSpec]) -> Any:
        def encoded(field: FieldSpec, value: Tensor) -> Tensor:
            return self.encode(field.name, field.from_unit(value), field) if field.name in self._codecs else value

        if isinstance(start, Tensor):
            return encoded(made[0], start) if len(made) == 1 else start
        fields = {field.name: field for field in made}
        return {name: encoded(fields[name], value) if name in fields else value for name, value in start.items()}

    def decode(self, samples: Mapping[str, Tensor], spec: SampleSpec) -> dict[str, Tensor]:
        """Made samples by field name as `Generator.generate` returns them: float32 in [-1, 1] of the data's range."""
        made = dict(samples)
        for name, value in samples.items():
            if name in self._codecs:
                raw = self._codecs[name].decode(value, spec[name])
                made[name] = spec[name].to_unit(raw).clamp(-1.0, 1.0)  # a waveform may overshoot; NaN stays NaN
        return made


def _whole(name: Mapping[str, Any]) -> dict[str, Any]:
    """A target with the defaults of its arguments: the same name however it is spelled, wherever its files lie."""
    made = build(name, KEY)
    if callable(getattr(made, "config", None)):
        whole = {"_target_": name["_target_"], **made.config()}
    else:
        arguments = inspect.signature(type(made)).parameters
        whole = {**name, **{key: getattr(made, key) for key in arguments if hasattr(made, key)}}
    return whole | {key: None for key in getattr(made, "unnamed", ()) if key in whole}
