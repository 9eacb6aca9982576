"""A small dual encoder of images and texts, as CLIP, and how well it finds one by the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models.classifier import small_cnn
from lightning_diffaug.models.gathering import of_all_ranks
from lightning_diffaug.models.schedule import warmed_up_adamw
from lightning_diffaug.words import PADDING, RESERVED, encoded, numbers, text_hashes

TOP = (1, 5)
"""The k of recall at k."""

_HIGHEST_SCALE = 100.0  # of the similarities (Radford et al. 2021, section 2.5)


class TextEncoder(nn.Module):
    """Words by a bidirectional GRU, averaged over the text: int64 ``(n, L)`` numbers of words -> ``(n, dim)``.

    Args:
        count: Words, with those of `words.RESERVED`.
        width: Of a word's embedding and of the GRU in each direction.
        dim: Of the result.
        dropout: Share of each word's embedding that is dropped in training.
    """

    def __init__(self, count: int, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, width, padding_idx=PADDING)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * width, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """See above."""
        lengths = (tokens != PADDING).sum(1).clamp_min(1)  # a text without words is one of padding
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(self.embedding(tokens)), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        read, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        result: Tensor = self.out(read.sum(1) / lengths.unsqueeze(1))
        return result


class DualEncoder(LightningModule):
    """Images and texts on one sphere, those of a pair near each other (CLIP; Radford et al. 2021).

    Batches are dicts: ``image`` float32 ``(n, C, H, W)`` in [0, 1], ``caption`` n texts; other keys are ignored. The
    loss is the symmetric InfoNCE with a learned temperature, in which all equal captions are right for an image of one
    of them.

    Logs ``train/loss``, and of validation and test ``recall_at_1`` and ``recall_at_5``: the share of images whose
    caption, and of captions whose image, is among the nearest k of all (the mean of both directions; equal captions
    are all right). ``recall_at_<k>_trivial`` is what drawing gives.

    Args:
        vocabulary: Words of the training captions; all others are one unknown word.
        in_channels: Channels of an image.
        width: Channels of the image's first convolution; the last has twice as many.
        word_width: Of a word's embedding.
        dim: Of the common space.
        length: Words of a caption that are read.
        dropout: Of words, in training.
        word_dropout: Share of words that are unknown in training.
        temperature: That similarities are divided by at the start.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.

    Raises:
        ConfigurationError: A value is out of range.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        in_channels: int = 1,
        width: int = 32,
        word_width: int = 64,
        dim: int = 64,
        length: int = 32,
        dropout: float = 0.1,
        word_dropout: float = 0.0,
        temperature: float = 0.1,
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__()
        vocabulary = [str(word) for word in vocabulary]  # plain: else resuming fails
        self.save_hyperparameters(logger=False)
        _check(vocabulary, width, word_width, dim, length, dropout, word_dropout, temperature, lr)
        self.number = numbers(vocabulary)
        self.length = length
        self.lr, self.weight_decay, self.word_dropout = lr, weight_decay, word_dropout
        self.image_encoder = small_cnn(in_channels, dim, width)
        self.text_encoder = TextEncoder(RESERVED + len(vocabulary), word_width, dim, dropout)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1.0 / temperature)))
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Unit vectors float32 ``(n, dim)`` of images ``(n, C, H, W)`` and of texts."""
        return self.of_images(images), self.of_texts(texts)

    def of_images(self, images: Tensor) -> Tensor:
        """Unit vectors of images."""
        return functional.normalize(self.image_encoder(images), dim=1)

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts."""
        return self._of_tokens(self.tokens(texts))

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Numbers of the words, int64 ``(n, length)``."""
        return encoded(list(texts), self.number, self.length).to(self.device)

    def _of_tokens(self, tokens: Tensor) -> Tensor:
        return functional.normalize(self.text_encoder(tokens), dim=1)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        tokens = self.tokens(batch["caption"])
        read = tokens
        if self.word_dropout:
            lost = (torch.rand(tokens.shape, device=tokens.device) < self.word_dropout) & (tokens != PADDING)
            read = torch.where(lost, 1, tokens)
        scale = self.log_scale.exp().clamp_max(_HIGHEST_SCALE)
        right = equal(text_hashes(batch["caption"]).to(self.device))
        loss = info_nce(scale * self.of_images(batch["image"]) @ self._of_tokens(read).T, right)
        self.log("train/loss", loss, batch_size=len(tokens))
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Keeps the batch's vectors."""
        self._keep(batch)

    def on_validation_epoch_start(self) -> None:
        """Forgets what was kept."""
        self._kept = []

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/*``."""
        self._log_recall("val")

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Keeps the batch's vectors."""
        self._keep(batch)

    def on_test_epoch_start(self) -> None:
        """Forgets what was kept."""
        self._kept = []

    def on_test_epoch_end(self) -> None:
        """Logs ``test/*``."""
        self._log_recall("test")

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """``image`` and ``caption``: the unit vectors of a batch."""
        images, texts = self(batch["image"], batch["caption"])
        return {"image": images, "caption": texts}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up and a cosine to 0."""
        return warmed_up_adamw(self, self.lr, self.weight_decay)

    def _keep(self, batch: Mapping[str, Any]) -> None:
        hashes = text_hashes(batch["caption"]).to(self.device)
        self._kept.append((self.of_images(batch["image"]), self.of_texts(batch["caption"]), hashes))

    def _log_recall(self, stage: str) -> None:
        if not self._kept:
            return
        parts = [torch.cat(of) for of in zip(*self._kept, strict=True)]
        self._kept = []
        images, texts, hashes = (of_all_ranks(self, part) for part in parts)
        right = equal(hashes)
        similarity = images @ texts.T
        for k in TOP:
            found = (recall_at(similarity, right, k) + recall_at(similarity.T, right, k)) / 2
            self.log(f"{stage}/recall_at_{k}", found, sync_dist=True)
            self.log(f"{stage}/recall_at_{k}_trivial", chance_at(right, k), sync_dist=True)


def equal(hashes: Tensor) -> Tensor:
    """Which texts are equal, bool ``(n, n)``, of their `words.text_hashes`.

    Not of their tokens: texts of words that are not in the vocabulary would all be one.
    """
    return hashes.unsqueeze(0) == hashes.unsqueeze(1)


def info_nce(logits: Tensor, right: Tensor) -> Tensor:
    """The mean of the cross-entropies along both axes (Radford et al. 2021, figure 3).

    Args:
        logits: ``(n, n)`` scaled similarities, images by texts.
        right: bool ``(n, n)``, symmetric: which belong together; those of a row share its probability.
    """
    target = right.to(logits.dtype)
    target = target / target.sum(1, keepdim=True)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def recall_at(similarity: Tensor, right: Tensor, k: int) -> Tensor:
    """Share of the queries (rows) with a right one among the k most similar.

    Args:
        similarity: ``(queries, gallery)``.
        right: bool, of that shape.
        k: How many are looked at; the whole gallery where it is smaller.
    """
    nearest = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    return right.gather(1, nearest).any(1).float().mean()


def chance_at(right: Tensor, k: int) -> Tensor:
    """What `recall_at` is on average where k of the gallery are drawn: 1 - C(n - m, k) / C(n, k) with m right ones."""
    n, m = right.shape[1], right.sum(1).double()
    missed = torch.ones_like(m)
    for drawn in range(min(k, n)):
        missed = missed * ((n - m - drawn) / (n - drawn)).clamp_min(0.0)
    return (1.0 - missed).mean().float()


def _check(
    vocabulary: Sequence[str],
    width: int,
    word_width: int,
    dim: int,
    length: int,
    dropout: float,
    word_dropout: float,
    temperature: float,
    lr: float,
) -> None:
    if not vocabulary:
        raise ConfigurationError(
            "model.vocabulary is empty: the training captions have no words, so there is nothing to learn. Look at the "
            "captions in real.root"
        )
    for name, value in (("width", width), ("word_width", word_width), ("dim", dim), ("length", length)):
        if value < 1:
            raise ConfigurationError(f"model.{name}={value} is below 1. Set model.{name} to e.g. 64")
    for name, share in (("dropout", dropout), ("word_dropout", word_dropout)):
        if not 0 <= share < 1:
            raise ConfigurationError(f"model.{name}={share} is not in [0, 1). Set model.{name} to e.g. 0.1")
    if lr <= 0 or temperature <= 0:
        raise ConfigurationError(
            f"model.lr={lr}, model.temperature={temperature}: both must be positive. Set model.lr and "
            "model.temperature so"
        )
