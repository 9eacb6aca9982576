"""Gates by name: the defaults, changed; what is no gate is said with its key."""

from __future__ import annotations

from typing import Any

import pytest
from gate_data import Mine, training

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
        (
            {"copy": {"rato": 0.2}},
            r"gates\.copy=.*rato is no argument.* has ratio, shift, mirror, .*Did you mean ratio\?",
        ),
        ({"finite": {"name": "x"}}, r"gates\.finite=.*name is no argument of it, which has none"),
        (
            {"copy": "yes"},
            r"gates\.copy='yes' is no gate.*true, false, a mapping of its arguments \(ratio, shift.*_target_",
        ),
        ({"class": 0.9}, r"gates\.class=0\.9 is no gate.*confidence, margin"),
        ({"mine": 5}, r"gates\.mine=5 is no gate.*_target_"),
        (["finite"], r"gates\[0\]='finite' is no gate.*gates=\{class: true\}"),
        ({"caption": {"model": "/x", "names": 5}}, r"gates\.caption=.*does not fit"),
        ("copy", "data.gates"),
        (3, "data.gates"),
    ],
)
def test_what_is_no_gate_is_said_with_its_key(gates: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        chosen_gates(gates)


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        ({"copy": {"shift": -1}}, r"gates\.copy\.shift=-1 is no whole number from 0.*gates\.copy=\{shift: 1\}"),
        ({"copy": {"shift": 1.5}}, r"gates\.copy\.shift=1\.5"),
        ({"copy": {"mirror": 5}}, r"gates\.copy\.mirror=5 is neither.*gates\.copy=\{mirror: true\}"),
        ({"copy": {"ratio": 2}}, r"gates\.copy\.ratio=2.*Set gates\.copy=\{ratio: 0\.33\}"),
        ({"contamination": {"shift": -1}}, r"gates\.contamination\.shift"),
        ({"contamination": {"mirror": "x"}}, r"gates\.contamination\.mirror"),
        ({"range": {"tolerance": "x"}}, r"gates\.range\.tolerance='x' is no number.*gates\.range=\{tolerance: 0\.05\}"),
        ({"range": {"tolerance": -3}}, r"gates\.range\.tolerance=-3"),
        ({"range": {"tolerance": float("inf")}}, r"gates\.range\.tolerance=inf"),
        ({"blank": {"contrast": 5}}, r"gates\.blank\.contrast=5 is no number from 0 to 2"),
        ({"blank": {"contrast": -1}}, r"gates\.blank\.contrast=-1"),
        ({"class": {"confidence": 2}}, r"gates\.class\.confidence=2.*Set gates\.class=\{confidence: 0\.5\}"),
        ({"class": {"fit": {"steps": 0}}}, r"gates\.class\.fit\.steps=0.*Set gates\.class=\{fit: \{steps: 400\}\}"),
        ({"class": {"model": "a.B", "args": 5}}, r"gates\.class\.args=5 is no mapping"),
    ],
)
def test_an_argument_out_of_range_is_said_with_its_key_and_the_form_that_is_right(gates: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        chosen_gates(gates)


@pytest.mark.parametrize("name", ["copy", "duplicate", "contamination", "class", "caption", "safety"])
def test_a_field_that_is_not_there_is_refused_before_anything_is_made(name: str) -> None:
    more = {"caption": {"model": "gate_models.reds"}, "safety": {"model": "gate_models.dark"}}.get(name, {})
    data = training(20)
    gates = [gate for gate in chosen_gates({name: {**more, "field": "foo"}}) if gate.name == name]
    with pytest.raises(ConfigurationError, match=rf"gates\.{name}\.field='foo'.*there are image"):
        gates[0].check(data.spec, data.class_names)
    gates = [gate for gate in chosen_gates({name: {**more, "field": "image"}}) if gate.name == name]
    gates[0].check(data.spec, data.class_names)


def test_two_gates_that_choose_are_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigurationError, match=r"gates\.class=\{candidates: 1\}.*gates\.hard"):
        chosen_gates({"class": {"candidates": 3}, "hard": True})
