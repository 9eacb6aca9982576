"""P7: objects cross to another process as import paths and plain values; the error for others says how."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import pytest
from omegaconf import OmegaConf
from refill_toys import Faulty, Fitted, Steady, function

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.naming import build, name_of, plain, source_digest


@dataclasses.dataclass
class Settings:
    a: int = 1
    nested: Any = None


class Hides:
    def __init__(self, secret: int) -> None:
        self._other = secret


class Takes:
    def __init__(self, *many: int) -> None:
        self.many = many


def _same(value: Any) -> Any:
    return build(json.loads(json.dumps(name_of(value))))


def test_objects_come_back_from_their_names() -> None:
    assert vars(_same(Faulty("nan", [1, 2]))) == vars(Faulty("nan", [1, 2]))
    assert _same(function) is function
    again = _same(DiffusionGenerator(scheduler="ddim", fit={"steps": 3}))
    assert again.config() == DiffusionGenerator(scheduler="ddim", fit={"steps": 3}).config()
    assert vars(_same({"_target_": "refill_toys.Steady", "seconds": 0.5})) == {"seconds": 0.5}
    config = OmegaConf.create({"_target_": "refill_toys.Faulty", "how": "nan", "slots": [1]})
    faulty = _same(config)
    assert type(faulty.slots) is list


def test_names_are_plain_all_the_way_down() -> None:
    named = name_of(Settings(2, (Steady(1.0), {"k": [function]})))
    assert named["nested"][0] == {"_target_": "refill_toys.Steady", "seconds": 1.0}
    assert named["nested"][1]["k"][0] == {"_target_": "hydra.utils.get_object", "path": "refill_toys.function"}
    json.dumps(named)


def _local() -> Any:
    def inside(condition: Any, seeds: Any) -> None: ...

    class Inside:
        pass

    return inside, Inside()


def _in_main() -> Any:
    def script(condition: Any, seeds: Any) -> None: ...

    script.__module__, script.__qualname__ = "__main__", "script"
    return script


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda condition, seeds: None, "lambda"),
        (_local()[0], "top level"),
        (_local()[1], "top level"),
        (_in_main(), "Move it to a module"),
        (type("Script", (), {"__module__": "__main__"})(), "Move it to a module"),
        (Steady().generate, "Give the object itself"),
        (functools.partial(function, seeds=[1]), "functools.partial"),
        (Hides(3), "'secret'"),
        (Takes(3), "'many'"),
        ({"seconds": 1}, "_target_"),
    ],
)
def test_what_cannot_be_named_says_how(value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match="refill=sync") as error:
        name_of(value, "generator")
    assert words in str(error.value)
    assert "_target_" in str(error.value)


def test_a_value_inside_that_cannot_be_named_is_named_by_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.nested\.hook"):
        name_of(Settings(1, {"hook": lambda: None}), "generator")


@pytest.mark.parametrize("path", ["no_such_module.Class", "refill_toys.Missing", "nodots"])
def test_an_import_path_that_leads_nowhere_is_an_error_with_the_path(path: str) -> None:
    with pytest.raises(ConfigurationError, match=path):
        build({"_target_": path})


def test_plain_makes_lists_of_tuples_and_keeps_numbers() -> None:
    value = plain({"a": (1, 2.5, None), 3: True, "c": "x"}, "it")
    assert value == {"a": [1, 2.5, None], "3": True, "c": "x"}
    assert value["3"] is True


def test_the_users_code_is_hashed_and_the_librarys_is_not() -> None:
    assert source_digest(name_of(Steady())) not in (None, source_digest(name_of(Fitted())))
    assert source_digest(name_of(function)) is not None
    assert source_digest(name_of(DiffusionGenerator())) is None
    assert source_digest({"_target_": "math.sqrt"}) is None
