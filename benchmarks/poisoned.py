"""What does each gate catch, and what does it cost? A fitted generator whose samples are poisoned by known shares.

Digits as in a run of the demo: 80 training images of common classes, 5 of rare ones. The same samples go before each
gate alone and before the default chain, and as many that nothing was done to.

python benchmarks/poisoned.py
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC
from support import snapshot_of
from torch import Tensor

from lightning_diffaug import DiffusionGenerator
from lightning_diffaug.conditions import QuotaPlanner, take
from lightning_diffaug.data import DigitsDataModule
from lightning_diffaug.gates import Gate, judge
from lightning_diffaug.gates.choice import ON, chosen_gates
from lightning_diffaug.pool import fingerprint
from lightning_diffaug.refill.fitted import ensure_fitted, fitted_folder
from lightning_diffaug.refill.job import fitted_part
from lightning_diffaug.refill.recipe import row_seed
from lightning_diffaug.snapshot import Snapshot

HONEST = "honest"
SHARES = {
    "of another class": 0.30,
    "training image": 0.05,
    "training image, noisy": 0.05,
    "training image, moved by a pixel": 0.05,
    "training image, moved, noisy": 0.05,
    "training image, mirrored": 0.05,
    "training image, mirrored, noisy": 0.05,
    "test image": 0.05,
    "test image, moved by a pixel": 0.05,
    "blank": 0.05,
    "NaN": 0.05,
    "twice in a slot": 0.05,
}
"""Share of the rows that are poisoned so; the others are honest."""
OF_CLASS: dict[str, dict[str, float]] = {"class": {}, "class, confidence 0.9": {"confidence": 0.9}}
"""The gate of class, which is off by default."""
NOISE = 0.05  # standard deviation, of values in [-1, 1]


@dataclass(frozen=True)
class Digits:
    """The demo's data.

    Attributes:
        train: The few-shot training part.
        held_out: Validation and test images.
        test: Test images of each class, float32 (n, C, H, W) in [-1, 1].
    """

    train: Snapshot
    held_out: Snapshot
    test: list[Tensor]


def digits(**settings: Any) -> Digits:
    """80 training images of common classes, 5 of rare ones, or as the settings of the module say."""
    splits = DigitsDataModule(**({"shots": 80, "rare_classes": 5, "rare_shots": 5} | settings)).splits
    train, held_out = (
        snapshot_of(
            torch.cat([torch.as_tensor(part.images) for part in parts]), [c for part in parts for c in part.targets]
        )
        for parts in ([splits.train], [splits.val, splits.test])
    )
    images, labels = held_out.unit("image")[-len(splits.test) :], torch.tensor(splits.test.targets)
    return Digits(train, held_out, [images[labels == c] for c in range(len(train.class_names))])


class PoisonedGenerator:
    """A generator that replaces some of another one's samples; a row's seed says how.

    Args:
        generator: Makes the honest samples, of images alone.
        data: What copies are of.
        shares: Kind → share of the rows.

    Attributes:
        kinds: What was done to the row of each seed so far.
    """

    def __init__(self, generator: Any, data: Digits, shares: Mapping[str, float] = SHARES) -> None:
        assert data.train.labels is not None
        images = data.train.unit("image")
        self._generator, self._test = generator, data.test
        self._train = [images[data.train.labels == c] for c in range(len(data.test))]
        self._names = [*shares, HONEST]
        self._bounds = np.cumsum(list(shares.values()))
        self.kinds: dict[int, str] = {}

    def kind_of(self, seed: int) -> str:
        """What the row of a seed is to be; honest in place of a duplicate where nothing honest was before it."""
        return self._names[int(np.searchsorted(self._bounds, np.random.default_rng(seed).random(), side="right"))]

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        """float32 (n, C, H, W); NaN and blank ones among them."""
        kinds = [self.kind_of(seed) for seed in seeds]
        rngs = [np.random.default_rng([seed, 1]) for seed in seeds]
        classes = len(self._train)
        wrong = torch.tensor([kind == "of another class" for kind in kinds])
        other = torch.tensor([int(rng.integers(1, classes)) for rng in rngs])
        label = torch.where(wrong, (condition["label"] + other) % classes, condition["label"])
        made: Tensor = self._generator.generate({**condition, "label": label}, seeds)["image"].clone()
        honest: Tensor | None = None
        for i, (kind, rng) in enumerate(zip(kinds, rngs, strict=True)):
            if kind == "twice in a slot" and honest is None:
                kinds[i] = HONEST  # nothing before it that it could be equal to
            if kinds[i] == HONEST:
                honest = made[i]
            elif kind == "twice in a slot":
                assert honest is not None
                made[i] = honest
            elif kind == "blank":
                made[i] = rng.uniform(-1, 1)
            elif kind == "NaN":
                made[i].view(-1)[rng.integers(made[i].numel())] = torch.nan
            elif not wrong[i]:
                images = (self._test if kind.startswith("test") else self._train)[int(label[i])]
                made[i] = _changed(images[rng.integers(len(images))], kind, rng)
        self.kinds |= dict(zip(seeds, kinds, strict=True))
        return made


def _changed(image: Tensor, kind: str, rng: np.random.Generator) -> Tensor:
    if "mirrored" in kind:
        image = image.flip(-1)
    if "moved" in kind:
        axis, step = int(rng.integers(1, 3)), int(rng.choice([-1, 1]))
        image = image.roll(step, axis)
        image.select(axis, 0 if step == 1 else -1).fill_(-1.0)  # the background comes in
    if "noisy" in kind:
        image = image + torch.from_numpy(rng.normal(0, NOISE, image.shape)).float()
    return image.clamp(-1.0, 1.0)


@dataclass(frozen=True)
class Slot:
    """What was made of a slot before any gate."""

    samples: dict[str, Tensor]
    condition: Mapping[str, Any]
    kinds: list[str]


Column = Callable[[Sequence[Slot]], dict[str, float]]
"""Of slots, the share of each kind that is rejected."""


def slots(generator: PoisonedGenerator, number: int, size: int = 64) -> list[Slot]:
    """Slots of all classes alike."""
    planner, made = QuotaPlanner([1.0] * 10), []
    for slot in range(number):
        condition, seeds = planner.plan(slot, size), [row_seed(0, slot, row, 0) for row in range(size)]
        samples = generator.generate(condition, seeds)
        made.append(Slot({"image": samples}, condition, [generator.kinds[seed] for seed in seeds]))
    return made


def rejected(made: Sequence[Slot], gates: Sequence[Gate], counted: Sequence[str] = ()) -> dict[str, float]:
    """The share of each kind that is rejected: by any gate, or by those of the names `counted`."""
    all_of, caught = Counter[str](), Counter[str]()
    for slot in made:
        judged = judge(slot.samples, slot.condition, gates, len(slot.kinds))
        all_of.update(slot.kinds)
        caught.update(
            kind
            for kind, one in zip(slot.kinds, judged, strict=True)
            if one.reason is not None and (not counted or one.reason in counted)
        )
    return {kind: caught[kind] / n for kind, n in all_of.items()}


def fit(part: Any, snapshot: Snapshot, cache: Path) -> None:
    """Fits a generator or what a gate asks on the training part; like ones once."""
    folder = fitted_folder(cache, fingerprint({"class": type(part).__name__, "fit": part.fit_key()}))
    ensure_fitted(part, folder, lambda: snapshot, lambda step, total: None, "poisoned")


def fitted(snapshot: Snapshot, cache: Path, steps: int = 500) -> DiffusionGenerator:
    """The demo's generator, fitted on the training part."""
    generator = DiffusionGenerator(device="cpu", fit={"steps": steps})
    fit(generator, snapshot, cache)
    return generator


