"""The fit: draws, learning rate, determinism, failure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.denoisers import UNetDenoiser, class_condition
from lightning_diffaug.generators.fit import ClassBalancedDraws, Fitted, fit_denoiser, learning_rate
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.snapshot import Snapshot


def _fit(
    snapshot: Snapshot, seed: int = 0, progress: Callable[[int, int], None] | None = None, **settings: Any
) -> Fitted:
    field = snapshot.spec["image"]
    conditions = class_condition("label", len(snapshot.class_names))
    return fit_denoiser(
        lambda: UNetDenoiser(field.shape, conditions, (8, 8)),
        snapshot,
        ["image"],
        FitSettings(**{"steps": 3, "batch_size": 8, **settings}),
        seed,
        torch.device("cpu"),
        progress or (lambda step, total: None),
    )


def _weights(fitted: Fitted) -> Tensor:
    return torch.cat([p.flatten() for p in fitted.denoiser.parameters()])


@pytest.mark.parametrize(("balance", "expected"), [(0.0, 100 / 104), (0.5, 10 / 12), (1.0, 0.5)])
def test_draws_weigh_a_sample_by_its_class_count(balance: float, expected: float) -> None:
    labels = torch.tensor([2] * 4 + [0] * 100)  # class 1 has no sample
    draws = ClassBalancedDraws(labels, len(labels), balance)
    rows = draws(40_000, torch.Generator().manual_seed(0))
    assert abs(float((labels[rows] == 0).float().mean()) - expected) < 0.01
    counts = torch.bincount(rows, minlength=104)
    assert int(counts.min()) > 0
    rare = counts[:4].float()
    assert float(rare.max() / rare.min()) < 1.25


def test_draws_without_labels_are_uniform() -> None:
    rows = ClassBalancedDraws(None, 10, 0.5)(20_000, torch.Generator().manual_seed(0))
    assert torch.bincount(rows).tolist() == pytest.approx([2000] * 10, rel=0.12)


def test_learning_rate_warms_up_and_ends_at_its_floor() -> None:
    settings = FitSettings()
    rates = [learning_rate(step, settings) for step in range(settings.steps)]
    assert rates[0] == pytest.approx(1 / 30)
    assert rates[29] == rates[30] == 1.0
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] == pytest.approx(0.05)
    assert learning_rate(0, FitSettings(steps=1)) == 1.0  # a fit shorter than its warm-up still learns


def test_the_loss_falls(few_digits: Snapshot) -> None:
    losses = _fit(few_digits, steps=60, batch_size=16).losses
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(few_digits: Snapshot) -> None:
    first = _weights(_fit(few_digits, seed=3))
    torch.manual_seed(99)
    assert torch.equal(_weights(_fit(few_digits, seed=3)), first)
    assert not torch.equal(_weights(_fit(few_digits, seed=4)), first)


def test_a_fit_leaves_the_global_random_states_as_they_were(few_digits: Snapshot) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    _fit(few_digits, hold_out=0.2, check_every=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_the_averaged_weights_are_kept(few_digits: Snapshot) -> None:
    last = _weights(_fit(few_digits, ema=0.0))
    averaged = _weights(_fit(few_digits, ema=0.5))
    first = _weights(_fit(few_digits, ema=1.0))
    assert not torch.equal(averaged, last)
    assert float((averaged - last).norm()) < float((first - last).norm())


def test_condition_dropout_fits_the_null_class_and_only_it(few_digits: Snapshot) -> None:
    def embeddings(dropout: float) -> Tensor:
        unet: Any = _fit(few_digits, condition_dropout=dropout, weight_decay=0.0).denoiser
        weight = unet.unet.class_embedding.weight
        assert isinstance(weight, Tensor)
        return weight

    untouched = embeddings(0.0)[-1]
    always = embeddings(1.0)
    assert not torch.equal(always[-1], untouched)
    assert torch.equal(always[:-1], embeddings(1.0)[:-1])
    assert not torch.equal(embeddings(0.0)[:-1], always[:-1])


def test_data_without_labels_can_be_fitted(make_snapshot: Callable[..., Snapshot], few_digits: Snapshot) -> None:
    unlabelled = make_snapshot(few_digits.raw("image"), None)
    assert np.isfinite(_fit(unlabelled).losses).all()


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction", "flow"])
def test_every_prediction_type_can_be_fitted(prediction_type: str, few_digits: Snapshot) -> None:
    losses = _fit(few_digits, prediction_type=prediction_type, steps=25, batch_size=16).losses
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_progress_is_told_of_every_step(few_digits: Snapshot) -> None:
    heard: list[tuple[int, int]] = []
    _fit(few_digits, progress=lambda step, total: heard.append((step, total)))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_a_loss_that_is_not_finite_stops_the_fit_and_says_what_to_change(
    make_snapshot: Callable[..., Snapshot], few_digits: Snapshot
) -> None:
    images = few_digits.unit("image").clone()
    images[::2] = float("inf")
    with pytest.raises(GeneratorError, match=r"step 1 of 3.*generator\.fit\.lr"):
        _fit(make_snapshot(images, few_digits.labels))


def test_no_data_is_an_error(make_snapshot: Callable[..., Snapshot]) -> None:
    empty = make_snapshot(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(GeneratorError, match=r"real\.root"):
        _fit(empty)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("steps", 1.5),
        ("steps", True),
        ("batch_size", 0),
        ("lr", -1e-3),
        ("lr", "fast"),
        ("ema", 1.1),
        ("condition_dropout", float("nan")),
        ("class_balance", 2),
        ("augment_p", -0.1),
        ("prediction_type", "noise"),
        ("grad_clip", float("inf")),
        ("channels", [3]),
        ("channels", [32, 12]),
        ("channels", []),
        ("channels", 32),
        ("channels", "32"),
        ("channels", [32.0]),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"generator\.fit\.{key}"):
        FitSettings(**{key: value})


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.stepss is unknown.*steps, batch_size"):
        FitSettings.of({"stepss": 3})


def test_settings_survive_json_and_one_is_one_point_zero() -> None:
    settings = FitSettings(channels=(8, 16), ema=0)
    assert FitSettings.of(settings.to_json()) == settings
    assert str(settings.to_json()) == str(FitSettings(channels=(8, 16), ema=0.0).to_json())
