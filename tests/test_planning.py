"""What the pool holds is what `data.planner` and `data.text` say, from the setting to the slots on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from training_toys import Images, Noise, RealModule, pool_name, unnamed

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.conditions import RealGuidedPlanner
from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.generators import ComposedGenerator
from lightning_diffaug.pool import Shard
from lightning_diffaug.spec import SampleSpec

LABELS = [0] * 20 + [1] * 2 + [2] * 8 + [3] * 14


def _slots(root: Path, real: Any = None, generator: Any = None, window: int = 40, **settings: Any) -> list[Shard]:
    """The slots that a short run has made."""
    mixed = DiffAugDataModule(
        RealModule(Images(labels=LABELS)) if real is None else real,
        unnamed() if generator is None else generator,  # in this process, which is quick
        **{"synthetic_fraction": 0.5, "refill": "sync", "slot_size": 10, "cache_dir": root, **settings},
        window=window,
    )
    try:
        next(iter(mixed.train_dataloader()))
        assert mixed.pool is not None
        return [mixed.pool.read(slot) for slot in range(window // 10)]
    finally:
        mixed.close()


def _classes(slots: list[Shard]) -> list[int]:
    assert all(slot.n == 10 for slot in slots)
    labels = np.concatenate([slot.fields["label"].numpy() for slot in slots])
    counts: list[int] = np.bincount(labels, minlength=4).tolist()
    return counts


@pytest.mark.parametrize(
    ("planner", "expected"),
    [
        ({"fill": 12}, [0, 10 / 14, 4 / 14, 0]),
        ({"fill": 12, "uniform": 0.4}, [0.1, 0.6 * 10 / 14 + 0.1, 0.6 * 4 / 14 + 0.1, 0.1]),
        ({"temperature": 2}, [20**0.5, 2**0.5, 8**0.5, 14**0.5]),
        ({"temperature": "inf"}, [1, 1, 1, 1]),
        ({"shares": {"1": 0.75, "3": 0.25}}, [0, 3, 0, 1]),
        ({"1": 3, "3": 1}, [0, 3, 0, 1]),
        ("uniform", [1, 1, 1, 1]),
        ("as_real", [20, 2, 8, 14]),
    ],
)
def test_the_pools_class_histogram_is_what_the_plan_says(planner: Any, expected: list[float], tmp_path: Path) -> None:
    wanted = 80 * np.array(expected) / sum(expected)
    found = _classes(_slots(tmp_path, planner=planner, window=80))
    assert np.abs(found - wanted).max() < 2, (found, wanted)  # a slot rounds; eight of them do not add up
    assert all(made == 0 for made, share in zip(found, expected, strict=True) if share == 0)


def test_quotas_depend_on_data_and_allocation_and_never_on_the_fraction(tmp_path: Path) -> None:
    found = [
        _classes(_slots(tmp_path / str(fraction), planner={"fill": 12, "uniform": 0.1}, synthetic_fraction=fraction))
        for fraction in (0.1, 0.9)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("planner", [5, None, [1, 2], "foo"])
def test_what_is_no_planner_is_refused_with_the_rules_that_there_are(planner: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"data\.planner=.* is none of auto, uniform, as_real, .*temper"
    ) as error:
        _slots(tmp_path, planner=planner)
    assert "refill=sync" not in str(error.value)


def test_a_rule_that_gives_nothing_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.planner\.fill=2: no class lacks anything"):
        _slots(tmp_path, planner={"fill": 2})
    with pytest.raises(ConfigurationError, match=r"data\.planner names the class 'bird'"):
        _slots(tmp_path, planner={"bird": 2})
    with pytest.raises(ConfigurationError, match=r"data\.planner='evenly' is none of auto"):
        _slots(tmp_path, planner="evenly")
    assert not (tmp_path / "pools").exists()


# Several labels a sample ----------------------------------------------------------------------------------

TAGS = [[1.0, 0.0, 0.0]] * 14 + [[1.0, 1.0, 0.0]] * 4 + [[0.0, 1.0, 0.0]] * 4 + [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


class Tagged(Dataset[Any]):
    """Image i has the value i everywhere, and the labels ``TAGS[i]``."""

    def __len__(self) -> int:
        return len(TAGS)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"x": torch.full((1, 4, 4), i, dtype=torch.uint8), "y": torch.tensor(TAGS[i])}


def _image_alone() -> Any:
    """A generator that refuses to be told of a field that it would have to make besides the image."""

    class ImageAlone(Noise):
        def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
            assert [field.name for field in spec.continuous] == ["image"]

    return ImageAlone()


TAGGED = {"fields": {"x": "image", "y": "tags"}}


def _tags(slots: list[Shard]) -> Tensor:
    for slot in slots:
        for tags, row in zip(slot.fields["tags"], slot.rows, strict=True):
            assert tags.tolist() == TAGS[row["source_index"]]
    return torch.cat([slot.fields["tags"] for slot in slots])


def test_several_labels_reach_their_quotas_in_the_pool(tmp_path: Path) -> None:
    rule = {"fill": 10, "field": "tags"}  # the first has 19, the second 8, the third 2
    tags = _tags(_slots(tmp_path, RealModule(Tagged()), _image_alone(), 80, planner=rule, **TAGGED))
    assert tags.sum(0).tolist() == pytest.approx([0, 16, 64], abs=1)
    assert set(map(tuple, tags.tolist())) == {(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)}  # not beside the first, where it can be
    even = {"temperature": "inf", "field": "tags"}
    found = _tags(_slots(tmp_path / "even", RealModule(Tagged()), _image_alone(), 80, planner=even, **TAGGED)).sum(0)
    assert float(found.max() / found.min()) < 1.2


def test_labels_that_a_denoiser_is_told_of_are_those_that_quotas_are_of(tmp_path: Path) -> None:
    class Told(Noise):
        """Says what it is told as a fitted generator does."""

        def __init__(self) -> None:
            super().__init__()
            self.conditions = {"tags": "labels"}
            self.given = ["tags"]
            self.derived: dict[str, Any] = {}

    def tags(planner: Any) -> list[float]:
        return [
            float(n)
            for n in _tags(_slots(tmp_path, RealModule(Tagged()), Told(), 80, planner=planner, **TAGGED)).sum(0)
        ]

    natural = tags("as_real")
    assert natural == tags("auto") == tags({"temperature": 1})
    assert natural[0] / 80 == pytest.approx(19 / 24, abs=0.12)
    uniform = tags("uniform")
    assert max(uniform) / min(uniform) < 1.2
    assert tags({"2": 1.0})[2] == 80
    with pytest.raises(ConfigurationError, match=r"data\.planner names the class '3'"):
        tags({"3": 1.0})


def test_quotas_of_a_field_that_holds_no_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'image'.*data\.planner\.field"):
        _slots(tmp_path, RealModule(Tagged()), _image_alone(), planner={"fill": 10, "field": "image"}, **TAGGED)
    with pytest.raises(ConfigurationError, match=r"data\.planner\.field=depth is no field"):
        _slots(tmp_path, RealModule(Tagged()), _image_alone(), planner={"fill": 10, "field": "depth"}, **TAGGED)


def test_quotas_of_several_labels_are_refused_where_samples_have_a_class_besides(tmp_path: Path) -> None:
    class Both(Tagged):
        def __getitem__(self, i: int) -> dict[str, Tensor]:
            return super().__getitem__(i) | {"c": torch.tensor(i % 2)}

    fields = {"x": "image", "y": "tags", "c": "label"}
    for name in ("tags", "depth"):
        rule = {"fill": 10, "field": name}
        with pytest.raises(ConfigurationError, match=rf"data\.planner\.field={name} .*class"):
            _slots(tmp_path, RealModule(Both()), _image_alone(), planner=rule, fields=fields)


def test_data_without_labels_are_planned_as_before(tmp_path: Path) -> None:
    slots = _slots(tmp_path, RealModule(Tagged()), planner="uniform", fields={"x": "image"}, fill={"y": torch.zeros(3)})
    assert all(slot.n == 10 and "label" not in slot.fields for slot in slots)


# Text -----------------------------------------------------------------------------------------------------


def test_each_row_keeps_its_prompt_and_its_label(tmp_path: Path) -> None:
    text = {"templates": "class {label} in {place}", "attributes": {"place": ["fog", "snow"]}, "negative": "rain"}
    slots = _slots(tmp_path, planner="uniform", text=text)
    rows = [(row, int(label)) for slot in slots for row, label in zip(slot.rows, slot.fields["label"], strict=True)]
    assert len(rows) == 40
    assert all(row["prompt"] in (f"class {label} in fog", f"class {label} in snow") for row, label in rows)
    assert {row["negative_prompt"] for row, _ in rows} == {"rain"}
    assert not slots[0].strings  # the samples have no caption


def test_other_texts_are_another_pool_and_no_text_is_the_pool_without(tmp_path: Path) -> None:
    def name(**settings: Any) -> str:
        mixed = DiffAugDataModule(
            RealModule(), unnamed(), refill="sync", slot_size=10, window=10, cache_dir=tmp_path, **settings
        )
        return pool_name(mixed)

    assert name() == name(text=None)
    assert name(text="a {label}") == name(text={"templates": ["a {label}"]})
    assert len({name(), name(text="a {label}"), name(text="the {label}")}) == 3


def test_prompts_that_do_not_tell_the_classes_apart_are_refused(tmp_path: Path) -> None:
    class Prompted(Noise):
        """Is told by prompts alone."""

        def config(self) -> dict[str, Any]:
            return {"prompts": "a {label}"}

    with pytest.raises(ConfigurationError, match=r"Put \{label\} into each of data\.text\.templates"):
        _slots(tmp_path, generator=Prompted(), text=["a {label}", "a picture"])
    _slots(tmp_path, generator=Prompted(), text=["a {label}", "the {label}"])

    class Varied(Prompted):
        """Starts from real samples besides."""

        strength = 0.5

        def __init__(self, source: str) -> None:
            super().__init__()
            self.source = source

    class Around(Noise):
        """Has no name, as the object inside it has none."""

        def config(self) -> dict[str, Any]:
            raise ConfigurationError("no import path")

    for generator, pairs in (
        (ComposedGenerator(Prompted()), None),
        (ComposedGenerator(ComposedGenerator(Prompted()), kept_halves=[]), None),
        (Varied("image"), "cross"),
        (Varied("image"), "all"),
        (Varied("edit"), None),
    ):
        settings: dict[str, Any] = {"real_guided": {"pairs": pairs}, "generator": generator}
        with pytest.raises(ConfigurationError, match=r"Put \{label\} into each of data\.text\.templates"):
            _slots(tmp_path, text="a picture", **settings)
        _slots(tmp_path, text="a {label}", **settings)
    across = RealGuidedPlanner([1, 1, 1, 1], pairs="cross", strength=0.5)
    with pytest.raises(ConfigurationError, match=r"Put \{label\} into each of data\.text\.templates"):
        _slots(tmp_path, generator=Varied("image"), planner=across, text="a picture")
    for generator in (Varied("image"), Varied("interpolate"), ComposedGenerator(Varied("image")), Around()):
        _slots(tmp_path, generator=generator, text="a picture")  # the real sample says the class, or no prompt is taken


class Captioned(Images):
    """`Images` with a caption, as a dict."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return {"image": image, "text": f"real {index}", "label": label}


