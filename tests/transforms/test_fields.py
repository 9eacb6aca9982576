from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms.fields import changed, disjoint, field


@pytest.mark.parametrize("kind", ["writable", "read-only", "reversed"])
def test_arrays_of_any_memory_are_changed_and_left_as_they_were(kind: str) -> None:
    array = np.arange(6, dtype=np.int16)
    given = array[::-1] if kind == "reversed" else array
    given.setflags(write=kind != "read-only")
    before = given.copy()
    made = changed({"a": [given]}, "a.0", lambda tensor: tensor.mul_(2), "Test(x=…)")
    assert made["a"][0].dtype == np.int16
    assert made["a"][0].tolist() == (before * 2).tolist()
    assert given.tolist() == before.tolist()


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), [0.5, 1.0], (0.5, 1.0), [[0.0, 1.0]]])
def test_numbers_and_lists_of_them_stay_what_they_are(value: object) -> None:
    made = changed((value,), "0", lambda tensor: tensor + 1, "Test(x=…)")[0]
    assert isinstance(made, (list, tuple)) if isinstance(value, (list, tuple)) else isinstance(made, float)
    assert np.allclose(np.asarray(made), np.asarray(value) + 1)


def test_a_sample_that_is_one_leaf_has_the_empty_path() -> None:
    assert torch.equal(changed(torch.ones(2), "", lambda tensor: tensor * 3, "Test(x=…)"), torch.full((2,), 3.0))


@pytest.mark.parametrize("path", ["b", "a.2", "a.0.0", "a.x", "1"])
def test_a_path_that_leads_nowhere_is_refused_with_the_structure(path: str) -> None:
    with pytest.raises(SampleStructureError, match=r"Test\(x=…\) names the field(.|\n)*a\.0: Tensor shape \(3,\)"):
        field({"a": [torch.zeros(3), "text"]}, path, "Test(x=…)")


@pytest.mark.parametrize("value", ["text", True, None, ["a"], np.array(["a"]), [[1.0], [1.0, 2.0]]])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(SampleStructureError, match="no tensor, array or list of numbers"):
        changed({"a": value}, "a", lambda tensor: tensor, "Test(x=…)")


def test_a_field_of_two_roles_is_refused() -> None:
    disjoint("Test", points=("a",), boxes=("b",))
    with pytest.raises(ConfigurationError, match="'a' is named in points and in boxes"):
        disjoint("Test", points=("a",), boxes=("b", "a"))
