"""Texts as words and numbers of words."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")

PADDING, UNKNOWN = 0, 1
"""Numbers of what follows the end of a text, and of a word that is not in the vocabulary."""

RESERVED = 2
"""The first word's number."""


def words(text: str) -> list[str]:
    """Words of a text, in order: letters and digits, with hyphens and apostrophes inside; case does not matter."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def text_hashes(texts: Sequence[str]) -> Tensor:
    """Numbers of texts, int64 (n,), in every process the same: equal for texts of the same words in the same order.

    Of texts without words, what they are made of counts.
    """
    normal = [" ".join(words(text)) or "\0" + text.strip() for text in texts]
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in normal]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)


def vocabulary(texts: Sequence[str], most: int = 10_000) -> list[str]:
    """The words of texts, the most frequent first, equal ones by the alphabet.

    Args:
        texts: Texts.
        most: Words that are kept.
    """
    counts = Counter(word for text in texts for word in words(text))
    return sorted(counts, key=lambda word: (-counts[word], word))[:most]


def numbers(vocabulary: Sequence[str]) -> dict[str, int]:
    """Word → its number."""
    return {word: RESERVED + place for place, word in enumerate(vocabulary)}


def encoded(texts: Sequence[str], number: Mapping[str, int], length: int) -> Tensor:
    """Texts as numbers of their words.

    Args:
        texts: n texts.
        number: Of each word; see `numbers`.
        length: Words of a text that are read; what follows is not.

    Returns:
        int64 (n, length), `PADDING` behind the end, `UNKNOWN` for words without a number.
    """
    found = torch.full((len(texts), length), PADDING, dtype=torch.int64)
    for row, text in enumerate(texts):
        read = [number.get(word, UNKNOWN) for word in words(text)[:length]]
        found[row, : len(read)] = torch.tensor(read, dtype=torch.int64)
    return found
