from __future__ import annotations

from typing import Any

import pytest

from lightning_diffaug.ablation.metric import chosen_metric
from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.errors import ConfigurationError


def _run(*counts: int, **more: Any) -> Run:
    return Run("0", "mixed", "mixed", 0, 0.0, {}, train_counts=counts, **more)


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ([(5, 80)], "acc_balanced"),
        ([(10, 10)], "acc"),
        ([(10, 15)], "acc"),
        ([(10, 10), (10, 16)], "acc_balanced"),
        ([(0, 10)], "acc_balanced"),
        ([()], "acc"),
        ([], "acc"),
    ],
)
def test_balanced_accuracy_is_the_default_where_classes_are_imbalanced(
    counts: list[tuple[int, ...]], name: str
) -> None:
    assert chosen_metric([_run(*of_run) for of_run in counts]).name == name


def test_rare_classes_are_imbalance_where_counts_are_not_known() -> None:
    assert chosen_metric([_run(rare=("1",))]).name == "acc_balanced"


def test_the_metric_asked_for_is_taken_from_the_argument_else_from_the_runs() -> None:
    run = _run(10, 10, config={"ablation": {"metric": "acc_rare"}})
    assert chosen_metric([run]).name == "acc_rare"
    assert chosen_metric([run], "auroc").name == "auroc"
    assert chosen_metric([_run(10, 10, config={"ablation": None})]).name == "acc"


def test_another_metric_is_refused_with_the_key_to_change() -> None:
    with pytest.raises(ConfigurationError, match=r"ablation\.metric=f1 .*acc_balanced, acc_rare, auroc"):
        chosen_metric([_run(10, 10)], "f1")


def test_keys_are_those_of_the_parts_with_and_without_correction() -> None:
    metric = chosen_metric([_run(5, 80)])
    assert metric.key("test") == "test/acc_balanced"
    assert metric.key("val", corrected=True) == "val/acc_balanced_corrected"
    auroc = chosen_metric([], "auroc")
    assert auroc.key("val", corrected=True) == "val/auroc"
    assert not auroc.needs_correction
