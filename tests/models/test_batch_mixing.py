"""Samples of a batch are mixed in pairs as the papers say, with hard and with soft labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models import ImageClassifier
from lightning_diffaug.models.batch_mixing import MIXINGS, Remix, batch_mixing

COUNTS = [80, 5, 40]
HARD = torch.tensor([0, 1, 2, 0, 1, 0])
X = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def _mix(mixing: str, y: Tensor, seed: int = 0, **settings: Any) -> tuple[Tensor, Tensor]:
    mix = batch_mixing(mixing, **{"alpha": 1.0, "num_classes": 3, "class_counts": COUNTS, **settings})
    assert mix is not None
    torch.manual_seed(seed)
    x, mixed = mix(X, y)
    assert (x.shape, mixed.shape, mixed.dtype) == (X.shape, (6, 3), torch.float32)
    return x, mixed


def _share_of_own_image(x: Tensor) -> Tensor:
    """Which share of each mixed image is its own, (n,); the rest is the image before."""
    before = X.roll(1, 0)
    return ((x - before).flatten(1) * (X - before).flatten(1)).sum(1) / (X - before).flatten(1).square().sum(1)


def test_nothing_is_mixed_unless_asked() -> None:
    assert batch_mixing(None, 0.2, 3) is None
    assert ImageClassifier(3).mixing is None


@pytest.mark.parametrize("mixing", MIXINGS)
def test_soft_labels_are_mixed_as_hard_ones(mixing: str) -> None:
    for seed in range(5):
        x, labels = _mix(mixing, HARD, seed)
        again, soft = _mix(mixing, F.one_hot(HARD, 3).float(), seed)
        assert torch.equal(x, again)
        torch.testing.assert_close(soft, labels)
        torch.testing.assert_close(labels.sum(1), torch.ones(6))


def test_mixup_mixes_images_and_labels_alike() -> None:
    x, labels = _mix("mixup", HARD, seed=3)
    share = _share_of_own_image(x)
    assert 0.05 < share[0] < 0.95
    one_hot = F.one_hot(HARD, 3).float()
    torch.testing.assert_close(labels, share[:, None] * one_hot + (1 - share[:, None]) * one_hot.roll(1, 0))


def test_cutmix_pastes_a_box_and_weighs_labels_by_its_area() -> None:
    for seed in range(10):
        x, labels = _mix("cutmix", HARD, seed)
        pasted = (x != X).any(1)
        assert torch.equal(torch.where(pasted[:, None], X.roll(1, 0), X), x)
        share = 1 - pasted.float().mean((1, 2))
        assert labels[1, 1] == pytest.approx(share[1])  # a 1, the one before is a 0
        assert labels[1, 0] == pytest.approx(1 - share[1])


def test_remix_gives_the_label_to_the_rarer_class_while_the_frequent_image_is_no_larger_part_than_tau() -> None:
    for seed in range(20):
        x, labels = _mix("remix", HARD, seed)
        share = float(_share_of_own_image(x)[0])
        expected = []
        for own, before in zip(HARD.tolist(), HARD.roll(1).tolist(), strict=True):
            ratio, of_label = COUNTS[own] / COUNTS[before], share
            if ratio >= 3 and share < 0.5:
                of_label = 0.0
            if ratio <= 1 / 3 and 1 - share < 0.5:
                of_label = 1.0
            row = torch.zeros(3)
            row[own] += of_label
            row[before] += 1 - of_label
            expected.append(row)
        torch.testing.assert_close(labels, torch.stack(expected))
        assert labels[:, 1].sum() > F.one_hot(HARD, 3)[:, 1].sum() - 1e-4, "the rare class gains"


def test_remix_is_mixup_where_classes_are_alike_or_tau_is_0() -> None:
    for settings in ({"class_counts": [10, 9, 11]}, {"tau": 0.0}):
        (x, labels), (plain, usual) = _mix("remix", HARD, seed=1, **settings), _mix("mixup", HARD, seed=1)
        torch.testing.assert_close(x, plain)
        torch.testing.assert_close(labels, usual)


def test_the_count_of_a_soft_label_is_the_mean_of_its_classes() -> None:
    remix = Remix(1.0, [100, 1], kappa=3.0, tau=1.0)
    soft = torch.tensor([[0.99, 0.01], [0.01, 0.99]])  # 99.01 and 1.99 samples
    _, labels = remix(torch.rand(2, 1, 4, 4), soft)
    torch.testing.assert_close(labels, soft[1].expand(2, 2))


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("loss", ["cross_entropy", "logit_adjusted"])
def test_the_loss_is_of_the_mixed_batch(mixing: str, loss: str) -> None:
    model = ImageClassifier(3, 2, width=4, mixing=mixing, mixing_alpha=1.0, loss=loss, class_counts=COUNTS)
    for y in (HARD, F.one_hot(HARD, 3).float()):
        torch.manual_seed(5)
        found = model.training_loss(X, y)
        x, labels = _mix(mixing, y, seed=5)
        log_p = (model(x) + model.logit_adjustment).log_softmax(1)
        assert found.item() == pytest.approx(-(labels * log_p).sum(1).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mixing": "blend"}, r"model\.mixing='blend'.* mixup, cutmix, remix"),
        ({"alpha": 0.0}, r"model\.mixing_alpha=0\.0"),
        ({"kappa": 0.5}, r"model\.remix_kappa"),
        ({"tau": 1.5}, r"model\.remix_tau"),
        ({"class_counts": None}, r"model\.class_counts"),
        ({"class_counts": [1, 0, 1]}, r"model\.class_counts"),
    ],
)
def test_a_wrong_setting_names_its_key(settings: dict[str, Any], text: str) -> None:
    given: dict[str, Any] = {"mixing": "remix", "alpha": 0.2, "num_classes": 3, "class_counts": COUNTS}
    with pytest.raises(ConfigurationError, match=text):
        batch_mixing(**(given | settings))
