"""What do gates cost? Each gate and the default chain as a share of the time that generation takes.

The default generator on the demo's digits, and on 10,000 images of 3x32x32 that are made here; there, gates see other
images of that kind in place of what a long fit would make. A slot at a time, each of new samples, as in a run. Seconds
are of processor time, which other jobs on the machine disturb less.

python benchmarks/gates.py
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from support import interleaved, snapshot_of
from torch import Tensor
from torch.nn import functional

from lightning_diffaug import DiffusionGenerator
from lightning_diffaug.data import DigitsDataModule
from lightning_diffaug.gates import NotCopy, RightClass, judge
from lightning_diffaug.gates.choice import chosen_gates
from lightning_diffaug.refill.job import fitted_part
from lightning_diffaug.snapshot import Snapshot

SLOT = 64
WANTED = 0.2
MANY = 10_000


def digits() -> Snapshot:
    """The demo's few-shot training part."""
    train = DigitsDataModule(shots=80, rare_classes=5, rare_shots=5).splits.train
    return snapshot_of(train.images, train.targets)


def structured(n: int, seed: int = 0) -> Snapshot:
    """Images of 3x32x32 with something at every scale, of ten classes."""
    rng = torch.Generator().manual_seed(seed)
    x = 0.05 * torch.randn(n, 3, 32, 32, generator=rng)
    for cells, weight in ((2, 0.5), (4, 0.4), (8, 0.3), (16, 0.2)):
        rough = torch.randn(n, 3, cells, cells, generator=rng)
        x += weight * functional.interpolate(rough, (32, 32), mode="bilinear")
    levels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return snapshot_of(levels, (torch.arange(n) % 10).tolist())


def fitted(generator: Any, data: Snapshot) -> float:
    """Fits it and loads it; the seconds of that."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        generator.fit(data, Path(folder), lambda step, total: None)
        generator.load(Path(folder))
    return time.process_time() - started


def measured(title: str, data: Snapshot, steps: int, rounds: int, others: Snapshot | None = None) -> float:
    """Prints the table of one data set; the share of the default chain. `others` are seen in place of what is made."""
    generator = DiffusionGenerator(device="cpu", fit={"steps": steps})
    fitted(generator, data)
    conditions = {"label": torch.arange(SLOT) % 10}
    seeds = itertools.count(step=SLOT)

    def generated() -> dict[str, Tensor]:
        first = next(seeds)
        made: dict[str, Tensor] = generator.generate(conditions, range(first, first + SLOT))
        return made

    if others is None:
        slots = [generated() for _ in range(rounds + 1)]  # and one to warm up
    else:
        slots = [{"image": part} for part in others.unit("image").split(SLOT)]
    gates: dict[str, Any] = {gate.name: gate for gate in chosen_gates(None)}
    gates |= {"class": RightClass(), "copy, encoder=class": NotCopy(encoder="class")}
    once: list[str] = []
    for name, gate in gates.items():
        if (part := fitted_part(gate)) is not None:
            once.append(f"the classifier of {name!r} is fitted in {fitted(part, data):.1f} s")
        if hasattr(gate, "bind"):
            started = time.process_time()
            gate.bind(data)
            once.append(f"{name!r} learns the data in {time.process_time() - started:.2f} s")

    def through(gates: Sequence[Any]) -> Callable[[], object]:
        samples = itertools.cycle(slots)
        return lambda: judge(next(samples), conditions, gates, SLOT)

    chain = chosen_gates(None)  # apart from those alone: distances that were found once are kept
    for gate in chain:
        if hasattr(gate, "bind"):
            gate.bind(data)
    tasks: dict[str, Callable[[], object]] = {"generation": generated, "the default chain": through(chain)}
    tasks |= {name: through([gate]) for name, gate in gates.items()}
    seconds = interleaved(tasks, rounds, time.process_time)
    base = statistics.median(seconds["generation"])
    print(f"\n{title}: {len(data)} training samples, slots of {SLOT}, one thread; medians of {rounds} rounds")
    for name, values in seconds.items():
        low, high = min(values) / base, max(values) / base
        median = statistics.median(values)
        print(f"  {name:<22} {median / base:7.2%}   [{low:.2%} … {high:.2%}]   {median * 1e3:9.1f} ms a slot")
    print(f"  once: {'; '.join(once)}")
    return statistics.median(seconds["the default chain"]) / base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
    share = measured("digits 8x8", digits(), 30, arguments.rounds)
    others = structured((arguments.rounds + 1) * SLOT, seed=1)
    measured("images 3x32x32", structured(MANY), 2, arguments.rounds, others)
    print(f"\nthe default chain costs {share:.1%} of generation on the default; below {WANTED:.0%} is wanted")


if __name__ == "__main__":
    main()
