"""Labels and names of classes are found, or refused where they are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from lightning_diffaug import labels
from lightning_diffaug.errors import SampleStructureError
from lightning_diffaug.labels import class_names, find_labels


class Labelled(Dataset[Any]):
    """Counts how often a sample is read."""

    def __init__(self, own: list[Any], **attributes: Any) -> None:
        self._labels, self.reads = own, 0
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return torch.zeros(1, 4, 4, dtype=torch.uint8), self._labels[index]


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": [2, 0, 1]},
        {"labels": [2, 0, 1]},
        {"targets": torch.tensor([2, 0, 1])},
        {"targets": np.array([2, 0, 1])},
    ],
)
def test_stored_labels_are_taken_without_reading_a_sample(attributes: dict[str, Any]) -> None:
    data = Labelled([2, 0, 1], **attributes)
    assert find_labels(data, None, "1") == [2, 0, 1]
    assert find_labels(Subset(data, [2, 0]), None, "1") == [1, 2]
    assert find_labels(ConcatDataset([data, Subset(data, [1])]), None, "1") == [2, 0, 1, 0]
    assert data.reads == 0


@pytest.mark.parametrize("targets", [[1, 2], [[1], [2], [3]], {"a": 1}, "abc", lambda: [2, 0, 1]])
def test_attributes_that_are_no_labels_are_passed_over(targets: Any) -> None:
    data = Labelled([2, 0, 1], targets=targets)
    assert find_labels(data, None, "1") == [2, 0, 1]
    assert data.reads == 3  # one pass


@pytest.mark.parametrize(("bound", "said"), [(-1.0, True), (600.0, False)])
def test_a_long_pass_over_the_samples_says_how_to_spare_it(
    bound: float, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(labels, "_LONG_PASS_SECONDS", bound)
    assert find_labels(Labelled([2, 0, 1]), None, "1") == [2, 0, 1]
    assert ("labels of 3 training samples" in caplog.text and "labels=" in caplog.text) == said


@pytest.mark.parametrize("label", [0.5, True, torch.tensor(1.5)])
def test_labels_that_are_no_classes_are_refused(label: Any) -> None:
    with pytest.raises(SampleStructureError, match=r"labels="):
        find_labels(Labelled([label] * 3), None, "1")


def test_given_labels_win() -> None:
    assert find_labels(Labelled([2, 0, 1], targets=[2, 0, 1]), ["b", "a", "b"], "1") == ["b", "a", "b"]
    assert find_labels(Labelled([2, 0, 1]), None, None) is None


def test_class_names_are_the_datasets_where_they_match() -> None:
    named = Labelled([0, 1], classes=["ant", "bee"])
    assert class_names(named, [0, 1]) == ["ant", "bee"]
    assert class_names(Subset(named, [0]), [0, 1]) == ["ant", "bee"]
    assert class_names(named, [1]) == ["bee"]  # a subset without class 0
    assert class_names(named, [1, 2]) == ["1", "2"]
    assert class_names(named, [-1, 0]) == ["-1", "0"]
    assert class_names(named, ["ant", "cow"]) == ["ant", "cow"]
