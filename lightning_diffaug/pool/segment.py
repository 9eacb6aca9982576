"""A memory-mapped piece of an epoch's window, from which batches are gathered."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_diffaug.errors import DamagedShardError, PoolError, PoolFormatError
from lightning_diffaug.pool.container import Column, ContainerWriter
from lightning_diffaug.pool.fingerprint import canonical_json
from lightning_diffaug.pool.shard import FORMAT_VERSION, Shard, ShardSummary

FORMAT = "lightning_diffaug.segment"
_OPEN_SEGMENTS = 512
_FIELD, _BYTES, _ENDS = "field/", "string/", "string_ends/"

Rows = Tensor | NDArray[np.int64] | Sequence[int]


class Segment:
    """Rows of consecutive slots, read only; open one with `Segment.open` or `open_segment`.

    It pickles as its path, so that it may be sent to worker processes.

    Attributes:
        path: The file.
        slots: The slots it was made from, in order; one without rows counts.
        fields: Tensors (n, …) by field name, backed by the mapped file: never write to them.
        slot: int64 (n,), slot of each row.
        row: int64 (n,), row of each row within its slot.
    """

    def __init__(self, path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        self.path = path
        self.slots: tuple[int, ...] = tuple(json.loads(metadata["slots"]))
        self.pool: str = metadata["pool"]
        self.slot = tensors["slot"].clone()
        self.row = tensors["row"].clone()
        self.fields = _with_prefix(tensors, _FIELD)
        self._bytes = _with_prefix(tensors, _BYTES)
        self._ends = _with_prefix(tensors, _ENDS)
        self._flat = {name: _as_rows(tensor) for name, tensor in self.fields.items()}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Segment:
        """Maps a segment; its bytes were verified by `EpochCache.gather`, and are not again.

        Raises:
            FileNotFoundError: There is no such file.
            DamagedShardError: It is not a segment.
            PoolFormatError: It is a segment of another format version.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise DamagedShardError(f"{path} is not a segment of an epoch cache")
                if metadata["version"] != str(FORMAT_VERSION):
                    raise PoolFormatError(
                        f"{path} is of format version {metadata['version']}; remove paths.cache_dir's epoch caches"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DamagedShardError(f"{path} is not a segment of an epoch cache: {error}") from error
        return cls(Path(path), metadata, tensors)

    def __len__(self) -> int:
        return len(self.slot)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_segment, (str(self.path),)

    def origin(self, rows: Rows) -> list[tuple[int, int]]:
        """Slot, and row within the slot, of the given rows.

        Raises:
            IndexError: A row is not in 0 … n − 1.
        """
        index = torch.from_numpy(self._index(rows))
        return list(zip(self.slot[index].tolist(), self.row[index].tolist(), strict=True))

    def take(self, rows: Rows) -> dict[str, Tensor]:
        """Copies of the given rows of every field, in that order; a row may be taken more than once.

        Raises:
            IndexError: A row is not in 0 … n − 1.
        """
        index = self._index(rows)
        taken = {}
        for name, flat in self._flat.items():
            field = self.fields[name]
            out = np.empty((len(index), flat.shape[1]), np.uint8)
            # One memcpy a row, on this thread: torch hands small gathers to its threads, which costs milliseconds
            # where another process keeps the cores busy. "clip" writes without a buffer; rows were checked above.
            np.take(flat, index, axis=0, out=out, mode="clip")
            shape = (len(index), *field.shape[1:])
            taken[name] = torch.from_numpy(out).view(field.dtype).reshape(shape) if out.size else field.new_empty(shape)
        return taken

    def strings(self, rows: Rows) -> dict[str, list[str]]:
        """Strings of the given rows, by field name."""
        index = self._index(rows).tolist()
        found = {}
        for name, ends in self._ends.items():
            data = self._bytes[name].numpy()
            spans = [(int(ends[i - 1]) if i else 0, int(ends[i])) for i in index]
            found[name] = [data[start:end].tobytes().decode() for start, end in spans]
        return found

    def _index(self, rows: Rows) -> NDArray[np.int64]:
        index = np.asarray(rows)
        if index.size and index.dtype.kind not in "iu":
            raise IndexError(f"rows of {self.path} are numbers 0..{len(self) - 1}, not {index.dtype}")
        if index.size and not (index.min() >= 0 and index.max() < len(self)):
            raise IndexError(f"rows {index.min()}..{index.max()} are not all in 0..{len(self) - 1} of {self.path}")
        return index.astype(np.int64, copy=False)


@functools.lru_cache(maxsize=_OPEN_SEGMENTS)
def _opened(path: str, inode: int, changed: int) -> Segment:
    return Segment.open(path)


def open_segment(path: str | os.PathLike[str]) -> Segment:
    """`Segment.open`, once per process for the last 512 files; one that was made again is opened again."""
    status = os.stat(path)  # noqa: PTH116
    return _opened(os.fspath(path), status.st_ino, status.st_mtime_ns)


def write_segment(path: Path, pool: str, sizes: Mapping[int, ShardSummary], read: Callable[[int], Shard]) -> None:
    """Writes a segment slot by slot, so that one slot at a time is in memory.

    Args:
        path: A new file.
        pool: Fingerprint of the pool.
        sizes: What each slot will turn out to hold, in the order of the rows.
        read: Returns a slot, verified. Each is read once; what it raises passes through.

    Raises:
        PoolError: Slots disagree in their fields.
    """
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "pool": pool,
        "slots": canonical_json(list(sizes)),
    }
    at = 0
    for k, size in sizes.items():
        if not size.n:  # a header that is damaged may say so
            _check_size(k, read(k), size)
    filled = [k for k in sizes if sizes[k].n]
    if not filled:
        with ContainerWriter(path, _index_columns(0), metadata):
            return
    columns = _columns(sizes, first := read(filled[0]))
    with ContainerWriter(path, columns, metadata) as writer:
        ends = dict.fromkeys(first.strings, 0)
        for k in filled:
            shard = first if k == filled[0] else read(k)
            _check_alike(k, shard, filled[0], first, sizes[k])
            writer.put("slot", at, torch.full((shard.n,), k))
            writer.put("row", at, torch.arange(shard.n))
            for name, tensor in shard.fields.items():
                writer.put(_FIELD + name, at, tensor)
            for name, texts in shard.strings.items():
                encoded = [text.encode() for text in texts]
                writer.put(
                    _BYTES + name,
                    ends[name],
                    torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8)
                    if any(encoded)
                    else torch.empty(0, dtype=torch.uint8),
                )
                lengths = torch.tensor([len(text) for text in encoded])
                writer.put(_ENDS + name, at, ends[name] + lengths.cumsum(0))
                ends[name] += int(lengths.sum())
            at += shard.n


