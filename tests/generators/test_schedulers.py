"""Schedulers by name, and the forward process that the fit undoes."""

from __future__ import annotations

import pytest
import torch

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.schedulers import (
    PREDICTION_TYPES,
    SCHEDULERS,
    ForwardProcess,
    check_scheduler,
    make_scheduler,
    set_timesteps,
)


def test_the_names_that_users_type_exist() -> None:
    assert {"ddpm", "ddim", "dpmsolver++", "unipc", "heun", "euler", "flow_euler", "lcm"} <= set(SCHEDULERS)


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"scheduler='plms' is unknown.*generator\.scheduler.*ddpm, ddim"):
        make_scheduler("plms", "epsilon")


def test_a_scheduler_that_cannot_use_the_prediction_is_refused_with_those_that_can() -> None:
    with pytest.raises(
        ConfigurationError, match=r"dpmsolver\+\+, unipc, flow_euler, or generator\.fit\.prediction_type"
    ):
        check_scheduler("ddpm", "flow")
    with pytest.raises(ConfigurationError, match=r"'flow_euler' cannot use"):
        check_scheduler("flow_euler", "epsilon")


def test_an_unknown_prediction_type_is_refused_with_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.prediction_type"):
        ForwardProcess("noise")


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "flow_euler"])
def test_all_schedulers_share_the_noise_schedule_of_the_fit(name: str) -> None:
    fitted = make_scheduler("ddpm", "v_prediction").alphas_cumprod
    used = make_scheduler(name, "v_prediction").alphas_cumprod
    torch.testing.assert_close(used, fitted[: len(used)])
    assert len(used) >= 990


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_starts_where_there_is_only_noise(name: str) -> None:
    scheduler = make_scheduler(name, "flow" if name == "flow_euler" else "v_prediction", 10)
    timesteps = set_timesteps(scheduler, 10, torch.device("cpu"))
    assert float(timesteps[0]) >= 979  # LCM's own schedule skips from 980 at ten steps
    assert float(timesteps[-1]) < 110


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_sample_and_noise_follow_from_what_is_predicted(prediction: str) -> None:
    rng = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(6, 2, 3, generator=rng), torch.randn(6, 2, 3, generator=rng)
    t = torch.tensor([0, 1, 250, 500, 900, 999])
    x_t, target = ForwardProcess(prediction).noised(x_0, noise, t)
    if prediction == "flow":
        u = (t / 1000).view(-1, 1, 1)
        torch.testing.assert_close(x_t, (1 - u) * x_0 + u * noise)
        torch.testing.assert_close(x_t - u * target, x_0)
        return
    power = make_scheduler("ddpm", prediction).alphas_cumprod[t].view(-1, 1, 1)
    a, s = power.sqrt(), (1 - power).sqrt()
    torch.testing.assert_close(x_t, a * x_0 + s * noise)
    recovered = {"sample": target, "epsilon": (x_t - s * target) / a, "v_prediction": a * x_t - s * target}[prediction]
    torch.testing.assert_close(recovered[:-1], x_0[:-1], atol=1e-3, rtol=1e-3)  # at 999 a is 5e-5


@pytest.mark.parametrize("prediction", ["v_prediction", "flow"])
def test_timesteps_cover_the_whole_range_evenly_in_every_batch(prediction: str) -> None:
    process, rng = ForwardProcess(prediction), torch.Generator().manual_seed(0)
    seen = torch.cat([process.timesteps(50, rng) for _ in range(400)]).double()
    batch = process.timesteps(50, rng)
    assert torch.equal((batch.double() / 20).floor().sort().values, torch.arange(50, dtype=torch.float64))
    assert seen.min() < 2
    assert 997 < seen.max() < 1000
    assert abs(float(seen.mean()) - 499.5) < 2.0
