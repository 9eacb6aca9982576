"""Which device a generator computes on, so that it keeps out of the trainer's way where it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lightning_diffaug.errors import ConfigurationError

AUTO = "auto"
_UNUSABLE = "device='{}' cannot be used here ({}). Set generator.device to auto or cpu."


def choose_device(wanted: str, trainer_devices: Sequence[int], cuda_count: int) -> str:
    """The device that a setting stands for.

    ``"auto"``: a GPU that the trainer does not use, the last one if there are several; else the GPU of the trainer's
    process that looks after the generator; else the CPU. Other accelerators are used when they are named.

    Args:
        wanted: The setting: ``"auto"``, or a device of torch, which is taken as it is.
        trainer_devices: Indices of the GPUs on this node that training computes on, the process that looks after the
            generator first; () where it uses none, or where that is not known.
        cuda_count: GPUs of this node that processes may use.
    """
    if wanted != AUTO:
        return wanted
    free = [index for index in range(cuda_count) if index not in trainer_devices]
    if free:
        return f"cuda:{free[-1]}"  # the last: who takes a GPU without being asked takes the first
    return f"cuda:{trainer_devices[0]}" if cuda_count else "cpu"


def named_device(wanted: str, trainer_devices: Sequence[int] = ()) -> torch.device:
    """The device that a setting stands for on this machine, not yet touched; see `choose_device`.

    Raises:
        ConfigurationError: It is no name of a device.
    """
    try:
        return torch.device(choose_device(wanted, trainer_devices, torch.cuda.device_count()))
    except RuntimeError as error:
        raise ConfigurationError(_UNUSABLE.format(wanted, error)) from error


def resolve_device(wanted: str, trainer_devices: Sequence[int] = ()) -> torch.device:
    """As `named_device`, and it is there.

    Raises:
        ConfigurationError: There is no such device.
    """
    device = named_device(wanted, trainer_devices)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(_UNUSABLE.format(device, error)) from error
    return device


def tell_trainer_devices(generator: Any, trainer_devices: Sequence[int]) -> None:
    """Tells a generator with an attribute ``trainer_devices`` which GPUs of this node training computes on."""
    if hasattr(generator, "trainer_devices"):
        generator.trainer_devices = tuple(trainer_devices)
