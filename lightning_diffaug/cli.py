"""The command line: ``python train.py`` (or ``diffaug train``), ``diffaug pool``, ``fidelity`` and ``report``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lightning_diffaug import fidelity_cli, report_cli
from lightning_diffaug.ablation.failed import FAILED, write_failed
from lightning_diffaug.errors import ConfigurationError, GeneratorError, PoolError, ShortWindowError
from lightning_diffaug.paths import config_dir, default_cache_dir

log = logging.getLogger(__name__)

_INTERRUPTED = 130  # as shells have it
FORESEEN = (ConfigurationError, GeneratorError, PoolError, ShortWindowError)
"""Errors whose text says all: cause, consequence and the key to change."""


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")
def train(cfg: DictConfig) -> float | None:
    """Runs the demo; Hydra gives the configuration and, with ``-m``, sweeps.

    A wrong setting ends it with exit code 1 and a text that says all; other errors, and all with HYDRA_FULL_ERROR=1,
    show where they came from. A run of a sweep that raises leaves ``failed.json`` in its folder, and the sweep goes on.
    """
    from lightning_diffaug.experiment import run  # after Hydra: --help is quick

    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode is not RunMode.MULTIRUN:
        try:
            return run(cfg).get("test/acc")
        except FORESEEN as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(1)
        except (KeyboardInterrupt, SystemExit) as ended:  # Lightning makes the latter of the former
            if not isinstance(ended, KeyboardInterrupt) and not isinstance(ended.__context__, KeyboardInterrupt):
                raise
            last = Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"
            how = f" with ckpt_path={last} goes on from there" if last.exists() else " begins training anew"
            kept = cfg.paths.cache_dir or default_cache_dir()
            print(f"Stopped. The same command{how}; what the generator made is kept in {kept}.", file=sys.stderr)
            sys.exit(_INTERRUPTED)
    folder = Path(hydra_cfg.runtime.output_dir)
    (folder / FAILED).unlink(missing_ok=True)  # of an earlier sweep in this folder
    try:
        return run(cfg, brief=True).get("test/acc")
    except Exception as error:
        overrides = list(hydra_cfg.overrides.task)
        foreseen = isinstance(error, FORESEEN)
        log.error("the run %s failed, the sweep goes on: %s", " ".join(overrides), error, exc_info=not foreseen)
        write_failed(folder, error, overrides)
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script ``diffaug``.

    Returns:
        0, or 1 where something was wrong.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["train"]:
        sys.argv = ["diffaug train", *words[1:]]
        train()
        return 0
    parser = argparse.ArgumentParser(prog="diffaug", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train", help="run the demo: Hydra overrides follow, as for train.py")
    pool = commands.add_parser("pool", help="look at a pool").add_subparsers(dest="what", required=True)
    for name, text in (
        ("info", "count slots, samples and classes"),
        ("verify", "read every slot and check its checksum"),
        ("grid", "draw samples of each class"),
    ):
        command = pool.add_parser(name, help=text)
        command.add_argument("folder", type=Path, help="folder of the pool (…/pools/<fingerprint>)")
        if name == "grid":
            command.add_argument("--out", type=Path, default=Path("pool.png"), help="PNG file to write (pool.png)")
            command.add_argument("--rejected", action="store_true", help="draw what data.keep_rejected kept, by reason")
    fidelity_cli.add_parser(commands)
    report_cli.add_parser(commands)
    from lightning_diffaug.pool_cli import COMMANDS

    known = COMMANDS | {"fidelity": fidelity_cli.fidelity, report_cli.COMMAND: report_cli.report}
    return known[(asked := parser.parse_args(words)).what](asked)
