"""One slot's samples with their provenance, as one immutable file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, DamagedShardError, PoolFormatError
from lightning_diffaug.pool.container import Column, ContainerWriter, check
from lightning_diffaug.pool.fingerprint import canonical_json, plain, update_with_tensor

FORMAT = "lightning_diffaug.shard"
FILE_NAME = re.compile(r"(\d{9,})\.safetensors")
FORMAT_VERSION = 1
"""Raised with any change of the file's layout. The place of the checksum is the same in all versions."""


def file_of(slot: int) -> str:
    """Name of a slot's file, which `FILE_NAME` matches."""
    return f"{slot:09d}.safetensors"


@dataclass(frozen=True, eq=False)
class Shard:
    """The samples of one slot: n rows in every field, 0 rows included.

    Attributes:
        fields: Tensors (n, …) of any shape and dtype, by field name.
        strings: n strings by field name (prompts, captions).
        rows: n dicts, the provenance of each row: condition, seed, attempt, gate scores, ….
        rejected: What was left out, and why; a slot without rows has its reason here.
        made: When, how long, with which versions. The only part that differs when a slot is made again.

    `rows`, `rejected` and `made` hold plain JSON values; tuples become lists, and floats that JSON lacks
    "nan", "inf", "-inf".

    Raises:
        ConfigurationError: The parts disagree in their number of rows, or a value is not plain.
    """

    fields: dict[str, Tensor]
    strings: dict[str, list[str]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("strings", "rows", "rejected", "made"):
            object.__setattr__(self, name, plain(getattr(self, name), name))
        n = len(self.rows)
        for name, tensor in self.fields.items():
            if name == "__metadata__" or not name:
                raise ConfigurationError(
                    f"a field cannot be named {name!r}: safetensors reserves it. Rename it in data.fields."
                )
            if tensor.ndim == 0 or len(tensor) != n:
                raise ConfigurationError(
                    f"field {name!r} has shape {tuple(tensor.shape)} but there are {n} rows of provenance: "
                    f"the first dimension of every field is the row. Give fields[{name!r}] the shape ({n}, "
                    f"…)."
                )
        for name, texts in self.strings.items():
            if len(texts) != n or not all(type(text) is str for text in texts):
                raise ConfigurationError(
                    f"strings[{name!r}] has {len(texts)} entries but there are {n} rows of provenance: it "
                    f"holds one str a row."
                )
            if name in self.fields:
                raise ConfigurationError(
                    f"{name!r} is in fields and in strings: a name has one kind. Rename one of them."
                )

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def string_bytes(self) -> dict[str, int]:
        """Bytes of each string field as UTF-8."""
        return _string_bytes(self.strings)

    @property
    def content(self) -> str:
        """BLAKE2b of all but `made`: equal for a slot that was made again."""
        digest = hashlib.blake2b(digest_size=32)
        for name in sorted(self.fields):
            digest.update(canonical_json(name).encode())
            update_with_tensor(digest, self.fields[name])
        digest.update(canonical_json([self.strings, self.rows, self.rejected]).encode())
        return digest.hexdigest()


def write_shard(path: Path, shard: Shard, tags: Mapping[str, str] | None = None) -> None:
    """Writes a shard to a new file (publish it with `storage.Folder.put_if_absent`).

    Args:
        path: The file.
        shard: What to store; tensors may be on any device.
        tags: Further strings for the header, covered by the checksum, such as which slot of which pool this
            is.
    """
    metadata = {
        **(tags or {}),
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "n": str(shard.n),
        "content": shard.content,
        **{name: canonical_json(getattr(shard, name)) for name in ("strings", "rows", "rejected", "made")},
    }
    columns = {name: Column(t.dtype, tuple(t.shape)) for name, t in shard.fields.items()}
    with ContainerWriter(path, columns, metadata) as writer:
        for name, tensor in shard.fields.items():
            writer.put(name, 0, tensor)


def read_shard(source: Path | bytes, tags: Mapping[str, str] | None = None) -> Shard:
    """Reads a shard and verifies its every byte.

    Args:
        source: The file, or its bytes.
        tags: Header strings that the file must carry.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedShardError: The file is truncated, altered, another slot's, or not a shard; the text is the
            reason.
        PoolFormatError: The file is whole, but of another format version.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    check(io.BytesIO(data))
    metadata = _metadata(data)
    if metadata.get("format") != FORMAT:
        raise DamagedShardError(f"the file is a {metadata.get('format', 'foreign file')}, not a {FORMAT}")
    if metadata.get("version") != str(FORMAT_VERSION):
        raise PoolFormatError(
            f"the shard has format version {metadata.get('version')}, this release reads {FORMAT_VERSION}. "
            f"Use the release that wrote it, or set paths.cache_dir to another folder and have the pool made "
            f"again."
        )
    for name, value in (tags or {}).items():
        if metadata.get(name) != value:
            raise DamagedShardError(f"the file was written for {name}={metadata.get(name)}, not {name}={value}")
    parts = {name: json.loads(metadata[name]) for name in ("strings", "rows", "rejected", "made")}
    return Shard(fields=dict(safetensors.torch.load(data)), **parts)


@dataclass(frozen=True, eq=False)
class ShardSummary:
    """What the header of a shard says, not verified.

    Attributes:
        n: Number of rows.
        string_bytes: Bytes of each string field as UTF-8.
        labels: The field ``label`` (n,), where there is one of that shape.
        nbytes: Size of the file.
        made: When and how it was made, as `Shard.made`.
    """

    n: int
    string_bytes: dict[str, int]
    labels: Tensor | None
    nbytes: int
    made: dict[str, Any] = field(default_factory=dict)


def summarise(path: Path) -> ShardSummary:
    """Reads the header of a shard and its labels, without verifying them: for counts, not for training.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedShardError: It is not a shard.
    """
    nbytes = os.stat(path).st_size  # noqa: PTH116
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            n, string_bytes = int(metadata["n"]), _string_bytes(json.loads(metadata["strings"]))
            made = dict(json.loads(metadata["made"]))
            labels = file.get_tensor("label").clone() if "label" in file.keys() else None  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DamagedShardError(f"the header is not a shard's: {error}") from error
    return ShardSummary(n, string_bytes, labels if labels is not None and labels.ndim == 1 else None, nbytes, made)


def _string_bytes(strings: Mapping[str, list[str]]) -> dict[str, int]:
    return {name: sum(len(text.encode()) for text in texts) for name, texts in strings.items()}


def _metadata(data: bytes) -> dict[str, str]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata
