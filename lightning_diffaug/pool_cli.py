"""``diffaug pool info|verify|grid``: what is in a pool."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_diffaug.errors import PoolError
from lightning_diffaug.pictures import draw_grid
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.spec import IMAGE, LABEL, SampleSpec

_PER_ROW = 12


def info(arguments: argparse.Namespace) -> int:
    """Prints counts."""
    pool = SyntheticPool.open(arguments.folder)
    found = pool.info()
    names = pool.header.parts.get("class_names", [])
    print(f"pool {pool.fingerprint}\nslots {found.slots}\nsamples {found.rows}\nbytes {found.nbytes}")
    for label, count in found.rows_per_class.items():
        print(f"  {names[label] if label < len(names) else label}: {count}")
    print(f"made {found.generated}, rejected {sum(found.rejections.values())}")
    for reason, count in found.rejections.items():
        print(f"  {reason}: {count}")
    if kept := pool.rejected.slots():
        print(f"rejected samples of {len(kept)} slots are kept: diffaug pool grid {pool.folder} --rejected")
    for slot in found.unreadable:
        print(f"slot {slot} cannot be read", file=sys.stderr)
    return 1 if found.unreadable else 0


def verify(arguments: argparse.Namespace) -> int:
    """Checks every slot; nothing is moved."""
    pool = SyntheticPool.open(arguments.folder)
    damaged = pool.verify()
    for slot, reason in damaged.items():
        print(f"slot {slot}: {reason}", file=sys.stderr)
    print(f"{len(pool.slots()) - len(damaged)} slots are whole, {len(damaged)} damaged")
    return 1 if damaged else 0


def grid(arguments: argparse.Namespace) -> int:
    """Draws the newest samples of each class, or the newest rejected ones of each reason."""
    pool = SyntheticPool.open(arguments.folder)
    if arguments.rejected:
        return _grid_of_rejected(pool, arguments.out)
    shards = [pool.read(slot) for slot in pool.slots()[-32:]]
    if not shards or IMAGE not in shards[0].fields or LABEL not in shards[0].fields:
        print("the pool holds no labelled images to draw", file=sys.stderr)
        return 1
    images = torch.cat([shard.fields[IMAGE] for shard in shards])
    labels = torch.cat([shard.fields[LABEL] for shard in shards])
    names = pool.header.parts["class_names"]
    rows = [(name, (("synthetic", images[labels == c]),)) for c, name in enumerate(names)]
    return _drawn(rows, arguments.out)


def _drawn(rows: Sequence[tuple[str, Sequence[tuple[str, Tensor]]]], out: Path) -> int:
    try:
        print(draw_grid(rows, out, per_part=_PER_ROW))
    except (OSError, ValueError) as error:  # no such folder; no format of matplotlib's
        print(f"--out {out} cannot be written: {error}. Give a .png file in a folder that is there.", file=sys.stderr)
        return 1
    return 0


def _grid_of_rejected(pool: SyntheticPool, out: Path) -> int:
    shards = pool.rejected.read()[::-1]
    if not shards or IMAGE not in shards[0].fields:
        print(
            "no rejected images are kept here: data.keep_rejected=8 keeps some of slots yet to be made", file=sys.stderr
        )
        return 1
    field = SampleSpec.from_json(pool.header.spec["fields"])[IMAGE]
    found: dict[str, list[Tensor]] = {}
    for shard in shards:
        for image, row in zip(shard.fields[IMAGE], shard.rows, strict=True):
            found.setdefault(row["reason"], []).append(image)
    rows = []
    for reason, images in sorted(found.items(), key=lambda item: -len(item[1])):
        shown = torch.stack(images[:_PER_ROW])
        if shown.is_floating_point():
            shown = (field.to_unit(shown).nan_to_num() + 1) / 2
        rows.append((reason, (("rejected", shown),)))
    return _drawn(rows, out)


def _explained(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def wrapped(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except PoolError as error:
            print(error, file=sys.stderr)
            return 1

    return wrapped


COMMANDS = {
    "info": _explained(info),
    "verify": _explained(verify),
    "grid": _explained(grid),
}
