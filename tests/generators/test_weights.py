"""Fitted weights on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators import weights

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


def _save(folder: Path, note: str = "x") -> Path:
    weights.save(folder, STATE, {"note": note}, {"seconds": 1.5})
    return folder


def test_weights_and_description_come_back(tmp_path: Path) -> None:
    state, description = weights.load(_save(tmp_path))
    assert torch.equal(state["a"], STATE["a"])
    assert torch.equal(state["b"], STATE["b"])
    assert description["note"] == "x"


def test_the_hash_names_the_weights_and_their_description_and_nothing_else(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    weights.save(folders[0], STATE, {"note": "x"}, {"seconds": 1.5})
    weights.save(folders[1], STATE, {"note": "x"}, {"seconds": 99.0})
    weights.save(folders[2], STATE, {"note": "y"}, {"seconds": 1.5})
    first, same, other = (weights.weights_hash(folder) for folder in folders)
    assert first == same == hashlib.sha256((folders[0] / "denoiser.safetensors").read_bytes()).hexdigest()
    assert other != first


def test_any_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = _save(tmp_path) / "denoiser.safetensors"
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(GeneratorError, match="was altered"):
            weights.load(tmp_path)


@pytest.mark.parametrize("name", ["denoiser.safetensors", "fit.json"])
def test_an_incomplete_folder_is_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    (_save(tmp_path) / name).unlink()
    with pytest.raises(GeneratorError, match=r"no complete fitted generator.*Remove the folder"):
        weights.load(tmp_path)


def test_a_truncated_fit_json_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path) / "fit.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(GeneratorError, match="no complete fitted generator"):
        weights.weights_hash(tmp_path)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_FORMAT", 999)
    _save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(GeneratorError, match=r"format 999.*paths\.cache_dir"):
        weights.load(tmp_path)


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    assert sorted(path.name for path in _save(tmp_path).iterdir()) == ["denoiser.safetensors", "fit.json"]
