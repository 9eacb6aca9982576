"""``diffaug fidelity``: how good the samples of a pool are, or what a distilled generator lost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import ConfigurationError, GeneratorError, PoolError


def add_parser(commands: Any) -> None:
    """Adds the command to those of ``diffaug``."""
    command = commands.add_parser(
        "fidelity", help="how good a pool's samples are, or what a distilled generator lost against its teacher"
    )
    command.add_argument(
        "folder",
        type=Path,
        help="folder of a pool (…/pools/<fingerprint>), which is measured; output folder of a run with fidelity.json, "
        "which is shown; or the cache folder, or that of a distilled generator (…/generators/<fingerprint>)",
    )
    command.add_argument(
        "--real",
        type=Path,
        help="real data of the pool: the output folder of a run that used it (then validation data give the level), or "
        "a snapshot; by default the snapshot that the pool names, in its cache folder (then halves of it do)",
    )
    command.add_argument(
        "--features",
        default="auto",
        help="auto | class | pixels | inception | local folder | import path | {model: …, weights: …}",
    )
    command.add_argument("--samples", type=int, default=2048, help="how many of each kind at most")
    command.add_argument("--seed", type=int, default=0, help="of all draws and fits")
    command.add_argument("--classifier-steps", type=int, help="optimiser steps of each classifier that is fitted")
    command.add_argument("--caption-model", help="local folder of a CLIP-like model, for samples with captions")
    command.add_argument(
        "--pairs",
        help="what of samples with several fields belongs together, as the gates' settings: {mask: true, sync: "
        "{frame_rate: 16, sample_rate: 8000}, chamfer: true, pair: {first: image, second: caption}}",
    )
    command.add_argument("--lpips", help=".safetensors file with torchvision's weights of AlexNet")
    command.add_argument("--device", default="auto", help="where given networks compute")
    command.add_argument("--out", type=Path, help="JSON file to write, such as fidelity.json")
    command.set_defaults(what="fidelity")


def fidelity(arguments: argparse.Namespace) -> int:
    """Measures a pool, or shows what was measured before: of a run, or of distilled generators.

    Returns:
        0, or 1 where something was wrong, which is said.
    """
    try:
        return _fidelity(arguments)
    except (ConfigurationError, GeneratorError, PoolError) as error:
        print(error, file=sys.stderr)
        return 1


def _fidelity(arguments: argparse.Namespace) -> int:
    from lightning_diffaug.fidelity.result import FILE, Fidelity
    from lightning_diffaug.generators import distill_fidelity
    from lightning_diffaug.pool.header import HEADER_FILE

    folder: Path = arguments.folder
    if not folder.is_dir():
        said = "is a file" if folder.exists() else "does not exist"
        raise ConfigurationError(
            f"{folder} {said}: nothing is measured or shown. Name the folder of a pool, of a run, of a distilled "
            "generator, or the cache folder."
        )
    if (folder / HEADER_FILE).exists():
        return _of_pool(arguments)
    if (folder / FILE).exists() and '"details"' in (folder / FILE).read_text(encoding="utf-8"):
        print(Fidelity.read(folder / FILE).table())
        return 0
    folders = [path.parent for path in sorted(folder.glob("generators/*/" + distill_fidelity.FIDELITY))]
    for one in folders or [folder]:
        print(f"{one}\n{distill_fidelity.table(distill_fidelity.read(one))}")
    return 0


def _of_pool(arguments: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from lightning_diffaug.fidelity import FidelitySettings, measure
    from lightning_diffaug.fidelity.alignment import Paired, fields_of
    from lightning_diffaug.fidelity.of_run import real_of_config, real_pairs, real_samples
    from lightning_diffaug.fidelity.pooled import (
        field_of,
        pooled_fields,
        pooled_samples,
        snapshot_of,
        snapshot_samples,
    )
    from lightning_diffaug.pool import SyntheticPool

    features = arguments.features
    pairs: Any = None if arguments.pairs is None else OmegaConf.to_container(OmegaConf.create(arguments.pairs))
    settings = FidelitySettings(
        features=OmegaConf.to_container(OmegaConf.create(features)) if features.startswith("{") else features,
        samples=arguments.samples,
        seed=arguments.seed,
        classifier=None if arguments.classifier_steps is None else {"steps": arguments.classifier_steps},
        caption_model=arguments.caption_model,
        pairs=pairs,
        lpips=arguments.lpips,
        device=arguments.device,
    )
    pool = SyntheticPool.open(arguments.folder)
    field, real, paired_fields = field_of(pool), arguments.real, fields_of(settings.pairs or {})
    made = pooled_fields(pool, pool.slots(), paired_fields, settings.samples) if paired_fields else None
    if real is not None and (real / "config.yaml").is_file():
        module, data = real_of_config(real)
        training, held_out = real_samples(module, data, field, settings.seed)
        names = data.class_names
        paired = None if made is None else real_pairs(module, data, made, paired_fields)
    else:
        snapshot = snapshot_of(pool, real)
        training, held_out, names = snapshot_samples(snapshot, field, settings.seed), None, snapshot.class_names
        paired = None if made is None else Paired(snapshot, made, None)
    synthetic = pooled_samples(pool, pool.slots(), field, 2 * settings.samples)
    found = measure(training, synthetic, held_out, names, settings, paired=paired)
    print(f"{pool.folder}\n{found.table()}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        print(f"written to {found.write(arguments.out)}")
    return 0