SIZED = {"templates": "class {label}, {size}", "attributes": {"size": ["big", "small"]}}
PAIRED = {"fields": {"image": "image", "text": "caption", "label": "label"}}


@pytest.mark.parametrize("workers", [0, 1])
def test_pooled_samples_carry_their_caption_where_real_ones_do(workers: int, tmp_path: Path) -> None:
    options = {"num_workers": workers, "multiprocessing_context": "spawn"} if workers else {}
    mixed = DiffAugDataModule(
        RealModule(Captioned(labels=LABELS), batch_size=8, **options), unnamed(), 0.5, refill="sync", slot_size=10,
        window=40, cache_dir=tmp_path, return_source=True, text=SIZED, **PAIRED,
    )  # fmt: skip
    try:
        batches = list(mixed.train_dataloader())
        assert mixed.pool is not None
        shards = {slot: mixed.pool.read(slot) for slot in mixed.pool.slots()}
    finally:
        mixed.close()
    made = 0
    for batch in batches:
        source = batch["source"]
        for i, text in enumerate(batch["text"]):
            if not bool(source["is_synthetic"][i]):
                assert text == f"real {int(source['real_index'][i])}"
                continue
            made += 1
            shard, row = shards[int(source["slot"][i])], int(source["row"][i])
            assert text == shard.rows[row]["prompt"] == shard.strings["caption"][row]
            assert text.startswith(f"class {int(batch['label'][i])}, ")
    assert made == 22


def test_captions_of_the_training_samples_are_prompts(tmp_path: Path) -> None:
    real = RealModule(Captioned(labels=LABELS))
    slots = _slots(tmp_path, real, text={"captions": "real", "templates": "{caption}!"}, planner="uniform", **PAIRED)
    for slot in slots:
        for row, label, text in zip(slot.rows, slot.fields["label"], slot.strings["caption"], strict=True):
            assert text == row["prompt"] == f"real {row['caption_index']}!"
            assert LABELS[row["caption_index"]] == int(label)


def test_samples_with_captions_need_a_text(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'text' so\), and nothing says those of synthetic ones. Set data\.text"
    ):
        _slots(tmp_path, RealModule(Captioned(labels=LABELS)), **PAIRED)

    class Numbers(Captioned):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index) | {"text": index}

    with pytest.raises(SampleStructureError, match="no text"):
        _slots(tmp_path, RealModule(Numbers(labels=LABELS)), text="a {label}", **PAIRED)
