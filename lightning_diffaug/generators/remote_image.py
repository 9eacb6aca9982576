"""From the body of a reply to pixels: decoded within bounds, cropped and scaled to the data's own images."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lightning_diffaug.generators.remote_http import BadReplyError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels of the data's images → PIL mode."""

_FORMATS = ("PNG", "JPEG", "WEBP")  # others need no reader here, and some of PIL's start programs
_DECODABLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")


@dataclass(frozen=True)
class Picture:
    """A decoded reply.

    Attributes:
        values: float32 (C, H, W) in [-1, 1].
        digest: Hash of the pixels as the server sent them, whatever their compression and their metadata.
    """

    values: Tensor
    digest: bytes


def decode(body: bytes, shape: tuple[int, ...], max_pixels: int) -> Picture:
    """The picture in the body of a reply.

    It is cropped around its centre to the data's proportions and resampled (Lanczos, antialiased). What is
    transparent becomes white, unless the data have an alpha channel themselves.

    Args:
        body: JSON: ``{"data": [{"b64_json": "…"}]}``.
        shape: (C, H, W) of the data's images.
        max_pixels: Most pixels that are decoded; the picture's header says how many there are.

    Raises:
        BadReplyError: It holds no such picture.
    """
    raw = _image_bytes(body)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PIL says of large pictures is decided here
            with Image.open(io.BytesIO(raw), formats=_FORMATS) as opened:
                width, height = opened.size
                if width * height > max_pixels:
                    raise BadReplyError(
                        f"a picture of {width}x{height} pixels, above generator.max_pixels={max_pixels}"
                    )
                if opened.mode not in _DECODABLE:
                    raise BadReplyError(f"a picture of mode {opened.mode!r}")
                opened.load()
                picture = _converted(opened, MODES[shape[0]])
    except BadReplyError:
        raise
    except Image.DecompressionBombError:
        raise BadReplyError(f"a picture of far more pixels than generator.max_pixels={max_pixels}") from None
    except Exception as error:  # a decoder fed with anything may raise anything
        raise BadReplyError(f"no picture that can be decoded ({type(error).__name__})") from error
    digest = hashlib.blake2b(picture.tobytes(), digest_size=16, person=str(picture.size).encode()[:16]).digest()
    return Picture(values_of(picture, shape), digest)


def values_of(picture: Image.Image, shape: tuple[int, ...]) -> Tensor:
    """A picture, cropped around its centre and resampled to (C, H, W): float32 in [-1, 1]; see `decode`."""
    picture = _converted(picture, MODES[shape[0]])
    if picture.size != (shape[2], shape[1]):
        picture = ImageOps.fit(picture, (shape[2], shape[1]), Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.array(picture, dtype=np.float32)).reshape(shape[1], shape[2], shape[0])
    return values.permute(2, 0, 1).contiguous() / 127.5 - 1.0


def error_text(body: bytes) -> tuple[str, str]:
    """Code and message of an error reply, in whichever of the usual forms."""
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "", body.decode("utf-8", "replace")
    error = said.get("error", said) if isinstance(said, Mapping) else said
    if isinstance(error, Mapping):
        code, message = error.get("code") or error.get("type"), error.get("message") or error.get("detail")
        return str(code or ""), str(message or said)
    return "", str(error)


def _image_bytes(body: bytes) -> bytes:
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise BadReplyError("a reply that is not JSON") from None
    data = said.get("data") if isinstance(said, Mapping) else None
    if not isinstance(data, list) or len(data) != 1 or not isinstance(data[0], Mapping):
        raise BadReplyError('a reply without one entry in "data"')
    text = data[0].get("b64_json")
    if not isinstance(text, str) or not text:
        what = "a link in place of the picture" if data[0].get("url") else "an entry without b64_json"
        raise BadReplyError(
            f"{what}; set generator.response_format=b64_json, or to null where the server has no such field"
        )
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise BadReplyError("a picture that is not base64") from None


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    if mode != "RGBA" and (picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)
