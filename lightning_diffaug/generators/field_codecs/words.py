"""Texts as tokens that a denoiser attends to: hashed words, which need no data and no weights."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.spec import FieldSpec
from lightning_diffaug.words import words

log = logging.getLogger(__name__)

PLACE_WIDTH = 8
"""Numbers of a token that say where in the text it stands."""


@dataclass(frozen=True)
class Words:
    """A text → (length, width): each word a vector of signs, drawn by its hash, beside its place in the text.

    Two words have vectors that are all but orthogonal, so that a denoiser tells them apart, in any language that puts
    space between words and without a vocabulary. It knows nothing of words that the data do not hold: that needs
    `SentenceEncoder`. Behind the text's end tokens are 0.

    Args:
        length: Words of a text that are read; a text of more words is cut, and that is said.
        width: Numbers of a token, the last 8 of them sines and cosines of the place.

    Raises:
        ConfigurationError: An argument is out of its range.
    """

    length: int = 24
    width: int = 64

    def __post_init__(self) -> None:
        for name, least in (("length", 1), ("width", PLACE_WIDTH + 8)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigurationError(
                    f"{name}={value!r} of the codec Words is not a whole number from {least}. Set "
                    f"generator.codecs.<field>.{name} to e.g. {getattr(Words, name)}."
                )

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """See `FieldCodec`."""
        check_text(field)
        return (self.length, self.width)

    def encode(self, raw: Tensor | Sequence[str], field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        texts = texts_of(raw, field)
        encoded = torch.zeros(len(texts), self.length, self.width)
        cut = 0
        for row, text in enumerate(texts):
            found = words(text)
            cut += len(found) > self.length
            for place, word in enumerate(found[: self.length]):
                encoded[row, place, :-PLACE_WIDTH] = _signs(word, self.width - PLACE_WIDTH)
        said = encoded[..., :1] != 0
        encoded[..., -PLACE_WIDTH:] = torch.where(said, _places(self.length), torch.zeros(()))
        if cut:
            _say_cut(field.name, self.length)
        return encoded

    def decode(self, encoded: Tensor, field: FieldSpec) -> Tensor:
        """There is none: a text that is encoded is told, and not made."""
        raise no_decoding(field)


@lru_cache(maxsize=65536)
def _signs(word: str, n: int) -> Tensor:
    """Numbers of -1 and 1, the bits of the word's hash."""
    digest = hashlib.shake_128(word.encode()).digest(-(-n // 8))
    return torch.tensor([1.0 if digest[i // 8] >> i % 8 & 1 else -1.0 for i in range(n)])


@lru_cache(maxsize=16)
def _places(length: int) -> Tensor:
    """(length, PLACE_WIDTH) sines and cosines, of wavelengths from 4 places to 4 times the length."""
    waves = PLACE_WIDTH // 2
    wavelengths = torch.logspace(math.log2(4.0), math.log2(4.0 * max(length, 2)), waves, base=2.0)
    angles = torch.arange(length)[:, None] * (2 * math.pi / wavelengths)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


@lru_cache(maxsize=64)
def _say_cut(name: str, length: int) -> None:  # once for each field
    log.warning(
        "Some texts of the field %r have more than %d words, and the rest of them is not told to the denoiser. Set "
        "generator.codecs.%s.length higher.",
        name, length, name,
    )  # fmt: skip


def check_text(field: FieldSpec) -> None:
    """Refuses a field that is no text.

    Raises:
        ConfigurationError: See above.
    """
    if not field.is_text:
        raise ConfigurationError(
            f"field {field.name!r} of shape {field.shape} is no text: leave generator.codecs.{field.name} out, or name "
            "the field that is one."
        )


def texts_of(raw: Tensor | Sequence[str], field: FieldSpec) -> list[str]:
    """Texts, checked.

    Raises:
        ConfigurationError: They are none.
    """
    texts = [] if isinstance(raw, Tensor) else list(raw)
    if isinstance(raw, Tensor) or not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(
            f"the condition {field.name!r} needs one text for each sample, and is {type(raw).__name__}. Set data.text, "
            f"or leave {field.name!r} out of generator.conditions."
        )
    return texts


def no_decoding(field: FieldSpec) -> ConfigurationError:
    """What is said where a text would have to be made of tokens."""
    return ConfigurationError(
        f"the text {field.name!r} is told to the denoiser and cannot be made by it. Name it in generator.conditions, "
        "e.g. {" + field.name + ": cross}."
    )
