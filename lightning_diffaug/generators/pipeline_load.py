"""From a local folder or hub id to a pipeline of diffusers: safetensors only, no remote code, no surprise download."""

from __future__ import annotations

import contextlib
import importlib
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.pipeline_model import absent, check_index, local

_BEAT_SECONDS = 5.0


@contextlib.contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Shows life while weights are read or downloaded; the hub's client ends a silent connection by itself."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(_BEAT_SECONDS):
            beat()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def without_deprecations() -> Iterator[None]:
    """Hides a deprecation between numpy 2 and torch that schedulers of diffusers run into."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars in a log, and the global random state as it was: building a network draws from it."""
    libraries: list[Any] = [importlib.import_module(f"{name}.utils.logging") for name in ("diffusers", "transformers")]
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def dtype_argument(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The type of weights under the name that this version of diffusers has for it."""
    from diffusers.utils import deprecation_utils

    return {"dtype" if hasattr(deprecation_utils, "_resolve_dtype") else "torch_dtype": dtype}


def load_pipeline(
    model: str,
    revision: str,
    variant: str | None,
    dtype: torch.dtype,
    download: bool,
    safety_checker: bool,
) -> Any:
    """Loads a pipeline onto the CPU.

    Args:
        model: Local folder or hub id.
        revision: Of a hub id.
        variant: Of the weights' files, such as ``"fp16"``.
        dtype: Of the weights.
        download: Whether what is not in the hub's cache is fetched.
        safety_checker: Whether the pipeline's own checker is loaded, where it has one.

    Raises:
        ConfigurationError: It cannot be loaded; the text says what to fetch and where to put it.
    """
    from diffusers import DiffusionPipeline
    from diffusers.utils import is_accelerate_available

    path = local(model)
    try:
        with quiet():
            if path is None:
                path = Path(
                    DiffusionPipeline.download(
                        model, revision=revision, variant=variant, use_safetensors=True,
                        local_files_only=not download, trust_remote_code=False,
                    )
                )  # fmt: skip
            index = check_index(path)
            without = {} if safety_checker else {"safety_checker": None, "requires_safety_checker": False}
            pipe = DiffusionPipeline.from_pretrained(
                str(path), **dtype_argument(dtype), variant=variant, use_safetensors=True, local_files_only=True,
                low_cpu_mem_usage=is_accelerate_available(), **{k: v for k, v in without.items() if k in index},
            )  # fmt: skip
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ConfigurationError(absent(model, revision, "generator.model", why, variant)) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe
