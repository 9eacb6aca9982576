"""Between the data's samples and a pipeline's own: what goes into a call, and what becomes of its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.protocol import MASK, START, Condition

CONTROL = "control"
"""Key of a condition with what a ControlNet follows: float32 (n, C, H, W) in [-1, 1]; goes before the start."""

_LUMA = (0.299, 0.587, 0.114)


def real_samples(condition: Condition, key: str, n: int) -> Tensor:
    """The real samples of a condition, float32 (n, …).

    Raises:
        GeneratorError: There are none.
    """
    if key not in condition:
        raise GeneratorError(
            f"the condition has {sorted(condition)} and no {key!r}: this task starts from real samples. Set "
            "generator.task=text-to-image, or give a planner whose plan holds them."
        )
    given = condition[key]
    if isinstance(given, Mapping):
        given = next(iter(given.values()))
    samples = torch.as_tensor(given, dtype=torch.float32)
    if len(samples) != n:
        raise GeneratorError(f"condition[{key!r}] has {len(samples)} rows for {n} seeds.")
    return samples


def to_rgb(samples: Tensor, size: tuple[int, int]) -> Tensor:
    """Samples (n, 1 … 4, h, w) in [-1, 1] as pictures (n, 3, *size) in [0, 1]."""
    colour = samples[:, :3] if samples.shape[1] >= 3 else samples[:, :1].expand(-1, 3, -1, -1)
    return (resized(colour, size) + 1.0) / 2.0


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images in [-1, 1], cropped around their centre to the proportions of `size` and resampled with antialiasing."""
    height, width = images.shape[-2:]
    if (height, width) == size:
        return images
    scale = min(height / size[0], width / size[1])
    crop = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    images = images[..., top : top + crop[0], left : left + crop[1]]
    scaled = functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    clipped: Tensor = scaled.clamp(-1.0, 1.0)
    return clipped


def edges(pictures: Tensor) -> Tensor:
    """Edges of pictures (n, 3, H, W) in [0, 1], white on black: the gradient's size (Sobel), the largest being 1."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    grey = functional.pad(pictures.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    both = functional.conv2d(grey, torch.stack((kernel, kernel.T))[:, None])
    gradient = both.square().sum(1, keepdim=True).sqrt()
    return (gradient / gradient.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)).expand(-1, 3, -1, -1)


def controls(condition: Condition, n: int, kind: str, size: tuple[int, int]) -> Tensor:
    """What a ControlNet follows, (n, 3, *size) in [0, 1]: the condition's own, or the start (or its edges)."""
    if CONTROL in condition:
        return to_rgb(real_samples(condition, CONTROL, n), size)
    pictures = to_rgb(real_samples(condition, START, n), size)
    return edges(pictures) if kind == "edges" else pictures


def called_strength(strength: float, steps: int) -> float:
    """The strength that a call is made with: one for all that noise a sample by the same number of steps.

    A pipeline rounds ``steps * strength`` in its own way. Between two whole numbers any way gives the same, so samples
    of like strengths can share a call, and are the same whatever strengths they share it with.

    Args:
        strength: A row's own, in (0, 1].
        steps: Of a whole reverse process.

    Raises:
        GeneratorError: It is less than one step.
    """
    noised = steps * strength
    if int(noised) < 1:
        raise GeneratorError(
            f"strength={strength} of num_inference_steps={steps} is less than one step. Raise "
            "generator.num_inference_steps, or the planner's strengths."
        )
    return strength if noised == int(noised) else (int(noised) + 0.5) / steps


