"""Fitted weights on disk: a safetensors file that describes its own network, and a JSON file on the fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.hashing import file_sha256

_WEIGHTS = "denoiser.safetensors"
_FIT = "fit.json"
_FORMAT = 1


def save(folder: Path, state: Mapping[str, Tensor], description: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes fitted weights into an existing folder; `fit.json` comes last, so a folder with it is complete.

    Args:
        folder: Where to.
        state: The network's state dict.
        description: All that is needed to build the network and to read its samples; hashed with the weights.
        about: The fit's circumstances (settings, seconds, versions); not hashed.
    """
    text = json.dumps({"format": _FORMAT, **description}, sort_keys=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, folder / _WEIGHTS, metadata={"description": text})
    fit = {"format": _FORMAT, "weights_sha256": file_sha256(folder / _WEIGHTS), **about}
    (folder / _FIT).write_text(json.dumps(fit, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def weights_hash(folder: Path) -> str:
    """The sha256 of fitted weights and their description, verified; part of a pool's fingerprint.

    Raises:
        GeneratorError: The folder holds no complete fit, or the weights are not those that were written.
    """
    try:
        recorded = json.loads((folder / _FIT).read_text(encoding="utf-8"))["weights_sha256"]
        found = file_sha256(folder / _WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GeneratorError(
            f"{folder} holds no complete fitted generator ({error}). Remove the folder, so that it is "
            "fitted again, or set paths.cache_dir to another place."
        ) from error
    if found != recorded:
        raise GeneratorError(
            f"{folder / _WEIGHTS} was altered: its sha256 is {found}, fit.json says {recorded}. Remove the "
            f"folder {folder}, so that the generator is fitted again."
        )
    return found


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads weights and description, verified.

    Raises:
        GeneratorError: See `weights_hash`; or another version of this library wrote the folder.
    """
    weights_hash(folder)
    with safe_open(str(folder / _WEIGHTS), framework="pt") as file:
        description = json.loads((file.metadata() or {}).get("description", "{}"))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if description.get("format") != _FORMAT:
        raise GeneratorError(
            f"{folder} was written in format {description.get('format')}, this version reads {_FORMAT}. Set "
            "paths.cache_dir to another place, so that the generator is fitted again."
        )
    return state, description
