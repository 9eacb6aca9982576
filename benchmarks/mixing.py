"""What does an exact share cost? One epoch of the mix against the two usual ways to mix two data sets.

python benchmarks/mixing.py
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from lightning.pytorch.utilities import CombinedLoader
from support import Images, NoiseGenerator, interleaved, print_ratios
from torch.utils.data import ConcatDataset, DataLoader, WeightedRandomSampler

from lightning_diffaug import DiffAugDataModule

ROUNDS, N, BATCH, FRACTION = 7, 10_000, 128, 0.3


def main() -> None:
    torch.set_num_threads(1)
    shape = (3, 32, 32)
    real, synthetic = Images(N, shape), Images(4096, shape)
    weights = torch.cat([torch.full((N,), (1 - FRACTION) / N), torch.full((4096,), FRACTION / 4096)])
    sampler = WeightedRandomSampler(weights.tolist(), N)
    concat = DataLoader(ConcatDataset([real, synthetic]), BATCH, sampler=sampler)
    share = round(BATCH * FRACTION)
    combined = CombinedLoader(
        [DataLoader(real, BATCH - share, shuffle=True), DataLoader(synthetic, share, shuffle=True)], "max_size_cycle"
    )

    def drain(loader: Any) -> int:
        return sum(1 for _ in loader)

    with tempfile.TemporaryDirectory() as folder:
        mix = DiffAugDataModule(
            real, NoiseGenerator(shape), FRACTION, batch_size=BATCH, reuse=float("inf"), window=4096,
            return_source=True, cache_dir=folder,
        )  # fmt: skip
        counts = [int(batch[-1]["is_synthetic"].sum()) for batch in mix.train_dataloader()][:-1]
        tasks = {
            "DiffAugDataModule": lambda: drain(mix.train_dataloader()),
            "ConcatDataset and WeightedRandomSampler": lambda: drain(concat),
            "CombinedLoader (batches of lists)": lambda: drain(combined),
        }
        print_ratios(f"an epoch of {N} draws, share {FRACTION}", interleaved(tasks, ROUNDS), "DiffAugDataModule")
        mix.close()
    asked = BATCH * FRACTION
    print(f"\nsynthetic samples in a batch of {BATCH}, where {asked:.1f} are asked for:")
    print(f"  DiffAugDataModule                            {min(counts)} … {max(counts)}")
    drawn = [int((torch.multinomial(weights, BATCH, True) >= N).sum()) for _ in range(len(counts))]
    print(f"  WeightedRandomSampler                        {min(drawn)} … {max(drawn)}")


if __name__ == "__main__":
    main()
