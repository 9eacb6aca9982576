"""The fit of the gates' classifier on the real training data alone; calibrated on a part of them that it never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates.checks import as_set
from lightning_diffaug.gates.classifier import CLASSIFIER_VERSION, Classifier, ClassifierSettings
from lightning_diffaug.gates.descent import descend
from lightning_diffaug.gates.nearest import compared_field
from lightning_diffaug.generators.augment import RandomAffine
from lightning_diffaug.generators.fit_data import ClassBalancedDraws, kept_aside
from lightning_diffaug.randomness import seeded
from lightning_diffaug.spec import LABEL

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

_WEIGHTS = "classifier.safetensors"
_CHUNK = 512
_LEAST_OF_A_CLASS = 5
_TEMPERATURES = torch.logspace(0, 1, 61, base=8.0)  # from 1 to 8


class FittedClassifier:
    """A classifier that is fitted once on the training snapshot and shared by all gates of the same settings.

    Args:
        settings: `ClassifierSettings` by name; None: the defaults.
        field: The field that it looks at; None: the image, or the first continuous one.
        labels: The field with the classes: indices, or a vector of ones and zeros where a sample has several.
    """

    def __init__(
        self, settings: Mapping[str, Any] | None = None, field: str | None = None, labels: str = LABEL
    ) -> None:
        self._settings = ClassifierSettings.of(settings)
        self._field, self._labels = field, labels
        self._network: Classifier | None = None
        self._name = ""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"settings": asdict(self._settings), "field": self._field, "labels": self._labels}

    def fit_key(self) -> dict[str, Any]:
        """All that the fit depends on beside the training data."""
        return {"version": CLASSIFIER_VERSION, **self.config()}

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Fits it, calibrates it, and writes its weights.

        Raises:
            ConfigurationError: The data have no labels.
            GeneratorError: The loss is not finite.
        """
        name = compared_field(snapshot.spec, self._field)
        labels = _labels(snapshot, self._labels)
        several = labels.ndim == 2
        classes = labels.shape[1] if several else max(len(snapshot.class_names), int(labels.max()) + 1)
        shape = tuple(snapshot.spec[name].shape)
        with seeded(self._settings.seed):
            network = Classifier(shape, classes, self._settings.width, self._settings.size)
        fitted, aside = _split(labels, self._settings)
        _train(network, lambda rows: snapshot.unit(name, rows), labels, fitted, self._settings, progress)
        if len(aside):
            logits = torch.cat([_logits(network, snapshot.unit(name, rows)) for rows in torch.split(aside, _CHUNK)])
            network.temperature.fill_(best_temperature(logits, labels[aside]))
        about = {"shape": list(shape), "classes": classes, "width": self._settings.width, "size": self._settings.size}
        text = json.dumps({"field": name, "network": about}, sort_keys=True)
        tensors = {key: value.detach().contiguous() for key, value in network.state_dict().items()}
        save_file(tensors, folder / _WEIGHTS, metadata={"description": text})

    def load(self, folder: Path) -> None:
        """Reads what `fit` wrote."""
        with safe_open(str(folder / _WEIGHTS), framework="pt") as file:
            said = json.loads(file.metadata()["description"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        about = said["network"]
        with seeded(0):  # first weights are drawn, and at once written over
            network = Classifier(tuple(about["shape"]), about["classes"], about["width"], about["size"])
        network.load_state_dict(state)
        self._network, self._name = network.eval(), said["field"]

    @property
    def field(self) -> str:
        """The field that it looks at, once it is loaded."""
        return self._name

    def logits(self, x: Tensor) -> Tensor:
        """Calibrated logits (n, classes) of samples (n, *shape) in [-1, 1]."""
        return self._inferred(x, self._loaded())

    def features(self, x: Tensor) -> Tensor:
        """What its last layer sees of samples (n, *shape) in [-1, 1], float32 (n, d)."""
        return self._inferred(x, self._loaded().features)

    def _loaded(self) -> Classifier:
        if self._network is None:
            raise GeneratorError("the gates' classifier is not fitted yet: load(folder) has to come before its use.")
        return self._network

    def _inferred(self, x: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.inference_mode():
            return torch.cat([ask(part) for part in torch.split(x, _CHUNK)]).clone()


def no_labels(key: str) -> str:
    """What to say of data without the classes that a gate goes by."""
    return (
        f"gates.class asks whether a sample is of its class, and the data have no {key!r}. Set "
        f"{as_set('class', labels='FIELD')}, the field of ones and zeros that says what a sample shows, or "
        "gates.class=false."
    )


def _labels(snapshot: Snapshot, key: str) -> Tensor:
    """Class indices, int64 (n,), or float (n, C) of ones and zeros."""
    if key not in snapshot.spec or (key == LABEL and snapshot.labels is None):
        raise ConfigurationError(no_labels(key))
    labels = snapshot.raw(key)
    return labels if labels.ndim == 1 else (labels > 0).float()


def _split(labels: Tensor, settings: ClassifierSettings) -> tuple[Tensor, Tensor]:
    """Rows that are fitted, and rows that calibrate; none of these where each class has but a few."""
    n, several = len(labels), labels.ndim == 2
    most = n if several else int(torch.bincount(labels).max())
    if settings.hold_out == 0.0 or most < _LEAST_OF_A_CLASS:
        return torch.arange(n), torch.empty(0, dtype=torch.int64)
    return kept_aside(None if several else labels, n, settings.hold_out, settings.seed)


def _balanced(labels: Tensor, rows: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    """Draws of rows, all classes alike; with several labels a row has a chance by each, or by having none."""
    if labels.ndim == 1:
        return ClassBalancedDraws(labels, len(labels), 1.0, rows)
    has = labels[rows]
    pairs = torch.cat((has, (has.sum(1, keepdim=True) == 0).float()), 1).nonzero()
    draws = ClassBalancedDraws(pairs[:, 1], len(pairs), 1.0)
    return lambda size, rng: rows[pairs[draws(size, rng), 0]]


def _train(
    network: Classifier,
    read: Callable[[Tensor], Tensor],
    labels: Tensor,
    rows: Tensor,
    settings: ClassifierSettings,
    progress: Callable[[int, int], None],
) -> None:
    rng = torch.Generator().manual_seed(settings.seed)
    draws, augment = _balanced(labels, rows), RandomAffine(settings.augment_p)

    def loss() -> Tensor:
        drawn = draws(settings.batch_size, rng)
        x = network.seen(read(drawn))
        x = augment(x, rng) if x.ndim == 4 else x
        return _loss(network(x), labels[drawn])

    descend(
        network, loss, settings, "the gates' classifier", "gates.class.fit.lr",
        lambda step: progress(step, settings.steps),
    )  # fmt: skip


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels)
    return functional.binary_cross_entropy_with_logits(logits, labels)


def _logits(network: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(x)
    return found


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T at which softmax(logits / T) gives the labels the least loss (Guo et al. 2017, section 4.2).

    Never below 1: a few samples that are all told rightly would ask for 0.

    Args:
        logits: float32 (n, C) of samples that were not fitted.
        labels: int64 (n,), or float (n, C) of ones and zeros.
    """
    losses = torch.stack([_loss(logits / t, labels) for t in _TEMPERATURES])
    return float(_TEMPERATURES[losses.argmin()])
