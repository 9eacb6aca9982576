from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Optional, Union

import pytest
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

from lightning_diffaug.config_check import argument_types, check_value, check_values
from lightning_diffaug.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (90.0, int),
        (1, float),
        ("1e-3", float),
        ("inf", float),
        (None, Optional[int]),  # noqa: UP045 - as Lightning writes it
        (3, Union[int, float, None]),  # noqa: UP007
        (True, bool | None),
        (True, Union[bool, int]),  # noqa: UP007
        ("auto", int | str),
        ("abc", Any),
        ("abc", Literal["a"]),
        ("0,1", Sequence[int] | int),
        ([1], list[int]),
    ],
)
def test_what_fits_or_is_not_for_this_check_passes(value: Any, hint: Any) -> None:
    check_value(value, hint, "key")


@pytest.mark.parametrize(
    ("value", "hint", "said"),
    [
        ("abc", int, "a.b=abc is not a whole number"),
        ("abc", float, "a.b=abc is not a number"),
        (1.5, int | None, "a.b=1.5 is not a whole number or null"),
        (None, float, "a.b=None is not a number"),
        (True, int, "a.b=True is not a whole number"),
        ("yes", bool, "a.b=yes is not true or false"),
        ([1], float, r"a.b=\[1\] is not a number"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_full_key(value: Any, hint: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_value(value, hint, "a.b")


class Base:
    def __init__(self, width: int = 1, inner: Any = None) -> None: ...


class Derived(Base):
    def __init__(self, rate: float, **settings: Any) -> None: ...


def test_arguments_of_a_class_are_those_of_its_bases_too() -> None:
    assert {"width": int, "rate": float}.items() <= argument_types(Derived).items()
    assert argument_types(Trainer)["max_epochs"] == Optional[int]  # noqa: UP045


def test_nodes_inside_are_checked_and_others_left_alone() -> None:
    inner = {"_target_": "lightning_diffaug.data.classical", "p": "often"}
    node = OmegaConf.create({"_target_": "lightning_diffaug.data.DigitsDataModule", "augment": inner})
    with pytest.raises(ConfigurationError, match=r"real\.augment\.p=often is not a number"):
        check_values(node, "real")
    check_values(OmegaConf.create({"p": "often"}), "real")
    check_values(None, "real")


def test_a_missing_value_is_named() -> None:
    node = OmegaConf.create({"_target_": "lightning_diffaug.data.ImageFolderDataModule", "root": "???"})
    with pytest.raises(ConfigurationError, match=r"real\.root has no value, and ImageFolderDataModule needs one"):
        check_values(node, "real")
