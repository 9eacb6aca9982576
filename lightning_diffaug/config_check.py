"""Checks a composed configuration against the annotations of what it makes, before anything is made."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any, Union

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, read_write

from lightning_diffaug.errors import ConfigurationError

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "null"}


def check_values(node: Any, key: str) -> None:
    """Refuses values that are missing, and words where numbers belong; in the nodes inside too. Converts the rest.

    A value that is one of the annotated kind in another spelling (``4.0`` for a whole number, the text ``1e-3``, which
    YAML makes of it, for a number) is replaced in the node. Only annotations of numbers, truth values and
    null are looked at: what else may be given, its maker says itself.

    Args:
        node: A node of the configuration; without ``_target_`` it is left alone.
        key: Its place, for the text.

    Raises:
        ConfigurationError: A value is missing, or no value of the kind that is annotated; the text names its full key.
    """
    if not isinstance(node, DictConfig) or node.get("_target_") is None:
        return
    hints = argument_types(get_object(node._target_))
    for name in map(str, node):
        path = f"{key}.{name}"
        if OmegaConf.is_missing(node, name):
            raise ConfigurationError(
                f"{path} has no value, and {node._target_.rpartition('.')[2]} needs one. Set {path}=<value>."
            )
        check_values(node[name], path)
        given = node[name]
        value = check_value(given, hints.get(name, Any), path)
        if value is not given:
            with read_write(node):
                node[name] = value


def check_value(value: Any, hint: Any, path: str) -> Any:
    """Refuses a value that is not of the annotated kind.

    Returns:
        The value; as int or float where it was the same number in another spelling.

    Raises:
        ConfigurationError: The text names `path`.
    """
    parts = _parts(hint)
    if not all(isinstance(part, type) and part in _KINDS for part in parts):
        return value
    if not _fits(value, parts):
        kinds = [_KINDS[part] for part in parts]
        raise ConfigurationError(f"{path}={value} is not {' or '.join(kinds)}. Set {path} to such a value.")
    if isinstance(value, float) and float not in parts:
        return int(value)
    return float(value) if isinstance(value, str) else value


def argument_types(target: Any) -> dict[str, Any]:
    """Annotations of the arguments that make `target`: of a function, or of a class and its bases."""
    if not inspect.isclass(target):
        return _hints(target)
    found: dict[str, Any] = {}
    for base in reversed(target.__mro__):
        if "__init__" in vars(base):
            found |= _hints(vars(base)["__init__"])
    return found


def _hints(function: Any) -> dict[str, Any]:
    try:
        return {name: hint for name, hint in typing.get_type_hints(function).items() if name != "return"}
    except (NameError, TypeError, AttributeError):  # names that exist for type checkers alone; a builtin
        return {}


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, parts: tuple[Any, ...]) -> bool:
    if value is None:
        return types.NoneType in parts
    if isinstance(value, bool):
        return bool in parts
    if isinstance(value, int):
        return int in parts or float in parts
    if isinstance(value, float):
        return float in parts or (int in parts and value.is_integer())
    if isinstance(value, str) and float in parts:  # YAML reads 1e-3 and inf as text
        try:
            float(value)
        except ValueError:
            return False
        return True
    return False
