"""A generator keeps off the trainer's GPU where there is another; what torch cannot do here is said with its key."""

from __future__ import annotations

import pytest
import torch

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.device import choose_device, resolve_device, tell_trainer_devices


@pytest.mark.parametrize(
    ("trainer_devices", "cuda_count", "chosen"),
    [
        ((), 0, "cpu"),
        ((), 1, "cuda:0"),  # the trainer is on the CPU
        ((), 4, "cuda:3"),  # not known: not the first
        ((0,), 1, "cuda:0"),  # the same, where there is no other
        ((0,), 2, "cuda:1"),
        ((1,), 2, "cuda:0"),
        ((0, 1), 4, "cuda:3"),  # ddp
        ((0, 1, 3), 4, "cuda:2"),
        ((0, 1, 2, 3), 4, "cuda:0"),  # ddp on all of them: that of the rank that looks after the generator
        ((2, 0, 1, 3), 4, "cuda:2"),
        ((0,), 0, "cpu"),  # hidden from this process
    ],
)
def test_auto_takes_a_gpu_that_the_trainer_does_not_use(
    trainer_devices: tuple[int, ...], cuda_count: int, chosen: str
) -> None:
    assert choose_device("auto", trainer_devices, cuda_count) == chosen


@pytest.mark.parametrize("wanted", ["cpu", "cuda", "cuda:0", "mps"])
def test_a_named_device_is_taken_as_it_is(wanted: str) -> None:
    assert choose_device(wanted, (0,), 2) == wanted


def test_auto_is_the_cpu_here() -> None:
    assert resolve_device("auto") == resolve_device("auto", (0,)) == torch.device("cpu")


@pytest.mark.parametrize("wanted", ["cuda:99", "warp"])
def test_a_device_that_is_not_there_is_refused_with_its_key(wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{wanted}.*generator\.device"):
        resolve_device(wanted)


def test_only_a_generator_that_asks_is_told_of_the_trainers_gpus() -> None:
    class Asks:
        trainer_devices: tuple[int, ...] = ()

    asks, other = Asks(), object()
    tell_trainer_devices(asks, [1, 0])
    tell_trainer_devices(other, [1, 0])
    assert asks.trainer_devices == (1, 0)
