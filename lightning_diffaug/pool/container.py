"""A safetensors file with a checksum over its every byte: what shards and segments have in common.

The safetensors package writes a file from whole tensors at once. Segments of large samples do not fit in
memory that way, so the (short, documented) header is written here and the columns are filled in piece by
piece. Reading is the package's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, DamagedShardError
from lightning_diffaug.pool.fingerprint import DIGEST_CHUNK, tensor_bytes

_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}
_DIGITS = 64
_BLANK = "0" * _DIGITS
# Quotes inside a JSON string are escaped, so these bytes can only be the key of the metadata.
_KEY = b'"checksum":"'


@dataclass(frozen=True)
class Column:
    """One tensor of the file: ``shape`` includes the rows."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole column."""
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


class ContainerWriter:
    """Writes a container piece by piece; use it as a context manager, which adds the checksum at its end.

    Args:
        path: A new file.
        columns: The tensors by name.
        metadata: Strings for the header; the key ``checksum`` is added.

    Raises:
        ConfigurationError: A dtype has no safetensors form.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column], metadata: Mapping[str, str]) -> None:
        self._columns = dict(columns)
        entries: dict[str, object] = {"__metadata__": {**metadata, "checksum": _BLANK}}
        self._start: dict[str, int] = {}
        end = 0
        # Largest items first keeps every column aligned to its dtype.
        for name in sorted(columns, key=lambda n: (-columns[n].dtype.itemsize, n)):
            column = columns[name]
            if column.dtype not in _DTYPES:
                raise ConfigurationError(
                    f"field {name!r} is {column.dtype}: it has no safetensors form, so it cannot be stored. "
                    f"Convert it to one of {', '.join(str(d) for d in _DTYPES)}."
                )
            self._start[name] = end
            end += column.nbytes
            entries[name] = {
                "dtype": _DTYPES[column.dtype],
                "shape": list(column.shape),
                "data_offsets": [self._start[name], end],
            }
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        self._data = 8 + len(header)
        self._checksum_at = 8 + header.index(_KEY) + len(_KEY)
        self._file = path.open("w+b")
        try:
            self._file.write(len(header).to_bytes(8, "little") + header)
            self._file.truncate(self._data + end)
        except BaseException:
            self._file.close()
            raise

    def put(self, name: str, row: int, rows: Tensor) -> None:
        """Writes ``rows`` into the column, from its row ``row`` on."""
        column = self._columns[name]
        row_bytes = column.nbytes // column.shape[0] if column.shape[0] else 0
        self._file.seek(self._data + self._start[name] + row * row_bytes)
        self._file.write(tensor_bytes(rows))

    def __enter__(self) -> ContainerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.flush()
                self._file.seek(0)
                digest = hashlib.blake2b(digest_size=_DIGITS // 2)
                digest.update(self._file.read(self._checksum_at + _DIGITS))
                while chunk := self._file.read(DIGEST_CHUNK):
                    digest.update(chunk)
                self._file.seek(self._checksum_at)
                self._file.write(digest.hexdigest().encode())


def check(file: BinaryIO) -> None:
    """Verifies a container, from its start to its end, in bounded memory.

    Raises:
        DamagedShardError: A byte is not the one that was written, or is missing, or the file is no
            container at all.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    prefix = file.read(8)
    if len(prefix) < 8:
        raise DamagedShardError(f"the file ends after {size} bytes" if size else "the file is empty")
    length = int.from_bytes(prefix, "little")
    if length > size - 8:
        raise DamagedShardError(f"the file ends after {size} bytes, within its header of {length}")
    head = prefix + file.read(length)
    at = head.find(_KEY, 8) + len(_KEY)
    if at < 8 + len(_KEY) or at + _DIGITS > len(head):
        raise DamagedShardError("the header has no checksum: the file was not written by this library, or is altered")
    digest = hashlib.blake2b(head[:at] + _BLANK.encode() + head[at + _DIGITS :], digest_size=_DIGITS // 2)
    while chunk := file.read(DIGEST_CHUNK):
        digest.update(chunk)
    if head[at : at + _DIGITS] != digest.hexdigest().encode():
        raise DamagedShardError("the checksum does not match the content: bytes are altered or missing")


def check_file(path: Path) -> None:
    """`check` of a file on disk."""
    with path.open("rb") as file:
        check(file)
