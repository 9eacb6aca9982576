"""What is measured on: the parts that are compared, their features, and what was found so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity import semantic
from lightning_diffaug.fidelity.features import feature_network
from lightning_diffaug.fidelity.result import Figure
from lightning_diffaug.fidelity.samples import Samples, drawn_alike, halves, weights_alike
from lightning_diffaug.fidelity.settings import FidelitySettings
from lightning_diffaug.gates.classifier_fit import FittedClassifier

LEAST = 2


@dataclass
class Work:
    """What is measured on, and what was found so far.

    Attributes:
        settings: How it is measured.
        training: All real training samples.
        reference: What is compared with: of these, or of a half of them, as many as are compared at most.
        held: All held-out real samples.
        synthetic: All synthetic samples.
        drawn: Synthetic samples that are compared.
        level: Held-out real samples that are compared in the same way: equally many, of each class too.
        held_is_training: Whether the held-out samples are a half of the training data.
        class_names: Name of each class index.
        classes: Class indices of the training samples.
        fitted: Samples that the classifier is fitted on.
        classifier: Of the whole reference part; None without two classes.
        why_no_classifier: Why there is none.
        how_to_classify: `ClassifierSettings` by name.
        features: Of reference, drawn and level.
        weights: Share of each reference sample, by which its classes are as frequent as among those drawn; None: they
            are.
        measured: As in `Fidelity`, so far.
        absent: Likewise.
        per_class: Likewise.
        about: Likewise.
    """

    settings: FidelitySettings
    training: Samples
    reference: Samples
    held: Samples
    synthetic: Samples
    drawn: Samples
    level: Samples
    held_is_training: bool
    class_names: tuple[str, ...]
    classes: list[int]
    fitted: int
    classifier: FittedClassifier | None
    why_no_classifier: str
    how_to_classify: dict[str, Any]
    features: tuple[Tensor, Tensor, Tensor]
    weights: Tensor | None
    measured: dict[str, Figure] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    per_class: dict[str, dict[str, Figure]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        training: Samples,
        synthetic: Samples,
        held_out: Samples | None,
        class_names: tuple[str, ...],
        settings: FidelitySettings,
    ) -> Work:
        """Divides, draws, fits the classifier and computes features.

        Raises:
            ConfigurationError: There are too few samples, or the feature network does not work.
        """
        whole, held = halves(training, settings.seed) if held_out is None else (training, held_out)
        drawn, level = drawn_alike(synthetic, held, settings.samples, settings.seed)
        if min(len(drawn), len(level), len(whole)) < LEAST:
            raise ConfigurationError(
                f"{len(drawn)} synthetic and {len(level)} real samples of the classes that both have are too few to be "
                "compared. Give more of them, or leave labels out."
            )
        names = class_names or tuple(map(str, range(_classes(training, synthetic, held))))
        how = {"seed": settings.seed, **(settings.classifier or {})}
        classifier, why = None, ""
        try:
            classifier = semantic.fitted_on(whole, names, how)
        except ConfigurationError as error:
            why = str(error)
        network = feature_network(settings.features, classifier, settings.device)
        reference = whole.at_most(settings.samples, settings.seed)
        features = (
            network(reference.values, "the real reference samples"),
            network(drawn.values, "the synthetic samples"),
            network(level.values, "the held-out real samples"),
        )
        weights = weights_alike(reference, drawn)
        real = [] if training.labels is None else torch.unique(training.labels).tolist()
        there = real if synthetic.labels is None else torch.unique(synthetic.labels).tolist()
        about = {
            "features": network.name,
            "dimensions": features[0].shape[1],
            "training_samples": len(training),
            "fitted_samples": 0 if classifier is None else len(whole),
            "reference_samples": len(reference),
            "held_out_samples": len(held),
            "synthetic_samples": len(synthetic),
            "compared_samples": len(drawn),
            "drawn_by_class": drawn.labels is not None and level.labels is not None,
            "reference_weighted": weights is not None,
            "classes_absent": [names[c] for c in real if c not in there],
        }
        return cls(
            settings, training, reference, held, synthetic, drawn, level, held_out is None, names, real, len(whole),
            classifier, why, how, features, weights, about=about,
        )  # fmt: skip

    def add(self, names: Sequence[str], make: Callable[[], Mapping[str, Figure]]) -> None:
        """Adds figures, or says of all of them why there are none."""
        try:
            self.measured |= make()
        except ConfigurationError as error:
            self.absent |= dict.fromkeys(names, str(error))


def _classes(*samples: Samples) -> int:
    return 1 + max((int(one.labels.max()) for one in samples if one.labels is not None and len(one)), default=-1)
