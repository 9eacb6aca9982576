"""Each gate that can be chosen by name has words for what its rejections mean, and the keys in them exist."""

from __future__ import annotations

import inspect
import re

import pytest

from lightning_diffaug.gates.choice import GATES
from lightning_diffaug.gates.remedies import advice, remedy, shares


@pytest.mark.parametrize("name", GATES)
def test_every_gate_by_name_has_a_remedy_of_its_own_with_keys_that_are_there(name: str) -> None:
    said = remedy(name)
    assert "of your own" not in said
    for gate, key in re.findall(r"gates\.(\w+)=\{(\w+): ", said):
        assert key in inspect.signature(GATES[gate]).parameters, f"gates.{gate}={{{key}: …}}"
    assert not re.findall(r"gates\.\w+\.\w+", said), "which no command line can set"


def test_a_gate_of_ones_own_is_named_by_its_key() -> None:
    assert "gates.mine=false" in remedy("mine")


def test_shares_are_of_all_that_was_made_and_advice_is_about_the_two_that_reject_most() -> None:
    rejections = {"blank": 10, "shape: 'image' is (2,)": 60, "copy": 20}
    assert shares(rejections, 100) == "shape: 'image' is (2,) 60 (60%), copy 20 (20%), blank 10 (10%)"
    assert advice(rejections).startswith("shape: the generator returns tensors of another shape")
    assert "copy: samples are nearly training samples" in advice(rejections)
    assert "blank" not in advice(rejections)
