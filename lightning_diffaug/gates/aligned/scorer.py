"""A scorer of pairs of any two fields, fitted contrastively on the real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.gates.aligned.cross_fit import CHUNK, CrossFitted, Pair
from lightning_diffaug.gates.aligned.encoders import FieldEncoder
from lightning_diffaug.gates.aligned.fields import Values, taken
from lightning_diffaug.spec import FieldSpec

DIMENSIONS = 32
_SHARPEST = math.log(20.0)
_NOISE = 0.3  # standard deviation, in values of [-1, 1], that keeps an encoder from the last bit of its few pairs


class PairEncoder(nn.Module):
    """Two encoders into one space, and what real pairs are there.

    Args:
        first: The first field.
        second: The second.
        width: Channels of the first layers.
        size: Longest side that images are averaged down to.
    """

    def __init__(self, first: FieldSpec, second: FieldSpec, width: int, size: int) -> None:
        super().__init__()
        self.first = FieldEncoder(first, DIMENSIONS, width, size)
        self.second = FieldEncoder(second, DIMENSIONS, width, size)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.register_buffer("bank_first", torch.zeros(CHUNK, DIMENSIONS))
        self.register_buffer("bank_second", torch.zeros(CHUNK, DIMENSIONS))
        self.register_buffer("held", torch.zeros((), dtype=torch.int64))
        self.bank_first: Tensor
        self.bank_second: Tensor
        self.held: Tensor

    def forward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Features of both, float32 (n, dimensions) of length 1."""
        return self.first(pair[0]), self.second(pair[1])

    @property
    def scale(self) -> Tensor:
        """Inverse temperature."""
        return self.log_scale.clamp(max=_SHARPEST).exp()

    def offsets(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """How well each fits real partners as such, float32 (n,): log of the mean of what it scores with them."""
        held = int(self.held)
        of_first = (self.scale * first @ self.bank_second[:held].T).logsumexp(1) - math.log(held)
        of_second = (self.scale * second @ self.bank_first[:held].T).logsumexp(1) - math.log(held)
        return of_first, of_second


class FittedPairScorer(CrossFitted):
    """Encoders of two fields, fitted so that real partners are near and others are not (InfoNCE, both ways).

    A pair is judged by how much better its two fit each other than they fit real partners in general: at the optimum
    of the loss an estimate of their pointwise mutual information (van den Oord et al. 2018, equation 5), in nats, the
    mean of both ways.

    Args:
        first: Name of the first field.
        second: Name of the second.
        settings: `AlignedSettings` by name.
    """

    gate = "pair"
    version = 2

    def __init__(self, first: str, second: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(first, second, settings)

    def network(self, first: FieldSpec, second: FieldSpec) -> PairEncoder:
        """See `CrossFitted`."""
        return PairEncoder(first, second, self.settings.width, self.settings.size)

    def loss(self, network: PairEncoder, pair: Pair, rng: torch.Generator) -> Tensor:
        """Cross-entropy of each one's own partner among those of the batch, both ways (Radford et al. 2021)."""
        first, second = network((_noised(pair[0], rng), _noised(pair[1], rng)))
        logits, own = network.scale * first @ second.T, torch.arange(len(first))
        logits = logits.masked_fill(_alike(pair), -torch.inf)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    def prepare(self, network: PairEncoder, pair: Pair) -> None:
        """Keeps the real partners."""
        first, second = network(pair)
        network.bank_first[: len(first)], network.bank_second[: len(second)] = first, second
        network.held.fill_(len(first))

    def judge(self, network: PairEncoder, pair: Pair) -> Tensor:
        """See `CrossFitted`."""
        first, second = network(pair)
        of_first, of_second = network.offsets(first, second)
        score: Tensor = network.scale * (first * second).sum(1) - (of_first + of_second) / 2
        return score

    def matrix(self, first: Values, second: Values) -> Tensor:
        """The score of each first with each second, float32 (n, m); few enough for one batch."""
        found = []
        with torch.inference_mode():
            for network in self.networks:
                assert isinstance(network, PairEncoder)
                a, b = network((first, second))
                of_first, of_second = network.offsets(a, b)
                found.append(network.scale * a @ b.T - (of_first[:, None] + of_second[None, :]) / 2)
        scores: Tensor = torch.stack(found).mean(0).clone()
        return scores

    def accuracy(self, first: Values, second: Values) -> float:
        """Share of pairs of a first with another's second that score below the first's own; equal scores count half.

        1/2 is chance. Compared are at most `CHUNK` at a time, in the order that they come in; a second that equals the
        own one (the same caption) is none of another.
        """
        better = pairs = 0.0
        for rows in torch.split(torch.arange(len(first)), CHUNK):
            pair = taken(first, rows), taken(second, rows)
            found = self.matrix(*pair)
            own = found.diagonal()[:, None]
            others = ~_alike(pair) & ~torch.eye(len(rows), dtype=torch.bool)
            better += float(((own > found)[others].double() + 0.5 * (own == found)[others].double()).sum())
            pairs += float(others.sum())
        return better / pairs if pairs else math.nan


def _alike(pair: Pair) -> Tensor:
    """Which are no opponents, bool (n, n): others of which one of the two equals the own one."""
    alike = torch.zeros(len(pair[0]), len(pair[0]), dtype=torch.bool)
    for values in pair:
        rows = [one.numpy().tobytes() for one in values] if isinstance(values, Tensor) else list(values)
        number = {row: i for i, row in enumerate(dict.fromkeys(rows))}
        of = torch.tensor([number[row] for row in rows])
        alike |= of[:, None] == of[None, :]
    return alike.fill_diagonal_(False)


def _noised(values: Values, rng: torch.Generator) -> Values:
    if not isinstance(values, Tensor):
        return values
    return values + _NOISE * torch.randn(values.shape, generator=rng)
