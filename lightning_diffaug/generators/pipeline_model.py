"""Where a model is: its folder or its place in the hub's cache, its name in a fingerprint, what code it asks for."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.hashing import file_sha256

INDEX = "model_index.json"

_READ = (".safetensors", ".json", ".txt", ".model")
_LIBRARIES = ("diffusers", "transformers")


def local(model: str) -> Path | None:
    """The local file or folder that a setting names; None where it is a hub id."""
    path = Path(model).expanduser()
    if path.exists():
        return path.absolute()
    looks_like_path = path.is_absolute() or model.startswith((".", "~")) or len(path.parts) != 2
    return path.absolute() if looks_like_path else None


def identity(model: str, revision: str | None) -> dict[str, str | None]:
    """What names a model in a fingerprint: hub id and revision, or the hash of a local one's files.

    Raises:
        ConfigurationError: A local model is not there.
    """
    path = local(model)
    if path is None:
        return {"id": model, "revision": revision}
    if not path.exists():
        raise ConfigurationError(absent(model, revision, "generator.model"))
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _READ and p.is_file())
    stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return {"sha256": _digest(str(path), stamps)}


@cache
def _digest(folder: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of files; `stamps` are their path, size and time, so that it is computed anew after a change."""
    whole = hashlib.sha256()
    for name, _, _ in stamps:
        relative = Path(name).name if name == folder else str(Path(name).relative_to(folder))
        whole.update(relative.encode() + b"\0" + bytes.fromhex(file_sha256(Path(name))))
    return whole.hexdigest()[:32]


def absent(model: str, revision: str | None, key: str, why: str = "") -> str:
    """What to say of a model that is not there: what to fetch, and where to put it."""
    if (path := local(model)) is not None:
        found = f"cannot be loaded from {path} ({why})" if why else f"there is no {path}"
        return (
            f"{key}={model!r}: {found}. Set {key} to a local model in diffusers' form (config and .safetensors files), "
            "as save_pretrained or `hf download … --local-dir FOLDER` writes it, or to a hub id such as "
            "stabilityai/sd-turbo."
        )
    from huggingface_hub.constants import HF_HUB_CACHE

    fetch = f"hf download {model}" + (f" --revision {revision}" if revision else "")
    return (
        f"{key}={model!r}, revision {revision!r}, cannot be loaded: {why or f'it is not in {HF_HUB_CACHE}'}. Where "
        f"there is a network, accept its licence on https://huggingface.co/{model} if it has one, and run `{fetch} "
        f"--local-dir FOLDER`; bring FOLDER here and set {key}=FOLDER. Or, with a network here, run `{fetch}`, or set "
        "generator.download=true, which does so when the generator starts."
    )


def check_present(model: str | None, revision: str | None, key: str = "generator.model") -> None:
    """Checks that a model is on this machine, without reading its weights.

    Raises:
        ConfigurationError: It is not; the text says what to fetch and where to put it.
    """
    if model is None:
        raise ConfigurationError(
            f"{key} is not set: it is the local folder of a pipeline in diffusers' form, or a hub id. Set {key}."
        )
    path = local(model)
    if path is not None:
        if not path.exists():
            raise ConfigurationError(absent(model, revision, key))
        if key == "generator.model":
            check_index(path)
        return
    from huggingface_hub import try_to_load_from_cache

    names = (INDEX, "config.json") if not model.endswith(".safetensors") else (model,)
    found = [try_to_load_from_cache(model, name, revision=revision) for name in names]
    if not any(isinstance(file, str) for file in found):
        raise ConfigurationError(absent(model, revision, key))


def check_index(folder: Path) -> Mapping[str, Any]:
    """Reads a pipeline's index and refuses one that asks for code that is not of diffusers or transformers.

    Raises:
        ConfigurationError: There is no index, or it names code of its own.
    """
    try:
        index: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        parts = {name: part for name, part in index.items() if isinstance(part, list)}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(absent(str(folder), None, "generator.model", f"{INDEX}: {error}")) from error
    foreign = [name for name, part in parts.items() if name == "_class_name" or not _is_known(part)]
    if foreign:
        raise ConfigurationError(
            f"the pipeline in {folder} asks for code of its own ({', '.join(foreign)} in {INDEX}), which is not run. "
            "Set generator.model to a pipeline whose parts are classes of diffusers and transformers."
        )
    return dict(index)


def _is_known(part: Sequence[Any]) -> bool:
    """Whether ``[library, class]`` is nothing, or of diffusers (its own pipeline modules too) or transformers."""
    if len(part) != 2 or part[0] is None:
        return len(part) == 2 and part[1] is None
    if part[0] in _LIBRARIES:
        return True
    return importlib.util.find_spec("diffusers") is not None and part[0] in _pipeline_modules()


@cache
def _pipeline_modules() -> frozenset[str]:
    spec = importlib.util.find_spec("diffusers")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return frozenset(path.name for place in places for path in (Path(place) / "pipelines").iterdir() if path.is_dir())
