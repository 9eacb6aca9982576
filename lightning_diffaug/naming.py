"""Objects by name: how a generator or a data set crosses to another process as import path and plain values.

Nothing is pickled. The form is Hydra's own (``{"_target_": "package.module.Class", **arguments}``), so the same
mapping works in a config file, in Python and in a job.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from lightning_diffaug.errors import ConfigurationError

_OWN = __name__.split(".")[0]
_INSTALLED = {"site-packages", "dist-packages"}


def _how(what: str) -> str:
    """What to do about an object without a name; only a generator may also stay in the trainer's process."""
    sync = "; or set refill=sync, which uses the object as it is" if what.startswith("generator") else ""
    return (
        'Give it as {"_target_": "package.module.Class", <arguments>}, or add a method config() that returns the '
        f"constructor's arguments as plain values, or keep each argument in an attribute of its name{sync}."
    )


def plain(value: Any, what: str) -> Any:
    """Checks that a value is plain (None, bool, int, float, str, list, dict) and returns it as such.

    Objects inside are named by `name_of`; tuples become lists.

    Raises:
        ConfigurationError: Something in it can be neither kept as a plain value nor named.
    """
    if isinstance(value, (DictConfig, ListConfig)):
        value = OmegaConf.to_container(value, resolve=True)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{what}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{what}[{i}]") for i, item in enumerate(value)]
    return name_of(value, what)


def _import_path(target: Any, what: str) -> str:
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not module or not name or "<" in name:
        raise ConfigurationError(
            f"{what} ({target!r}) has no import path (a lambda, a local function or class), so the refill process "
            f"cannot make it. Define it at the top level of a module. {_how(what)}"
        )
    if module == "__main__":
        raise ConfigurationError(
            f"{what} ({name}) is defined in the script that is running, and the refill process does not run your "
            f"script again. Move it to a module that can be imported. {_how(what)}"
        )
    return f"{module}.{name}"


def name_of(target: Any, what: str = "generator") -> dict[str, Any]:
    """The import path and the plain constructor arguments that make `target` again.

    Args:
        target: A function, an object with ``config()``, a dataclass, or an object that keeps each constructor
            argument in an attribute of that name; or a mapping with ``_target_``.
        what: The setting it came from, for error messages.

    Returns:
        ``{"_target_": …, **arguments}``, for `build`.

    Raises:
        ConfigurationError: It cannot be named; the text says how to make it so.
    """
    if isinstance(target, (Mapping, DictConfig)):
        named = plain(target, what)
        if "_target_" not in named:
            raise ConfigurationError(f"{what}={named} has no _target_. {_how(what)}")
        return dict(named)
    if inspect.ismethod(target) and not inspect.isclass(target.__self__):
        raise ConfigurationError(
            f"{what} is the method {target.__qualname__} of an object, which has no import path. Give the object "
            f"itself. {_how(what)}"
        )
    if inspect.isroutine(target) or inspect.isclass(target):
        return {"_target_": "hydra.utils.get_object", "path": _import_path(target, what)}
    path = _import_path(type(target), what)
    if callable(getattr(target, "config", None)):
        arguments = target.config()
    elif dataclasses.is_dataclass(target):
        arguments = {field.name: getattr(target, field.name) for field in dataclasses.fields(target) if field.init}
    else:
        try:
            parameters = inspect.signature(type(target)).parameters.values()
        except ValueError:  # a type of C, such as functools.partial
            raise ConfigurationError(
                f"{what} is a {path}, which does not say what it is made of, so the refill process cannot make it "
                f"again. {_how(what)}"
            ) from None
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        missing = [p.name for p in parameters if p.kind in kinds or not hasattr(target, p.name)]
        if missing:
            raise ConfigurationError(
                f"{what} ({path}) does not keep its argument {missing[0]!r}, so the refill process cannot make it "
                f"again. {_how(what)}"
            )
        arguments = {p.name: getattr(target, p.name) for p in parameters}
    return {"_target_": path, **{key: plain(value, f"{what}.{key}") for key, value in arguments.items()}}


def build(named: Mapping[str, Any], what: str = "generator") -> Any:
    """Makes the object that `name_of` named.

    Args:
        named: Its name.
        what: The setting it came from, for error messages.

    Raises:
        ConfigurationError: Its import path leads nowhere.
    """
    path = _path(named)
    try:
        get_object(path)
    except Exception as error:
        raise ConfigurationError(
            f"{what}: {path} cannot be imported ({error}), so nothing can be made of it. It has to be in a module on "
            f"sys.path, at its top level. {_how(what)}"
        ) from error
    return instantiate(dict(named), _convert_="all")


def _path(named: Mapping[str, Any]) -> str:
    """The import path of a named class or function."""
    return str(named["path"] if named["_target_"] == "hydra.utils.get_object" else named["_target_"])


def defined_at(named: Mapping[str, Any]) -> str:
    """Import path of a named class or function where it is defined: one name, whatever alias it was given by."""
    path = _path(named)
    try:
        target = get_object(path)
    except Exception:  # `build` says what is wrong
        return path
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    return f"{module}.{name}" if module and name else path


def source_digest(named: Mapping[str, Any]) -> str | None:
    """Hash of the code of a named class or function, and of those named in its arguments.

    It covers, for each of them, the modules of the class and all its bases (for a function: its module): the whole
    file where it is the user's own, name and version where it belongs to an installed package. This library's own
    modules and Python's are left out: for them `SAMPLER_VERSION` and the format version count.

    It does not see modules that those modules import, what a function that is named makes, or the content of files
    that arguments name by path (weights): after a change there, change an argument, or the cache folder.

    Args:
        named: A mapping with ``_target_``, as `name_of` returns.

    Returns:
        16 hexadecimal digits; None where nothing but this library and Python is behind the name.
    """
    found = {_code(module) for target in _targets(named) for module in _modules(target)} - {None}
    text = "\n".join(sorted(str(code) for code in found))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if found else None


def _targets(value: Any) -> Iterator[str]:
    """The import paths in a named object, its own and those in its arguments."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield _path(value)
        for item in value.values():
            yield from _targets(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _targets(item)


def _modules(path: str) -> set[str]:
    """The modules that hold the code of a named class, with its bases, or function."""
    if path.split(".")[0] == _OWN:
        return set()
    target = get_object(path)
    owner = getattr(target, "__self__", target)  # of a classmethod such as from_pretrained
    if inspect.isclass(owner):
        return {base.__module__ for base in owner.__mro__}
    module = getattr(inspect.unwrap(target), "__module__", None) if callable(target) else None
    return {module or path.rpartition(".")[0]}


def _code(module: str) -> str | None:
    """What identifies the code of a module; None for this library's and Python's own."""
    top = module.split(".")[0]
    if top == _OWN or (top in sys.stdlib_module_names and top != "__main__"):
        return None
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or _INSTALLED & set(Path(file).parts):
        return f"{top} {_version(top)}"
    try:
        return f"{module} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"
    except OSError:
        return f"{top} {_version(top)}"


@functools.cache
def _version(top: str) -> str:
    """The version of the installed package that a top-level module is of; "" where it has none."""
    version = getattr(sys.modules.get(top), "__version__", None)
    if version is not None:
        return str(version)
    for name in [top, *importlib.metadata.packages_distributions().get(top, [])]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
