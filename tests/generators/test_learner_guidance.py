"""The learner guides samples to where it is unsure, or wrong, by a real gradient, and only where it is asked to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from exact_denoiser import GaussianDenoiser
from torch import Tensor, nn

from lightning_diffaug.conditions.feedback import Feedback, scores_of
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import ComposedGenerator, DiffusionGenerator, VaeCodec, sample
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.learner_guidance import GuidanceSettings, LearnerGuidance, clean_sample
from lightning_diffaug.generators.levels import Level, noise_levels
from lightning_diffaug.generators.schedulers import PREDICTION_TYPES, make_scheduler, set_timesteps
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

Loaded = Callable[..., DiffusionGenerator]
MEANS = torch.tensor([[[[0.5, -0.5]]], [[[-0.25, 0.6]]], [[[0.0, 0.0]]]])  # two classes and null
N = 48
CONDITION = {"label": torch.arange(N) % 2}


class Learner(nn.Module):
    """Looks at the data as they are."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = network
        self.columns = torch.arange(classes)

    def inputs(self, samples: Mapping[str, Tensor]) -> Tensor:
        return samples["image"]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits


def _linear() -> Learner:
    """Tells the two classes apart, more or less."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, -3.0], [-2.0, 3.0]]))
        layer.bias.copy_(torch.tensor([0.3, 0.0]))
    return Learner(nn.Sequential(nn.Flatten(), layer), 2)


def _guide(scale: float, criterion: str = "entropy", prediction: str = "v_prediction", **more: Any) -> LearnerGuidance:
    return LearnerGuidance(_linear(), GuidanceSettings(scale, criterion), prediction, {"image": 1}, **more)


def _samples(
    scale: float, criterion: str = "entropy", prediction: str = "v_prediction", scheduler: str = "dpmsolver++",
    rows: slice = slice(N), controls: Controls | None = None,
) -> Tensor:  # fmt: skip
    denoiser = GaussianDenoiser(prediction, MEANS, 0.25)
    guide = _guide(scale, criterion, prediction) if scale else None
    condition = {"label": CONDITION["label"][rows]}
    return sample(
        denoiser, make_scheduler(scheduler, prediction), (1, 1, 2), condition, range(N)[rows], controls or Controls(10),
        guide=guide,
    )  # fmt: skip


def _values(x: Tensor, criterion: str) -> float:
    with torch.no_grad():
        return float(scores_of(_linear()(x), CONDITION["label"])[criterion].mean())


@pytest.mark.parametrize("criterion", ["entropy", "loss"])
@pytest.mark.parametrize(
    ("prediction", "scheduler"),
    [
        ("v_prediction", "dpmsolver++"),
        ("v_prediction", "ddim"),
        ("v_prediction", "heun"),
        ("epsilon", "ddpm"),
        ("sample", "euler"),
        ("flow", "flow_euler"),
        ("flow", "unipc"),
    ],
)
def test_what_the_learner_is_asked_for_rises_with_the_scale(criterion: str, prediction: str, scheduler: str) -> None:
    found = [_values(_samples(scale, criterion, prediction, scheduler), criterion) for scale in (0.0, 0.03, 0.1)]
    assert found[1] > 1.1 * found[0]
    assert found[2] > 1.1 * found[1]


def test_the_two_criteria_ask_for_different_samples() -> None:
    """What is most unsure lies between the classes; what is most wrong beyond."""
    unsure, wrong = _samples(0.3, "entropy"), _samples(0.3, "loss")
    assert _values(unsure, "entropy") > 1.2 * _values(wrong, "entropy")
    assert _values(wrong, "loss") > 1.2 * _values(unsure, "loss")


def test_it_goes_along_with_guidance_by_the_class_and_real_starts_and_masks() -> None:
    controls = Controls(10, guidance_scale=2.0, strength=0.6)
    start, mask = torch.full((N, 1, 1, 2), 0.4), torch.tensor([1.0, 0.0]).expand(N, 1, 1, 2)
    found = []
    for scale in (0.0, 0.05):
        x = sample(
            GaussianDenoiser("v_prediction", MEANS, 0.25), make_scheduler("dpmsolver++", "v_prediction"), (1, 1, 2),
            CONDITION, range(N), controls, start, mask, guide=_guide(scale) if scale else None,
        )  # fmt: skip
        assert bool((x[..., 0] == 0.4).all()), "what is kept is kept"
        found.append(_values(x, "entropy"))
    assert found[1] > 1.1 * found[0]


@pytest.mark.parametrize("criterion", ["entropy", "loss"])
def test_the_push_is_the_gradient_at_the_predicted_clean_sample(criterion: str) -> None:
    """Against finite differences, in float64."""
    denoiser, level, t = GaussianDenoiser("v_prediction", MEANS.double(), 0.25), Level(0.8, 0.6), torch.tensor(400)
    guide = LearnerGuidance(_linear().double(), GuidanceSettings(0.1, criterion), "v_prediction", {"image": 1})
    x = torch.randn(N, 1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def predict(given: Tensor) -> Tensor:
        return denoiser(given, t, CONDITION)

    def value(given: Tensor) -> Tensor:
        clean = clean_sample(predict(given), given, level, "v_prediction").clamp(-1, 1)
        # the score itself is float32, so that the step is not too small
        return scores_of(guide.learner(clean), CONDITION["label"])[criterion].double()

    prediction, pushed = guide(predict, x, x, level, CONDITION)
    assert torch.equal(prediction, predict(x))
    steps = torch.eye(2, dtype=torch.float64).view(2, 1, 1, 1, 2) * 3e-3
    gradient = torch.stack([value(x + h) - value(x - h) for h in steps], -1).view_as(x) / 6e-3
    wanted = 0.1 * gradient * (x.flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    steep = gradient.flatten(1).norm(dim=1) > 2e-3
    assert int(steep.sum()) > N // 4
    torch.testing.assert_close((pushed - x)[steep], wanted[steep], atol=3e-3, rtol=0.03)


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_the_clean_sample_is_found_whatever_is_predicted_and_however_noise_is_scaled(prediction: str) -> None:
    names = ("flow_euler", "dpmsolver++") if prediction == "flow" else ("ddim", "dpmsolver++", "heun", "euler", "lcm")
    means, condition = MEANS.double(), {"label": torch.tensor([0, 1])}
    for name in names:
        scheduler = make_scheduler(name, prediction)
        timesteps = set_timesteps(scheduler, 10, torch.device("cpu"))
        levels = noise_levels(scheduler, timesteps)
        for step in (1, 5, 9):
            noise = torch.randn(2, 1, 1, 2, generator=torch.Generator().manual_seed(step))
            x = levels[step].noised(MEANS[:2], noise)
            if hasattr(scheduler, "scale_model_input"):
                x = scheduler.scale_model_input(x, timesteps[step])
            given = x.double()
            made = GaussianDenoiser(prediction, means)(given, timesteps[step], condition)
            clean = clean_sample(made, given, levels[step], prediction)
            torch.testing.assert_close(clean.float(), MEANS[:2], atol=0.02, rtol=0)


def test_a_sample_depends_on_its_own_seed_alone_and_is_the_same_again() -> None:
    whole = _samples(0.05)
    torch.testing.assert_close(_samples(0.05, rows=slice(5, 8)), whole[5:8], atol=1e-5, rtol=0)
    assert torch.equal(_samples(0.05), whole)


def test_gradients_are_on_nowhere_else() -> None:
    learner = _linear()
    guide = LearnerGuidance(learner, GuidanceSettings(0.05), "v_prediction", {"image": 1})
    denoiser, scheduler = GaussianDenoiser("v_prediction", MEANS, 0.25), make_scheduler("ddim", "v_prediction")
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            before = torch.is_grad_enabled()
            x = sample(denoiser, scheduler, (1, 1, 2), CONDITION, range(N), Controls(3), guide=guide)
            assert torch.is_grad_enabled() == before
        assert not x.requires_grad
        assert not x.is_inference()
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_it_reaches_through_a_codec() -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            in_channels=1, out_channels=1, latent_channels=1, sample_size=2, block_out_channels=(4,),
            down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), norm_num_groups=2,
            mid_block_add_attention=False,
        )  # fmt: skip
    codec = VaeCodec(vae.eval().requires_grad_(False))
    found = []
    for scale in (0.0, 0.1):
        guide = _guide(scale, "loss", codec=codec) if scale else None
        x = sample(
            GaussianDenoiser("v_prediction", MEANS, 0.25), make_scheduler("ddim", "v_prediction"), (1, 1, 2), CONDITION,
            range(N), Controls(10), codec=codec, guide=guide,
        )  # fmt: skip
        assert not x.requires_grad
        found.append(_values(x, "loss"))
    assert found[1] > found[0] + 0.001


# With the fitted generator ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learner(digits: Snapshot) -> Learner:
    """A small network that knows half of the real digits."""
    assert digits.labels is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    images, labels = digits.unit("image")[:900], digits.labels[:900]
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return Learner(network.requires_grad_(False), 10)


ASKED = {"label": torch.arange(60) % 10}


def _images(generator: DiffusionGenerator) -> Tensor:
    return generator.generate(ASKED, range(60))["image"]


@pytest.mark.parametrize("criterion", ["entropy", "loss"])
def test_digits_become_harder_for_the_learner_and_stay_digits(
    criterion: str, loaded: Loaded, learner: Learner, agreement: Callable[[Tensor, Tensor], float]
) -> None:
    found, agreed = [], []
    for scale in (0.0, 0.003, 0.01):
        generator = loaded(feedback_scale=scale, feedback_criterion=criterion)
        generator.follow(Feedback(0, learner=lambda: learner))
        images = _images(generator)
        found.append(float(scores_of(learner(images), ASKED["label"])[criterion].mean()))
        agreed.append(agreement(images, ASKED["label"]))
    assert found[0] < found[1] < found[2]
    assert found[2] > 1.5 * found[0]
    assert agreed[2] > agreed[0] - 0.35, "by another classifier"


def test_without_scale_or_feedback_samples_are_bit_for_bit_what_they_were(loaded: Loaded, learner: Learner) -> None:
    said = Feedback(0, learner=lambda: learner)
    plain = _images(loaded())
    off = loaded(feedback_scale=0.0)
    off.follow(said)
    assert torch.equal(_images(off), plain)
    on = loaded(feedback_scale=0.1)
    assert torch.equal(_images(on), plain), "before the first plan"
    on.follow(Feedback(0))
    assert torch.equal(_images(on), plain), "without weights"
    on.follow(said)
    assert not torch.equal(_images(on), plain)
    on.follow(None)
    assert torch.equal(_images(on), plain)


def test_the_newest_learner_guides_and_is_loaded_once(loaded: Loaded, learner: Learner) -> None:
    loads: list[int] = []

    def load() -> Learner:
        loads.append(1)
        return learner

    said = Feedback(4, learner=load)
    generator = loaded(feedback_scale=0.1)
    for _ in range(2):
        generator.follow(said)
        first = _images(generator)
    assert len(loads) == 1
    other = Learner(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 10)
    generator.follow(Feedback(8, learner=lambda: other))
    assert not torch.equal(_images(generator), first)


def test_it_says_whether_it_needs_the_learner() -> None:
    """So that a run without feedback is refused before it begins."""
    found = [DiffusionGenerator(feedback_scale=scale) for scale in (0.0, 0.1)]
    assert [one.needs_learner for one in found] == [False, True]
    assert [ComposedGenerator(one).needs_learner for one in found] == [False, True]


def test_the_settings_are_in_the_pools_name_where_they_have_an_effect() -> None:
    plain = DiffusionGenerator()
    idle = DiffusionGenerator(feedback_criterion="loss")
    others = [DiffusionGenerator(feedback_scale=0.1, feedback_criterion=name) for name in ("entropy", "loss")]
    others.append(DiffusionGenerator(feedback_scale=0.2))
    assert idle.sample_key() == plain.sample_key()
    assert not any("feedback" in name for name in plain.sample_key())
    assert len({json.dumps(one.sample_key(), sort_keys=True) for one in (plain, *others)}) == 4
    assert {json.dumps(one.fit_key()) for one in others} == {json.dumps(plain.fit_key())}
    again = DiffusionGenerator(**json.loads(json.dumps(others[1].config())))
    assert again.config() == others[1].config()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"feedback_scale": -0.1}, "generator.feedback_scale"),
        ({"feedback_scale": float("inf")}, "generator.feedback_scale"),
        ({"feedback_scale": True}, "generator.feedback_scale"),
        ({"feedback_criterion": "hardness"}, "generator.feedback_criterion"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        DiffusionGenerator(**settings)


def test_a_denoiser_that_is_not_told_the_class_is_refused() -> None:
    image = FieldSpec("image", "0", "tensor", "uint8", (1, 8, 8), 0.0, 255.0)
    label = FieldSpec("label", "1", "int", "int64", (), 0.0, 0.0)
    for spec, settings in ((SampleSpec((image,)), {}), (SampleSpec((image, label)), {"conditions": {}})):
        names = ("a", "b") if "label" in spec else ()
        with pytest.raises(ConfigurationError, match=r"generator\.conditions\.label.*generator\.feedback_scale=0"):
            DiffusionGenerator(feedback_scale=0.1, **settings).bind(spec, names)
        DiffusionGenerator(**settings).bind(spec, names)
    with pytest.raises(GeneratorError, match="'label'"):
        _guide(0.1)(lambda x: x, MEANS, MEANS, Level(0.8, 0.6), {})
