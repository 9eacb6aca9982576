"""Does it slow training? An epoch at fraction 0.5 against fraction 0 of the same loader, generator idle and at work.

python benchmarks/epoch_time.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from support import Images, NoiseGenerator, interleaved, print_ratios
from torch import nn

from lightning_diffaug import DiffAugDataModule, DiffusionGenerator
from lightning_diffaug.data import DigitsDataModule
from lightning_diffaug.models.classifier import small_cnn


def drain(loader: Any) -> None:
    for _ in loader:
        pass


def train(loader: Any, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shape = (3, 32, 32)
        mixes = {
            f"fraction {fraction}": DiffAugDataModule(
                Images(10_000, shape), NoiseGenerator(shape), fraction, balance="classes", batch_size=128,
                reuse=float("inf"), window=4096, cache_dir=folder,
            )
            for fraction in (0, 0.5)
        }  # fmt: skip
        for mix in mixes.values():
            drain(mix.train_dataloader())  # the pool is full, and frozen: the generator is idle from here on
        time.sleep(1)
        tasks = {name: (lambda mix=mix: drain(mix.train_dataloader())) for name, mix in mixes.items()}
        print_ratios("loader alone, 10,000 images of 3x32x32, idle generator", interleaved(tasks, rounds), "fraction 0")

        network = small_cnn(3, 10, 8)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        tasks = {
            name: (lambda mix=mix: train(mix.train_dataloader(), network, optimizer)) for name, mix in mixes.items()
        }
        print_ratios("training a small CNN, idle generator", interleaved(tasks, rounds), "fraction 0")
        for mix in mixes.values():
            mix.close()
        busy(Path(folder), max(2, rounds // 2))


def busy(folder: Path, rounds: int) -> None:
    """Digits at their default size, the fitted denoiser at work without a pause, in a process of nice 19."""

    def digits() -> DigitsDataModule:
        return DigitsDataModule(shots=80, rare_classes=5, rare_shots=5)

    generator = DiffusionGenerator(fit={"steps": 60})
    settings: dict[str, Any] = {
        "balance": "classes",
        "allocation": "deficit",
        "augment_synthetic": False,
        "cache_dir": folder,
    }
    resting = DiffAugDataModule(digits(), generator, 0, **settings)
    mixed = DiffAugDataModule(digits(), generator, 0.5, reuse=float("inf"), refill={"ahead": 100_000}, **settings)
    network = small_cnn(1, 10, 32)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def epochs(mix: DiffAugDataModule) -> None:
        for _ in range(20):
            train(mix.train_dataloader(), network, optimizer)

    epochs(mixed)  # fits the generator
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):  # the process starts and ends with each turn, so that "alone" is alone
        for name, mix in {"fraction 0, alone": resting, "fraction 0.5, generator at work": mixed}.items():
            if mix is mixed:
                next(iter(mixed.train_dataloader()))
                while not (before := mixed.figures()["pool/generated"]):
                    time.sleep(0.1)  # it starts up: that is no part of training
            started = time.perf_counter()
            epochs(mix)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
            if mix is mixed:
                made = (mixed.figures()["pool/generated"] - before) / seconds[name][-1]
                mixed.close()
    print_ratios("twenty epochs on digits, trainer on one thread", seconds, "fraction 0, alone")
    print(f"  the generator made about {made:.0f} samples a second beside the training of the last round")


if __name__ == "__main__":
    main()
