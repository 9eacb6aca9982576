"""Gates by name: the defaults, changed; what is no gate is said with its key."""

from __future__ import annotations

from typing import Any

import pytest
from gate_data import Mine

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import Finite, NotCopy
from lightning_diffaug.gates.choice import GATES, ON, chosen_gates

DEFAULT = ["finite", "range", "blank", "copy", "duplicate"]


def _names(gates: Any, **more: Any) -> list[str]:
    return [gate.name for gate in chosen_gates(gates, **more)]


def test_by_default_the_gates_against_what_is_wrong_are_on_and_those_of_taste_are_off() -> None:
    assert _names(None) == _names({}) == DEFAULT
    assert set(ON) == set(DEFAULT)


def test_each_gate_is_turned_off_and_on_by_name_and_keeps_its_place() -> None:
    assert _names({"copy": False}) == ["finite", "range", "blank", "duplicate"]
    assert _names({"blank": None, "finite": True}) == ["finite", "range", "copy", "duplicate"]
    assert _names({"duplicate": True, "finite": {}}) == DEFAULT


def test_registered_names_are_those_that_rejections_are_counted_under() -> None:
    assert {name: kind.name for name, kind in GATES.items()} == {name: name for name in GATES}


def test_arguments_reach_the_gate() -> None:
    gates = {
        gate.name: gate for gate in chosen_gates({"copy": {"ratio": 0.2, "mirror": False}, "range": {"tolerance": 1}})
    }
    assert gates["copy"].ratio == 0.2
    assert gates["copy"].mirror is False
    assert gates["range"].tolerance == 1


def test_a_gate_of_ones_own_stands_at_the_end_or_in_place_of_another() -> None:
    assert chosen_gates({"mine": {"_target_": "gate_data.Mine", "least": 0.5}})[-1].least == 0.5
    assert _names({"mine": Mine()}) == [*DEFAULT, "mine"]
    assert _names({"copy": Mine()}) == ["finite", "range", "blank", "mine", "duplicate"]


def test_a_list_is_just_these() -> None:
    given = [Mine(), Finite()]
    assert chosen_gates(given) == given
    assert chosen_gates([]) == []


def test_defaults_that_cannot_be_had_come_only_when_arguments_ask_for_them() -> None:
    left_out = ("copy", "duplicate")
    assert _names(None, left_out=left_out) == ["finite", "range", "blank"]
    assert _names({"copy": True}, left_out=left_out) == ["finite", "range", "blank"]
    assert isinstance(chosen_gates({"copy": {"ratio": 0.3}}, left_out=left_out)[-1], NotCopy)


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        ({"copies": True}, r"gates\.copies is no gate.*Did you mean gates\.copy\?"),
        ({"zzz": {"a": 1}}, r"gates\.zzz is no gate.*_target_"),
        ({"copy": {"ration": 0.2}}, r"gates\.copy=.*ration"),
        ("copy", "data.gates"),
        (3, "data.gates"),
    ],
)
def test_what_is_no_gate_is_said_with_its_key(gates: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        chosen_gates(gates)


def test_two_gates_that_choose_are_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigurationError, match=r"gates\.class\.candidates=1.*gates\.hard"):
        chosen_gates({"class": {"candidates": 3}, "hard": True})
