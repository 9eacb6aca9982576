"""Which real samples are varied, and how far: from `data.real_guided` and `generator.strength` to the slots on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from echo_generator import Echo
from feedback_toys import HARD, fitted, mixed, own_pool, plans_in
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor
from training_toys import Images, RealModule, pool_name, unnamed

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.conditions import RealGuidedPlanner
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.experiment import build
from lightning_diffaug.generators import ComposedGenerator
from lightning_diffaug.paths import config_dir
from lightning_diffaug.pool import SyntheticPool

LABELS = [0] * 4 + [1] * 8 + [2] * 12


class Varied:
    """Returns the real samples that it starts from; says where from and how far."""

    def __init__(self, source: str = "image", strength: Any = 0.5) -> None:
        self.source = source
        self.strength = strength

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        start: Tensor = condition["start"]
        return start


def _module(root: Path, generator: Any, **settings: Any) -> DiffAugDataModule:
    class Local(Varied):
        """Without an import path: this process makes the samples."""

    if isinstance(generator, Varied):
        generator = Local(generator.source, generator.strength)
    defaults = {"refill": "sync", "slot_size": 12, "window": 48, "gates": [], "planner": "uniform", "cache_dir": root}
    return DiffAugDataModule(RealModule(Images(labels=LABELS)), generator, **{**defaults, **settings})


def _rows(root: Path, generator: Any = None, **settings: Any) -> list[dict[str, Any]]:
    """Provenance of the rows that a short run has made."""
    data = _module(root, generator or Varied(), **settings)
    try:
        next(iter(data.train_dataloader()))
        assert data.pool is not None
        return [row for slot in range(4) for row in data.pool.read(slot).rows]
    finally:
        data.close()


def test_each_sample_is_varied_equally_often_where_that_is_set(tmp_path: Path) -> None:
    def counts(choose: str) -> list[int]:
        rows = _rows(tmp_path, real_guided={"choose": choose})
        return [Counter(row["source_index"] for row in rows)[i] for i in range(24)]

    assert counts("least_augmented") == pytest.approx([4] * 4 + [2] * 8 + [4 / 3] * 12, abs=0.7)
    assert max(counts("uniform")[:4]) - min(counts("uniform")[:4]) > 1


@pytest.mark.parametrize("source", ["image", "edit"])
def test_pairs_across_classes_start_where_the_settings_say(source: str, tmp_path: Path) -> None:
    settings = {} if source == "edit" else {"pairs": "cross"}
    common, alike = (
        [(row["start_label"], LABELS[row["source_index"]], row["label"]) for row in rows]
        for rows in (
            _rows(tmp_path, Varied(source, 1.0), planner={"0": 1}, real_guided={**settings, "cross": cross})
            for cross in ("common", "any")
        )
    )
    for start, of_source, label in common + alike:
        assert start == of_source != label == 0
    assert abs(Counter(start for start, *_ in common)[2] / 48 - 0.6) < 0.2
    assert abs(Counter(start for start, *_ in alike)[2] / 48 - 0.5) < 0.2
    assert common != alike


def test_each_row_has_the_strength_of_a_list_or_range_and_keeps_it(tmp_path: Path) -> None:
    listed = Counter(row["strength"] for row in _rows(tmp_path, Varied(strength=[0.25, 0.5, 1.0])))
    assert set(listed) == {0.25, 0.5, 1.0}
    assert min(listed.values()) > 8
    anywhere = [row["strength"] for row in _rows(tmp_path, Varied(strength={"low": 0.2, "high": 0.4}))]
    assert 0.2 <= min(anywhere) < 0.24 < 0.36 < max(anywhere) <= 0.4
    assert len(set(anywhere)) == 48
    assert all("strength" not in row for row in _rows(tmp_path, Varied(strength=0.5)))


def test_prompts_go_with_real_samples(tmp_path: Path) -> None:
    rows = _rows(tmp_path, text="class {label}", real_guided={"pairs": "cross"}, generator=Varied(strength=[0.3, 0.6]))
    assert all(row["prompt"] == f"class {row['label']}" and row["start_label"] != row["label"] for row in rows)
    assert {row["strength"] for row in rows} == {0.3, 0.6}


def test_other_settings_are_another_pool(tmp_path: Path) -> None:
    def name(**settings: Any) -> str:
        data = _module(tmp_path, Echo(), refill={"mode": "none"}, when_short="real", wait_timeout=0.0, **settings)
        return pool_name(data)

    others: list[dict[str, Any]] = [{"choose": "least_augmented"}, {"pairs": "cross"}, {"pairs": "all"}]
    names = {name(real_guided=settings) for settings in [{}, *others, {"pairs": "cross", "cross": "any"}]}
    assert len(names) == 5
    assert name() == name(real_guided={}) == name(real_guided={"cross": "any"}) in names
    assert name(soft_labels=True) == name()


# Feedback -----------------------------------------------------------------------------------------------


def test_samples_that_the_learner_gets_wrong_are_varied_more(tmp_path: Path) -> None:
    """A learner that is bad at two of four classes; of their samples, of whatever class the rows shall be."""
    real_guided = {"choose": "misclassified", "pairs": "all"}
    data = mixed(tmp_path, generator=Echo(), real_guided=real_guided, feedback={"strength": 0.0})
    fitted(data, tmp_path)
    pool, plans = SyntheticPool.open(own_pool(tmp_path)), plans_in(tmp_path).all()
    before = [row for k in pool.slots() if k < plans[0].from_slot for row in pool.read(k).rows]
    after = [row for k in pool.slots()[-2:] for row in pool.read(k).rows]

    def hard(rows: list[dict[str, Any]]) -> float:
        return sum(row["start_label"] in HARD for row in rows) / len(rows)

    assert hard(before) < 0.75
    assert hard(after) > 0.85
    assert {row["label"] for row in after} == {0, 1, 2, 3}  # the classes' quotas stay


def test_nobody_can_be_asked_what_is_misclassified_without_feedback(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.real_guided\.choose=misclassified.*feedback=classes"):
        _module(tmp_path, Varied(), real_guided={"choose": "misclassified"})


# What has no effect -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"real_guided": {"choose": "least_augmented"}}, "data.real_guided.choose=least_augmented"),
        ({"real_guided": {"pairs": "cross"}}, "data.real_guided.pairs=cross"),
        ({"real_guided": {"gamma": 0.5}}, "data.real_guided.gamma=0.5"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], key: str, tmp_path: Path) -> None:
    for generator, more in ((unnamed(), {}), (Varied(), {"planner": unnamed_planner()})):
        with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
            _rows(tmp_path, generator, **settings, **more)


def test_a_planner_object_decides_all(tmp_path: Path) -> None:
    planner = RealGuidedPlanner([1, 1, 1], strength=0.5)
    with pytest.raises(ConfigurationError, match=r"data\.real_guided\.pairs=cross.*data\.planner is an object"):
        _rows(tmp_path, planner=planner, real_guided={"pairs": "cross"})


@pytest.mark.parametrize("pairs", ["cross", "all"])
def test_half_of_another_class_is_refused_before_anything_is_made(pairs: str, tmp_path: Path) -> None:
    composed, setting = ComposedGenerator(Varied()), {"pairs": pairs}
    wrong = rf"data\.real_guided\.pairs={pairs} .*generator\.kept_halves=\[\]"
    for generator in (composed, ComposedGenerator(composed, kept_halves=[])):
        with pytest.raises(ConfigurationError, match=wrong):
            _rows(tmp_path, generator, real_guided=setting)
    with pytest.raises(ConfigurationError, match=rf"data\.planner: .*{pairs} .*generator\.kept_halves=\[\]"):
        _rows(tmp_path, composed, planner=RealGuidedPlanner([1, 1, 1], strength=0.5, pairs=pairs))
    assert not (tmp_path / "pools").exists()


def unnamed_planner() -> Any:
    """A planner object of the user's."""
    from lightning_diffaug.conditions import QuotaPlanner

    return QuotaPlanner([1, 1, 1])


