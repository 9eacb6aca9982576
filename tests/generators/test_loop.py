"""The denoising loop against denoisers whose exact answer is known."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from exact_denoiser import LABELS, MEANS, GaussianDenoiser
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.loop import guided, noise_like, sample, seeded
from lightning_diffaug.generators.schedulers import PREDICTION_TYPES, SCHEDULERS, make_scheduler

PAIRS = [
    (name, prediction)
    for name in SCHEDULERS
    for prediction in PREDICTION_TYPES
    if (prediction == "flow") <= (name in ("flow_euler", "dpmsolver++", "unipc"))
    and (name != "flow_euler" or prediction == "flow")
]


@pytest.mark.parametrize(("name", "prediction"), PAIRS)
def test_every_scheduler_finds_the_only_sample_there_is(name: str, prediction: str) -> None:
    for steps in (1, 2, 10):
        denoiser = GaussianDenoiser(prediction, MEANS)
        x = sample(denoiser, make_scheduler(name, prediction, steps), (1, 3), LABELS, [1, 2, 3, 4], Controls(steps))
        # In one step from a = 5e-5, an epsilon is divided by a: float32 leaves a thousandth of the noise.
        torch.testing.assert_close(x, MEANS[LABELS["label"]], atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmsolver++", "unipc", "heun", "euler"])
def test_samples_have_the_spread_of_the_data(name: str) -> None:
    n, std = 2000, 0.2
    denoiser = GaussianDenoiser("v_prediction", torch.tensor([[0.3], [0.0]]), std)
    condition = {"label": torch.zeros(n, dtype=torch.int64)}
    x = sample(denoiser, make_scheduler(name, "v_prediction", 30), (1,), condition, range(n), Controls(30))
    assert abs(float(x.mean()) - 0.3) < 0.02
    assert abs(float(x.std()) - std) < 0.045  # few DDPM steps with the small variance lose a fifth of it


def test_deterministic_solvers_agree_on_the_sample_of_a_noise() -> None:
    def run(name: str, prediction: str, steps: int) -> Tensor:
        denoiser = GaussianDenoiser(prediction, MEANS, 0.2)
        return sample(denoiser, make_scheduler(name, prediction, steps), (1, 3), LABELS, [1, 2, 3, 4], Controls(steps))

    exact = run("ddim", "v_prediction", 500)
    assert float((exact - MEANS[LABELS["label"]]).abs().mean()) > 0.05
    for name, steps in (("dpmsolver++", 50), ("unipc", 50), ("heun", 50), ("euler", 500)):
        torch.testing.assert_close(run(name, "v_prediction", steps), exact, atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", [(5,), (2, 6), (1, 4, 4), (3, 2, 4, 4)])
def test_the_loop_takes_tensors_of_any_shape(shape: tuple[int, ...]) -> None:
    means = torch.linspace(-0.5, 0.5, 3).reshape(3, *[1] * len(shape)).expand(3, *shape)
    x = sample(
        GaussianDenoiser("v_prediction", means),
        make_scheduler("ddpm", "v_prediction"),
        shape,
        LABELS,
        [1, 2, 3, 4],
        Controls(5),
    )
    torch.testing.assert_close(x, means[LABELS["label"]], atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["ddpm", "lcm", "dpmsolver++"])
def test_a_sample_depends_on_its_own_seed_alone(name: str) -> None:
    def run(rows: list[int]) -> Tensor:
        seeds = [11, 22, 33, 44]
        condition = {"label": LABELS["label"][rows]}
        denoiser = GaussianDenoiser("v_prediction", MEANS, 0.2)
        scheduler = make_scheduler(name, "v_prediction")
        return sample(denoiser, scheduler, (1, 3), condition, [seeds[i] for i in rows], Controls(6))

    together = run([0, 1, 2, 3])
    assert len({tuple(row) for row in together.flatten(1).tolist()}) == 4
    assert torch.equal(run([0, 1, 2, 3]), together)
    for i in range(4):
        torch.testing.assert_close(run([i])[0], together[i])
    torch.testing.assert_close(run([2, 0]), together[[2, 0]])


def test_guidance_of_one_costs_nothing_and_more_moves_away_from_the_null_condition() -> None:
    def run(scale: float) -> tuple[Tensor, list[int]]:
        denoiser = GaussianDenoiser("v_prediction", MEANS, 0.2)
        scheduler = make_scheduler("ddim", "v_prediction")
        return sample(denoiser, scheduler, (1, 3), LABELS, [1, 2, 3, 4], Controls(8, scale)), denoiser.calls

    plain, calls = run(1.0)
    assert calls == [4] * 8
    null, _ = run(0.0)
    strong, calls = run(2.0)
    assert calls == [8] * 8
    mean = MEANS[LABELS["label"]]
    along = [float(((x - null) * mean).sum()) for x in (null, plain, strong)]
    assert along[0] == 0.0 < along[1] < along[2]


def test_guidance_is_the_formula_of_the_paper() -> None:
    denoiser = GaussianDenoiser("epsilon", MEANS, 0.3)
    x, t = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0)), torch.tensor(400)
    null = denoiser(x, t, denoiser.null(LABELS))
    expected = null + 3.0 * (denoiser(x, t, LABELS) - null)
    torch.testing.assert_close(guided(denoiser, x, t, LABELS, 3.0), expected)


def test_a_denoiser_without_null_condition_is_not_guided() -> None:
    class Unconditional(GaussianDenoiser):
        def null(self, condition: Mapping[str, Any]) -> Any:
            return None

    denoiser = Unconditional("epsilon", MEANS)
    sample(denoiser, make_scheduler("ddim", "epsilon"), (1, 3), LABELS, [1, 2, 3, 4], Controls(3, 5.0))
    assert denoiser.calls == [4] * 3


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "lcm"])
def test_strength_grows_the_distance_to_the_start(name: str) -> None:
    prediction = "flow" if name == "flow_euler" else "v_prediction"
    n = 200
    start = torch.tensor([0.9, -0.9, 0.9]).expand(n, 1, 3)
    condition = {"label": torch.arange(n) % 2}

    def distance(strength: float) -> float:
        denoiser = GaussianDenoiser(prediction, MEANS, 0.2)
        scheduler = make_scheduler(name, prediction, 20)
        x = sample(denoiser, scheduler, (1, 3), condition, range(n), Controls(20, strength=strength), start=start)
        return float((x - start).abs().mean())

    distances = [distance(strength) for strength in (0.0, 0.1, 0.4, 0.7, 1.0)]
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    assert distances[1] < 0.5 * distances[-1]


def test_full_strength_forgets_the_start() -> None:
    def run(start: Tensor | None) -> Tensor:
        denoiser = GaussianDenoiser("v_prediction", MEANS, 0.2)
        scheduler = make_scheduler("dpmsolver++", "v_prediction")
        return sample(denoiser, scheduler, (1, 3), LABELS, [1, 2, 3, 4], Controls(5), start=start)

    assert torch.equal(run(torch.ones(4, 1, 3)), run(None))


def test_any_strength_above_zero_runs_a_step() -> None:
    assert [Controls(10, strength=s).steps()[0] for s in (0.0, 0.01, 0.1, 0.14, 0.15, 0.29, 0.3, 1.0)] == [
        10,
        9,
        9,
        9,
        8,
        7,
        7,
        0,
    ]
    assert Controls(100, strength=0.29).steps() == (71, 100)  # 100 * .29 is 28.999…


def test_strength_without_a_start_is_refused_with_the_key() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.strength to 1\.0"):
        sample(
            GaussianDenoiser("epsilon", MEANS),
            make_scheduler("ddim", "epsilon"),
            (1, 3),
            LABELS,
            [1] * 4,
            Controls(3, strength=0.5),
        )


def test_more_steps_than_timesteps_are_refused_with_the_key() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.num_inference_steps"):
        sample(
            GaussianDenoiser("epsilon", MEANS),
            make_scheduler("euler", "epsilon"),
            (1, 3),
            LABELS,
            [1] * 4,
            Controls(1000),
        )


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_diverged_sample_is_left_for_the_gate_to_reject_and_spoils_no_other(broken: float) -> None:
    denoiser = GaussianDenoiser("sample", MEANS.index_fill(0, torch.tensor([1]), broken))
    x = sample(denoiser, make_scheduler("dpmsolver++", "sample"), (1, 3), LABELS, [1, 2, 3, 4], Controls(3))
    assert x.isnan().flatten(1).all(1).tolist() == [False, True, False, True]
    torch.testing.assert_close(x[::2], MEANS[[0, 0]], atol=1e-2, rtol=0)


def test_results_stay_in_range_whatever_the_denoiser_says() -> None:
    wild = GaussianDenoiser("sample", MEANS * 50)
    x = sample(wild, make_scheduler("dpmsolver++", "sample"), (1, 3), LABELS, [1, 2, 3, 4], Controls(4))
    assert float(x.min()) == -1.0
    assert float(x.max()) == 1.0


def test_no_seed_means_no_sample() -> None:
    denoiser = GaussianDenoiser("epsilon", MEANS)
    x = sample(
        denoiser,
        make_scheduler("ddim", "epsilon"),
        (1, 3),
        {"label": torch.empty(0, dtype=torch.int64)},
        [],
        Controls(3),
    )
    assert x.shape == (0, 1, 3)


def test_on_step_hears_of_every_call_of_the_denoiser() -> None:
    heard: list[tuple[int, int, torch.Size]] = []
    denoiser = GaussianDenoiser("epsilon", MEANS)
    sample(
        denoiser,
        make_scheduler("heun", "epsilon"),
        (1, 3),
        LABELS,
        [1, 2, 3, 4],
        Controls(5),
        on_step=lambda step, total, x: heard.append((step, total, x.shape)),
    )
    assert heard == [(i, 9, (4, 1, 3)) for i in range(9)]
    assert len(denoiser.calls) == 9


def test_global_random_states_are_neither_read_nor_changed() -> None:
    def run() -> Tensor:
        denoiser = GaussianDenoiser("v_prediction", MEANS, 0.2)
        return sample(denoiser, make_scheduler("ddpm", "v_prediction"), (1, 3), LABELS, [1, 2, 3, 4], Controls(5))

    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = run()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    torch.manual_seed(2)
    assert torch.equal(run(), first)


def test_the_result_is_an_ordinary_tensor_that_can_be_trained_on() -> None:
    x = sample(
        GaussianDenoiser("epsilon", MEANS), make_scheduler("ddim", "epsilon"), (1, 3), LABELS, [1, 2, 3, 4], Controls(2)
    )
    assert not x.is_inference()
    weight = torch.ones(3, requires_grad=True)
    (x * weight).sum().backward()
    assert weight.grad is not None


def test_noise_is_standard_normal_and_differs_between_seeds() -> None:
    noise = noise_like((1000,), seeded(range(50)))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1.0) < 0.02
    assert float(torch.corrcoef(noise).fill_diagonal_(0).abs().max()) < 0.2
