"""P7: nothing is unpickled from disk or network, no code from there runs, nothing of the user's is deleted."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from refill_toys import Fitted, Steady
from safetensors import safe_open

import lightning_diffaug

PACKAGE = Path(lightning_diffaug.__file__).parent
_PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
_BUILTINS = {"eval", "exec", "compile", "__import__"}


def _offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in _PICKLERS]
        if not isinstance(node, ast.Call):
            continue
        called, keywords = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
        if called in _BUILTINS:
            found.append(called)
        if called == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{called} without weights_only=True")
        if keywords.get("weights_only") == "False" or keywords.get("allow_pickle") == "True":
            found.append(ast.unparse(node))
        if keywords.get("trust_remote_code", "False") != "False" or keywords.get("shell", "False") != "False":
            found.append(ast.unparse(node))
        if called.endswith("yaml.load") or called.endswith("os.system"):
            found.append(called)
    return found


def test_the_search_finds_what_it_looks_for() -> None:
    for source in (
        "import pickle",
        "from joblib import load",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "eval(text)",
        "AutoModel.from_pretrained(n, trust_remote_code=True)",
        "subprocess.run(c, shell=True)",
    ):
        assert _offences(source), source
    assert _offences("torch.load(p, weights_only=True); model.eval(); re.compile(x)") == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_unpickles_or_runs_what_it_reads(path: Path) -> None:
    assert _offences(path.read_text(encoding="utf-8")) == []


def _forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("something was unpickled")


def test_a_whole_run_unpickles_nothing_and_leaves_plain_files(
    mixed: Any, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, _forbidden)
    mix = mixed(Fitted(), {"log_file": str(tmp_path / "refill.log")})
    assert len(train(mix, 2).seen["train"]) == 12
    kinds = set()
    for path in (tmp_path / "cache").rglob("*"):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.is_file():
            with safe_open(str(path), framework="pt") as file:
                assert file.keys()
        kinds |= {path.suffix} if path.is_file() else set()
    assert kinds == {".json", ".safetensors"}


def test_nothing_of_the_users_in_the_cache_folder_is_touched(mixed: Any, train: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    names = (
        "notes.txt", "runs/mine/a.txt", "runs/report-of-7/b", "epoch_cache/mine/c", "generators/mine/model.pt",
        "generators/notes-1-2", "pools/mine/slots/d.safetensors", "snapshots/e.csv",
    )  # fmt: skip
    for name in names:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text(name)
    train(mixed(Steady()), 1)
    train(mixed(Fitted()), 1)
    assert all((cache / name).read_text() == name for name in names)
