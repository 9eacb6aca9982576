"""Captions from files: of all, by class, or by training sample, one or many; what is none is refused with its key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_diffaug.conditions.captions import Captions, read_captions
from lightning_diffaug.errors import ConfigurationError

BY_CLASS = Captions(by_class={"cat": ["a cat, asleep", "a {label}"], "3": ["a three"]})
BY_SAMPLE = Captions(by_sample={0: ["a cat\non a mat", "an animal"], 12: ["a dog"]})
OF_ALL = Captions(of_all=["a photo of a {label}", "one {label}"])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.csv", 'label,caption\ncat,"a cat, asleep"\n3,a three\ncat,a {label}\n', BY_CLASS),
        ("c.jsonl", '{"label": "cat", "caption": ["a cat, asleep", "a {label}"]}\n\n{"label": 3, "caption": "a three"}',
         BY_CLASS),
        ("c.json", '{"cat": ["a cat, asleep", "a {label}"], "3": "a three"}', BY_CLASS),
        ("c.csv", 'index,caption\n0,"a cat\non a mat"\n12,a dog\n0,an animal\n', BY_SAMPLE),
        ("c.jsonl", '{"index": 0, "caption": ["a cat\\non a mat", "an animal"]}\n{"index": 12, "caption": "a dog"}',
         BY_SAMPLE),
        ("c.json", '[{"index": 0, "caption": ["a cat\\non a mat", "an animal"]}, {"index": 12, "caption": "a dog"}]',
         BY_SAMPLE),
        ("c.txt", "a photo of a {label}\n\n  one {label}\n", OF_ALL),
        ("c.json", '["a photo of a {label}", "one {label}"]', OF_ALL),
        ("c.csv", '\ufefflabel,caption\ncat,"a cat, asleep"\n3,a three\ncat,a {label}\n', BY_CLASS),
        ("c.txt", "\ufeffa photo of a {label}\none {label}\n", OF_ALL),
    ],
)  # fmt: skip
def test_each_form_of_file_says_the_same(name: str, content: str, expected: Captions, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_captions(tmp_path / name, "data.text.captions") == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.csv", "label,text\ncat,a cat\n", "its columns are label, text; needed are caption, and label or index"),
        ("c.csv", "lable,caption\ncat,a cat\n", "its columns are lable, caption; needed are caption, and label or"),
        ("c.csv", "class,caption\ncat,a cat\n", "its columns are class, caption"),
        ("c.csv", "caption\na cat\n", "its columns are caption; needed"),
        ("c.csv", "caption,label\na cat\n", "needed: caption, and label or index"),
        ("c.csv", "", "it holds none"),
        ("c.jsonl", '{"lable": "cat", "caption": "a cat"}\n', "needed: caption, and label or index"),
        ("c.csv", "label,caption\ncat,\n", "caption='' is no text"),
        ("c.csv", "index,caption\n-1,a cat\n", "index -1 is below 0"),
        ("c.csv", "index,caption\nfirst,a cat\n", "invalid literal"),
        ("c.jsonl", "a cat\n", "JSONDecodeError"),
        ("c.jsonl", '{"label": "cat", "caption": 3}\n', "caption=3 is no text"),
        ("c.json", '"a cat"', "neither a mapping nor a list"),
        ("c.json", '[{"label": "cat", "caption": "x"}, "y"]', "are mixed"),
        ("c.txt", "\n", "it holds none"),
        ("c.xml", "<a/>", "ends in none of"),
        ("nowhere/c.txt", None, "FileNotFoundError"),
    ],
)
def test_a_file_that_holds_no_captions_is_refused(name: str, content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=re.escape(said)) as error:
        read_captions(tmp_path / name, "data.text.captions")
    assert "Set data.text.captions to a .csv file" in str(error.value)
