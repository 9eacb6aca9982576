from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Optional, Union

import pytest
from hydra.utils import instantiate
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
    assert check_value(value, hint, "key") == (float(value) if hint is float else value)


@pytest.mark.parametrize(
    ("value", "hint", "converted"),
    [
        (90.0, int, 90),
        (4.0, int | None, 4),
        (1.0, Union[int, float, None], 1.0),  # noqa: UP007 - a share, where 1 would be a count
        (1, float, 1),
        ("1e-3", float | None, 1e-3),
        ("1e-3", str | float, "1e-3"),
        (True, bool | int, True),
    ],
)
def test_the_same_number_in_another_spelling_becomes_what_is_annotated(value: Any, hint: Any, converted: Any) -> None:
    found = check_value(value, hint, "key")
    assert (found, type(found)) == (converted, type(converted))


def test_a_node_holds_what_its_maker_can_count_with() -> None:
    target = "lightning_diffaug.generators.DiffusionGenerator"
    given = {"_target_": target, "scheduler": "ddim", "batch_size": 256.0, "eta": "1e-1"}
    node = OmegaConf.create(given, flags={"struct": True, "readonly": True})
    check_values(node, "generator")
    generator = instantiate(node, _convert_="all")
    assert (generator.batch_size, type(generator.batch_size)) == (256, int)
    assert generator.controls.eta == 0.1


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
