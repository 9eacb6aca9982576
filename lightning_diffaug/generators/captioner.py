"""From a real image to a new caption: a small captioner, fitted on the real pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import weights
from lightning_diffaug.generators.protocol import START, Condition
from lightning_diffaug.randomness import seeded
from lightning_diffaug.spec import CAPTION, IMAGE
from lightning_diffaug.words import PADDING, RESERVED, UNKNOWN, encoded, numbers, vocabulary

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec

CAPTIONER_VERSION = 1
"""Raised with every change that makes other weights or texts from the same settings; in both fingerprints."""

_MOST_WORDS = 48
_START = UNKNOWN  # no text is made with an unknown word, so that its number can begin one
_CHUNK = 128


class CaptionNetwork(nn.Module):
    """Images by convolutions, words one after the other by a GRU that is told the image at each.

    Args:
        channels: Of an image.
        count: Words, with those of `words.RESERVED`.
        width: Of words and of the GRU.
        dropout: Of what is told of the image.
    """

    def __init__(self, channels: int, count: int, width: int, dropout: float) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(channels, width // 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(width // 2, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Dropout(dropout), nn.Linear(16 * width, width), nn.ReLU(),
        )  # fmt: skip
        self.word = nn.Embedding(count, width)
        self.gru = nn.GRU(2 * width, width, batch_first=True)
        self.out = nn.Linear(2 * width, count)

    def forward(self, seen: Tensor, before: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (n, L, count) of the words behind `before`, int64 (n, L), for images seen as (n, width); the state."""
        told = seen.unsqueeze(1).expand(-1, before.shape[1], -1)
        hidden, state = self.gru(torch.cat((self.word(before), told), 2), state)
        return self.out(torch.cat((hidden, told), 2)), cast(Tensor, state)


