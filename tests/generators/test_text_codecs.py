"""Texts as tokens: hashed words, and a language model of the user's."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipeline import text_config, write_tokenizer

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.field_codecs import Codecs, SentenceEncoder, Words
from lightning_diffaug.spec import FieldSpec, SampleSpec

CAPTION = FieldSpec("caption", "caption", "str", "str", (), 0.0, 0.0)
IMAGE = FieldSpec("image", "image", "tv_image", "uint8", (1, 8, 8), 0.0, 255.0)


def test_a_word_is_the_same_vector_wherever_it_stands_and_its_place_is_beside_it() -> None:
    codec = Words(length=6, width=64)
    assert codec.shape(CAPTION) == (6, 64)
    one, other, empty = codec.encode(["A bold, wide seven", "seven: bold", ""], CAPTION)
    assert torch.equal(one[1, :-8], other[1, :-8])
    assert torch.equal(one[3, :-8], other[0, :-8])
    assert not torch.equal(one[3, -8:], other[0, -8:])
    assert torch.equal(one[1, -8:], other[1, -8:])
    assert not bool(one[4:].any())
    assert not bool(other[2:].any())
    assert not bool(empty.any())
    assert set(one[:4, :-8].flatten().tolist()) == {-1.0, 1.0}
    words = codec.encode([f"word{i}" for i in range(200)], CAPTION)[:, 0, :-8] / 56**0.5
    assert float((words @ words.T - torch.eye(200)).abs().max()) < 0.75, "no two words are nearly one"


def test_it_is_the_same_in_every_process_and_version() -> None:
    seven = Words(length=1, width=16).encode(["seven"], CAPTION)[0, 0, :8]
    assert seven.tolist() == [-1.0, 1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0]


def test_what_is_not_read_of_a_text_is_said(caplog: pytest.LogCaptureFixture) -> None:
    from lightning_diffaug.generators.field_codecs.words import _say_cut

    _say_cut.cache_clear()
    caplog.set_level(logging.WARNING)
    Words(length=2).encode(["one two three", "four five six"], CAPTION)
    assert caplog.text.count("generator.codecs.caption.length") == 1
    with pytest.raises(ConfigurationError, match="is no text"):
        Words().shape(IMAGE)
    with pytest.raises(ConfigurationError, match=r"generator\.conditions"):
        Words().decode(torch.zeros(1, 24, 64), CAPTION)
    with pytest.raises(ConfigurationError, match=r"generator\.codecs\.<field>\.width"):
        Words(width=4)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPTextModel

    folder = tmp_path_factory.mktemp("text")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = write_tokenizer(folder / "vocabulary")
        CLIPTextModel(text_config(tokenizer, hidden_size=16, num_hidden_layers=1)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def test_a_text_model_of_a_folder_encodes_texts_and_its_files_name_the_fit(text_model: Path) -> None:
    codec = SentenceEncoder(str(text_model), length=10, batch_size=2)
    assert codec.shape(CAPTION) == (10, 16)
    texts = ["a photo of a seven", "the number three", "a digit"]
    encoded = codec.encode(texts, CAPTION)
    assert encoded.shape == (3, 10, 16)
    assert torch.allclose(encoded[1:2], codec.encode(texts[1:2], CAPTION), atol=1e-5)
    assert float((encoded[0] - encoded[1]).abs().max()) > 0.1
    assert not bool(encoded[2, 4:].any()), "start, two words, end"
    named = {"_target_": "lightning_diffaug.generators.field_codecs.SentenceEncoder", "model": str(text_model)}
    codecs = Codecs({"caption": named})
    assert codecs.spec(SampleSpec((IMAGE, CAPTION)))["caption"].shape == (24, 16)
    digest = codecs.key()["codecs"]["caption"]["digest"]
    assert digest == SentenceEncoder(str(text_model)).digest
    with pytest.raises(ConfigurationError, match="was changed"):
        _ = SentenceEncoder(str(text_model), digest="0" * 32).digest


def _key(folder: Path, **arguments: Any) -> Any:
    named = {"_target_": "lightning_diffaug.generators.field_codecs.SentenceEncoder", "model": str(folder)}
    return Codecs({"caption": {**named, **arguments}}).key()


def test_neither_where_a_text_model_lies_nor_how_many_texts_it_reads_names_the_fit(
    text_model: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(text_model, tmp_path / "copy")
    (copy / "README.md").write_text("of no effect")
    assert _key(copy) == _key(text_model, batch_size=7)
    assert _key(copy, length=9) != _key(copy)


@pytest.mark.parametrize("file", ["vocab.txt", "merges.txt", "spiece.model", "tokenizer.json", "source.spm"])
def test_another_tokenizer_beside_the_same_weights_names_another_fit(
    text_model: Path, tmp_path: Path, file: str
) -> None:
    copy = shutil.copytree(text_model, tmp_path / "copy")
    before = _key(copy)
    with (copy / file).open("a") as tokens:
        tokens.write(" \n")
    assert _key(copy) != before


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no folder with config\.json and safetensors"):
        SentenceEncoder(str(tmp_path))
