"""The learner as it is handed over: its weights as safetensors, how to build its network, how its input is made."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.feedback.conversion import Conversion
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.spec import FieldSpec

_WEIGHTS, _TABLE, _COLUMNS = "weights.", "conversion.table", "columns"
_KEY = "feedback.hand_over"


class LearnerNetwork(nn.Module):
    """A learner's network in eval mode; a `conditions.feedback.Learner`.

    Args:
        network: Inputs as training has them → logits.
        conversion: Makes such inputs of the pool's values.
        columns: The logit of each class, int64 (C,).
    """

    columns: Tensor

    def __init__(self, network: nn.Module, conversion: Conversion, columns: Tensor) -> None:
        super().__init__()
        self.network = network
        self.conversion = conversion
        self.register_buffer("columns", columns)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, K) of inputs as training has them."""
        logits: Tensor = self.network(x)
        return logits

    def inputs(self, samples: Mapping[str, Tensor]) -> Tensor:
        """What training would have as input, of samples by field in [-1, 1]; see `conditions.feedback.Learner`."""
        return self.conversion.of_unit(samples[self.conversion.field.name])


def network_name(module: nn.Module) -> dict[str, Any]:
    """How the network of a LightningModule is made again: its import path and its hyperparameters.

    Raises:
        ConfigurationError: It cannot be named; the text says what to do.
    """
    kind = type(module)
    try:
        given = dict(getattr(module, "hparams", None) or {})
        if not given:
            return name_of(module, "the learner")
        parameters = inspect.signature(kind).parameters.values()
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            wanted = given
        else:
            wanted = {parameter.name: given[parameter.name] for parameter in parameters if parameter.name in given}
        return name_of({"_target_": name_of(kind, "the learner")["path"], **wanted}, "the learner")
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{_KEY}=true: the refill process makes {kind.__name__} anew from its import path and hyperparameters, and "
            f"they cannot be named. {str(error).partition('. ')[0]}. Call self.save_hyperparameters() with plain "
            f"values in its __init__ and define it in a module that can be imported, or set {_KEY}=false."
        ) from error


def rebuilt(name: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """The network that a name and weights say.

    Raises:
        ConfigurationError: It cannot be made, or has other weights.
    """
    with untouched_rng():
        try:
            network = build(name, "the learner")
            network.load_state_dict(dict(weights))
        except Exception as error:
            raise ConfigurationError(
                f"{_KEY}=true: the learner cannot be made anew from {dict(name)} ({type(error).__name__}: {error}). "
                "Let its __init__ build the whole network from the hyperparameters that save_hyperparameters() keeps, "
                f"or set {_KEY}=false."
            ) from error
    assert isinstance(network, nn.Module)
    return network


def packed(module: nn.Module, conversion: Conversion, columns: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of which `unpacked`, told the network's name, makes the learner again.

    Raises:
        ConfigurationError: Its state is more than tensors.
    """
    state = module.state_dict()
    other = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise ConfigurationError(
            f"{_KEY}=true: {other[0]!r} of {type(module).__name__}'s state is no tensor, and only tensors are handed "
            f"over. Keep it out of state_dict(), or set {_KEY}=false."
        )
    tensors = {f"{_WEIGHTS}{key}": value for key, value in state.items()}
    tensors |= {_TABLE: conversion.table, _COLUMNS: columns}
    field = {**asdict(conversion.field), "shape": list(conversion.field.shape)}
    return tensors, {"field": json.dumps(field, sort_keys=True)}


def unpacked(name: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> LearnerNetwork:
    """The inverse of `packed`.

    Args:
        name: What `network_name` said, from the run's own job: a file with weights never says what is imported.
        tensors: What was packed.
        meta: The texts with it.

    Raises:
        GeneratorError: It cannot be made.
    """
    if name is None:
        raise GeneratorError("the run's job does not name the learner's network, so its weights cannot be used")
    try:
        field = json.loads(meta["field"])
        spec = FieldSpec(**{**field, "shape": tuple(field["shape"])})
        weights = {key.removeprefix(_WEIGHTS): value for key, value in tensors.items() if key.startswith(_WEIGHTS)}
        network = rebuilt(name, weights)
        return LearnerNetwork(network, Conversion(spec, tensors[_TABLE]), tensors[_COLUMNS])
    except (ConfigurationError, KeyError, ValueError, TypeError) as error:
        raise GeneratorError(f"the learner cannot be made from what was handed over: {error}") from error


def same_logits(module: nn.Module, network: nn.Module, x: Tensor) -> None:
    """Refuses a network that says something else than the module that it was made of.

    Args:
        module: The learner, in eval mode.
        network: Made anew.
        x: Some inputs.

    Raises:
        ConfigurationError: See above.
    """
    with torch.no_grad():
        first, second = module(x), network.eval().to(x.device)(x)
    if not isinstance(first, Tensor) or first.ndim != 2 or first.shape != second.shape:
        raise ConfigurationError(
            f"{_KEY}=true: forward(x) of {type(module).__name__} has to return logits (n, classes). Let it, or set "
            f"{_KEY}=false."
        )
    if not torch.allclose(first.float(), second.float(), rtol=1e-2, atol=1e-3, equal_nan=True):
        raise ConfigurationError(
            f"{_KEY}=true: {type(module).__name__}, made anew from its hyperparameters and weights, gives other logits "
            "than the one in training: something that it computes with is in neither. Keep it in a buffer or a "
            f"hyperparameter, or set {_KEY}=false."
        )