def _index_columns(n: int) -> dict[str, Column]:
    return {"slot": Column(torch.int64, (n,)), "row": Column(torch.int64, (n,))}


def _columns(sizes: Mapping[int, ShardSummary], like: Shard) -> dict[str, Column]:
    n = sum(size.n for size in sizes.values())
    columns = _index_columns(n)
    for name, tensor in like.fields.items():
        columns[_FIELD + name] = Column(tensor.dtype, (n, *tensor.shape[1:]))
    for name in like.strings:
        total = sum(size.string_bytes.get(name, 0) for size in sizes.values())
        columns[_BYTES + name] = Column(torch.uint8, (total,))
        columns[_ENDS + name] = Column(torch.int64, (n,))
    return columns


def _check_alike(k: int, shard: Shard, first_slot: int, first: Shard, size: ShardSummary) -> None:
    def form(of: Shard) -> dict[str, Any]:
        return {n: (t.dtype, tuple(t.shape[1:])) for n, t in of.fields.items()} | dict.fromkeys(of.strings, "str")

    if form(shard) != form(first):
        raise PoolError(
            f"slot {k} holds {form(shard)}, but slot {first_slot} holds {form(first)}: they cannot be "
            f"batched together. The generator must return every sample in the form of the data's spec."
        )
    _check_size(k, shard, size)


def _check_size(k: int, shard: Shard, size: ShardSummary) -> None:
    if (shard.n, shard.string_bytes) != (size.n, size.string_bytes):
        raise PoolError(
            f"slot {k} changed while it was gathered: slots are immutable. Is another program writing there?"
        )


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _as_rows(tensor: Tensor) -> NDArray[np.uint8]:
    n, *shape = tensor.shape
    row_bytes = math.prod(shape) * tensor.element_size()
    if not n or not row_bytes:
        return np.empty((n, row_bytes), np.uint8)
    rows: NDArray[np.uint8] = tensor.reshape(n, -1).view(torch.uint8).numpy()
    return rows
