"""Names for settings and tensors: equal content, equal name, on any machine."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError

DIGEST_CHUNK = 1 << 24
"""Bytes that are hashed at a time."""


def fingerprint(parts: Mapping[str, Any], length: int = 24) -> str:
    """Names a set of settings: the start of the SHA-256 of their canonical JSON.

    Key order, tuple or list, and ``1`` or ``1.0`` make no difference; any other change gives another name.

    Args:
        parts: Plain values only: dict (keys str), list, tuple, str, int, finite float, bool, None.
        length: Hexadecimal digits, 16 to 32.

    Raises:
        ConfigurationError: A value is not plain; the text names its key.
    """
    if not 16 <= length <= 32:
        raise ConfigurationError(f"length={length} is not in 16..32: shorter names may collide. Set length to 24.")
    text = canonical_json(_settled(parts, "parts"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal plain values: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def checksum_of(state: Mapping[str, Any]) -> str:
    """What tells that plain values in a file were altered: BLAKE2b of their canonical JSON."""
    return hashlib.blake2b(canonical_json(state).encode(), digest_size=32).hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE2b (hexadecimal, 32 bytes) of named tensors (dtype, shape, values) in bounded memory; in any order."""
    digest = hashlib.blake2b(digest_size=32)
    for name in sorted(tensors):
        digest.update(canonical_json(name).encode())
        update_with_tensor(digest, tensors[name])
    return digest.hexdigest()


def update_with_tensor(digest: hashlib.blake2b, tensor: Tensor) -> None:
    """Adds dtype, shape and values (row-major, any device or stride) to ``digest``."""
    digest.update(canonical_json([str(tensor.dtype), list(tensor.shape)]).encode())
    for chunk in _chunks(tensor.detach()):
        digest.update(tensor_bytes(chunk))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor as bytes, row-major; without a copy where it is contiguous and on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    if tensor.ndim == 0 or tensor.numel() == 0:
        yield tensor
        return
    row_bytes = tensor[0].numel() * tensor.element_size()
    if row_bytes > DIGEST_CHUNK:
        for row in tensor:
            yield from _chunks(row)
        return
    step = max(1, DIGEST_CHUNK // row_bytes)
    for start in range(0, len(tensor), step):
        yield tensor[start : start + step]


def plain(value: Any, where: str) -> Any:
    """A copy of ``value`` as it comes back from JSON; a float that JSON lacks becomes "nan", "inf" or "-inf".

    Raises:
        ConfigurationError: A value is not plain; the text names it, from ``where`` on.
    """
    if type(value) is float and not math.isfinite(value):
        return str(value)
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {_key(k, where): plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise ConfigurationError(
        f"{where}={value!r} is a {type(value).__name__}: only plain values (dict with str keys, list, str, "
        f"int, float, bool, None) can be stored and compared across processes. Convert {where}, e.g. with "
        f".item(), .tolist() or str()."
    )


def _key(key: object, where: str) -> str:
    if type(key) is not str:
        raise ConfigurationError(
            f"{where} has the key {key!r} of type {type(key).__name__}: keys must be str, since JSON would "
            f"turn it into one and 1 and '1' would be the same. Use {str(key)!r}."
        )
    return key


def _settled(value: Any, where: str) -> Any:
    if type(value) is float:
        if not math.isfinite(value):
            raise ConfigurationError(
                f"{where}={value} is not finite: it has no JSON form, so no fingerprint. Set {where} to a "
                f"number or None."
            )
        return int(value) if value.is_integer() else value  # `steps=10` and `steps=10.0` are the same setting
    if isinstance(value, Mapping):
        return {_key(k, where): _settled(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_settled(v, f"{where}[{i}]") for i, v in enumerate(value)]
    return plain(value, where)