def test_a_soft_label_needs_a_generator_that_says_its_strength(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.real_guided\.gamma=null"):
        _rows(tmp_path, Echo(), real_guided={"pairs": "cross", "gamma": 0.5})


# Command line -------------------------------------------------------------------------------------------


def test_all_of_it_is_set_on_the_command_line(tmp_path: Path) -> None:
    def built(*overrides: str) -> Any:
        GlobalHydra.instance().clear()
        files = [f"paths.output_dir={tmp_path}", f"paths.cache_dir={tmp_path / 'cache'}"]
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return build(compose("train", [*overrides, *files])).data

    data = built(
        "generator.strength=[0.3,0.5,0.7,0.9]", "data.real_guided.pairs=cross", "data.real_guided.cross=any",
        "data.real_guided.gamma=0.5", "data.real_guided.choose=least_augmented", "data.soft_labels=true",
    )  # fmt: skip
    pool = data._pool_settings
    assert vars(pool.real_guided) == {"choose": "least_augmented", "pairs": "cross", "cross": "any", "gamma": 0.5}
    assert pool.generator.strength == [0.3, 0.5, 0.7, 0.9]
    ranged = built("generator.strength={low:0.25,high:1.0}")
    assert ranged._pool_settings.generator.strength == {"low": 0.25, "high": 1.0}
    with pytest.raises(ConfigurationError, match=r"data\.real_guided\.pairs"):
        built("data.real_guided.pairs=left")
