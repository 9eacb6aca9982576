from __future__ import annotations

import enum
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.pool.fingerprint import fingerprint, plain, tensors_digest


class Colour(str, enum.Enum):
    RED = "red"


def test_equal_settings_have_equal_names_however_they_are_written() -> None:
    name = fingerprint({"steps": 10, "gates": ["finite", "near"], "guidance": 1.0})
    assert name == fingerprint({"guidance": 1, "gates": ("finite", "near"), "steps": 10.0})


def test_the_name_is_the_same_in_every_process_and_release() -> None:
    # A pool on disk is found again by this value: it may only change with the format version.
    assert fingerprint({"a": [1, 2.5, None, True, "ü"]}) == "e77136568bc8f48068190154"


@pytest.mark.parametrize(
    "other",
    [
        {"steps": 11, "seed": None},
        {"steps": 10},
        {"steps": "10", "seed": None},
        {"steps": 10, "seed": False},
        {"steps": 10, "seed": 0},
        {"steps": [10], "seed": None},
        {"steps": 10.000001, "seed": None},
    ],
)
def test_any_change_gives_another_name(other: dict[str, object]) -> None:
    assert fingerprint({"steps": 10, "seed": None}) != fingerprint(other)


def test_true_and_1_differ() -> None:
    assert fingerprint({"clip": True}) != fingerprint({"clip": 1})


@pytest.mark.parametrize(
    "value",
    [Path("x"), np.float32(1), np.float64(1), torch.tensor(1), Colour.RED, {1, 2}, b"x", object(), print],
)
def test_a_value_that_is_not_plain_is_refused_by_its_key(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"parts\.gates\[1\]\.model="):
        fingerprint({"gates": ["finite", {"model": value}]})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_float_without_json_form_is_refused_by_its_key(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"parts\.reuse=.*not finite"):
        fingerprint({"reuse": value})


def test_keys_that_json_would_confuse_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"parts\.shares has the key 1 of type int"):
        fingerprint({"shares": {1: 0.5}})


def test_length_is_bounded() -> None:
    assert [len(fingerprint({}, n)) for n in (16, 24, 32)] == [16, 24, 32]
    for n in (15, 33):
        with pytest.raises(ConfigurationError, match="length"):
            fingerprint({}, n)


def _digest(tensor: torch.Tensor) -> str:
    return tensors_digest({"x": tensor})


def test_tensors_digest_sees_dtype_shape_and_every_value() -> None:
    x = torch.arange(24, dtype=torch.int32).reshape(2, 3, 4)
    others = [
        x.reshape(3, 2, 4),
        x.to(torch.int64),
        x.view(torch.float32),
        x + (x == 23),
        x.flip(0),
        x[:, :, :3],
        x[:0],
    ]
    digests = {_digest(t) for t in [x, *others]}
    assert len(digests) == len(others) + 1


def test_tensors_digest_is_of_the_values_not_of_their_storage() -> None:
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    assert _digest(x.permute(2, 0, 1).contiguous().permute(1, 2, 0)) == _digest(x)
    assert _digest(x.clone().requires_grad_()) == _digest(x)


def test_tensors_digest_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [
        torch.arange(1000).reshape(10, 10, 10),
        torch.tensor(3.5),
        torch.empty(0, 4),
        torch.ones(7).bool(),
    ]
    whole = [_digest(t) for t in tensors]
    module = importlib.import_module("lightning_diffaug.pool.fingerprint")  # the package has a function of that name
    for size in (1, 8, 100, 1000):
        monkeypatch.setattr(module, "DIGEST_CHUNK", size)
        assert [_digest(t) for t in tensors] == whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.uint16, torch.complex64])
def test_tensors_digest_takes_every_dtype(dtype: torch.dtype) -> None:
    assert _digest(torch.zeros(3, dtype=dtype)) != _digest(torch.ones(3).to(dtype))


def test_tensors_digest_ignores_order_and_sees_names() -> None:
    a, b = torch.zeros(2), torch.ones(2)
    assert tensors_digest({"a": a, "b": b}) == tensors_digest({"b": b, "a": a})
    assert tensors_digest({"a": a, "b": b}) != tensors_digest({"a": b, "b": a})


def test_plain_is_what_json_gives_back() -> None:
    assert plain({"a": (1, [math.nan, -math.inf]), "b": None}, "rows") == {
        "a": [1, ["nan", "-inf"]],
        "b": None,
    }
