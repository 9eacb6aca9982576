"""The settings of a fit, each by what it does: weights of timesteps, conditions, augmentation, precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from tiny_denoiser import TinyDenoiser, pictures
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.generators.augment import PARAMETERS, RandomAffine
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.denoisers import ConditionSpec
from lightning_diffaug.generators.fit import Fitted, fit_denoiser
from lightning_diffaug.generators.fit_module import DenoiserFit
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.fit_trainer import precision_of
from lightning_diffaug.generators.loop import sample
from lightning_diffaug.generators.schedulers import TRAIN_TIMESTEPS, make_scheduler
from lightning_diffaug.snapshot import Snapshot


def _fit(snapshot: Snapshot, network: nn.Module, seed: int = 0, **settings: Any) -> Fitted:
    return fit_denoiser(
        lambda: network,
        snapshot,
        ["image"],
        FitSettings(**{"batch_size": 16, "steps": 4, "augment_p": 0.0, **settings}),
        seed,
        torch.device("cpu"),
        lambda step, total: None,
    )


def _four(n: int = 40) -> Snapshot:
    """Four classes of one picture each."""
    labels = torch.arange(n) % 4
    patterns = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    return pictures(patterns[labels], labels)


class _Told(nn.Module):
    """Writes down what it is told, and predicts one number."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.told: list[Mapping[str, Any]] = []
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
        self.told.append(condition)
        self.dtypes.add((x_t.flatten(1) @ x_t.flatten(1).T).dtype)
        return self.bias.expand_as(x_t)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_min_snr_weighs_the_error_of_the_clean_sample_by_the_smaller_of_snr_and_gamma(kind: str) -> None:
    """Hang et al. 2023, section 3.4: whatever is predicted, the loss is min(SNR, gamma) times the error of x_0."""

    class Constant(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
            return torch.full_like(x_t, 0.3)

    rng = torch.Generator().manual_seed(1)
    x_0, noise = torch.rand(1, 1, 4, 4, generator=rng), torch.randn(1, 1, 4, 4, generator=rng)
    fit = DenoiserFit(Constant(), FitSettings(prediction_type=kind, min_snr=5.0))
    kept = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    for step in (5, 200, 400, 700, 950):
        if kind == "flow":
            signal, sigma, t = 1 - step / TRAIN_TIMESTEPS, step / TRAIN_TIMESTEPS, torch.tensor([float(step)])
        else:
            signal, sigma, t = float(kept[step].sqrt()), float((1 - kept[step]).sqrt()), torch.tensor([step])
        x_t = signal * x_0 + sigma * noise
        says = {
            "epsilon": (x_t - sigma * 0.3) / signal,
            "v_prediction": signal * x_t - sigma * 0.3,
            "sample": torch.full_like(x_0, 0.3),
            "flow": x_t - sigma * 0.3,
        }[kind]
        expected = min((signal / sigma) ** 2, 5.0) * float((says - x_0).square().mean())
        assert float(fit.loss(x_0, noise, t, {})) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_a_fit_with_min_snr_learns_and_is_another_one(kind: str) -> None:
    settings = {"prediction_type": kind, "steps": 60, "lr": 0.01}
    fitted = _fit(_four(), TinyDenoiser(16, 4), min_snr=5.0, **settings)
    assert sum(fitted.losses[-10:]) < 0.8 * sum(fitted.losses[:10])
    plain = _fit(_four(), TinyDenoiser(16, 4), **settings)
    assert fitted.losses[0] < plain.losses[0], "no weight is above 1"


def test_all_conditions_of_a_row_are_dropped_together_and_lists_too() -> None:
    class Many(_Told):
        def null(self, condition: Mapping[str, Any]) -> dict[str, Any]:
            n = len(condition["label"])
            nulls = {"label": torch.full((n,), 9), "pose": torch.zeros(n, 2, 2), "prompt": [""] * n}
            return {name: nulls[name] for name in condition if name in nulls}

    def condition(rows: Tensor) -> dict[str, Any]:
        n = len(rows)
        return {"label": rows % 4, "pose": torch.ones(n, 2, 2), "prompt": ["a"] * n, "always": torch.ones(n)}

    network = Many()
    settings = FitSettings(steps=20, batch_size=16, augment_p=0.0, condition_dropout=0.3)
    fit_denoiser(
        lambda: network, _four(), ["image"], settings, 0, torch.device("cpu"), lambda *_: None, conditions=condition
    )
    label = torch.cat([told["label"] for told in network.told])
    pose = torch.cat([told["pose"] for told in network.told])
    prompt = [text for told in network.told for text in told["prompt"]]
    dropped = label == 9
    assert 0.2 < float(dropped.float().mean()) < 0.4
    assert torch.equal(pose.flatten(1).amax(1) == 0, dropped)
    assert torch.equal(pose.flatten(1).amin(1) == 0, dropped)
    assert [text == "" for text in prompt] == dropped.tolist()
    assert all(told["always"].min() == 1 for told in network.told), "a condition without a null value is kept"


def test_a_network_without_a_null_condition_is_never_fitted_without_its_condition() -> None:
    network = _Told()
    _fit(_four(), network, condition_dropout=1.0)
    assert {int(label) for told in network.told for label in told["label"]} == {0, 1, 2, 3}


def test_what_the_augmentation_did_is_told_and_never_dropped() -> None:
    class Nulled(_Told):
        def null(self, condition: Mapping[str, Any]) -> dict[str, Any]:
            return {name: torch.zeros_like(value) for name, value in condition.items()}

    network = Nulled()
    _fit(_four(), network, condition_dropout=1.0, augment_p=0.75, augment_as="condition", steps=10)
    told = torch.cat([told["augment"] for told in network.told])
    assert told.shape[1] == PARAMETERS
    assert 0.6 < float((told != 0).any(1).float().mean()) < 0.9
    assert all(int(label.max()) == 0 for told in network.told for label in told["label"])
    network = Nulled()
    _fit(_four(), network, augment_p=0.75)
    assert all("augment" not in told for told in network.told)


def test_the_description_of_an_augmentation_is_zero_where_nothing_was_done_and_tells_samples_apart() -> None:
    augment = RandomAffine(p=1.0, degrees=180.0)
    active = torch.tensor([True, True, True, False])
    how = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0.5, 0.25, -0.5, 1.0], [0.5, 0.25, -0.5, 1.0]])
    half, other, both, none = augment.described(active, how)
    torch.testing.assert_close(half, other, msg="half a turn to either side is the same")
    torch.testing.assert_close(half, torch.tensor([-2.0, 0, 0, 0, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(both, torch.tensor([-1.0, 1.0, 0.25, -0.5, 1.0]), atol=1e-6, rtol=0)
    assert not none.any()
    small = RandomAffine(p=1.0, degrees=15.0).described(active[:1], how[:1])
    assert float(small[0, 1]) == pytest.approx(1.0, abs=0.02), "a small rotation is told in units of the largest"
    assert not RandomAffine(p=1.0, degrees=0.0).described(active, how)[:, :2].any()


def test_samples_of_a_fit_that_is_told_of_the_augmentation_are_not_augmented() -> None:
    bar = torch.zeros(1, 1, 8, 8)
    bar[..., 3:5] = 1.0
    snapshot = pictures(bar.expand(8, -1, -1, -1).contiguous())

    def distance(augment_as: str) -> float:
        settings = {"steps": 250, "batch_size": 64, "lr": 0.01, "ema": 0.95}
        rotations = {"augment_p": 0.8, "augment_degrees": 45.0, "augment_pixels": 0.0, "augment_scale": 0.0}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = TinyDenoiser(64, numbers=PARAMETERS if augment_as == "condition" else 0, width=256)
        fitted = _fit(snapshot, network, augment_as=augment_as, **settings, **rotations).denoiser
        made = sample(
            fitted,
            make_scheduler("ddim", "v_prediction", 10),
            (1, 8, 8),
            {"augment": torch.zeros(64, PARAMETERS)},
            range(64),
            Controls(num_inference_steps=10),
        )
        return float((made - (2 * bar - 1)).abs().mean())

    plain, told = distance("fitted"), distance("condition")
    assert told < 0.65 * plain, (told, plain)


def test_maps_among_the_conditions_are_moved_with_their_samples() -> None:
    class Mapped(_Told):
        conditions = {  # noqa: RUF012
            "edges": ConditionSpec("concat", (1, 12, 12)),
            "coarse": ConditionSpec("cross", (1, 6, 6)),
            "tokens": ConditionSpec("cross", (4, 3)),
        }

        def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
            self.told.append({**condition, "x": x_t})
            return self.bias.expand_as(x_t)

    x = torch.zeros(32, 1, 12, 12)
    x[:, :, 4:8, 2:10] = 1.0
    given = {"edges": x, "coarse": nn.functional.avg_pool2d(x, 2), "tokens": torch.ones(32, 4, 3)}
    settings = FitSettings(augment_p=0.9, augment_degrees=40.0, augment_pixels=2.0, prediction_type="flow")
    fit = DenoiserFit(Mapped(), settings)
    fit._process.timesteps = lambda n, rng: torch.zeros(n)  # type: ignore[method-assign] # x_t is the sample itself
    fit.training_step((x, given), 0)
    told = fit.denoiser.told[0]
    assert torch.equal(told["edges"], told["x"])
    assert not torch.equal(told["edges"], x)
    assert torch.equal(told["tokens"], given["tokens"])
    coarse = nn.functional.avg_pool2d(told["x"], 2)
    assert float((told["coarse"] - coarse).abs().mean()) < 0.3 * float((given["coarse"] - coarse).abs().mean())


def test_samples_that_are_no_images_cannot_be_rotated() -> None:
    sequences = pictures(torch.rand(20, 1, 4, 4)).unit("image").flatten(2)
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.augment_p=0"):
        DenoiserFit(_Told(), FitSettings(augment_p=0.5)).training_step(sequences, 0)


def test_mixed_precision_multiplies_in_bfloat16_and_keeps_the_weights_in_float32() -> None:
    mixed, plain = _Told(), _Told()
    fitted = _fit(_four(), mixed, precision="bf16-mixed")
    _fit(_four(), plain, precision="32-true")
    assert mixed.dtypes == {torch.bfloat16}
    assert plain.dtypes == {torch.float32}
    assert {parameter.dtype for parameter in fitted.denoiser.parameters()} == {torch.float32}
    learnt = _fit(_four(), TinyDenoiser(16, 4), precision="bf16-mixed", steps=60, lr=0.01).losses
    assert sum(learnt[-10:]) < 0.8 * sum(learnt[:10])


def test_automatic_precision_is_mixed_where_a_cuda_device_has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision_of("auto", torch.device("cpu")) == "32-true"
    assert precision_of("bf16-mixed", torch.device("cpu")) == "bf16-mixed"
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert precision_of("auto", torch.device("cuda", 0)) == ("bf16-mixed" if has else "32-true")
    assert precision_of("32-true", torch.device("cuda", 0)) == "32-true"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("augment_as", "told"),
        ("precision", "16-mixed"),
        ("min_snr", 0),
        ("min_snr", "5"),
        ("hold_out", 0.6),
        ("hold_out", None),
        ("patience", 0),
        ("patience", 1.0),
        ("patience", 3),
        ("check_every", 0),
        ("checkpoint_every", -1),
    ],
)
def test_a_setting_out_of_range_or_without_effect_is_refused_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"generator\.fit\.{key}"):
        FitSettings(**{key: value})


