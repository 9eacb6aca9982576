"""What a loaded pipeline is given: a task, a scheduler, adapters, embeddings."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.pipeline_load import dtype_argument, quiet, without_deprecations
from lightning_diffaug.generators.pipeline_model import absent, check_present, local, may_fetch
from lightning_diffaug.generators.pipeline_settings import ADDED_FILES, Addition, additions
from lightning_diffaug.generators.schedulers import FLOW, make_scheduler


def for_task(pipe: Any, task: str, controlnet: str | None, dtype: torch.dtype, download: bool) -> Any:
    """The pipeline that does a task with the parts of the one that was loaded.

    Raises:
        ConfigurationError: The model has no pipeline for it, or the ControlNet cannot be loaded.
    """
    import diffusers

    try:
        if task == "image-to-image":
            return diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
        if task == "inpainting":
            return diffusers.AutoPipelineForInpainting.from_pipe(pipe)
        if task == "controlnet" and controlnet is not None:
            return diffusers.AutoPipelineForText2Image.from_pipe(
                pipe, controlnet=_controlnet(controlnet, dtype, download)
            )
    except ValueError as error:
        raise ConfigurationError(
            f"task={task!r}: diffusers has none for a {type(pipe).__name__} ({error}). Set generator.task to another "
            "one, or generator.model to a model that does it."
        ) from error
    return pipe


def _controlnet(model: str, dtype: torch.dtype, download: bool) -> Any:
    from diffusers import ControlNetModel
    from diffusers.utils import is_accelerate_available

    path = local(model)
    try:
        with quiet():
            return ControlNetModel.from_pretrained(
                model if path is None else str(path), **dtype_argument(dtype), use_safetensors=True,
                local_files_only=not download, low_cpu_mem_usage=is_accelerate_available(),
            )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        why = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ConfigurationError(absent(model, None, "generator.controlnet", why)) from error


def set_scheduler(pipe: Any, name: str) -> None:
    """Gives a pipeline another scheduler, on the noise schedule that its model was trained with.

    Raises:
        ConfigurationError: The scheduler cannot use what the model predicts.
    """
    config = pipe.scheduler.config
    flow = "FlowMatch" in type(pipe.scheduler).__name__ or config.get("use_flow_sigmas")
    prediction = FLOW if flow else config.get("prediction_type", "epsilon")
    cls = type(make_scheduler(name, prediction))
    changed: dict[str, Any] = {}
    if type(pipe).__name__.startswith("Flux") and name != "flow_euler" and not config.get("use_dynamic_shifting"):
        raise ConfigurationError(
            f"scheduler={name!r} cannot follow this {type(pipe).__name__}, whose noise schedule does not shift with "
            "the size of its pictures. Set generator.scheduler to one of flow_euler, null."
        )
    if flow and name != "flow_euler":
        changed = {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "flow_shift": config.get("shift", 1.0),
        }
    with without_deprecations():
        pipe.scheduler = cls.from_config(config, **changed)


def add_weights(pipe: Any, adapters: Sequence[Addition], embeddings: Sequence[Addition], download: bool) -> None:
    """Adds LoRA adapters and textual-inversion embeddings.

    Raises:
        ConfigurationError: One cannot be loaded, or the package peft is missing.
    """
    if adapters:
        check_peft("generator.adapters")
    names = [f"adapter_{i}" for i in range(len(adapters))]
    for kind, added in (("adapters", adapters), ("embeddings", embeddings)):
        for i, one in enumerate(added):
            where: dict[str, Any] = {"use_safetensors": True, "local_files_only": not download}
            where |= {name: value for name, value in vars(one).items() if name in ("revision", "weight_name") and value}
            path = local(one.model)
            if path is not None and path.is_file():
                where["weight_name"], path = path.name, path.parent
            source = one.model if path is None else str(path)
            try:
                with quiet():
                    if kind == "adapters":
                        pipe.load_lora_weights(source, adapter_name=names[i], **where)
                    else:
                        pipe.load_textual_inversion(source, token=one.token, **where)
            except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
                why = f"{type(error).__name__}: {error}".split("\n")[0]
                raise ConfigurationError(absent(one.model, one.revision, f"generator.{kind}", why)) from error
    if names:
        pipe.set_adapters(names, [one.scale for one in adapters])


def check_added(settings: Mapping[str, Any]) -> None:
    """Checks that what is added to a model is here, in a form that is read, and can be added; nothing is read.

    Args:
        settings: Of the generator.

    Raises:
        ConfigurationError: It is not.
    """
    download, controlnet = settings["download"], settings["controlnet"]
    if settings["adapters"]:
        check_peft("generator.adapters")
    if controlnet is not None and not may_fetch(controlnet, download):
        check_present(controlnet, None, "generator.controlnet", files=("config.json",))
    for kind, usual in ADDED_FILES.items():
        for one in additions(settings[kind], f"generator.{kind}"):
            path = local(one.model)
            if path is not None and path.is_file() and path.suffix != ".safetensors":
                raise ConfigurationError(
                    f"generator.{kind}: {path} is no .safetensors file, and reading other formats can run code. "
                    f"Convert it, and set generator.{kind} to the converted file."
                )
            if not may_fetch(one.model, download):
                check_present(one.model, one.revision, f"generator.{kind}", files=(one.weight_name or usual,))


def check_peft(key: str) -> None:
    """Refuses LoRA where the package peft is missing.

    Raises:
        ConfigurationError: It is missing.
    """
    if importlib.util.find_spec("peft") is None:  # importing it takes seconds
        raise ConfigurationError(
            f"{key} needs the package peft, which is not installed. Run: pip install 'lightning-diffaug[lora]'"
        )


def native_size(pipe: Any) -> tuple[int, int]:
    """Height and width that a pipeline makes by default.

    Raises:
        GeneratorError: Its parts do not say.
    """
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    size = getattr(pipe, "default_sample_size", None) or getattr(getattr(denoiser, "config", None), "sample_size", None)
    if size is None:
        raise GeneratorError(f"{type(pipe).__name__} does not say how large its pictures are. Set generator.size.")
    pair = (size, size) if isinstance(size, int) else tuple(size)
    factor = int(getattr(pipe, "vae_scale_factor", 8))
    return int(pair[0]) * factor, int(pair[1]) * factor
