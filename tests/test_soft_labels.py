"""Soft labels from the plan to the learner: stored with samples, in batches where they are asked for, trained on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import IterableDataset
from training_toys import Images, RealModule, Recorder, jitter, trainer

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.columns import columns_of
from lightning_diffaug.errors import ConfigurationError, GeneratorError, SampleStructureError
from lightning_diffaug.feedback.samples import LearnerSamples
from lightning_diffaug.models import ImageClassifier
from lightning_diffaug.pool import Shard
from lightning_diffaug.real import RealTraining
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe
from lightning_diffaug.soft_labels import SoftLabels
from lightning_diffaug.spec import FieldSpec, SampleSpec

NAMES = [-10, 20, 40]  # not all of them can be columns, so they have those of their ranks
LABELS = [-10] * 4 + [20] * 8 + [40] * 12
CLASSES = [NAMES.index(label) for label in LABELS]
CROSS = {"pairs": "cross", "cross": "any", "gamma": 0.5}


class Varied:
    """Returns the real samples that it starts from; each has its strength."""

    source = "image"

    def __init__(self, strength: Any = (0.25, 0.81)) -> None:
        self.strength = strength

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        start: Tensor = condition["start"]
        return start


def _module(root: Path, real: Any = None, **settings: Any) -> DiffAugDataModule:
    class Local(Varied):
        """Without an import path: this process makes the samples."""

    defaults = {
        "synthetic_fraction": 0.5, "refill": "sync", "window": 16, "slot_size": 8, "gates": [], "planner": "uniform",
        "soft_labels": True, "real_guided": CROSS, "return_source": True, "cache_dir": root,
    }  # fmt: skip
    return DiffAugDataModule(real or RealModule(Images(labels=LABELS)), Local(), **{**defaults, **settings})


class Learner(Recorder):
    """Also keeps the slots, which are gone with the run."""

    def __init__(self) -> None:
        super().__init__()
        self.shards: dict[int, Shard] = {}

    def on_train_epoch_end(self) -> None:
        pool = self.trainer.datamodule.pool  # type: ignore[attr-defined]
        self.shards |= {slot: pool.read(slot) for slot in pool.slots()}


def _trained_on(mixed: DiffAugDataModule, root: Path, **options: Any) -> Learner:
    model = Learner()
    trainer(root, **options).fit(model, datamodule=mixed)
    assert len(model.shards) >= 2
    return model


def test_soft_labels_are_stored_with_each_sample_and_follow_from_its_strength(tmp_path: Path) -> None:
    model = _trained_on(_module(tmp_path), tmp_path)
    for shard in model.shards.values():
        soft, labels = shard.fields["soft_label"], shard.fields["label"]
        assert (soft.dtype, soft.shape, shard.n) == (torch.float32, (8, 3), 8)
        for row, own, label in zip(shard.rows, soft, labels.tolist(), strict=True):
            assert row["strength"] in (0.25, 0.81)
            assert float(own[label]) == pytest.approx(row["strength"] ** 0.5)
            assert float(own[row["start_label"]]) == pytest.approx(1 - row["strength"] ** 0.5)
            assert row["start_label"] != label == row["label"]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_carry_probabilities_of_real_and_synthetic_samples_alike(tmp_path: Path, workers: int) -> None:
    options = {"num_workers": workers, "multiprocessing_context": "spawn"} if workers else {}
    mixed = _module(tmp_path, RealModule(Images(labels=LABELS), batch_size=6, **options))
    model = _trained_on(mixed, tmp_path, max_epochs=2)
    made = 0
    for images, labels, source in model.seen["train"]:
        assert (labels.dtype, labels.shape) == (torch.float32, (len(images), 3))
        for i, label in enumerate(labels):
            if not source["is_synthetic"][i]:
                value = LABELS[int(source["real_index"][i])]
                assert label.tolist() == [float(value == name) for name in NAMES]
                continue
            made += 1
            shard, row = model.shards[int(source["slot"][i])], int(source["row"][i])
            assert torch.equal(label, shard.fields["soft_label"][row])
    assert made == 24
    assert all(batch[1].dtype == torch.int64 for batch in model.seen["val"])


def test_without_the_setting_labels_are_the_users_own_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = _trained_on(_module(tmp_path, soft_labels=False), tmp_path, max_epochs=2)
    for _, labels, _ in model.seen["train"]:
        assert labels.dtype == torch.int64
        assert set(labels.tolist()) <= set(NAMES)
    assert caplog.text.count("data.soft_labels=true") == 1


def test_samples_count_for_their_class_and_the_setting_changes_nothing_else(tmp_path: Path) -> None:
    settings = {"planner": {"-10": 1.0, "40": 1.0}, "allocation": {"-10": 1.0, "40": 3.0}}
    soft, hard = (
        _trained_on(_module(tmp_path, soft_labels=soft, **settings), tmp_path).seen["train"] for soft in (True, False)
    )
    drawn = []
    for (images, probabilities, source), (others, labels, other_source) in zip(soft, hard, strict=True):
        assert torch.equal(images, others)
        assert all(torch.equal(source[name], other_source[name]) for name in source)
        real = ~source["is_synthetic"]
        assert [NAMES[c] for c in probabilities[real].argmax(1).tolist()] == labels[real].tolist()
        drawn += labels[~real].tolist()
    assert sorted(drawn) == [-10] * 3 + [40] * 9


def test_samples_without_a_soft_label_have_all_of_it_on_their_class(tmp_path: Path) -> None:
    model = _trained_on(_module(tmp_path, real_guided={"pairs": "cross"}), tmp_path)
    assert all("soft_label" not in shard.fields for shard in model.shards.values())
    for images, labels, source in model.seen["train"]:
        assert torch.equal(labels.sort(1).values, torch.tensor([[0.0, 0.0, 1.0]]).expand(len(images), 3))
        assert bool(source["is_synthetic"].any())


def test_the_real_modules_own_loader_keeps_its_own_labels(tmp_path: Path) -> None:
    real = RealModule(Images(labels=LABELS))
    loader = _module(tmp_path, real, synthetic_fraction=0, real_guided=None).train_dataloader()
    assert {label for _, labels in loader for label in labels.tolist()} == set(NAMES)
    mixed = _module(tmp_path, real, synthetic_fraction=0, balance="classes", real_guided=None)
    try:
        assert all(labels.shape == (len(labels), 3) for _, labels, _ in mixed.train_dataloader())
    finally:
        mixed.close()


@dataclasses.dataclass
class Sample:
    """A sample of an own kind."""

    image: Tensor
    target: int


class Dicts(Images):
    """`Images` as dicts, or as an own class."""

    def __init__(self, kind: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.kind = kind

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return self.kind(image=image, target=label)


def _collated(samples: list[Sample]) -> list[Any]:
    return [torch.stack([sample.image for sample in samples]), [sample.target for sample in samples]]


@pytest.mark.parametrize("kind", [dict, Sample])
def test_other_structures_keep_theirs(kind: Any, tmp_path: Path) -> None:
    options = {} if kind is dict else {"collate_fn": _collated}
    real = RealModule(Dicts(kind, labels=LABELS, transform=jitter), **options)
    fields = {"image": "image", "target": "label"}
    model = _trained_on(_module(tmp_path, real, fields=fields, return_source=False), tmp_path)
    for batch in model.seen["train"]:
        images, labels = (batch["image"], batch["target"]) if kind is dict else batch
        labels = labels if isinstance(labels, Tensor) else torch.stack(labels)
        assert images.dtype == torch.float32
        torch.testing.assert_close(labels.sum(1), torch.ones(4))
        assert labels.shape == (4, 3)


class Stream(IterableDataset[Any]):
    """`Images` without an index."""

    def __iter__(self) -> Any:
        images = Images(labels=LABELS)
        return (images[i] for i in range(len(images)))


def test_labels_of_a_stream_are_looked_up(tmp_path: Path) -> None:
    mixed = _module(
        tmp_path, RealModule(Stream(), shuffle=False), raw=Images(labels=LABELS), epoch_length=24, when_short="wait"
    )
    seen = _trained_on(mixed, tmp_path).seen["train"]
    real = torch.cat([labels[~source["is_synthetic"]] for _, labels, source in seen])
    numbers = [NAMES.index(label) for label in LABELS[: len(real)]]
    assert torch.equal(real, functional.one_hot(torch.tensor(numbers), 3).float())


# Columns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([0, 1, 3], [0, 1, 3]),
        ([2, 1, 0], [2, 1, 0]),
        ([-1, 1], [0, 1]),
        ([5, -2, 5], [1, 0, 1]),
        (["dog", "cat"], [1, 0]),
        ([3, "a"], [0, 1]),
    ],
)
def test_the_column_of_a_label_is_itself_where_it_can_be_and_else_its_rank(labels: Any, columns: list[int]) -> None:
    assert columns_of(labels) == columns


class Turned(Images):
    """`Images` with a target_transform, or a transform of the pair, that turns the classes around."""

    def __init__(self, pair: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.target_transform = None if pair else (lambda label: 2 - label)
        self.transforms = (lambda image, label: (image, 2 - label)) if pair else None

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        if self.transforms is not None:
            return self.transforms(image, label)
        return image, label if self.target_transform is None else self.target_transform(label)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("gamma", [None, 0.5])
def test_soft_and_hard_labels_agree_after_a_transform_of_the_label(
    pair: bool, gamma: float | None, tmp_path: Path
) -> None:
    seen = {}
    for soft in (True, False):
        mixed = _module(
            tmp_path, RealModule(Turned(pair, labels=CLASSES)), soft_labels=soft,
            real_guided={"pairs": "cross", "cross": "any", "gamma": gamma},
        )  # fmt: skip
        seen[soft] = _trained_on(mixed, tmp_path)
    for (_, probabilities, source), (_, labels, _) in zip(
        seen[True].seen["train"], seen[False].seen["train"], strict=True
    ):
        for i, label in enumerate(labels.tolist()):
            wanted = functional.one_hot(torch.tensor(label), 3).float()
            if source["is_synthetic"][i] and gamma is not None:
                shard, row = seen[True].shards[int(source["slot"][i])], int(source["row"][i])
                assert int(shard.fields["label"][row]) == 2 - label
                wanted = shard.fields["soft_label"][row].flip(0)
            assert torch.equal(probabilities[i], wanted)


def test_a_label_that_does_not_occur_has_its_column(tmp_path: Path) -> None:
    names = [0, 1, 3]
    labels = [names[c] for c in CLASSES]
    model = _trained_on(_module(tmp_path, RealModule(Images(labels=labels))), tmp_path)
    for _, probabilities, source in model.seen["train"]:
        assert probabilities.shape == (4, 4)
        for i in range(4):
            if source["is_synthetic"][i]:
                soft = model.shards[int(source["slot"][i])].fields["soft_label"][int(source["row"][i])]
                assert torch.equal(probabilities[i, names], soft)
                assert probabilities[i, 2] == 0
            else:
                assert int(probabilities[i].argmax()) == labels[int(source["real_index"][i])]


@pytest.mark.parametrize(("labels", "columns"), [([0, 1, 3], [2, 1, -1]), ([0, 1, 2], [2, 1, 0])])
def test_the_learner_is_asked_about_the_columns_that_it_is_trained_on(labels: list[int], columns: list[int]) -> None:
    settings: dict[str, Any] = dict.fromkeys(
        ["raw", "fields", "fill", "labels", "synthetic_transform", "epoch_length", "value_range"]
    )
    real = RealModule(Turned(False, labels=[labels[c] for c in CLASSES]))
    data = RealTraining.of(
        real, augment_synthetic=True, return_source=False, soft_labels=True, snapshot_limit=1 << 30, **settings
    )
    assert data.soft_labels is not None
    assert LearnerSamples(real, data).columns == list(data.soft_labels.columns) == columns_of(columns)


# What is wrong ------------------------------------------------------------------------------------------


class Unlabelled(Images):
    """Images alone."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0]


