"""What does sampling cost beyond the network? The fitted default against its denoiser's passes alone, and a pipeline.

The floor is as many passes of the denoiser as there are steps, at the batch size that is fastest here. Seconds are of
processor time, which other jobs on the machine disturb less.

python benchmarks/throughput.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from sklearn.datasets import load_digits
from support import interleaved, snapshot_of

from lightning_diffaug import DiffusionGenerator
from lightning_diffaug.snapshot import Snapshot

STEPS, SLOT = 10, 64
BATCHES = (16, 32, 64, 128, 256, 512)
WANTED = 0.9


def digits() -> Snapshot:
    data = load_digits()
    images = torch.from_numpy(data.images * 255 / 16).round().to(torch.uint8).unsqueeze(1)
    return snapshot_of(images, data.target.tolist())


def pipeline(unet: UNet2DModel) -> DDIMPipeline:
    """A plain pipeline of diffusers around the same network, but for the class, which it cannot hand over."""
    config = {**unet.config, "num_class_embeds": None}
    pipe = DDIMPipeline(UNet2DModel.from_config(config), DDIMScheduler(timestep_spacing="trailing"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
    generator = DiffusionGenerator(num_inference_steps=STEPS, device="cpu", fit={"steps": 30})
    with tempfile.TemporaryDirectory() as folder:
        generator.fit(digits(), Path(folder), lambda step, total: None)
        generator.load(Path(folder))
    denoiser: Any = generator.sampler.denoiser

    def passes(n: int) -> Callable[[], object]:
        x, condition = torch.randn(n, 1, 8, 8), {"label": torch.arange(n) % 10}

        def run() -> None:
            with torch.inference_mode():
                denoiser(x, torch.tensor(500), condition)

        return run

    def samples(n: int) -> Callable[[], object]:
        return lambda: generator.generate({"label": torch.arange(n) % 10}, range(n))

    pipe = pipeline(denoiser.unet)

    def piped(n: int) -> Callable[[], object]:
        return lambda: pipe(batch_size=n, num_inference_steps=STEPS, output_type="np")

    size = generator.batch_size
    floor = {f"floor: {STEPS} passes of {n}": (n, STEPS, passes(n)) for n in BATCHES}
    made = {
        f"DiffusionGenerator, {size} at a time (the default)": (size, 1, samples(size)),
        f"DiffusionGenerator, a slot of {SLOT}": (SLOT, 1, samples(SLOT)),
        f"DDIMPipeline, {size} at a time": (size, 1, piped(size)),
        "DDIMPipeline, 1 at a time": (1, 1, piped(1)),
    }
    tasks = {**floor, **made}
    seconds = interleaved({name: task for name, (_, _, task) in tasks.items()}, arguments.rounds, time.process_time)
    rates = {
        name: [n / (times * spent) for spent in seconds[name]]  # samples a second of each round
        for name, (n, times, _) in tasks.items()
    }
    best = max(floor, key=lambda name: statistics.median(rates[name]))
    base = statistics.median(rates[best])
    print(
        f"\nsamples a second, digits 8x8, {STEPS} steps, one thread (medians of {arguments.rounds} interleaved rounds, "
        f"and as a share of {best!r})"
    )
    for name, values in rates.items():
        share = statistics.median(values) / base
        low, high = min(values) / base, max(values) / base
        print(f"  {name:<52} {share:5.2f}   [{low:.2f} … {high:.2f}]   {statistics.median(values):8.1f} /s")
    share = max(statistics.median(rates[name]) for name in list(made)[:2]) / base
    print(f"\nthe fitted default reaches {share:.2f} of the floor; at least {WANTED} is wanted")


if __name__ == "__main__":
    main()
