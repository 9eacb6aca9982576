"""The gate that asks a classifier whether a sample is of the class that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.chain import Verdict
from lightning_diffaug.gates.checks import as_set, check_field, check_number
from lightning_diffaug.gates.classifier_fit import FittedClassifier, no_labels
from lightning_diffaug.gates.models import GivenModule
from lightning_diffaug.gates.nearest import compared_field
from lightning_diffaug.spec import LABEL

_KEY = "gates.class"


class RightClass:
    """Passes samples that a classifier takes for what was asked for. A gate of taste: off unless it is asked for.

    The classifier is fitted on the real training data alone, once (`FittedClassifier`), or the user's own. A sample
    passes when its class is among the `top_k`, has at least the probability `confidence`, and lies at least `margin`
    above the best other class. With several labels a sample (`labels` names a field of ones and zeros) each of its
    labels has to; one without any needs that probability for no label at all.

    Scores: ``class_probability`` and ``class_margin``, the least of a sample's labels.

    Args:
        confidence: Least probability, in [0, 1].
        margin: Least distance to the probability of the best other class, in [0, 1]; 0 asks for none.
        top_k: Among how many best classes it has to be. Above 1, lower `confidence` too: a class of probability 0.5 is
            always the first.
        candidates: Made for each row. Of those that every gate lets pass the one is kept of which the classifier is
            least sure, by the entropy of its prediction: of its class, and new (the class-maintained information of
            Zhang et al. 2023, "Expanding Small-Scale Datasets with Guided Imagination", arXiv 2211.13976). 1: none is
            chosen.
        model: Import path of a module of one's own: images → logits (n, C); None: a classifier is fitted.
        args: Arguments that `model` is made with.
        weights: .safetensors file with the state dict of `model`.
        size: Height and width that `model` takes images in; None: as they are.
        mean: Of each channel, of images in [0, 1], as `model` was trained; None: it takes them in [-1, 1].
        std: Of each channel.
        field: The field to look at; None: of those that are made the image, or the first continuous one.
        labels: The field with the classes.
        fit: `ClassifierSettings` by name, such as ``{steps: 800}``; None: the defaults.
        device: Where `model` computes.

    Raises:
        ConfigurationError: A value is out of range, or settings of a given model and of a fit are mixed.
    """

    name = "class"
    judges_made = True
    unnamed = ("device",)

    def __init__(
        self,
        confidence: float = 0.5,
        margin: float = 0.0,
        top_k: int = 1,
        candidates: int = 1,
        model: Any = None,
        args: Mapping[str, Any] | None = None,
        weights: str | None = None,
        size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        field: str | None = None,
        labels: str = LABEL,
        fit: Mapping[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        check_number(confidence, self.name, "confidence", "the least probability of a sample's class", 0.5, 0, 1)
        check_number(margin, self.name, "margin", "a distance between probabilities", 0.2, 0, 1)
        check_number(top_k, self.name, "top_k", "among how many best classes a sample's has to be", 1, 1)
        check_number(candidates, self.name, "candidates", "how many samples are made for each that is kept", 4, 1)
        if model is None and any(value is not None for value in (args, weights, size, mean, std)):
            raise ConfigurationError(
                f"{_KEY}.args, weights, size, mean and std are of a model of one's own, and {_KEY}.model is not set. "
                f"Set it, {as_set(self.name, model='package.module.Class')}, or leave them out."
            )
        if model is not None and fit is not None:
            raise ConfigurationError(f"{_KEY}.model is not fitted, so {_KEY}.fit has no effect. Leave one of them out.")
        self._confidence, self._margin, self._top_k = confidence, margin, top_k
        self.candidates = candidates
        self._field, self._labels, self._device = field, labels, device
        self._form: dict[str, Any] = {"weights": weights, "size": size, "mean": mean, "std": std}
        self.fitted = FittedClassifier(fit, field, labels) if model is None else None
        self.asks = None if model is None else GivenModule(model, args, **self._form, device=device, key=_KEY)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "confidence": self._confidence, "margin": self._margin, "top_k": self._top_k,
            "candidates": self.candidates,
            **({"model": None, "args": None} if self.asks is None else self.asks.setting), **self._form,
            "field": self._field, "labels": self._labels,
            "fit": None if self.fitted is None else self.fitted.config()["settings"], "device": self._device,
        }  # fmt: skip

    def model_key(self) -> Any:
        """Hash of the weights of a model of one's own."""
        return None if self.asks is None else self.asks.model_key()

    def check(self, spec: Any, class_names: Sequence[str]) -> None:
        """Looks at data and model before anything is made.

        Raises:
            ConfigurationError: There are no classes, settings do not fit them, or the model cannot be made or does not
                tell so many classes apart.
        """
        if self._labels not in spec:
            raise ConfigurationError(no_labels(self._labels))
        check_field(spec, self.name, self._field)
        classes = len(class_names) if self._labels == LABEL else (*spec[self._labels].shape, 0)[0]
        if classes and self._top_k > classes:
            raise ConfigurationError(
                f"{_KEY}.top_k={self._top_k}, and the data have {classes} classes: every class would be among so many "
                f"best ones. Set {as_set(self.name, top_k=1)}."
            )
        if self.asks is not None:
            logits = self.asks.check(spec[compared_field(spec, self._field)].shape)
            if logits is not None:
                _check_logits(logits, 1, classes)

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
        """Which rows are of their class, and how surely.

        Raises:
            ConfigurationError: There are no classes, or the model knows another number of them.
        """
        if self._labels not in condition:
            raise ConfigurationError(no_labels(self._labels))
        labels = torch.as_tensor(condition[self._labels])
        x = samples[compared_field(samples, self._field)]
        logits = self._logits(x)
        known = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
        _check_logits(logits, len(x), known)
        said = _of_one(logits, labels, self._top_k) if labels.ndim == 1 else _of_several(logits, labels, self._top_k)
        probability, margin, among = said
        passed = among & (probability >= self._confidence)
        if self._margin > 0:
            passed &= margin >= self._margin
        return Verdict(passed, {"class_probability": probability, "class_margin": margin})

    def rank(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """How unsure the classifier is of each row, in nats: entropy over the classes; of several labels, their sum."""
        logits = self._logits(samples[compared_field(samples, self._field)])
        several = torch.as_tensor(condition[self._labels]).ndim > 1
        p = logits.sigmoid() if several else logits.softmax(1)
        entropy: Tensor = torch.special.entr(torch.cat((p, 1.0 - p), 1) if several else p).sum(1)
        return entropy

    def _logits(self, x: Tensor) -> Tensor:
        if self.asks is not None:
            return self.asks(x).float()
        assert self.fitted is not None
        return self.fitted.logits(x)


def _check_logits(logits: Tensor, n: int, classes: int) -> None:
    if logits.ndim != 2 or logits.shape[0] != n or logits.shape[1] < classes:
        raise ConfigurationError(
            f"{_KEY}.model returned {tuple(logits.shape)} for {n} images of {classes} classes: needed are logits "
            f"(n, classes), in the order of the data's classes. Set {_KEY}.model to another one, or correct "
            f"{_KEY}.args."
        )


def _of_one(logits: Tensor, labels: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of each row's class, its margin, and whether it is among the best."""
    probabilities = logits.softmax(1)
    own = labels.long()[:, None]
    probability = probabilities.gather(1, own)
    others = probabilities.scatter(1, own, -1.0)
    best_other = others.amax(1) if logits.shape[1] > 1 else torch.zeros(len(logits))
    among = (others > probability).sum(1) < top_k
    return probability[:, 0], probability[:, 0] - best_other, among


def _of_several(logits: Tensor, labels: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same of the least sure of each row's labels; a label's rank counts those that the row has not."""
    probabilities, has = logits[:, : labels.shape[1]].sigmoid(), labels > 0
    least = torch.where(has, probabilities, 1.0).amin(1)
    best_other = torch.where(has, 0.0, probabilities).amax(1)
    nothing = ~has.any(1)
    probability = torch.where(nothing, 1.0 - best_other, least)
    above = (torch.where(has, 0.0, probabilities) > least[:, None]).sum(1)
    return probability, torch.where(nothing, 1.0 - 2.0 * best_other, least - best_other), nothing | (above < top_k)
