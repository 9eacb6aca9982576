"""P7: objects cross to another process as import paths and plain values; the error for others says how."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from refill_toys import Faulty, Fitted, Steady, function

from lightning_diffaug import naming
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.naming import build, name_of, plain, source_digest

MINE_PART = {"_target_": "hydra.utils.get_object", "path": "mine_part.Part"}


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
    assert source_digest(name_of(Steady())) is not None
    assert source_digest(name_of(function)) == source_digest(name_of(Fitted())), "of one module"
    assert source_digest(name_of(DiffusionGenerator())) is None
    assert source_digest({"_target_": "math.sqrt"}) is None
    assert source_digest({"_target_": "lightning_diffaug.absent"}) is None


class Modules:
    """Modules of a user on the path; a changed one is imported anew."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.names = folder, ("mine_base", "mine_part", "mine")
        monkeypatch.syspath_prepend(folder)
        for name in self.names:
            monkeypatch.delitem(sys.modules, name, raising=False)
        self.write("mine_base", "class Base:\n    scale = 1\n")
        self.write("mine_part", "class Part: ...\n")
        self.write("mine", "import mine_base\n\nK = 1\n\nclass G(mine_base.Base):\n    scale = K\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text)
        for known in self.names:
            sys.modules.pop(known, None)
        importlib.invalidate_caches()

    def add(self, name: str, line: str) -> None:
        self.write(name, (self.folder / f"{name}.py").read_text() + line)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    found = Modules(tmp_path, monkeypatch)
    yield found
    for name in found.names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "named",
    [
        {"_target_": "mine.G", "part": [{"_target_": "mine_part.Part"}]},
        {"_target_": "lightning_diffaug.DiffusionGenerator", "codec": {"_target_": "mine.G", "x": MINE_PART}},
    ],
    ids=["the user's generator", "the library's with a part of the user's"],
)
@pytest.mark.parametrize("edited", ["mine", "mine_base", "mine_part"])
def test_an_edit_of_the_class_a_base_its_module_or_a_part_is_another_digest(
    named: dict[str, Any], edited: str, modules: Modules
) -> None:
    before = source_digest(named)
    assert before is not None
    assert source_digest(named) == before
    modules.add(edited, "\nCONSTANT = 2\n")
    assert source_digest(named) != before


def test_the_digest_is_of_content_and_not_of_the_folder(modules: Modules, tmp_path: Path) -> None:
    before = source_digest({"_target_": "mine.G"})
    for name in modules.names:
        (tmp_path / "moved").mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").rename(tmp_path / "moved" / f"{name}.py")
        sys.modules.pop(name, None)
    sys.path.insert(0, str(tmp_path / "moved"))
    try:
        assert source_digest({"_target_": "mine.G"}) == before
    finally:
        sys.path.remove(str(tmp_path / "moved"))


def test_an_installed_package_counts_by_its_version(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    modules.write("mine", "import torch\n\nclass G(torch.nn.Module): ...\n")
    found = []
    for version in ("1.0", "2.0"):
        naming._version.cache_clear()
        monkeypatch.setattr("torch.__version__", version)
        found.append((source_digest({"_target_": "mine.G"}), source_digest({"_target_": "torch.nn.Identity"})))
    naming._version.cache_clear()
    assert found[0][0] != found[1][0]
    assert found[0][1] not in (None, found[1][1])


def test_a_constructor_that_is_a_method_is_hashed_with_its_class(modules: Modules) -> None:
    modules.add("mine_base", "    @classmethod\n    def load(cls): return cls()\n")
    assert source_digest({"_target_": "mine.G.load"}) == source_digest({"_target_": "mine.G"}) is not None
