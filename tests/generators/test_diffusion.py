"""The default generator, fitted on real digits."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import DiffusionGenerator, Fittable, Generator, weights_hash
from lightning_diffaug.generators.schedulers import SCHEDULERS
from lightning_diffaug.snapshot import Snapshot

Loaded = Callable[..., DiffusionGenerator]
LABELS = torch.arange(10).repeat(20)


def _images(generator: DiffusionGenerator, labels: Tensor = LABELS, first_seed: int = 0) -> Tensor:
    return generator.generate({"label": labels}, range(first_seed, first_seed + len(labels)))["image"]


def _ignore(step: int, total: int) -> None:
    """Progress that nobody watches."""


# Quality and controls -----------------------------------------------------------------------------------


def test_samples_show_the_class_that_was_asked_for(loaded: Loaded, agreement: Callable[..., float]) -> None:
    images = _images(loaded())
    assert agreement(images, LABELS) > 0.6  # chance is .1; wrong labels must not pass:
    assert agreement(images, (LABELS + 1) % 10) < 0.2


def test_samples_of_a_class_differ(loaded: Loaded) -> None:
    images = _images(loaded(), torch.full((20,), 3)).flatten(1)
    assert float(torch.pdist(images).min()) > 1.0


def test_guidance_raises_agreement_and_lowers_diversity(loaded: Loaded, agreement: Callable[..., float]) -> None:
    plain, strong = _images(loaded()), _images(loaded(guidance_scale=3.0))
    assert agreement(strong, LABELS) > agreement(plain, LABELS) + 0.05

    def diversity(images: Tensor) -> float:
        return float(torch.stack([torch.pdist(images[c == LABELS].flatten(1)).mean() for c in range(10)]).mean())

    assert diversity(strong) < diversity(plain)


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name != "flow_euler"])
@pytest.mark.parametrize("steps", [1, 4, 12])
def test_every_scheduler_gives_samples_in_range(loaded: Loaded, scheduler: str, steps: int) -> None:
    images = _images(loaded(scheduler=scheduler, num_inference_steps=steps), LABELS[:10])
    assert images.shape == (10, 1, 8, 8)
    assert images.dtype == torch.float32
    assert bool(torch.isfinite(images).all())
    assert -1.0 <= float(images.min()) < 0.0 < float(images.max()) <= 1.0


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name not in ("flow_euler", "dpmsolver++")])
def test_every_scheduler_shows_the_class(loaded: Loaded, agreement: Callable[..., float], scheduler: str) -> None:
    images = _images(loaded(scheduler=scheduler, num_inference_steps=12), LABELS[:100])
    assert agreement(images, LABELS[:100]) > 0.55


def test_strength_grows_the_distance_to_the_start(loaded: Loaded, digits: Snapshot) -> None:
    start = digits.unit("image", torch.arange(40))
    assert digits.labels is not None
    condition = {"label": digits.labels[:40], "start": start}

    def distance(strength: float) -> float:
        generator = loaded(strength=strength, num_inference_steps=20)
        return float((generator.generate(condition, range(40))["image"] - start).abs().mean())

    distances = [distance(strength) for strength in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    # By name works as well as bare, which fields joined along their channels need.
    generator = loaded(strength=0.5)
    named = generator.generate({**condition, "start": {"image": start}}, range(40))["image"]
    assert torch.equal(named, generator.generate(condition, range(40))["image"])


def test_flow_matching_is_fitted_and_sampled(few_digits: Snapshot, tmp_path: Path, tiny: dict[str, Any]) -> None:
    settings = {**tiny, "prediction_type": "flow"}
    DiffusionGenerator("flow_euler", fit=settings).fit(few_digits, tmp_path, _ignore)
    for scheduler in ("flow_euler", "dpmsolver++", "unipc"):
        generator = DiffusionGenerator(scheduler, fit=settings)
        generator.load(tmp_path)
        assert bool(torch.isfinite(_images(generator, LABELS[:4])).all())


# Determinism --------------------------------------------------------------------------------------------


def test_the_same_batch_is_bit_equal(loaded: Loaded) -> None:
    assert torch.equal(_images(loaded()), _images(loaded()))


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "ddpm"])
def test_seeds_give_the_same_samples_in_any_batch(loaded: Loaded, scheduler: str) -> None:
    labels = LABELS[:12]
    whole = _images(loaded(scheduler=scheduler), labels)
    pieces = _images(loaded(scheduler=scheduler, batch_size=5), labels)
    torch.testing.assert_close(pieces, whole, atol=1e-3, rtol=0)
    alone = loaded(scheduler=scheduler).generate({"label": labels[7:8]}, [7])["image"]
    torch.testing.assert_close(alone, whole[7:8], atol=1e-3, rtol=0)


def test_fitting_twice_gives_the_same_weights(few_digits: Snapshot, tmp_path: Path, tiny: dict[str, Any]) -> None:
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = tmp_path / name
        folder.mkdir()
        DiffusionGenerator(seed=seed, fit=tiny).fit(few_digits, folder, _ignore)
        hashes.append(weights_hash(folder))
    assert hashes[0] == hashes[1] != hashes[2]


def test_global_random_states_are_left_alone(few_digits: Snapshot, tmp_path: Path, tiny: dict[str, Any]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    generator = DiffusionGenerator("ddpm", fit=tiny)
    generator.fit(few_digits, tmp_path, _ignore)
    generator.load(tmp_path)
    _images(generator, LABELS[:4])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


# Data ---------------------------------------------------------------------------------------------------


def test_image_and_mask_are_denoised_together(
    make_snapshot: Callable[..., Snapshot], tmp_path: Path, tiny: dict[str, Any]
) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 9, 6), generator=rng, dtype=torch.uint8)
    snapshot = make_snapshot(images, None, mask=torch.rand(20, 1, 9, 6, generator=rng))
    generator = DiffusionGenerator(fit=tiny)
    generator.fit(snapshot, tmp_path, _ignore)
    generator.load(tmp_path)
    made = generator.generate({}, [1, 2])
    assert {name: tuple(part.shape) for name, part in made.items()} == {
        "image": (2, 3, 9, 6),
        "mask": (2, 1, 9, 6),
    }
    assert all(part.is_contiguous() for part in made.values())


def test_each_field_gets_its_own_channels_whatever_the_order_of_their_names(
    make_snapshot: Callable[..., Snapshot], tmp_path: Path, tiny: dict[str, Any]
) -> None:
    """An image that is always black beside a depth that is always full: they must not be swapped."""
    snapshot = make_snapshot(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), None, depth=torch.ones(20, 1, 8, 8))
    assert [field.name for field in snapshot.spec.continuous] == ["image", "depth"]
    generator = DiffusionGenerator(fit={**tiny, "steps": 60, "warmup_steps": 5, "ema": 0.5})
    generator.fit(snapshot, tmp_path, _ignore)
    generator.load(tmp_path)
    made = generator.generate({}, range(4))
    assert float(made["image"].mean()) < -0.5
    assert float(made["depth"].mean()) > 0.5


def test_fields_that_do_not_fit_together_are_refused(
    make_snapshot: Callable[..., Snapshot], tmp_path: Path, tiny: dict[str, Any]
) -> None:
    snapshot = make_snapshot(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), None, depth=torch.zeros(4, 1, 4, 4))
    with pytest.raises(ConfigurationError, match=r"cannot be denoised together.*data\.fields"):
        DiffusionGenerator(fit=tiny).fit(snapshot, tmp_path, _ignore)


def test_no_seed_means_no_sample(loaded: Loaded) -> None:
    assert _images(loaded(), LABELS[:0]).shape == (0, 1, 8, 8)


# Files and fingerprints ---------------------------------------------------------------------------------


def test_it_is_a_fittable_generator() -> None:
    assert isinstance(DiffusionGenerator(), Fittable)
    assert isinstance(DiffusionGenerator(), Generator)


def test_a_generator_is_rebuilt_from_its_plain_config(loaded: Loaded, fitted: Path) -> None:
    generator = loaded(scheduler="ddim", num_inference_steps=5, guidance_scale=1.5, fit={"channels": [16, 32]})
    config = json.loads(json.dumps(generator.config()))
    again = DiffusionGenerator(**config)
    assert again.config() == generator.config()
    assert again.fit_key() == generator.fit_key()
    assert again.sample_key() == generator.sample_key()
    again.load(fitted)
    assert torch.equal(_images(again), _images(generator))


def test_each_setting_is_in_the_key_that_it_belongs_to() -> None:
    base = DiffusionGenerator()
    for change in (
        {"scheduler": "ddim"},
        {"num_inference_steps": 9},
        {"guidance_scale": 2.0},
        {"strength": 0.5},
    ):
        other = DiffusionGenerator(**change)
        assert other.sample_key() != base.sample_key()
        assert other.fit_key() == base.fit_key()  # sampling settings never fit anew
    for change in ({"seed": 1}, {"fit": {"steps": 7}}):
        other = DiffusionGenerator(**change)
        assert other.sample_key() == base.sample_key()
        assert other.fit_key() != base.fit_key()
    for change in ({"batch_size": 3}, {"device": "cpu"}):
        other = DiffusionGenerator(**change)
        assert (other.sample_key(), other.fit_key()) == (base.sample_key(), base.fit_key())
    json.dumps([base.sample_key(), base.fit_key()])


def test_one_and_one_point_zero_are_the_same_fingerprint() -> None:
    ints, floats = DiffusionGenerator(guidance_scale=2, strength=1), DiffusionGenerator(guidance_scale=2.0)
    assert json.dumps(ints.sample_key()) == json.dumps(floats.sample_key())


def test_what_was_fitted_is_written_beside_the_weights(fitted: Path, digits: Snapshot) -> None:
    about = json.loads((fitted / "fit.json").read_text())
    assert about["weights_sha256"] == weights_hash(fitted)
    assert about["snapshot"] == digits.hash
    assert about["fit"]["steps"] == 140
    assert 0.0 < about["loss"] < 1.0
    assert about["seconds"] > 0.0


def test_damaged_weights_are_never_sampled_from(few_digits: Snapshot, tmp_path: Path, tiny: dict[str, Any]) -> None:
    generator = DiffusionGenerator(fit=tiny)
    generator.fit(few_digits, tmp_path, _ignore)
    path = tmp_path / "denoiser.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    with pytest.raises(GeneratorError, match="was altered"):
        generator.load(tmp_path)


def test_weights_of_another_prediction_type_are_refused(fitted: Path) -> None:
    generator = DiffusionGenerator(fit={"prediction_type": "epsilon"})
    with pytest.raises(GeneratorError, match=r"generator\.fit\.prediction_type"):
        generator.load(fitted)


def test_generating_before_loading_is_an_error() -> None:
    with pytest.raises(GeneratorError, match="no weights yet"):
        _images(DiffusionGenerator())


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"scheduler": "plms"}, "generator.scheduler"),
        ({"scheduler": "flow_euler"}, "generator.scheduler"),
        ({"num_inference_steps": 0}, "generator.num_inference_steps"),
        ({"num_inference_steps": 2.5}, "generator.num_inference_steps"),
        ({"guidance_scale": -1.0}, "generator.guidance_scale"),
        ({"guidance_scale": float("nan")}, "generator.guidance_scale"),
        ({"strength": 1.5}, "generator.strength"),
        ({"batch_size": 0}, "generator.batch_size"),
        ({"fit": {"lr": -1}}, "generator.fit.lr"),
        ({"fit": {"epochs": 3}}, "generator.fit.epochs"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_door_with_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        DiffusionGenerator(**settings)


def test_a_device_that_is_not_there_is_refused_with_its_key(fitted: Path) -> None:
    for device in ("cuda:99", "warp"):
        with pytest.raises(ConfigurationError, match=r"generator\.device"):
            DiffusionGenerator(device=device).load(fitted)


def test_strength_without_a_start_is_refused(loaded: Loaded) -> None:
    with pytest.raises(GeneratorError, match=r"no 'start'.*generator\.strength"):
        _images(loaded(strength=0.5))


def test_a_start_of_another_shape_is_refused(loaded: Loaded) -> None:
    with pytest.raises(GeneratorError, match=r"condition\['start'\] has shape"):
        loaded(strength=0.5).generate({"label": [0], "start": torch.zeros(1, 1, 4, 4)}, [1])


def test_importing_the_package_does_not_import_diffusers() -> None:
    code = "import sys, lightning_diffaug.generators; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_process_that_makes_no_sample_does_not_build_the_network(fitted: Path) -> None:
    """A refill that finds all its slots made starts seconds earlier."""
    script = (
        "import sys, torch; from pathlib import Path; from lightning_diffaug.generators import DiffusionGenerator\n"
        "network = 'diffusers.models.unets.unet_2d'; generator = DiffusionGenerator()\n"
        "generator.load(Path(sys.argv[1])); print(network in sys.modules)\n"
        "generator.ready(); print(network in sys.modules); built = generator.sampler\n"
        "generator.generate({'label': torch.tensor([1])}, [1]); print(generator.sampler is built)"
    )
    command = [sys.executable, "-c", script, str(fitted)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "True"]