def ready(chosen: Mapping[str, Any] | None, data: Digits, cache: Path) -> list[Any]:
    """Gates that know the training data, fitted on them where they have something to fit."""
    gates = chosen_gates(chosen)
    for gate in gates:
        if (part := fitted_part(gate)) is not None:
            fit(part, data.train, cache)
        if hasattr(gate, "bind"):
            gate.bind(data.train)
        if hasattr(gate, "bind_held_out"):
            gate.bind_held_out(data.held_out)
    return gates


def table(
    columns: Mapping[str, Column],
    poisoned: Sequence[Slot],
    honest: Sequence[Slot],
) -> str:
    """Markdown: a row a kind, a column a gate, per cent rejected."""
    found = {name: column(poisoned) | {HONEST: column(honest)[HONEST]} for name, column in columns.items()}
    counts = Counter(kind for slot in poisoned for kind in slot.kinds)
    counts[HONEST] = sum(len(slot.kinds) for slot in honest)
    lines = [f"| rejected, % | samples | {' | '.join(found)} |", "|:--|--:|" + "--:|" * len(found)]
    for kind in (*SHARES, HONEST):
        cells = [f"{100 * column[kind]:.1f}" if column[kind] else "·" for column in found.values()]
        lines.append(f"| {kind} | {counts[kind]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def alone(name: str, data: Digits, cache: Path, **arguments: Any) -> Column:
    """What one gate rejects of that which is finite."""
    gates = ready(dict.fromkeys(ON, False) | {"finite": True, name: arguments or True}, data, cache)
    return lambda made: rejected(made, gates, [name])


def judged_by_more_data(honest: Sequence[Slot], columns: Mapping[str, Column]) -> str:
    """What gates of class reject of the honest samples that a classifier of more data takes for their class."""
    whole = digits(shots=None, rare_classes=0, rare_shots=None).train
    referee = SVC().fit(whole.unit("image").flatten(1).numpy(), whole.labels)
    right = []
    for slot in honest:
        said = torch.from_numpy(referee.predict(slot.samples["image"].flatten(1).numpy()))
        kept = (said == slot.condition["label"]).nonzero()[:, 0]
        samples = {"image": slot.samples["image"][kept]}
        right.append(Slot(samples, take(slot.condition, kept.tolist()), [HONEST] * len(kept)))
    share = sum(len(slot.kinds) for slot in right) / sum(len(slot.kinds) for slot in honest)
    wrongly = ", ".join(f"{title} {column(right)[HONEST]:.1%}" for title, column in columns.items())
    return (
        f"A classifier fitted on all {len(whole)} training images takes {share:.1%} of the honest samples for their "
        f"class; of these are rejected by {wrongly}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=64, help="slots of 64 samples, poisoned and again honest")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
    with tempfile.TemporaryDirectory() as cache:
        print(measured(arguments.slots, Path(cache)))


def measured(number: int, cache: Path) -> str:
    """The table, and what the gate of class takes of what is right."""
    data = digits()
    generator = fitted(data.train, cache)
    poisoned = slots(PoisonedGenerator(generator, data), number)
    honest = slots(PoisonedGenerator(generator, data, {}), number)
    columns = {name: alone(name, data, cache) for name in ON}
    default = ready(None, data, cache)
    columns["the defaults"] = lambda made: rejected(made, default)
    columns |= {title: alone("class", data, cache, **arguments) for title, arguments in OF_CLASS.items()}
    columns["contamination"] = alone("contamination", data, cache)
    of_class = {title: columns[title] for title in OF_CLASS}
    return f"{table(columns, poisoned, honest)}\n\n{judged_by_more_data(honest, of_class)}"


if __name__ == "__main__":
    main()
