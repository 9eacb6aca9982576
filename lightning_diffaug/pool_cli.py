"""``diffaug pool info|verify|grid``: what is in a pool."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_diffaug.errors import PoolError
from lightning_diffaug.pictures import UNLABELLED_ROWS, Picture, draw_grid
from lightning_diffaug.pool import Shard, SyntheticPool
from lightning_diffaug.spec import CAPTION, IMAGE, LABEL, FieldSpec, SampleSpec

_PER_ROW = 12
_NEWEST = 32  # slots that are looked at


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
        shards = pool.rejected.read()[::-1]
        missing = "no rejected images are kept here: data.keep_rejected=8 keeps some of slots yet to be made"
    else:
        shards = [pool.read(slot) for slot in pool.slots()[: -_NEWEST - 1 : -1]]
        missing = "the pool holds no images to draw"
    if not shards or IMAGE not in shards[0].fields:
        print(missing, file=sys.stderr)
        return 1
    names = pool.header.parts.get("class_names", [])

    def row_of(shard: Shard, i: int) -> str:
        if arguments.rejected:
            return str(shard.rows[i]["reason"])
        return str(names[int(shard.fields[LABEL][i])]) if LABEL in shard.fields else ""

    found = _pictures(shards, SampleSpec.from_json(pool.header.spec["fields"])[IMAGE], row_of)
    if not found:  # slots may be empty
        print(missing, file=sys.stderr)
        return 1
    if arguments.rejected:
        rows = sorted(found.items(), key=lambda item: -len(item[1]))
    else:
        rows = _unnamed(found[""]) if "" in found else [(name, found.get(name, [])) for name in names]
    heading = "rejected" if arguments.rejected else "synthetic"
    return _drawn([(name, ((heading, pictures),)) for name, pictures in rows], arguments.out)


def _pictures(
    shards: Sequence[Shard], field: FieldSpec, row_of: Callable[[Shard, int], str]
) -> dict[str, list[Picture]]:
    """Images by row, with their captions."""
    found: dict[str, list[Picture]] = {}
    for shard in shards:
        images = shard.fields[IMAGE]
        if images.is_floating_point():
            images = (field.to_unit(images).nan_to_num() + 1) / 2
        captions = shard.strings.get(CAPTION)
        for i, image in enumerate(images):
            found.setdefault(row_of(shard, i), []).append(image if captions is None else (image, captions[i]))
    return found


def _unnamed(pictures: list[Picture]) -> list[tuple[str, list[Picture]]]:
    """Rows of samples that have no classes."""
    starts = range(0, min(len(pictures), _PER_ROW * UNLABELLED_ROWS), _PER_ROW)
    return [("", pictures[start : start + _PER_ROW]) for start in starts]


def _drawn(rows: Sequence[tuple[str, Sequence[tuple[str, Sequence[Picture]]]]], out: Path) -> int:
    try:
        print(draw_grid(rows, out, per_part=_PER_ROW))
    except (OSError, ValueError) as error:  # no such folder; no format of matplotlib's
        print(f"--out {out} cannot be written: {error}. Give a .png file in a folder that is there.", file=sys.stderr)
        return 1
    return 0


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
