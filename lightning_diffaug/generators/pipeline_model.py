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

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_READ = (".safetensors", ".json", ".txt", ".model", ".spm", ".codes")  # the last four of tokenizers too
_LIBRARIES = ("diffusers", "transformers")


def local(model: str) -> Path | None:
    """The local file or folder that a setting names; None where it is a hub id."""
    path = Path(model).expanduser()
    if path.exists():
        return path.absolute()
    looks_like_path = path.is_absolute() or model.startswith((".", "~")) or len(path.parts) != 2
    return path.absolute() if looks_like_path else None


def identity(model: str, revision: str | None, key: str) -> dict[str, str | None]:
    """What names a model in a fingerprint: hub id and revision, or the hash of a local one's files.

    Args:
        model: Local file or folder, or hub id.
        revision: Of a hub id.
        key: The setting that names it.

    Raises:
        ConfigurationError: A local model is not there.
    """
    path = local(model)
    if path is None:
        return {"id": model, "revision": revision}
    if not path.exists():
        raise ConfigurationError(absent(model, revision, key))
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


def fetch(model: str, revision: str | None, variant: str | None = None) -> str:
    """The command that downloads what is read of a pipeline on the hub, and no further copies of its weights."""
    weights = f"*/*.{variant}*.safetensors" if variant else "*/*.safetensors"
    wanted = " ".join(f'--include "{name}"' for name in ("*.json", "*.txt", "*.model", weights))
    return f"hf download {model} {wanted}" + (f" --revision {revision}" if revision not in (None, "main") else "")


def absent(model: str, revision: str | None, key: str, why: str = "", variant: str | None = None) -> str:
    """What to say of a model that is not there: what to fetch, and where to put it."""
    if (path := local(model)) is not None:
        found = f"cannot be loaded from {path} ({why})" if why else f"there is no {path}"
        return (
            f"{key}={model!r}: {found}. Set {key} to a local model in diffusers' form (config and .safetensors files), "
            "as save_pretrained or `hf download … --local-dir FOLDER` writes it, or to a hub id such as "
            "stabilityai/sd-turbo."
        )
    from huggingface_hub.constants import HF_HUB_CACHE

    command = fetch(model, revision, variant) if key == "generator.model" else f"hf download {model}"
    return (
        f"{key}={model!r}, revision {revision!r}, cannot be loaded: {why or f'it is not in {HF_HUB_CACHE}'}. Where "
        f"there is a network, accept its licence on https://huggingface.co/{model} if it has one, and run\n"
        f"  {command} --local-dir FOLDER\n"
        f"Bring FOLDER here and set {key}=FOLDER. Or, with a network here, leave --local-dir away, or set "
        "generator.download=true, which fetches it when the generator starts."
    )


def may_fetch(model: str | None, download: bool) -> bool:
    """Whether a model that is not here is downloaded when the generator starts."""
    return download and model is not None and local(model) is None


def check_present(
    model: str | None,
    revision: str | None,
    key: str = "generator.model",
    variant: str | None = None,
    files: Sequence[str] = (INDEX,),
) -> None:
    """Checks that a model is on this machine, without reading its weights.

    Args:
        model: Local file or folder, or hub id.
        revision: Of a hub id.
        key: The setting that names it.
        variant: Of the weights' files.
        files: One of these is in the hub's cache where a hub id is.

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
            check_weights(path, check_index(path), variant)
        return
    from huggingface_hub import try_to_load_from_cache

    if not any(isinstance(try_to_load_from_cache(model, name, revision=revision), str) for name in files):
        raise ConfigurationError(absent(model, revision, key, variant=variant))


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


def check_weights(folder: Path, index: Mapping[str, Any], variant: str | None) -> None:
    """Refuses a pipeline with weights in another format than safetensors only, or of another variant; reads nothing.

    Raises:
        ConfigurationError: A part has weights and no safetensors, or the whole has none, or none of the variant.
    """
    for name in [name for name, part in index.items() if isinstance(part, list) and part[0] is not None]:
        files = [file.name for file in sorted((folder / name).glob("*"))]
        other = [file for file in files if file.endswith(_PICKLED)]
        if other and not any(file.endswith(".safetensors") for file in files):
            raise ConfigurationError(
                f"generator.model={str(folder)!r}: the weights in {name}/{other[0]} are no safetensors, and reading "
                f"other formats can run code. {_convert(repr(str(folder)))}"
            )
    if not any(folder.glob("*/*.safetensors")):
        raise ConfigurationError(
            f"generator.model={str(folder)!r} holds no .safetensors files. If the hub has that model's weights in "
            f"another format only, which can run code: {_convert('HUB_ID')}"
        )
    if variant is not None and not any(folder.glob(f"*/*.{variant}*.safetensors")):
        raise ConfigurationError(
            f"generator.variant={variant!r}: the weights in {folder} are of no such variant. Set "
            "generator.variant=null to use them as they are."
        )


def _convert(model: str) -> str:
    code = (
        f"from diffusers import DiffusionPipeline; DiffusionPipeline.from_pretrained({model}).save_pretrained(FOLDER)"
    )
    return f'Where you trust them, convert the model once:\n  python -c "{code}"\nThen set generator.model=FOLDER.'


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