def started(
    condition: Condition, n: int, settings: Mapping[str, Any], strength: float, size: tuple[int, int], known: set[str]
) -> dict[str, Any]:
    """Arguments of a pipeline's call that starts from real samples or follows them.

    Args:
        condition: Holds the real samples.
        n: Samples of the call.
        settings: Of the generator.
        strength: How far the real samples are noised.
        size: Height and width of the pipeline's own pictures.
        known: Names of the call's arguments.

    Raises:
        GeneratorError: There are no real samples.
    """
    shape = {name: pixels for name, pixels in zip(("height", "width"), size, strict=True) if name in known}
    if settings["task"] == "controlnet":
        image = controls(condition, n, settings["control"], size)
        name = "control_image" if "control_image" in known else "image"
        return shape | {name: image, "controlnet_conditioning_scale": float(settings["control_scale"])}
    given = shape | {"image": to_rgb(real_samples(condition, START, n), size), "strength": strength}
    if settings["task"] == "inpainting":
        keep = real_samples(condition, MASK, n).amax(1, keepdim=True)
        given["mask_image"] = functional.interpolate(1.0 - keep, size)
    return given


def from_pictures(pictures: Any, shape: Sequence[int]) -> Tensor:
    """A pipeline's pictures, numpy (n, H, W, 3) in [0, 1], as samples (n, *shape) in [-1, 1]."""
    images = torch.as_tensor(pictures, dtype=torch.float32).permute(0, 3, 1, 2) * 2.0 - 1.0
    images = resized(images, (shape[1], shape[2]))
    if shape[0] == 1 and images.shape[1] == 3:
        images = (images * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    elif shape[0] == 4 and images.shape[1] == 3:
        images = torch.cat((images, torch.ones_like(images[:, :1])), dim=1)
    return images.contiguous()


def from_audio(audio: Any, rate: int, shape: Sequence[int], sample_rate: int) -> Tensor:
    """A pipeline's sound, (n, samples) or (n, channels, samples), as samples (n, *shape) in [-1, 1]."""
    from scipy.signal import resample_poly

    sound = torch.as_tensor(audio, dtype=torch.float32).cpu()
    sound = sound[:, None] if sound.ndim == 2 else sound
    if rate != sample_rate:
        sound = torch.from_numpy(resample_poly(sound.numpy(), sample_rate, rate, axis=-1)).float()
    channels = shape[0] if len(shape) == 2 else 1
    if sound.shape[1] != channels:
        sound = sound.mean(1, keepdim=True).expand(-1, channels, -1)
    missing = shape[-1] - sound.shape[-1]
    sound = functional.pad(sound, (0, missing)) if missing > 0 else sound[..., : shape[-1]]
    return sound.clamp(-1.0, 1.0).reshape(len(sound), *shape).contiguous()


def audio_rate(pipe: Any) -> int:
    """Samples a second that an audio pipeline makes.

    Raises:
        GeneratorError: Its parts do not say.
    """
    for part in ("vocoder", "vae"):
        config = getattr(getattr(pipe, part, None), "config", {})
        if rate := config.get("sampling_rate") if hasattr(config, "get") else getattr(config, "sampling_rate", None):
            return int(rate)
    raise GeneratorError(f"{type(pipe).__name__} does not say its sampling rate, so it is no audio pipeline.")


def class_ids(class_names: Sequence[str], names: Mapping[str, Any], pipe: Any) -> list[int]:
    """The model's own class of each class of the data.

    Args:
        class_names: Class names in order.
        names: Class name → the model's class, as its number or one of its names.
        pipe: A class-conditional pipeline.

    Raises:
        ConfigurationError: The model has no such class.
    """
    known = {str(name): int(number) for name, number in (getattr(pipe, "labels", None) or {}).items()}
    total = int(pipe.transformer.config.num_embeds_ada_norm or 0)
    found = {name: names.get(name, name) for name in class_names}
    ids = {name: known.get(given, -1) if isinstance(given, str) else given for name, given in found.items()}
    wrong = [name for name, number in ids.items() if not 0 <= number < total]
    if wrong or len(set(ids.values())) < len(ids):
        some = f", or a name such as {', '.join(list(known)[:5])}" if known else ""
        raise ConfigurationError(
            f"generator.names does not say which of the model's {total} classes {wrong or list(ids)} are, one for "
            f"each. Set generator.names to {{class: number in 0..{total - 1}{some}}}."
        )
    return list(ids.values())
