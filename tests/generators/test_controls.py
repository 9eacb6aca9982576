"""Each control of the loop does to samples what it says, against a denoiser whose exact answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from exact_denoiser import LABELS, MEANS, GaussianDenoiser
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.levels import Level, noise_levels
from lightning_diffaug.generators.loop import guided, sample
from lightning_diffaug.generators.schedulers import SCHEDULERS, make_scheduler, set_timesteps

SEEDS = [1, 2, 3, 4]
ALL = [name for name in SCHEDULERS if name != "lcm"]


def _prediction(scheduler: str) -> str:
    return "flow" if scheduler == "flow_euler" else "v_prediction"


def _run(controls: Controls, scheduler: str = "ddim", std: float = 0.2, n: int = 4, **more: Any) -> Tensor:
    denoiser = more.pop("denoiser", None) or GaussianDenoiser(_prediction(scheduler), MEANS, std)
    made = make_scheduler(scheduler, _prediction(scheduler), controls.num_inference_steps)
    condition = {"label": torch.arange(n) % 2}
    return sample(denoiser, made, (1, 3), condition, more.pop("seeds", range(1, n + 1)), controls, **more)


# Guidance -----------------------------------------------------------------------------------------------


def test_guidance_outside_of_its_interval_costs_nothing_and_does_nothing() -> None:
    denoiser = GaussianDenoiser("v_prediction", MEANS, 0.2)
    inside = _run(Controls(10, 3.0, [0.25, 0.75]), denoiser=denoiser)
    assert denoiser.calls == [4] * 3 + [8] * 5 + [4] * 2  # times .999, .899, … .099
    never, plain, always = (_run(Controls(10, g, i)) for g, i in ((3.0, [0.0, 0.05]), (1.0, [0, 1]), (3.0, [0, 1])))
    assert torch.equal(never, plain)
    mean = MEANS[LABELS["label"]]
    along = [float(((x - plain) * mean).sum()) for x in (inside, always)]
    assert 0.01 < along[0] < along[1]


def test_rescale_draws_the_contrast_of_a_guided_prediction_back() -> None:
    denoiser = GaussianDenoiser("v_prediction", MEANS * 1.2, 0.3)
    x, t = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0)), torch.tensor(900)

    def spread(scale: float, rescale: float) -> Tensor:
        return guided(denoiser, x, t, LABELS, scale, rescale=rescale).std((1, 2))

    plain, full = spread(1.0, 0.0), spread(6.0, 0.0)
    assert bool((full > plain * 1.5).all())
    torch.testing.assert_close(spread(6.0, 1.0), plain)
    half = spread(6.0, 0.5)
    torch.testing.assert_close(half, (full + plain) / 2)  # Lin et al. 2023, eq. 16
    assert not torch.allclose(_run(Controls(10, 6.0, guidance_rescale=0.7)), _run(Controls(10, 6.0)), atol=1e-2)


def test_a_negative_condition_is_moved_away_from() -> None:
    # Class 2 lies at 0, as does null: away from class 1 is another direction than away from null.
    means = torch.cat((MEANS[:2], torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)))
    wanted = {"label": torch.full((50,), 2)}

    def run(negative: int | None) -> Tensor:
        against = None if negative is None else {"label": torch.full((50,), negative)}
        denoiser, scheduler = GaussianDenoiser("v_prediction", means, 0.3), make_scheduler("ddim", "v_prediction")
        return sample(denoiser, scheduler, (1, 3), wanted, range(50), Controls(10, 2.0), negative=against)

    plain = run(None)
    for c in (0, 1):
        assert float(((run(c) - plain) * means[c]).sum(-1).mean()) < -0.1
    torch.testing.assert_close(run(3), plain)  # the null condition itself


def test_a_negative_condition_leaves_what_it_does_not_name() -> None:
    class TwoConditions(GaussianDenoiser):
        def __call__(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
            seen.append(condition["shift"].tolist())
            return super().__call__(x_t, t, condition)

    seen: list[list[float]] = []
    denoiser = TwoConditions("epsilon", MEANS, 0.2)
    condition = {"label": torch.tensor([0]), "shift": torch.tensor([7.0])}
    guided(denoiser, torch.zeros(1, 1, 3), torch.tensor(5), condition, 2.0, {"label": torch.tensor([1])})
    assert seen == [[7.0, 7.0]]


# A kept part --------------------------------------------------------------------------------------------

KEEP = torch.tensor([True, False, False]).view(1, 1, 3)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(("resample", "jump"), [(1, 1), (3, 2)])
def test_what_is_kept_is_the_source_exactly_and_the_rest_is_new(
    name: str, strength: float, resample: int, jump: int
) -> None:
    start = torch.tensor([0.9, -0.9, 0.9]).expand(4, 1, 3)
    controls = Controls(8, strength=strength, resample=resample, jump=jump)
    x = _run(controls, name, start=start, mask=KEEP.expand(4, 1, 3))
    assert torch.equal(x[..., 0], start[..., 0])
    assert float((x - start)[..., 1:].abs().min()) > 1e-3
    as_float = _run(controls, name, start=start, mask=KEEP.float())
    assert torch.equal(as_float, x)
    stopped = _run(Controls(8, strength=strength, stop_at=0.3), name, start=start, mask=KEEP)
    assert torch.equal(stopped[..., 0], start[..., 0])


class Correlated:
    """The exact denoiser of two values that are alike: N(0, [[1, r], [r, 1]] std²)."""

    def __init__(self, prediction_type: str, r: float = 0.95, std: float = 0.4) -> None:
        self.covariance = torch.tensor([[1.0, r], [r, 1.0]]) * std**2
        self.exact = GaussianDenoiser(prediction_type, torch.zeros(1, 1, 2))
        self.calls = 0

    def null(self, condition: Mapping[str, Any]) -> None:
        return None

    def __call__(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
        self.calls += 1
        a, s = self.exact.level(t)
        gain = a * self.covariance @ torch.linalg.inv(a**2 * self.covariance + s**2 * torch.eye(2))
        return self.exact.prediction(x_t @ gain.T, x_t, a, s)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmsolver++", "heun", "euler", "unipc"])
def test_more_rounds_of_resampling_make_the_new_part_agree_with_the_kept_one(name: str) -> None:
    n = 300
    start = torch.randn(n, 1, 2, generator=torch.Generator().manual_seed(0)).clamp(-2, 2) * 0.4

    def disagreement(resample: int, jump: int = 2) -> tuple[float, int]:
        denoiser, scheduler = Correlated("v_prediction"), make_scheduler(name, "v_prediction", 10)
        x = sample(
            denoiser, scheduler, (1, 2), {}, range(n), Controls(10, resample=resample, jump=jump), start=start,
            mask=torch.tensor([True, False]).view(1, 1, 2),
        )  # fmt: skip
        return float((x[..., 1] - 0.95 * start[..., 0]).pow(2).mean().sqrt()), denoiser.calls

    once, calls = disagreement(1)
    often, many_calls = disagreement(8)
    assert often < 0.85 * once
    assert many_calls == 8 * calls
    # Right is the spread that the second value has beside the first, .4 sqrt(1 - .95²) = .125, and not less of it:
    # without fresh noise in each round the new part would go to its mean.
    assert 0.14 < often < 0.22


# The ends of the process --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_stopped_early_a_sample_has_the_noise_of_that_time(name: str) -> None:
    def spread(stop_at: float) -> float:
        x = _run(Controls(20, stop_at=stop_at), name, std=0.0, n=400)
        return float((x - MEANS[torch.arange(400) % 2])[..., 2].std())  # the value nearest to 0, which no clamp meets

    spreads = [spread(stop_at) for stop_at in (0.0, 0.1, 0.2, 0.3)]
    assert spreads == sorted(spreads)
    assert spreads[0] < 0.01
    made = make_scheduler(name, _prediction(name), 20)
    level = noise_levels(made, set_timesteps(made, 20, torch.device("cpu")))[16 * made.order]
    if name not in ("heun", "euler", "flow_euler"):  # whose steps are even in another measure of time
        assert abs(level.noise / level.signal - math.tan(0.2 * math.pi / 2)) < 0.03
    assert abs(spreads[2] - level.noise / level.signal) < 0.15 * spreads[2] + 0.02


def test_stopped_early_a_sample_has_the_scale_of_the_data() -> None:
    apart = _run(Controls(20, stop_at=0.4), std=0.0, n=2, seeds=[1, 1]).diff(dim=0)[0, 0, 2]  # the same noise
    assert abs(float(apart) - float((MEANS[1] - MEANS[0])[0, 2])) < 0.01


def test_a_stop_runs_fewer_steps_and_only_those() -> None:
    denoiser, heard = GaussianDenoiser("v_prediction", MEANS), []
    _run(Controls(10, strength=0.8, stop_at=0.3), denoiser=denoiser, start=torch.zeros(4, 1, 3),
         on_step=lambda step, total, x: heard.append((step, total)))  # fmt: skip
    assert len(denoiser.calls) == 5
    assert heard == [(i, 5) for i in range(5)]
    whole, stopped = Controls(10).steps(), Controls(10, stop_at=0.3).steps()
    assert (whole, stopped) == ((0, 10), (0, 7))
    assert Controls(3, strength=0.4, stop_at=0.35).steps() == (2, 3)  # at least one step


def test_eta_makes_ddim_random_and_keeps_the_spread_of_the_data() -> None:
    n = 2000
    mean = MEANS[torch.arange(n) % 2]
    plain, noisy = (_run(Controls(50, eta=eta), n=n) for eta in (0.0, 1.0))
    assert abs(float((noisy - mean).std()) - 0.2) < 0.03
    # Without noise a sample is its start's; with it the start is forgotten.
    starts = torch.stack([torch.randn(3, generator=torch.Generator().manual_seed(i)) for i in range(1, n + 1)])

    def memory(x: Tensor) -> float:
        return float(torch.corrcoef(torch.stack(((x - mean).flatten(), starts.flatten())))[0, 1])

    assert memory(plain) > 0.9
    assert memory(noisy) < 0.35
    assert memory(noisy) < memory(_run(Controls(50, eta=0.3), n=n)) < memory(plain)


def test_samples_with_eta_and_resampling_depend_on_their_own_seed_alone() -> None:
    start = torch.linspace(-1, 1, 4).view(4, 1, 1).expand(4, 1, 3)

    def run(rows: list[int]) -> Tensor:
        made = make_scheduler("ddim", "v_prediction")
        return sample(
            GaussianDenoiser("v_prediction", MEANS, 0.2), made, (1, 3), {"label": LABELS["label"][rows]},
            [SEEDS[i] for i in rows], Controls(6, eta=1.0, resample=3), start=start[rows], mask=KEEP,
        )  # fmt: skip

    together = run([0, 1, 2, 3])
    for i in range(4):
        torch.testing.assert_close(run([i])[0], together[i])


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmsolver++", "unipc"])
def test_dynamic_thresholding_takes_samples_off_the_rim(name: str) -> None:
    wild = GaussianDenoiser("v_prediction", torch.linspace(-2, 2, 60).view(1, 1, 60).expand(3, 1, 60), 0.05)

    def saturated(threshold: float | None) -> float:
        made = make_scheduler(name, "v_prediction", 10, threshold=threshold)
        x = sample(wild, made, (1, 60), LABELS, SEEDS, Controls(10))
        return float((x.abs() > 0.97).float().mean())

    assert saturated(None) > 0.45
    assert saturated(0.9) < 0.25


def test_ddim_goes_on_with_the_noise_that_belongs_to_a_clipped_sample() -> None:
    """Else strong guidance drives it away: the noise would still be that of the sample beyond the range."""
    strong = _run(Controls(10, 8.0), "ddim")
    assert float((strong - _run(Controls(10, 8.0), "ddpm", std=0.0)).abs().mean()) < 0.25


def test_noise_that_is_given_takes_the_place_of_the_seeds() -> None:
    noise = torch.stack([torch.randn(1, 3, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    torch.testing.assert_close(_run(Controls(10), noise=noise, seeds=[9, 9, 9, 9]), _run(Controls(10)))


# Levels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULERS)
def test_levels_fall_from_noise_to_none(name: str) -> None:
    made = make_scheduler(name, _prediction(name), 10)
    levels = noise_levels(made, set_timesteps(made, 10, torch.device("cpu")))
    assert (levels[-1].signal, levels[-1].noise) == (1.0, 0.0)
    ratios = [math.atan2(level.noise, level.signal) for level in levels]
    assert ratios == sorted(ratios, reverse=True)


def test_noising_further_gives_the_level_asked_for() -> None:
    less, more = Level(0.9, 0.3), Level(0.4, 0.8)
    rng = torch.Generator().manual_seed(0)
    x_0, first, second = (torch.randn(100_000, generator=rng) for _ in range(3))
    x = more.noised_from(less, less.noised(torch.full_like(x_0, 2.0), first), second)
    assert abs(float(x.mean()) - 0.8) < 0.01
    assert abs(float(x.std()) - 0.8) < 0.01


# Values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"num_inference_steps": True}, "num_inference_steps"),
        ({"guidance_interval": [0.5, 0.5]}, "guidance_interval"),
        ({"guidance_interval": [0.0, 2.0]}, "guidance_interval"),
        ({"guidance_interval": 0.5}, "guidance_interval"),
        ({"guidance_rescale": -0.1}, "guidance_rescale"),
        ({"guidance_rescale": "x"}, "guidance_rescale"),
        ({"stop_at": 1.0}, "stop_at"),
        ({"stop_at": 0.5, "strength": 0.5}, "stop_at"),
        ({"stop_at": -0.1}, "stop_at"),
        ({"eta": 2}, "eta"),
        ({"resample": 0}, "resample"),
        ({"jump": 1.5}, "jump"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"generator\.{key}"):
        Controls(**settings)


def test_a_control_that_the_rest_cannot_use_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.scheduler=ddim"):
        _run(Controls(5, eta=0.5), "unipc")
    with pytest.raises(ConfigurationError, match="a mask keeps parts"):
        _run(Controls(5), mask=KEEP)
    with pytest.raises(ConfigurationError, match=r"generator\.threshold=null"):
        make_scheduler("heun", "v_prediction", threshold=0.9)
    with pytest.raises(ConfigurationError, match=r"generator\.threshold to e\.g\."):
        make_scheduler("ddim", "v_prediction", threshold=1.5)