class Captioner:
    """Keeps the image of a real pair and makes a new caption for it, word by word.

    It is fitted on the real pairs. The planner gives each row a real training sample (``start``); what is stored is its
    image, and a text that is drawn with the row's seed. Texts are in lower case and without punctuation, of words of
    the training captions. The gates that judge images (copy, duplicate) are left out: the images are real ones.

    Args:
        image: The field that is looked at.
        text: The field that is made.
        temperature: That logits are divided by: below 1 texts are surer and more alike.
        steps: Optimiser steps of the fit.
        batch_size: Pairs a step.
        lr: Highest learning rate.
        width: Of words and of the GRU.
        dropout: Of what is told of the image.
        seed: Of the fit.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    source = "image"
    """Where samples start, for the planner."""

    def __init__(
        self,
        image: str = IMAGE,
        text: str = CAPTION,
        temperature: float = 0.7,
        steps: int = 600,
        batch_size: int = 64,
        lr: float = 3e-3,
        width: int = 64,
        dropout: float = 0.3,
        seed: int = 0,
    ) -> None:
        finite = 0 < temperature < math.inf and 0 < lr < math.inf  # NaN is neither
        if not finite or steps < 1 or batch_size < 1 or width < 2 or not 0 <= dropout < 1:
            raise ConfigurationError(
                f"temperature={temperature}, steps={steps}, batch_size={batch_size}, lr={lr}, width={width}, dropout="
                f"{dropout}: all must be positive and finite, width from 2, dropout in [0, 1). Set generator.<key> so."
            )
        self.image, self.text, self.temperature = image, text, float(temperature)
        self.steps, self.batch_size, self.lr, self.width = steps, batch_size, float(lr), width
        self.dropout, self.seed = float(dropout), seed
        self._network: CaptionNetwork | None = None
        self._words: list[str] = []
        self._length = 0

    @property
    def kept(self) -> list[str]:
        """The field that stays as the real sample has it."""
        return [self.image]

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Says what would be wrong in the fit before anything starts.

        Raises:
            ConfigurationError: The samples have no image and text.
        """
        image, text = spec.get(self.image), spec.get(self.text)
        if image is None or text is None or len(image.shape) != 3 or not text.is_text or len(spec.continuous) != 1:
            raise ConfigurationError(
                f"the captioner makes the text {self.text!r} of the image {self.image!r} (C, H, W), and the samples "
                f"have {[field.name for field in spec.fields]}. Name these two in data.fields, and set "
                "generator.image and generator.text to their names."
            )

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        names = ("image", "text", "temperature", "steps", "batch_size", "lr", "width", "dropout", "seed")
        return {name: getattr(self, name) for name in names}

    def fit_key(self) -> dict[str, Any]:
        """What the fitted weights depend on, besides the data."""
        return {
            "captioner_version": CAPTIONER_VERSION,
            **{k: v for k, v in self.config().items() if k != "temperature"},
        }

    def sample_key(self) -> dict[str, Any]:
        """What a sample depends on, besides weights, condition and seed."""
        return {"captioner_version": CAPTIONER_VERSION, "temperature": self.temperature}

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Fits by teacher forcing, and writes weights and `fit.json`; see `Fittable`.

        Raises:
            ConfigurationError: The samples have no image and text.
            GeneratorError: The loss is not finite any more.
        """
        self.bind(snapshot.spec, snapshot.class_names)
        texts = snapshot.texts[self.text]
        known = vocabulary(texts)
        tokens = encoded(texts, numbers(known), _MOST_WORDS)
        length = min(int((tokens != PADDING).sum(1).max()) + 1, _MOST_WORDS)  # with its end
        about = {"channels": snapshot.spec[self.image].shape[0], "count": RESERVED + len(known), "width": self.width}
        rng = torch.Generator().manual_seed(self.seed)
        with seeded(self.seed):
            network = CaptionNetwork(**about, dropout=self.dropout)
            optimizer = torch.optim.AdamW(network.parameters(), self.lr, weight_decay=0.05)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            for step in range(self.steps):
                rows = torch.randint(len(texts), (self.batch_size,), generator=rng)
                wanted = tokens[rows, :length]
                before = torch.cat((torch.full_like(wanted[:, :1], _START), wanted[:, :-1]), 1)
                logits, _ = network(network.image(snapshot.unit(self.image, rows)), before)
                ended = (before == PADDING).cumsum(1) > 0
                target = wanted.masked_fill(ended | (wanted == UNKNOWN), -100)
                loss = functional.cross_entropy(logits.flatten(0, 1), target.flatten())
                if not math.isfinite(float(loss.detach())):
                    raise GeneratorError(
                        f"the captioner's loss is {float(loss.detach())} at step {step + 1}. Lower generator.lr."
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                progress(step + 1, self.steps)
        description = {"network": about, "words": known, "length": length}
        weights.save(folder, network.state_dict(), description, {**self.fit_key(), "snapshot": snapshot.hash})

    def load(self, folder: Path) -> None:
        """Reads what `fit` wrote, verified by hash.

        Raises:
            GeneratorError: The folder is incomplete or damaged.
        """
        state, description = weights.load(folder)
        with seeded(0):  # first weights are drawn, and at once written over
            network = CaptionNetwork(**description["network"], dropout=self.dropout)
        network.load_state_dict(state)
        self._network, self._words = network.eval().requires_grad_(False), list(description["words"])
        self._length = int(description["length"])

    def generate(self, condition: Condition, seeds: Sequence[int]) -> dict[str, Any]:
        """Makes one caption for each seed; see `Generator`.

        Args:
            condition: ``start``: real images float32 (n, C, H, W) in [-1, 1]. Other keys are ignored.
            seeds: n seeds.

        Returns:
            The images as they were given, and n texts, by the names of the fields.

        Raises:
            GeneratorError: Nothing was loaded, or there are no images.
        """
        if self._network is None:
            raise GeneratorError("the captioner has no weights yet. Call fit(...) and load(folder) first.")
        images = condition.get(START)
        if not isinstance(images, Tensor) or len(images) != len(seeds):
            raise GeneratorError(
                f"condition[{START!r}] holds no image for each of {len(seeds)} samples: a captioner says what real "
                "images show. Set data.planner=auto."
            )
        texts: list[str] = []
        for first in range(0, len(seeds), _CHUNK):
            rows = slice(first, first + _CHUNK)
            texts += self._captions(self._network, images[rows].to(torch.float32), seeds[rows])
        return {self.image: images.to(torch.float32), self.text: texts}

    def _captions(self, network: CaptionNetwork, images: Tensor, seeds: Sequence[int]) -> list[str]:
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        with torch.no_grad():
            seen = network.image(images)
            before, state = torch.full((len(seeds), 1), _START, dtype=torch.int64), None
            made: list[list[str]] = [[] for _ in seeds]
            ended = [False] * len(seeds)
            for place in range(self._length):
                logits, state = network(seen, before, state)
                logits = logits[:, 0] / self.temperature
                logits[:, UNKNOWN] = -torch.inf
                if place == 0:
                    logits[:, PADDING] = -torch.inf  # a caption has a word
                share = logits.softmax(1)
                drawn = [int(torch.multinomial(p, 1, generator=rng)) for p, rng in zip(share, rngs, strict=True)]
                for row, word in enumerate(drawn):
                    ended[row] |= word == PADDING
                    if not ended[row]:
                        made[row].append(self._words[word - RESERVED])
                if all(ended):
                    break
                before = torch.tensor(drawn).unsqueeze(1)
        return [" ".join(text) for text in made]
