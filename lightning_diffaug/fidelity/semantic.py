"""Whether samples show what they should: by classifiers of real and of synthetic data, and by their captions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.samples import Samples
from lightning_diffaug.gates.caption import CaptionAgreement
from lightning_diffaug.gates.classifier_fit import FittedClassifier
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import IMAGE, LABEL, FieldSpec, SampleSpec


def fitted_on(samples: Samples, class_names: Sequence[str], settings: Mapping[str, Any] | None) -> FittedClassifier:
    """The gates' small classifier, fitted on samples: classes drawn alike, probabilities calibrated.

    Args:
        samples: With labels, of at least two classes.
        class_names: Name of each class index.
        settings: `ClassifierSettings` by name.

    Raises:
        ConfigurationError: There are no two classes, or samples of a shape that it does not know.
    """
    if samples.labels is None or len(torch.unique(samples.labels)) < 2:
        raise ConfigurationError("a classifier needs samples of two classes, and these have none or one.")
    shape, dtype = tuple(samples.values.shape[1:]), str(samples.values.dtype).removeprefix("torch.")
    image = FieldSpec(IMAGE, IMAGE, "tensor", dtype, shape, -1.0, 1.0)
    label = FieldSpec(LABEL, LABEL, "scalar", "int64", (), 0.0, 0.0)
    fields = {IMAGE: samples.values, LABEL: samples.labels}
    classifier = FittedClassifier(settings)
    with tempfile.TemporaryDirectory() as folder:
        classifier.fit(Snapshot(SampleSpec((image, label)), fields, class_names), Path(folder), lambda *_: None)
        classifier.load(Path(folder))
    return classifier


def share_right(classifier: FittedClassifier, samples: Samples) -> float:
    """Share of samples that the classifier takes for their class."""
    return float(_right(classifier, samples).double().mean())


def mean_recall(classifier: FittedClassifier, samples: Samples) -> float:
    """The same of each class, averaged over the classes that occur."""
    right, labels = _right(classifier, samples), samples.labels
    assert labels is not None
    return float(torch.stack([right[labels == c].double().mean() for c in torch.unique(labels).tolist()]).mean())


def _right(classifier: FittedClassifier, samples: Samples) -> Tensor:
    assert samples.labels is not None
    return classifier.logits(samples.values).argmax(1) == samples.labels


def caption_similarity(samples: Samples, captions: Sequence[str], model: Any, device: str) -> float:
    """Mean similarity of samples to captions, as gate ``caption`` scores it.

    Args:
        samples: Images of one or three channels.
        captions: One for each.
        model: Local folder of a CLIP-like model, or the import path of a scorer.
        device: Where it computes.

    Raises:
        ConfigurationError: There is no such model, or no images.
    """
    gate = CaptionAgreement(model, threshold=0.0, contrast=None, device=device)
    scores = gate({IMAGE: samples.values}, {PROMPT: list(captions)}).scores["caption_similarity"]
    return float(torch.as_tensor(scores).double().mean())
