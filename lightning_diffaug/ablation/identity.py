"""Which run is which: a folder by arm, settings and seed, so that what is finished is found again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_diffaug.ablation.failed import FAILED
from lightning_diffaug.ablation.runs import JOBS, METRICS

# Where a run writes and what it reports change no figure; the seed has a folder of its own; the other arms are not it.
_NOT_THE_RUN = ("hydra", "paths", "logger", "ckpt_path", "seed")
_WATCHING = ("checkpoint", "fidelity")  # callbacks that change no figure of a run
_OF_THE_RUN = ("equal", "role")


def arm_folder(arm: str, config: DictConfig) -> str:
    """Folder name of an arm with these settings: another value of any makes another."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    ablation, callbacks = plain.pop("ablation", None) or {}, plain.pop("callbacks", None) or {}
    kept: dict[str, Any] = {str(key): value for key, value in plain.items() if key not in _NOT_THE_RUN}
    kept["callbacks"] = {key: value for key, value in callbacks.items() if key not in _WATCHING}
    kept["ablation"] = {key: ablation.get(key) for key in _OF_THE_RUN}
    digest = hashlib.blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', arm).strip('_')}.{digest}"


def is_finished(folder: Path) -> bool:
    """Whether a run came to its end there: its figures, which are written last, can be read, and it did not fail."""
    if (folder / FAILED).exists():
        return False
    try:
        return isinstance(json.loads((folder / METRICS).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):  # cut off by a crash of the machine
        return False


def write_jobs(folder: Path, jobs: Sequence[str], about: Mapping[str, Any]) -> None:
    """Writes ``jobs.json``: the folders of the sweep's runs in the order of the arms, which its report is of.

    Args:
        folder: The sweep's folder.
        jobs: Folders, relative to it.
        about: How the sweep was started.
    """
    part = folder / f".{JOBS}"
    part.write_text(json.dumps({**about, "folders": list(jobs)}, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / JOBS)
