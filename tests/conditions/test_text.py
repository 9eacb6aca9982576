"""Prompts of a plan: by (seed, slot, row) alone, all combinations equally often, captions of the sample they are of."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from refill_toys import job_for, snapshot
from training_toys import Noise

from lightning_diffaug.conditions import QuotaPlanner, RealGuidedPlanner
from lightning_diffaug.conditions.text import TextPlanner
from lightning_diffaug.conditions.text_settings import TextSettings
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.snapshot import Snapshot

NAMES = ["cat", "dog", "owl"]
SHARES = [4.0, 2.0, 0.37]


def _planner(text: Any, planner: Any = None, names: list[str] = NAMES, **more: Any) -> TextPlanner:
    settings = vars(TextSettings.of(text))
    return TextPlanner(QuotaPlanner(SHARES) if planner is None else planner, names, **settings, **more)


def _prompts(planner: TextPlanner, slots: int = 1, rows: int = 16) -> list[tuple[int, str]]:
    plans = [planner.plan(slot, rows) for slot in range(slots)]
    return [(c, text) for plan in plans for c, text in zip(plan["label"].tolist(), plan["prompt"], strict=True)]


def test_each_row_names_its_class_by_one_of_the_templates() -> None:
    planner = _planner(["a photo of a {label}", "one {label}, drawn"])
    found = Counter(_prompts(planner, 20))
    assert {text for _, text in found} == {
        form % name for name in NAMES for form in ("a photo of a %s", "one %s, drawn")
    }
    assert all(NAMES[c] in text for c, text in found)
    assert found[0, "a photo of a cat"] > 60  # of about 200, each template by the row
    assert found[0, "one cat, drawn"] > 60
    plan = planner.plan(3, 16)
    assert torch.equal(plan["label"], QuotaPlanner(SHARES).plan(3, 16)["label"])


def test_synonyms_stand_for_the_class() -> None:
    text = {"templates": "a {label}", "synonyms": {"dog": ["dog", "puppy", "hound"], "2": "barn owl"}}
    found = set(_prompts(_planner(text), 20))
    expected = {(0, "a cat"), (1, "a dog"), (1, "a puppy"), (1, "a hound"), (2, "a barn owl")}
    assert found == expected


def test_all_combinations_of_attributes_come_equally_often_in_each_class() -> None:
    text = {
        "templates": "{colour} {label} in {place}",
        "attributes": {"colour": ["red", "blue"], "place": ["snow", "grass", "fog"]},
    }
    found = Counter(_prompts(_planner(text), 300))
    assert len(found) == 3 * 6
    for c, name in enumerate(NAMES):  # the rare class has a row in most slots, and none in some
        counts = [count for (of, _), count in found.items() if of == c]
        assert len(counts) == 6, name
        assert max(counts) - min(counts) <= 6, (name, counts)  # at random: 25 in the largest
    rows = Counter(text for c, text in _prompts(_planner(text), 1, 64) if c == 0)
    assert max(rows.values()) - min(rows.values()) <= 1  # within a slot, to the rounding


def test_a_plan_follows_from_seed_slot_and_row_alone() -> None:
    text = {"templates": ["a {label}", "the {size} {label}"], "attributes": {"size": ["small", "big"]}}
    one, again, other = _planner(text), _planner(text), _planner(text, seed=1)
    plans = [one.plan(slot, 16)["prompt"] for slot in range(6)]
    assert [again.plan(slot, 16)["prompt"] for slot in reversed(range(6))] == plans[::-1]
    assert len({tuple(plan) for plan in plans}) == 6
    assert [other.plan(slot, 16)["prompt"] for slot in range(6)] != plans
    named = build(name_of(_planner(text), "planner"), "planner")
    assert named.plan(4, 16)["prompt"] == plans[4]


def test_negative_prompts_are_of_all_or_of_a_class() -> None:
    plan = _planner({"negative": ["blurry", "not a {label}"]}).plan(0, 64)
    assert set(plan["negative_prompt"]) == {"blurry", "not a cat", "not a dog", "not a owl"}
    plan = _planner({"negative": {"dog": "wolf"}}).plan(0, 16)
    assert plan["negative_prompt"] == ["wolf" if c == 1 else "" for c in plan["label"].tolist()]
    assert "negative_prompt" not in _planner("a {label}").plan(0, 16)


def test_captions_of_classes_stand_in_templates(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(
        '{"label": "cat", "caption": ["a tabby {mood} {label}", "whiskers"]}\n{"label": "dog", "caption": "a pug"}'
    )
    text = {
        "templates": ["{caption}, sharp", "a plain {label}"],
        "captions": str(file),
        "attributes": {"mood": ["sleepy"]},
    }
    found = set(_prompts(_planner(text), 20))
    assert found == {
        (0, "a tabby sleepy cat, sharp"), (0, "whiskers, sharp"), (0, "a plain cat"),
        (1, "a pug, sharp"), (1, "a plain dog"), (2, "a plain owl"),
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"data\.text\.captions has none for the classes \['owl'\]"):
        _planner({"captions": str(file)})


def _data(labelled: bool = True) -> Snapshot:
    """12 samples; sample i has the class i % 3."""
    data = snapshot(12)
    if labelled:
        return data
    return Snapshot(data.spec.without(["label"]), {"image": data.raw("image")})


@pytest.fixture
def by_sample(tmp_path: Path) -> str:
    """A file that has captions of all samples but 4, two of sample 0."""
    lines = [f"{i},sample {i}" for i in range(12) if i != 4] + ["0,first sample 0"]
    (tmp_path / "c.csv").write_text("\n".join(["index,caption", *lines]))
    return str(tmp_path / "c.csv")


def test_a_row_made_from_a_real_sample_has_that_ones_caption(by_sample: str) -> None:
    planner = _planner({"templates": ["{caption}", "a {label}"], "captions": by_sample}, RealGuidedPlanner([1, 1, 1]))
    planner.bind(_data())
    seen = set()
    for slot in range(20):
        plan = planner.plan(slot, 16)
        for index, label, text in zip(
            plan["source_index"].tolist(), plan["label"].tolist(), plan["prompt"], strict=True
        ):
            assert text in (f"sample {index}", f"first sample {index}", f"a {NAMES[label]}")
            assert index != 4 or text == "a dog"
            seen.add(text)
    assert {"sample 0", "first sample 0", "sample 7", "a owl"} <= seen
    assert "caption_index" not in plan
    strict = _planner({"captions": by_sample}, RealGuidedPlanner([1, 1, 1]))
    with pytest.raises(ConfigurationError, match="none for 1 samples of the training data"):
        strict.bind(_data())


def test_a_row_that_starts_from_another_class_has_a_caption_of_its_own(by_sample: str) -> None:
    text = {"templates": ["{caption}", "a {label}"], "captions": by_sample}
    planner = _planner(text, RealGuidedPlanner([1, 1, 1], "edit"))
    planner.bind(_data())
    plan = planner.plan(0, 30)
    assert torch.equal(plan["caption_index"] % 3, plan["label"])
    assert bool((plan["source_index"] % 3 != plan["label"]).all())
    pairs = zip(plan["caption_index"].tolist(), plan["prompt"], strict=True)
    assert all(text.endswith(f"sample {index}") or text.startswith("a ") for index, text in pairs)


def test_a_row_without_a_real_sample_takes_a_caption_of_its_class(by_sample: str) -> None:
    planner = _planner({"captions": by_sample})
    planner.bind(_data())
    plan = planner.plan(0, 30)
    assert torch.equal(plan["caption_index"] % 3, plan["label"])
    assert 4 not in plan["caption_index"]
    free = _planner({"captions": by_sample}, QuotaPlanner(None), [])
    free.bind(_data(labelled=False))
    plan = free.plan(0, 60)
    assert len(set(plan["caption_index"].tolist())) == 11
    assert all(
        text.endswith(f"sample {i}") for i, text in zip(plan["caption_index"].tolist(), plan["prompt"], strict=True)
    )


def test_captions_are_those_of_the_training_samples_themselves() -> None:
    data = _data()
    texts = {"caption": [f"real {i}" for i in range(12)]}
    captioned = Snapshot(data.spec, {n: data.raw(n) for n in ("image", "label")}, data.class_names, texts=texts)
    planner = _planner({"captions": "real"}, RealGuidedPlanner([1, 1, 1]))
    planner.bind(captioned)
    plan = planner.plan(0, 16)
    assert plan["prompt"] == [f"real {i}" for i in plan["source_index"].tolist()]
    with pytest.raises(ConfigurationError, match="the training samples have none"):
        _planner({"captions": "real"}).bind(data)


def test_several_labels_are_all_named() -> None:
    class Tags:
        def plan(self, slot: int, rows: int) -> dict[str, Any]:
            return {"tags": torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])}

    text = {"templates": "a {label}", "synonyms": {"0": "cat", "1": "dog", "background": "wall"}}
    plan = _planner(text, Tags(), ["0", "1", "2"], labels="tags").plan(0, 4)
    assert plan["prompt"] == ["a cat and 2", "a dog", "a cat, dog and 2", "a wall"]


def test_it_reads_the_data_and_follows_the_learner_where_what_it_completes_does() -> None:
    assert not hasattr(_planner("a {label}"), "bind")
    assert hasattr(_planner("a {label}", RealGuidedPlanner([1, 1, 1])), "bind")
    assert hasattr(_planner({"captions": "real"}), "bind")
    assert hasattr(_planner("a {label}"), "follow") == hasattr(QuotaPlanner(SHARES), "follow")

    class Silent:
        def plan(self, slot: int, rows: int) -> dict[str, Any]:
            return {"label": torch.zeros(rows, dtype=torch.int64), "prompt": ["x"] * rows}

    assert not hasattr(_planner("a {label}", Silent()), "follow")
    with pytest.raises(GeneratorError, match=r"prompts of its own.*data\.text=null"):
        _planner("a {label}", Silent()).plan(0, 2)


def test_the_content_of_captions_names_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "c.txt"

    def name(*lines: str) -> tuple[str, Any]:
        file.write_text("\n".join(lines))
        named = name_of(_planner({"captions": str(file)}), "planner")
        return job_for(Noise(), tmp_path, planner=named).pool_header(Noise(), None).fingerprint, named

    (one, named), (other, _), (again, _) = name("a {label}"), name("the {label}"), name("a {label}")
    assert one == again != other
    elsewhere = tmp_path / "elsewhere" / "d.txt"
    elsewhere.parent.mkdir()
    elsewhere.write_text("a {label}")
    moved = name_of(_planner({"captions": str(elsewhere)}), "planner")
    assert job_for(Noise(), tmp_path, planner=moved).pool_header(Noise(), None).fingerprint == one
    file.write_text("changed {label}")
    with pytest.raises(Exception, match="was changed since the run began"):
        build(named, "planner")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", 'label,caption\ncat,"a cat\nasleep"\nbird,a bird\n'),
        ("c.jsonl", "\n" * 3 + '{"label": "bird", "caption": "a bird"}\n'),
    ],
)
def test_a_class_of_a_file_that_the_data_lack_is_said_with_file_and_line(
    name: str, content: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=re.escape(f"data.text.captions={file}, line 4, names the class")):
        _planner({"captions": str(file)})


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ({"template": "a {label}"}, NAMES, "data.text.template is no setting"),
        ({"templates": ""}, NAMES, "data.text.templates='' is no text"),
        ({"templates": ["a {label}", 3]}, NAMES, "data.text.templates=['a {label}', 3] is no text"),
        ("a {colour} {label}", NAMES, "nothing says what {colour} stands for. Give data.text.attributes.colour"),
        ("{caption}", NAMES, "nothing says what {caption} stands for. Give data.text.captions"),
        ({"negative": "no {colour}"}, NAMES, "data.text.negative has 'no {colour}'"),
        ({"attributes": {"colour": ["red"]}}, NAMES, "data.text.attributes.colour is in no template"),
        ({"attributes": {"label": ["red"]}}, NAMES, "data.text.attributes.label cannot be a name"),
        ({"attributes": {"colour": []}}, NAMES, "data.text.attributes.colour=[] is no text"),
        ({"attributes": ["red"]}, NAMES, "data.text.attributes=['red'] is no mapping"),
        ({"synonyms": {"bird": "fowl"}}, NAMES, "data.text.synonyms names the class 'bird'"),
        ({"negative": {"bird": "fowl"}}, NAMES, "data.text.negative names the class 'bird'"),
        ("a {label", NAMES, "data.text.templates has 'a {label', where a brace is not closed"),
        ({"negative": "no label}"}, NAMES, "data.text.negative has 'no label}'"),
        ("a {label}", [], "data.text names the class ({label}), and the data have no labels"),
        ({"captions": "nowhere.csv"}, NAMES, "Set data.text.captions to a .csv file"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_key(text: Any, names: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        _planner(text, names=names)
