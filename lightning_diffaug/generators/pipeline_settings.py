"""The settings of a ready-made pipeline, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_diffaug.conditions.strength import Strengths
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.schedulers import SCHEDULERS

TASKS = ("text-to-image", "image-to-image", "inpainting", "controlnet", "class-conditional", "audio")
FROM_REAL = ("image-to-image", "inpainting", "controlnet")
"""Tasks that start from a real sample."""
NOISED = ("image-to-image", "inpainting")
"""Those that noise it to some strength."""
WITHOUT_PROMPT = ("class-conditional", "audio")
"""Tasks that are not of pictures and the prompts that go with them."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
CONTROLS = ("edges", "image")
ADDED_FILES = {"adapters": "pytorch_lora_weights.safetensors", "embeddings": "learned_embeds.safetensors"}
"""Settings that add weights to a model, and diffusers' own name for their file."""

_WHOLE = {"num_inference_steps": 1, "batch_size": 1}


@dataclass(frozen=True)
class Addition:
    """Weights that are added to a pipeline: a LoRA adapter or an embedding.

    Attributes:
        model: A ``.safetensors`` file, a folder with one, or a hub id.
        weight_name: The file's name where `model` is a folder or hub id; None: diffusers' own name for it.
        revision: Of a hub id.
        scale: How strongly a LoRA adapter acts.
        token: The word that an embedding stands for; None: as its file says.
    """

    model: str
    weight_name: str | None = None
    revision: str | None = None
    scale: float = 1.0
    token: str | None = None

    @classmethod
    def of(cls, given: Any, key: str) -> Addition:
        """From a path or hub id, or from a mapping of the attributes.

        Raises:
            ConfigurationError: It is neither, or names a file that is no safetensors.
        """
        try:
            addition = cls(given) if isinstance(given, str) else cls(**given)
        except TypeError as error:
            raise ConfigurationError(
                f"{key} holds {given!r}, which is neither a path or hub id nor a mapping with model, weight_name, "
                f"revision, scale, token. Set {key} to a list of those."
            ) from error
        name = addition.weight_name
        if name is not None and not name.endswith(".safetensors"):
            raise ConfigurationError(
                f"{key} names {name!r}, which is no .safetensors file: other formats can run code when they are read. "
                f"Convert it, and set weight_name in {key}."
            )
        return addition


def additions(given: Sequence[Any] | None, key: str) -> tuple[Addition, ...]:
    """All of a list of `Addition`."""
    return tuple(Addition.of(item, key) for item in given or ())


def pixels(size: Any) -> tuple[int, int] | None:
    """Height and width from a whole number, a pair, or None.

    Raises:
        ConfigurationError: It is something else.
    """
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 8 or n % 8 for n in pair):
        raise ConfigurationError(
            f"size={size!r} is no size of pictures: a multiple of 8 pixels, or [height, width]. Set generator.size to "
            "e.g. 512, or to null for the model's own."
        )
    return pair[0], pair[1]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Checks the arguments of `PipelineGenerator`.

    Raises:
        ConfigurationError: One is out of its range, or does not go with the task.
    """
    task, scheduler = settings["task"], settings["scheduler"]
    for name, value, known in (
        ("task", task, TASKS),
        ("dtype", settings["dtype"], DTYPES),
        ("control", settings["control"], CONTROLS),
        ("scheduler", scheduler, (None, *SCHEDULERS)),
    ):
        if value not in known:
            raise ConfigurationError(
                f"{name}={value!r} is unknown. Set generator.{name} to one of {', '.join(map(str, known))}."
            )
    for name, least in _WHOLE.items():
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(f"{name}={value!r} is no whole number from {least}. Set generator.{name} to one.")
    for name in ("guidance_scale", "control_scale"):
        if isinstance(settings[name], bool) or not isinstance(settings[name], (int, float)) or settings[name] < 0:
            raise ConfigurationError(f"{name}={settings[name]!r} is no number from 0. Set generator.{name} to one.")
    _check_start(settings)
    if (task == "controlnet") != (settings["controlnet"] is not None):
        raise ConfigurationError(
            f"task={task!r} and controlnet={settings['controlnet']!r} do not go together: the task controlnet needs "
            "the folder or hub id of one, other tasks none. Set generator.controlnet."
        )
    if task == "audio" and not (settings["sample_rate"] or 0) > 0:
        raise ConfigurationError(
            f"sample_rate={settings['sample_rate']!r}: the task audio needs the samples a second of the data. Set "
            "generator.sample_rate to e.g. 16000."
        )
    if not isinstance(settings["revision"], str) or not settings["revision"]:
        raise ConfigurationError(
            f"revision={settings['revision']!r} is no branch, tag or commit. Set generator.revision to e.g. main."
        )


def _check_start(settings: Mapping[str, Any]) -> None:
    task, strength, repaint = settings["task"], settings["strength"], settings["repaint"]
    lowest = Strengths.of(strength).low
    if lowest == 0.0:
        raise ConfigurationError(
            f"strength={strength!r} is not in (0, 1]: it is how far a real sample is noised before it is denoised "
            "again. Set generator.strength to e.g. 0.6."
        )
    if lowest < 1.0 and task not in NOISED:
        raise ConfigurationError(
            f"strength={strength} has no meaning for task={task!r}, which starts from noise. Set "
            "generator.task=image-to-image, or generator.strength=1."
        )
    if int(settings["num_inference_steps"] * lowest) < 1:
        raise ConfigurationError(
            f"strength={strength} of num_inference_steps={settings['num_inference_steps']} is less than one step. "
            "Raise generator.num_inference_steps or generator.strength."
        )
    if isinstance(repaint, bool) or not isinstance(repaint, (int, float)) or not 0.0 < repaint < 1.0:
        raise ConfigurationError(
            f"repaint={repaint!r} is not in (0, 1): it is the share of a real sample's area that inpainting makes "
            "anew. Set generator.repaint to e.g. 0.5."
        )
