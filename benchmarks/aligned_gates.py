"""What do the alignment gates tell apart? Real held-out pairs, and the same with partners of others, on demo data.

Each gate learns the real training pairs of an experiment and judges those of its test part; then the second field is
dealt out anew among the samples. Seconds are of processor time: of the fit, and of judging a slot of 64.

python benchmarks/aligned_gates.py [experiments]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from lightning_diffaug.fidelity.pooled import held_out_fields
from lightning_diffaug.gates.aligned.fields import Values, read, taken
from lightning_diffaug.gates.choice import ON, chosen_gates
from lightning_diffaug.paths import config_dir
from lightning_diffaug.real import RealTraining
from lightning_diffaug.snapshot import Snapshot

SLOT = 64
MOST = 1024
GATES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "segmentation": [("mask", {}), ("mask", {"fit": {"steps": 1000}}), ("pair", {"second": "mask"})],
    "image_text": [("pair", {})],
    "point_cloud": [("chamfer", {}), ("chamfer", {"symmetric": True}), ("pair", {"first": "scan", "second": "cloud"})],
    "audio_video": [
        ("sync", {"frame_rate": 16, "sample_rate": 8000}),
        ("pair", {"first": "video", "second": "audio"}),
    ],
}
"""Experiment → gates and their arguments."""

OVERRIDES = {
    "point_cloud": ["+data.fields.scan=scan", "~data.fill.scan", "generator.conditions={scan: cross}"],
}
"""Experiment → what else its command has, for both fields to be there."""


def parts(experiment: str, names: list[str]) -> tuple[Snapshot, Snapshot]:
    """The fields of real training and test samples of an experiment, as the refill side knows them."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", [f"experiment={experiment}", "paths.output_dir=outputs", *OVERRIDES.get(experiment, [])])
    real = instantiate(cfg.real, _convert_="all")
    about = {"generator": None, "synthetic_fraction": 0, "feedback": None}
    data = instantiate(cfg.data, real=real, _convert_="all", **about)
    data.prepare_data()
    data.setup("fit")
    found = RealTraining.of(data.real, **data._about_data)
    training = found.snapshot()
    assert training is not None
    return training, held_out_fields(data.real, found, names, "test")


def dealt_out(values: Values, seed: int = 0) -> Values:
    """Each one's is another's: the order turned by one after a shuffle."""
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    to = torch.empty_like(order)
    to[order] = order.roll(1)
    return taken(values, to)


def passed(gate: Any, first: Values, second: Values) -> Tensor:
    """Which pairs a gate lets in, bool (n,)."""
    said = dict(zip(gate.looks_at, (first, second), strict=True))
    texts = {name: value for name, value in said.items() if not isinstance(value, Tensor)}
    fields = {name: value for name, value in said.items() if isinstance(value, Tensor)}
    found: Tensor = gate(fields, texts).passed
    return found


def measured(experiment: str, name: str, arguments: dict[str, Any]) -> str:
    """A line of the table."""
    (gate,) = chosen_gates({**dict.fromkeys(ON, False), name: arguments or True})
    training, held_out = parts(experiment, list(gate.looks_at))
    gate.check(training.spec, training.class_names)
    started = time.process_time()
    if hasattr(gate, "bind"):
        gate.bind(training)
    if hasattr(gate, "fitted"):
        with tempfile.TemporaryDirectory() as folder:
            gate.fitted.fit(training, Path(folder), lambda step, total: None)
            gate.fitted.load(Path(folder))
    fit = time.process_time() - started
    n = min(len(held_out), MOST)
    first, second = (read(held_out, held_out.spec[one], torch.arange(n)) for one in gate.looks_at)
    shares = [float(passed(gate, first, of).double().mean()) for of in (second, dealt_out(second))]
    some = torch.arange(min(n, SLOT))
    started = time.process_time()
    passed(gate, taken(first, some), taken(second, some))
    slot = time.process_time() - started
    said = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    return (
        f"| `{experiment}` | `{name}`{f' ({said})' if said else ''} | {len(training)} | {n} | {shares[0]:.1%} | "
        f"{1 - shares[1]:.1%} | {fit:.1f} | {1000 * slot:.0f} |"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "experiments",
        nargs="*",
        default=[one for one in GATES if (config_dir() / "experiment" / f"{one}.yaml").is_file()],
    )
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| experiment | gate | fitted on | judged | real pairs let in | others' rejected | fit, s | slot, ms |")
    print("|:--|:--|--:|--:|--:|--:|--:|--:|")
    for experiment in parser.parse_args().experiments:
        for name, arguments in GATES[experiment]:
            print(measured(experiment, name, arguments), flush=True)


if __name__ == "__main__":
    main()
