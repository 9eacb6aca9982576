"""The dual encoder: its loss, its figures, and that it learns which text belongs to which image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader

from lightning_diffaug.data import ImageTextDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models import DualEncoder
from lightning_diffaug.models.dual_encoder import chance_at, equal, info_nce, recall_at
from lightning_diffaug.words import text_hashes


def test_recall_counts_those_with_a_right_one_among_the_nearest() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.3, 0.2, 0.1]])
    right = torch.eye(3, dtype=torch.bool)
    assert [float(recall_at(similarity, right, k)) for k in (1, 2, 3, 5)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    right[2, 0] = right[0, 2] = True  # equal captions
    assert float(recall_at(similarity, right, 1)) == pytest.approx(2 / 3)
    assert float(chance_at(torch.eye(4, dtype=torch.bool), 1)) == pytest.approx(1 / 4)
    assert float(chance_at(torch.eye(4, dtype=torch.bool), 5)) == 1.0
    two = torch.tensor([[True, True, False, False]])
    assert float(chance_at(two, 2)) == pytest.approx(1 - 1 / math.comb(4, 2))


def test_equal_captions_are_all_right_in_the_loss() -> None:
    right = equal(text_hashes(["Bold, seven", "bold seven", "seven"]))
    assert right.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    best = torch.where(right, 20.0, 0.0)
    assert float(info_nce(best, right)) == pytest.approx((2 * math.log(2) * 2) / 6, abs=1e-3)
    apart = torch.eye(3) * 20.0
    assert float(info_nce(apart, right)) > 5, "one of two equal captions is not to be pushed away"


def test_it_learns_far_above_chance_and_logs_the_figures_of_the_report(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    data = ImageTextDataModule(batch_size=64)
    data.setup()
    model = DualEncoder(**data.model_facts(), width=16)
    how: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    how |= {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
    trainer = Trainer(max_epochs=6, default_root_dir=tmp_path, **how)
    trainer.fit(model, data)
    (figures,) = trainer.test(model, data, verbose=False)
    assert figures["test/recall_at_1_trivial"] == pytest.approx(1 / 206)
    assert figures["test/recall_at_5_trivial"] == pytest.approx(5 / 206)
    assert figures["test/recall_at_5"] > 5 * figures["test/recall_at_5_trivial"]
    assert figures["test/recall_at_1"] > 3 * figures["test/recall_at_1_trivial"]


CAPTIONS = {
    "words that were never seen": ["a blorp", "a blarp", "a blurp", "a blirp"],
    "no space between words": ["一只猫坐着", "一只狗坐着", "两只猫跑着", "一匹马站着"],
    "alike up to the length": [f"{'very ' * 40}{digit}" for digit in ("one", "two", "three", "four")],
}


@pytest.mark.parametrize("captions", CAPTIONS.values(), ids=CAPTIONS.keys())
def test_captions_that_the_learner_cannot_tell_apart_are_not_equal(captions: list[str], tmp_path: Path) -> None:
    model = DualEncoder(["a", "very"])
    assert len(model.tokens(captions).unique(dim=0)) == 1
    batch = {"image": torch.rand(4, 1, 8, 8), "caption": captions}
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    (figures,) = trainer.test(model, DataLoader([batch], batch_size=None), verbose=False)
    assert figures["test/recall_at_1_trivial"] == pytest.approx(1 / 4)
    assert figures["test/recall_at_1"] < 1
    assert torch.equal(equal(text_hashes(captions)), torch.eye(4, dtype=torch.bool))


def test_unknown_words_are_one_word_and_a_text_without_words_has_a_vector() -> None:
    model = DualEncoder(["bold", "seven"])
    assert model.tokens(["Bold, seven", "bold blorp", "…"])[:, :3].tolist() == [[2, 3, 0], [2, 1, 0], [0, 0, 0]]
    vectors = model.of_texts(["…", "bold seven"])
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1])
    alone = model.eval().of_texts(["bold seven"])
    assert torch.allclose(alone, model.of_texts(["…", "bold seven"])[1:], atol=1e-6), "padding says nothing"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"vocabulary": []}, "vocabulary is empty"),
        ({"lr": 0}, r"model\.lr"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        DualEncoder(**{"vocabulary": ["a"], **wrong})
