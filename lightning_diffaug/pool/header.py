"""What a pool says of itself: the settings that made its samples."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from lightning_diffaug.errors import ConfigurationError, PoolError, PoolFormatError
from lightning_diffaug.pool.fingerprint import checksum_of, plain
from lightning_diffaug.pool.shard import FORMAT_VERSION

HEADER_FILE = "pool.json"


@dataclass(frozen=True)
class PoolHeader:
    """The content of ``pool.json``.

    Attributes:
        fingerprint: The pool's name: hash of ``parts`` (`fingerprint.fingerprint`).
        parts: Every setting that changes a sample, as plain values.
        slot_size: Most rows of a slot; ≥ 1.
        spec: Structure of a sample, as a plain JSON dict.

    Raises:
        ConfigurationError: A value is not plain or out of its range.
    """

    fingerprint: str
    parts: dict[str, Any]
    slot_size: int
    spec: dict[str, Any]

    def __post_init__(self) -> None:
        if type(self.slot_size) is not int or self.slot_size < 1:
            raise ConfigurationError(
                f"data.slot_size={self.slot_size!r} is not a whole number ≥ 1: it is the number of samples of a "
                f"full slot. Set data.slot_size to e.g. 64."
            )
        for name in ("parts", "spec"):
            object.__setattr__(self, name, plain(getattr(self, name), name))

    @property
    def given(self) -> tuple[str, ...]:
        """Fields of the samples that no generator made: they are real samples' own."""
        return tuple(self.parts.get("given", ()))

    def to_json(self) -> bytes:
        """The file's bytes, with the format version and a checksum."""
        state = {"version": FORMAT_VERSION, **asdict(self)}
        return json.dumps({**state, "checksum": checksum_of(state)}, indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> PoolHeader:
        """The header in the file ``where``, verified.

        Raises:
            PoolFormatError: It is of another format version, altered, or not a pool's.
        """
        remedy = "Set paths.cache_dir to another folder, or move that one away and have the pool made again."
        try:
            state = json.loads(data)
            checksum, version = state.pop("checksum"), state["version"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PoolFormatError(
                f"{where} is not the header of a pool ({error}): nothing is read from it. {remedy}"
            ) from error
        if checksum != checksum_of(state):
            raise PoolFormatError(
                f"{where} was altered after it was written (checksum): nothing is read from it. {remedy}"
            )
        if version != FORMAT_VERSION:
            raise PoolFormatError(
                f"{where} has format version {version}, this release reads {FORMAT_VERSION}. "
                f"Use the release that wrote it, or: {remedy}"
            )
        del state["version"]
        return cls(**state)

    def check_same(self, wanted: PoolHeader, where: str) -> None:
        """Raises `PoolError`, which says what differs, unless this pool is the ``wanted`` one."""
        differing = [name for name in asdict(self) if getattr(self, name) != getattr(wanted, name)]
        if differing:
            keys = sorted(set(self.parts) | set(wanted.parts))
            parts = [key for key in keys if self.parts.get(key) != wanted.parts.get(key)]
            detail = "; ".join(
                f"{name} is {theirs!r}, wanted {ours!r}"
                for name, theirs, ours in [
                    *((f"parts.{k}", self.parts.get(k), wanted.parts.get(k)) for k in parts),
                    *((n, getattr(self, n), getattr(wanted, n)) for n in differing if n != "parts"),
                ]
            )
            raise PoolError(
                f"{where} is the pool of other settings: {detail}. Its samples are not the ones asked for. "
                f"Name the folder by the fingerprint, or set paths.cache_dir to another folder."
            )