def test_samples_without_a_label_are_refused_with_the_key(tmp_path: Path) -> None:
    """Their classes may be known, but there is no label in a sample whose place probabilities could take."""
    mixed = _module(tmp_path, RealModule(Unlabelled(labels=LABELS)), labels=LABELS, real_guided=None)
    with pytest.raises(ConfigurationError, match=r"(?s)have none there.*data\.soft_labels=false"):
        mixed.train_dataloader()


def test_a_label_of_a_stream_that_raw_does_not_have_is_refused_with_the_key(tmp_path: Path) -> None:
    known = Images(labels=[20 if label == -10 else label for label in LABELS])
    mixed = _module(tmp_path, RealModule(Stream(), shuffle=False), raw=known, epoch_length=24, when_short="wait")
    with pytest.raises(SampleStructureError, match=r"(?s)label -10.*have 20, 40.*raw=.*data\.soft_labels=false"):
        _trained_on(mixed, tmp_path)


@pytest.mark.parametrize(
    "soft",
    [
        torch.ones(8, 3),
        torch.tensor([[1.5, -0.5, 0.0]]).expand(8, 3),
        torch.full((8, 3), float("nan")),
        torch.ones(8),
        torch.ones(8, 1, dtype=torch.float64),
        [1.0] * 8,
    ],
)
def test_a_plan_whose_soft_labels_are_no_probabilities_is_refused(tmp_path: Path, soft: Any) -> None:
    class Planner:
        """Has them made up."""

        def plan(self, slot: int, rows: int) -> dict[str, Any]:
            return {"soft_label": soft, "start": torch.zeros(rows, 1, 4, 4)}

    spec = SampleSpec((FieldSpec("image", "0", "tensor", "uint8", (1, 4, 4), 0.0, 255.0),))
    with pytest.raises(GeneratorError, match=r"'soft_label' that is not float32 \(rows, classes\).*data\.planner"):
        fill_slot(0, Recipe(Planner(), Varied(), (), spec, slot_size=8))


