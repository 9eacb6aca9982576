from __future__ import annotations

import numpy as np
import pytest

from lightning_diffaug.data.selection import (
    drawn_groups,
    few_shot,
    grouped_split,
    minority_classes,
    resolve_rare,
    stratified_split,
)
from lightning_diffaug.errors import ConfigurationError

TARGETS = [0] * 50 + [1] * 30 + [2] * 20
NAMES = ("cat", "dog", "owl")


def test_split_parts_are_disjoint_complete_and_stratified() -> None:
    parts = stratified_split(TARGETS, (0.6, 0.15, 0.25))
    assert sorted(index for part in parts for index in part) == list(range(100))
    counts = [np.bincount([TARGETS[i] for i in part], minlength=3).tolist() for part in parts]
    assert counts[1:] == [[8, 4, 3], [12, 8, 5]]


def test_split_is_fixed_for_a_seed_and_moves_with_it() -> None:
    assert stratified_split(TARGETS, (0.5, 0.5)) == stratified_split(TARGETS, (0.5, 0.5))
    assert stratified_split(TARGETS, (0.5, 0.5), seed=1) != stratified_split(TARGETS, (0.5, 0.5))


def test_split_never_moves_between_versions() -> None:
    # A frozen value: if this changes, published figures are of another test set.
    assert stratified_split([0] * 10, (0.5, 0.5))[0] == [0, 1, 3, 5, 6]
    assert few_shot([0] * 10, 1, shots=4, rare=[], rare_shots=None, seed=0) == [3, 4, 8, 9]
    assert resolve_rare(5, [str(i) for i in range(10)], seed=0) == [0, 1, 3, 5, 7]


def test_smallest_classes_still_reach_every_part() -> None:
    parts = stratified_split([0] * 3 + [1] * 4, (0.7, 0.1, 0.2))
    assert [len(part) for part in parts] == [3, 2, 2]
    assert all({0, 1} == {([0] * 3 + [1] * 4)[i] for i in part} for part in parts)


def test_class_too_small_to_split_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"class owl has 2 .*real\.root"):
        stratified_split([2, 2], (0.7, 0.1, 0.2), classes=NAMES)


@pytest.mark.parametrize("shares", [(0.5, 0.2), (1.0, 0.0), (1.2, -0.2)])
def test_shares_that_are_no_partition_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"real\.split"):
        stratified_split(TARGETS, shares)


def test_caps_hold_per_class_and_rare_classes_are_rarer() -> None:
    kept = few_shot(TARGETS, 3, shots=25, rare=[1], rare_shots=5, seed=0)
    assert kept == sorted(set(kept))
    assert np.bincount([TARGETS[i] for i in kept]).tolist() == [25, 5, 20]


def test_shots_cap_rare_classes_too() -> None:
    kept = few_shot(TARGETS, 3, shots=3, rare=[1], rare_shots=5, seed=0)
    assert np.bincount([TARGETS[i] for i in kept]).tolist() == [3, 3, 3]


def test_no_cap_keeps_everything() -> None:
    assert few_shot(TARGETS, 3, shots=None, rare=[], rare_shots=None, seed=0) == list(range(100))


def test_selection_follows_the_seed_and_smaller_caps_are_nested() -> None:
    def kept(shots: int, seed: int) -> set[int]:
        return set(few_shot(TARGETS, 3, shots=shots, rare=[], rare_shots=None, seed=seed))

    assert kept(5, seed=0) != kept(5, seed=1)
    assert kept(5, seed=0) < kept(10, seed=0)


def test_rare_classes_are_drawn_by_seed_and_nested() -> None:
    names = [str(i) for i in range(10)]
    draws = {tuple(resolve_rare(5, names, seed)) for seed in range(8)}
    assert len(draws) > 1
    assert set(resolve_rare(3, names, 4)) < set(resolve_rare(5, names, 4))
    assert resolve_rare(0, names, 0) == []


def test_rare_classes_by_index_or_name() -> None:
    assert resolve_rare(["owl", 0], NAMES, seed=0) == [0, 2]


@pytest.mark.parametrize("rare", [4, -1, [3], ["bat"]])
def test_unknown_rare_class_is_an_error_that_names_the_key(rare: int | list[int | str]) -> None:
    with pytest.raises(ConfigurationError, match=r"real\.rare_classes"):
        resolve_rare(rare, NAMES, seed=0)


def test_minority_is_below_half_the_median_count() -> None:
    assert minority_classes([100, 49, 50, 120, 100]) == [1]
    assert minority_classes([10, 10]) == []


def test_a_group_is_in_one_part_and_every_part_has_about_its_share() -> None:
    groups = [f"speaker {i % 20}" for i in range(400)]
    parts = grouped_split(groups, (0.7, 0.1, 0.2))
    assert sorted(i for part in parts for i in part) == list(range(400))
    assert [len(part) for part in parts] == [280, 40, 80]
    found = [{groups[i] for i in part} for part in parts]
    assert sum(map(len, found)) == len(set().union(*found)) == 20
    assert parts == grouped_split(groups, (0.7, 0.1, 0.2))
    assert parts != grouped_split(groups, (0.7, 0.1, 0.2), seed=1)
    assert all(grouped_split(["a", "b", "c"], (0.98, 0.01, 0.01)))
    with pytest.raises(ConfigurationError, match="2 groups of samples"):
        grouped_split(["a", "b", "a"], (0.7, 0.1, 0.2))
    with pytest.raises(ConfigurationError, match=r"real\.split"):
        grouped_split(groups, (0.7, 0.1, 0.1))


def test_fewer_groups_are_some_of_more() -> None:
    names = [f"voice {i}" for i in range(12)]
    assert set(drawn_groups(names, 3, 0)) < set(drawn_groups(names[::-1], 6, 0)) < set(names)
    assert drawn_groups(names, 6, 0) != drawn_groups(names, 6, 1)
