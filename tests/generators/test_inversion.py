"""Samples go back to their noise, and what lies between two of them lies between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from exact_denoiser import LABELS, MEANS, GaussianDenoiser
from torch import Tensor

from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.interpolation import slerp
from lightning_diffaug.generators.inversion import DETERMINISTIC, invert
from lightning_diffaug.generators.loop import sample
from lightning_diffaug.generators.schedulers import PREDICTION_TYPES, ForwardProcess, make_scheduler
from lightning_diffaug.generators.sources import between, first_timestep

CPU = torch.device("cpu")
REAL = torch.tensor([[[0.7, -0.3, 0.1]], [[-0.3, 0.5, 0.2]], [[0.4, -0.6, -0.2]], [[-0.1, 0.8, 0.3]]])


def _noise(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


# Inversion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
@pytest.mark.parametrize("steps", [20, 100])
def test_an_inverted_sample_is_denoised_to_itself(prediction: str, steps: int) -> None:
    denoiser, process = GaussianDenoiser(prediction, MEANS, 0.2), ForwardProcess(prediction)
    noise = invert(denoiser, process, REAL, LABELS, 999.0, steps)
    name = "dpmsolver++" if prediction == "flow" else "ddim"
    scheduler = make_scheduler(name, prediction, 200, clip=False)
    again = sample(denoiser, scheduler, (1, 3), LABELS, [0] * 4, Controls(200), start=REAL, noise=noise)
    assert float((again - REAL).abs().max()) < {20: 0.03, 100: 0.01}[steps]
    assert float((noise - _noise(4, 1, 3)).abs().mean()) > 0.3  # it is that sample's noise, not any


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_every_deterministic_solver_leads_back_also_from_halfway(name: str, strength: float) -> None:
    prediction = "flow" if name == "flow_euler" else "v_prediction"
    denoiser, process = GaussianDenoiser(prediction, MEANS, 0.2), ForwardProcess(prediction)
    scheduler, controls = make_scheduler(name, prediction, 50, clip=False), Controls(50, strength=strength)
    until = first_timestep(scheduler, controls, CPU)
    assert until is not None
    assert (until > 900) == (strength == 1.0)
    noise = invert(denoiser, process, REAL, LABELS, until, 50)
    again = sample(denoiser, scheduler, (1, 3), LABELS, [0] * 4, controls, start=REAL, noise=noise)
    assert float((again - REAL).abs().max()) < 0.05
    random = sample(denoiser, scheduler, (1, 3), LABELS, [0] * 4, controls, start=REAL)
    assert float((random - REAL).abs().mean()) > 0.07  # a random noise does not


@pytest.mark.parametrize("name", ["heun", "euler"])
def test_at_full_strength_an_inverted_sample_is_still_in_its_noise(name: str) -> None:
    """In sigma space noise ends at 80, where an eightieth is the sample; a random start is forgotten all the same."""
    seen: list[Tensor] = []

    class Seeing(GaussianDenoiser):
        def __call__(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
            seen.append(x_t)
            return super().__call__(x_t, t, condition)

    scheduler, start = make_scheduler(name, "v_prediction", 5), torch.full((4, 1, 3), 0.8)
    denoiser, controls, zero = Seeing("v_prediction", MEANS, 0.2), Controls(5), torch.zeros(4, 1, 3)
    sample(denoiser, scheduler, (1, 3), LABELS, [0] * 4, controls, start=start, noise=zero)
    assert 0.005 < float(seen[0].mean()) < 0.02


def test_the_inversion_converges_faster_than_ddims() -> None:
    denoiser, process = GaussianDenoiser("v_prediction", MEANS, 0.2), ForwardProcess("v_prediction")

    def found(steps: int) -> Tensor:
        return invert(denoiser, process, REAL, LABELS, 999.0, steps)

    exact = found(999)
    coarse, fine = (float((found(steps) - exact).abs().max()) for steps in (20, 80))
    assert fine < coarse / 5  # of first order it would be a quarter


def test_inverted_data_are_standard_normal() -> None:
    n = 2000
    labels = {"label": torch.arange(n) % 2}
    real = MEANS[labels["label"]] + 0.2 * _noise(n, 1, 3)
    denoiser, process = GaussianDenoiser("v_prediction", MEANS, 0.2), ForwardProcess("v_prediction")
    noise = invert(denoiser, process, real, labels, 999.0, 40)
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1.0) < 0.05


def test_a_call_a_step() -> None:
    denoiser = GaussianDenoiser("v_prediction", MEANS, 0.2)
    invert(denoiser, ForwardProcess("v_prediction"), REAL, LABELS, 999.0, 10)
    assert denoiser.calls == [4] * 11


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_levels_of_the_forward_process_are_those_of_its_noising(prediction: str) -> None:
    process = ForwardProcess(prediction)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    for t in (0, 1, 250, 998, 999):
        level = process.level(float(t))
        assert abs(level.signal - float(process.noised(one, zero, torch.tensor([t]))[0])) < 1e-4
        assert abs(level.noise - float(process.noised(zero, one, torch.tensor([t]))[0])) < 1e-4
    assert process.level(-1.0).noise == 0.0
    between_two = process.level(500.5).noise
    assert process.level(500.0).noise < between_two < process.level(501.0).noise
    x_0, eps = _noise(5, 3), _noise(5, 3, seed=1)
    x_t, target = process.noised(x_0, eps, torch.full((5,), 400))
    torch.testing.assert_close(process.noise_in(target, x_t, process.level(400.0)), eps, atol=1e-4, rtol=1e-4)


# Interpolation ------------------------------------------------------------------------------------------


def test_slerp_keeps_the_ends_and_the_norm() -> None:
    a, b = _noise(50, 4, 25), _noise(50, 4, 25, seed=1)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    middle = slerp(a, b, 0.5)
    mean_norm = (a.flatten(1).norm(dim=1) + b.flatten(1).norm(dim=1)) / 2
    torch.testing.assert_close(middle.flatten(1).norm(dim=1), mean_norm)
    assert float(torch.lerp(a, b, 0.5).std()) < 0.75 < float(middle.std())
    # Even in angle, and each row by its own weight.
    weights = torch.linspace(0, 1, 50)
    whole, part = (torch.arccos(torch.cosine_similarity(x.flatten(1), a.flatten(1))) for x in (b, slerp(a, b, weights)))
    torch.testing.assert_close(part, whole * weights, atol=1e-3, rtol=0)


def test_slerp_of_alike_opposite_and_zero_vectors_is_finite() -> None:
    a = _noise(3, 8)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)
    for other in (-a, torch.zeros_like(a)):
        assert bool(torch.isfinite(slerp(a, other, 0.3)).all())


def _mixed(weight: float, strength: float = 1.0) -> Tensor:
    """Between REAL[0] and REAL[2], both of class 0."""
    denoiser, process = GaussianDenoiser("v_prediction", MEANS, 0.2), ForwardProcess("v_prediction")
    scheduler, controls = make_scheduler("ddim", "v_prediction", 100, clip=False), Controls(100, strength=strength)
    label = {"label": torch.tensor([0])}
    until = first_timestep(scheduler, controls, CPU)
    pair = (REAL[:1], REAL[2:3])
    start, noise = between(denoiser, process, pair, torch.tensor([weight]), label, until, 50)
    return sample(denoiser, scheduler, (1, 3), label, [0], controls, start=start, noise=noise)[0, 0]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_interpolation_goes_from_one_sample_to_the_other(strength: float) -> None:
    first, second = REAL[0, 0], REAL[2, 0]
    path = [_mixed(weight, strength) for weight in (0.0, 0.25, 0.5, 0.75, 1.0)]
    torch.testing.assert_close(path[0], first, atol=0.02, rtol=0)
    torch.testing.assert_close(path[-1], second, atol=0.02, rtol=0)
    to_first = [float((x - first).norm()) for x in path]
    to_second = [float((x - second).norm()) for x in path]
    assert to_first == sorted(to_first)
    assert to_second == sorted(to_second, reverse=True)
    apart = float((first - second).norm())
    assert all(0.1 * apart < d < apart for d in to_first[1:-1])


def test_what_lies_between_has_the_spread_of_the_data() -> None:
    """The mean of two samples would be √½ as far from the class's mean; what lies between two noises is not."""
    n = 500
    label = {"label": torch.zeros(n, dtype=torch.int64)}
    denoiser, process = GaussianDenoiser("v_prediction", MEANS, 0.2), ForwardProcess("v_prediction")
    pair = tuple(MEANS[label["label"]] + 0.2 * _noise(n, 1, 3, seed=seed) for seed in (0, 1))
    scheduler, controls = make_scheduler("dpmsolver++", "v_prediction", 20, clip=False), Controls(20)
    start, noise = between(denoiser, process, (pair[0], pair[1]), torch.full((n,), 0.5), label, 999.0, 20)
    x = sample(denoiser, scheduler, (1, 3), label, range(n), controls, start=start, noise=noise)
    mean = (pair[0] + pair[1]) / 2
    assert float((mean - MEANS[0]).std()) < 0.155
    assert math.isclose(float((x - MEANS[0]).std()), 0.19, abs_tol=0.02)