def test_soft_labels_of_other_classes_are_refused(tmp_path: Path) -> None:
    class Planner:
        """Knows five classes."""

        def plan(self, slot: int, rows: int) -> dict[str, Any]:
            label = torch.arange(rows) % 3
            soft = functional.one_hot(label, 5).float()
            return {"label": label, "start": torch.zeros(rows, 1, 4, 4), "soft_label": soft}

    spec = SampleSpec((
        FieldSpec("image", "0", "tensor", "uint8", (1, 4, 4), 0.0, 255.0),
        FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0),
    ))  # fmt: skip
    shard = fill_slot(0, Recipe(Planner(), Varied(), (), spec, slot_size=6))
    images = Images(labels=LABELS)
    labels = SoftLabels.of(spec, NAMES, images[0])
    with pytest.raises(SampleStructureError, match=r"\(5,\) classes.*have 3.*data\.soft_labels"):
        labels.of_synthetic([images[0]] * 6, shard.fields)


# Training -----------------------------------------------------------------------------------------------


class Pictures(Images):
    """`Images` as floats, of sizes that a network takes."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return image.float() / 255, label


@pytest.mark.parametrize(
    "arm",
    [
        {},
        {"mixing": "mixup"},
        {"mixing": "cutmix", "mixing_alpha": 1.0},
        {"mixing": "remix", "class_counts": [4, 8, 12]},
        {"loss": "logit_adjusted", "class_counts": [4, 8, 12]},
    ],
)
def test_a_classifier_trains_on_the_mix(tmp_path: Path, arm: dict[str, Any]) -> None:
    model = ImageClassifier(3, width=4, **arm)
    before = [weight.clone() for weight in model.parameters()]
    losses = []

    class Module(RealModule):
        """Evaluates on labels that the classes have."""

        def val_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Pictures(labels=CLASSES), batch_size=8)

    real = Module(Pictures(labels=CLASSES), batch_size=8)
    original = model.training_loss

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        losses.append((y, original(x, y)))
        return losses[-1][1]

    model.training_loss = loss_of  # type: ignore[method-assign]
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, datamodule=_module(tmp_path, real, return_source=False))
    assert len(losses) == 6
    assert all(y.shape == (8, 3) and bool(loss.isfinite()) for y, loss in losses)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert "val/acc" in run.callback_metrics
