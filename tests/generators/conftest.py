"""Real digits, a denoiser whose answer is known exactly, and one short real fit that many tests sample from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks are fastest, and equally fast everywhere, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _snapshot(images: Tensor, labels: Tensor | None, num_classes: int = 10, **more: Tensor) -> Snapshot:
    def spec(name: str, values: Tensor, high: float) -> FieldSpec:
        dtype = str(values.dtype).removeprefix("torch.")
        return FieldSpec(name, name, "tensor", dtype, tuple(values.shape[1:]), 0.0, high)

    columns = {"image": images, **more}
    fields = [spec(name, values, 255.0 if values.dtype == torch.uint8 else 1.0) for name, values in columns.items()]
    if labels is not None:
        columns["label"] = labels
        fields.append(FieldSpec("label", "label", "scalar", "int64", (), 0.0, 0.0))
    names = [f"digit {c}" for c in range(num_classes)] if labels is not None else []
    return Snapshot(SampleSpec(tuple(fields)), columns, names, list(range(len(names))))


@pytest.fixture(scope="session")
def make_snapshot() -> Callable[..., Snapshot]:
    """``make_snapshot(images, labels=None, num_classes=10, **further fields)``."""
    return _snapshot


@pytest.fixture(scope="session")
def digits() -> Snapshot:
    """All 1,797 digits, uint8 (1, 8, 8), with labels."""
    data = load_digits()
    images = torch.from_numpy(np.round(data.images * (255 / 16)).astype(np.uint8))[:, None]
    return _snapshot(images, torch.from_numpy(data.target.astype(np.int64)))


@pytest.fixture(scope="session")
def few_digits(digits: Snapshot) -> Snapshot:
    """The first 100 digits."""
    rows = torch.arange(100)
    labels = digits.labels
    assert labels is not None
    return _snapshot(digits.raw("image", rows), labels[rows])


@pytest.fixture(scope="session")
def agreement(digits: Snapshot) -> Callable[[Tensor, Tensor], float]:
    """Share of images that a classifier of the real digits takes for their class."""
    assert digits.labels is not None
    classifier = SVC(C=10).fit(digits.unit("image").flatten(1).numpy(), digits.labels.numpy())

    def share(images: Tensor, labels: Tensor) -> float:
        return float((classifier.predict(images.flatten(1).numpy()) == labels.numpy()).mean())

    return share


TINY: dict[str, Any] = {"steps": 3, "batch_size": 8, "channels": [8, 8]}


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Settings of a fit that takes a blink."""
    return dict(TINY)


@pytest.fixture(scope="session")
def fitted(digits: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One short but real fit on the digits (without augmentation, which takes longer to learn)."""
    folder = tmp_path_factory.mktemp("fitted")
    settings = {"steps": 140, "channels": [16, 32], "augment_p": 0.0}
    DiffusionGenerator(fit=settings).fit(digits, folder, lambda step, total: None)
    return folder


@pytest.fixture(scope="session")
def loaded(fitted: Path) -> Callable[..., DiffusionGenerator]:
    """``loaded(**settings)``: a generator with the weights of `fitted`."""

    def make(**settings: Any) -> DiffusionGenerator:
        generator = DiffusionGenerator(**settings)
        generator.load(fitted)
        return generator

    return make