def test_only_what_changes_the_weights_is_in_the_fingerprint() -> None:
    key = FitSettings().key()
    assert FitSettings(checkpoint_every=None, check_every=7).key() == key
    changes = {
        "augment_as": "condition", "min_snr": 5.0, "hold_out": 0.1, "precision": "bf16-mixed", "steps": 7,
    }  # fmt: skip
    for name, value in changes.items():
        assert FitSettings(**{name: value}).key() != key, name
    off = FitSettings(augment_p=0.0)
    for changed in (
        {"augment_degrees": 3.0},
        {"augment_pixels": 3.0},
        {"augment_scale": 0.2},
        {"augment_as": "condition"},
    ):
        assert FitSettings(augment_p=0.0, **changed).key() == off.key() != key, changed
    judged = FitSettings(hold_out=0.1)
    assert judged.key() != FitSettings(hold_out=0.1, check_every=7).key()
    assert judged.key() != FitSettings(hold_out=0.1, patience=2).key()


def test_the_default_generator_is_told_of_the_augmentation_and_samples_without_it(tmp_path: Path) -> None:
    fit = {"steps": 3, "batch_size": 8, "channels": [8, 8], "augment_as": "condition"}
    generator = DiffusionGenerator(num_inference_steps=2, guidance_scale=2.0, fit=fit)
    generator.fit(_four(), tmp_path, lambda *_: None)
    generator.load(tmp_path)
    condition = {"label": torch.tensor([0, 1])}
    made = generator.generate(condition, [1, 2])["image"]
    assert made.isfinite().all()
    plain = generator.generate({**condition, "augment": torch.zeros(2, PARAMETERS)}, [1, 2])["image"]
    assert torch.equal(made, plain)
    assert not torch.equal(
        generator.generate({**condition, "augment": torch.ones(2, PARAMETERS)}, [1, 2])["image"], plain
    )
