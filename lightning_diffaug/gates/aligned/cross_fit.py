"""Networks that judge pairs, fitted on the real ones: each on all parts but one, which says what is usual.

A network judges the pairs that it was fitted on too well for a threshold. Those of a part that it never saw are judged
as made ones are, and no real pair is lost to the fit (Stone 1974, "Cross-Validatory Choice").
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates.aligned.fields import Values, read, taken
from lightning_diffaug.gates.aligned.settings import AlignedSettings
from lightning_diffaug.gates.descent import descend
from lightning_diffaug.randomness import seeded
from lightning_diffaug.spec import FieldSpec, SampleSpec

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

_WEIGHTS = "aligned.safetensors"
_LEAST = 4  # real pairs of a part
CHUNK = 256
Pair = tuple[Values, Values]


class CrossFitted(ABC):
    """Networks that are fitted once on the training snapshot, and kept as the weights of a generator are.

    Args:
        first: Name of the first field.
        second: Name of the second.
        settings: `AlignedSettings` by name; None: the defaults.
    """

    gate = ""
    version = 1
    """Part of the fit's fingerprint; raised with any change of the network or of how it is fitted."""

    def __init__(self, first: str, second: str, settings: Mapping[str, Any] | None = None) -> None:
        self._first, self._second = first, second
        self.settings = AlignedSettings.of(settings, self.gate)
        self._networks: list[nn.Module] = []
        self._fields: tuple[FieldSpec, ...] = ()
        self._held_out = torch.empty(0)

    @abstractmethod
    def network(self, first: FieldSpec, second: FieldSpec) -> nn.Module:
        """A new one, for two fields."""

    @abstractmethod
    def loss(self, network: Any, pair: Pair, rng: torch.Generator) -> Tensor:
        """What is minimised on a batch."""

    @abstractmethod
    def judge(self, network: Any, pair: Pair) -> Tensor:
        """How well the two belong together, float32 (n,), for a fitted network; high is good."""

    def prepare(self, network: Any, pair: Pair) -> None:  # noqa: B027 - most keep nothing
        """What a network keeps of the pairs (at most `CHUNK` of them) that it was fitted on, once it is."""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"first": self._first, "second": self._second, "settings": asdict(self.settings)}

    def fit_key(self) -> dict[str, Any]:
        """All that the fit depends on beside the training data."""
        return {"version": self.version, **self.config()}

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Fits the networks, judges each real pair by the one that did not see it, and writes all of it.

        Raises:
            ConfigurationError: There are too few pairs.
            GeneratorError: The loss is not finite.
        """
        n, folds, seed = len(snapshot), self.settings.folds, self.settings.seed
        if n < _LEAST * folds:
            raise ConfigurationError(
                f"gates.{self.gate} is fitted on real pairs, and {n} are too few for {folds} parts of {_LEAST} or "
                f"more. Give more training data, or set gates.{self.gate}=false."
            )
        fields = snapshot.spec[self._first], snapshot.spec[self._second]
        part_of = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % folds
        held_out = torch.empty(n)
        tensors: dict[str, Tensor] = {}
        for k in range(folds):
            rows, aside = (part_of != k).nonzero()[:, 0], (part_of == k).nonzero()[:, 0]

            def pair(of: Tensor) -> Pair:
                return read(snapshot, fields[0], of), read(snapshot, fields[1], of)

            done = k * self.settings.steps
            with seeded(seed + k):
                network = self.network(*fields)
                self._train(network, pair, rows, seed + k, partial(self._told, progress, done))
            with torch.inference_mode():
                self.prepare(network, pair(rows[torch.linspace(0, len(rows) - 1, min(len(rows), CHUNK)).long()]))
                for some in torch.split(aside, CHUNK):
                    held_out[some] = self.judge(network, pair(some))
            tensors |= {f"{k}.{key}": value.detach().contiguous() for key, value in network.state_dict().items()}
        text = json.dumps(SampleSpec(fields).to_json(), sort_keys=True)
        save_file({"held_out": held_out, **tensors}, folder / _WEIGHTS, metadata={"fields": text})

    def _told(self, progress: Callable[[int, int], None], done: int, step: int) -> None:
        progress(done + step, self.settings.folds * self.settings.steps)

    def _train(
        self,
        network: nn.Module,
        pair: Callable[[Tensor], Pair],
        rows: Tensor,
        seed: int,
        progress: Callable[[int], None],
    ) -> None:
        rng = torch.Generator().manual_seed(seed)
        size, order = min(self.settings.batch_size, len(rows)), torch.empty(0, dtype=torch.int64)

        def loss() -> Tensor:
            nonlocal order
            if len(order) < size:  # without replacement: a pair twice in a batch would be its own opponent
                order = rows[torch.randperm(len(rows), generator=rng)]
            drawn, order = order[:size], order[size:]
            return self.loss(network, pair(drawn), rng)

        descend(network, loss, self.settings, f"gates.{self.gate}", f"gates.{self.gate}.fit.lr", progress)

    def load(self, folder: Path) -> None:
        """Reads what `fit` wrote."""
        with safe_open(str(folder / _WEIGHTS), framework="pt") as file:
            self._fields = SampleSpec.from_json(json.loads(file.metadata()["fields"])).fields
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        self._held_out, self._networks = state.pop("held_out"), []
        for k in range(self.settings.folds):
            with seeded(0):  # first weights are drawn, and at once written over
                network = self.network(*self._fields)
            own = {key.partition(".")[2]: value for key, value in state.items() if key.startswith(f"{k}.")}
            network.load_state_dict(own)
            self._networks.append(network.eval())

    @property
    def networks(self) -> list[nn.Module]:
        """One for each part.

        Raises:
            GeneratorError: Nothing is loaded yet.
        """
        if not self._networks:
            raise GeneratorError(f"gates.{self.gate} is not fitted yet: load(folder) has to come before its use.")
        return self._networks

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The two fields, once it is loaded."""
        return self._fields

    @property
    def held_out(self) -> Tensor:
        """What each real pair is judged by the network that was not fitted on it, float32 (n,)."""
        return self._held_out

    def scores(self, first: Values, second: Values) -> Tensor:
        """How well pairs belong together, float32 (n,): the mean of what the networks say."""
        found = []
        with torch.inference_mode():
            for rows in torch.split(torch.arange(len(first)), CHUNK):
                pair = taken(first, rows), taken(second, rows)
                found.append(torch.stack([self.judge(network, pair) for network in self.networks]).mean(0))
        return torch.cat(found).clone() if found else torch.empty(0)
