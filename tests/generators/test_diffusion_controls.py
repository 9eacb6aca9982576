"""What the controls do to a fitted generator's samples: on real digits, judged by a classifier of real digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.conditions import RealGuidedPlanner
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe
from lightning_diffaug.snapshot import Snapshot

Loaded = Callable[..., DiffusionGenerator]
Agreement = Callable[[Tensor, Tensor], float]
LABELS = torch.arange(10).repeat(10)
N = len(LABELS)


@pytest.fixture(scope="module")
def real(digits: Snapshot) -> tuple[Tensor, Tensor]:
    """Real digits and what they are."""
    assert digits.labels is not None
    return digits.unit("image", torch.arange(N)), digits.labels[:N]


def _images(generator: DiffusionGenerator, seeds: Any = range(N), **condition: Tensor) -> Tensor:
    return generator.generate({"label": LABELS, **condition}, seeds)["image"]


def _rms(difference: Tensor) -> float:
    return float(difference.pow(2).mean().sqrt())


# Guidance -----------------------------------------------------------------------------------------------


def test_guidance_in_an_interval_costs_less_diversity_than_everywhere(loaded: Loaded, agreement: Agreement) -> None:
    def run(**settings: Any) -> tuple[float, float]:
        images = _images(loaded(**settings))
        spread = torch.stack([torch.pdist(images[c == LABELS].flatten(1)).mean() for c in range(10)]).mean()
        return agreement(images, LABELS), float(spread)

    plain, limited, whole = run(), run(guidance_scale=4.0, guidance_interval=[0.2, 0.8]), run(guidance_scale=4.0)
    assert plain[0] + 0.05 < limited[0] <= whole[0] + 0.02
    assert whole[1] < limited[1] < plain[1]


def test_rescale_takes_back_the_overexposure_of_strong_guidance(loaded: Loaded, digits: Snapshot) -> None:
    plain, strong, drawn_back = (
        _images(loaded(**settings))
        for settings in ({}, {"guidance_scale": 6.0}, {"guidance_scale": 6.0, "guidance_rescale": 1.0})
    )
    contrast = [float(images.flatten(1).std(1).mean()) for images in (plain, drawn_back, strong)]
    assert contrast == sorted(contrast)
    assert contrast[2] - contrast[1] > 0.25 * (contrast[2] - contrast[0])


def test_guidance_away_from_a_class_makes_less_of_it(loaded: Loaded, agreement: Agreement) -> None:
    """Of samples asked to be 3 with little weight, fewer look like an 8 when 8 is what is avoided."""
    label = torch.full((N,), 3)
    plain, away = (
        loaded(guidance_scale=2.5, negative_label=negative, num_inference_steps=6).generate({"label": label}, range(N))
        for negative in (None, 8)
    )
    eight = torch.full((N,), 8)
    assert agreement(away["image"], eight) <= agreement(plain["image"], eight)
    assert agreement(away["image"], label) > 0.5
    assert _rms(away["image"] - plain["image"]) > 0.1
    # By the condition as well, row by row.
    by_row = loaded(guidance_scale=2.5, num_inference_steps=6).generate(
        {"label": label, "negative_label": eight}, range(N)
    )
    assert torch.equal(by_row["image"], away["image"])


def test_what_is_to_be_avoided_in_words_is_nothing_to_a_denoiser_of_classes(loaded: Loaded) -> None:
    label, words = torch.full((4,), 3), {"prompt": ["a three"] * 4, "negative_prompt": ["an eight"] * 4}
    generator = loaded(guidance_scale=2.5, num_inference_steps=2)
    plain, told = (generator.generate({"label": label, **more}, range(4))["image"] for more in ({}, words))
    assert torch.equal(plain, told)


def test_a_negative_label_that_is_no_class_is_refused(loaded: Loaded) -> None:
    with pytest.raises(GeneratorError, match=r"0\.\.9"):
        _images(loaded(guidance_scale=2.0, negative_label=10))


def test_strong_guidance_works_with_every_solver(loaded: Loaded, agreement: Agreement) -> None:
    for scheduler in ("ddim", "ddpm", "dpmsolver++", "heun"):
        assert agreement(_images(loaded(scheduler=scheduler, guidance_scale=8.0)), LABELS) > 0.85


def test_dynamic_thresholding_takes_strongly_guided_samples_off_the_rim(loaded: Loaded, agreement: Agreement) -> None:
    for scheduler in ("dpmsolver++", "ddim"):
        plain, thresholded = (
            _images(loaded(scheduler=scheduler, guidance_scale=6.0, threshold=threshold)) for threshold in (None, 0.95)
        )
        rim = [float((images.abs() > 0.98).float().mean()) for images in (thresholded, plain)]
        assert rim[0] < 0.5 * rim[1]
        assert agreement(thresholded, LABELS) > 0.85


# Real samples -------------------------------------------------------------------------------------------


def test_an_early_stop_is_noisier(loaded: Loaded, agreement: Agreement, real: tuple[Tensor, Tensor]) -> None:
    def roughness(images: Tensor) -> float:
        """What a smoothing takes away."""
        return _rms(images - torch.nn.functional.avg_pool2d(images, 3, 1, 1))

    stops = [_images(loaded(num_inference_steps=20, stop_at=stop)) for stop in (0.0, 0.15, 0.3, 0.45)]
    rough = [roughness(images) for images in stops]
    assert rough == sorted(rough)
    assert rough[-1] > 1.3 * rough[0]
    agreed = [agreement(images, LABELS) for images in stops]
    assert agreed[0] > agreed[-1] + 0.1
    assert agreed[1] > 0.4  # a little noise still shows the class
    # The same samples, less far: each is nearer to its own clean one than to any other's.
    distance = torch.cdist(stops[1].flatten(1), stops[0].flatten(1))
    assert float((distance.argmin(1) == torch.arange(N)).float().mean()) > 0.95


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "ddpm"])
def test_the_kept_part_of_a_real_sample_is_kept_exactly(
    loaded: Loaded, real: tuple[Tensor, Tensor], agreement: Agreement, scheduler: str
) -> None:
    start, label = real
    mask = torch.ones(N, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 0.0
    generator = loaded(scheduler=scheduler, repaint=0.25, resample=2)
    images = generator.generate({"label": label, "start": start, "mask": mask}, range(N))["image"]
    kept = mask.bool()
    assert torch.equal(images[kept], start[kept])
    new = images[~kept], start[~kept]
    assert _rms(new[0] - new[1]) > 0.3
    assert agreement(images, label) > 0.8  # what is new goes with what is kept
    pasted = torch.where(kept, start, _images(loaded(scheduler=scheduler)))
    assert _rms(new[0] - new[1]) < _rms(pasted[~kept] - new[1])


def test_a_mask_that_keeps_nothing_changes_nothing(loaded: Loaded, real: tuple[Tensor, Tensor]) -> None:
    condition = {"label": real[1], "start": real[0], "mask": torch.zeros(N, 1, 8, 8)}
    free = loaded(repaint=0.25).generate(condition, range(N))["image"]
    assert torch.equal(free, loaded().generate({"label": real[1]}, range(N))["image"])


def test_a_real_sample_is_inverted_and_found_again(loaded: Loaded, real: tuple[Tensor, Tensor]) -> None:
    start, label = real
    condition = {"label": label, "start_label": label, "start": start}
    for scheduler, steps, most in (("ddim", 60, 0.03), ("dpmsolver++", 10, 0.06)):
        generator = loaded(scheduler=scheduler, num_inference_steps=steps, source="edit")
        images = generator.generate(condition, range(N))["image"]
        assert _rms(images - start) < most
        assert torch.equal(generator.generate(condition, range(N, 2 * N))["image"], images)  # no seed has a part in it


def test_an_edit_shows_the_new_class_and_keeps_more_of_the_source_than_a_fresh_sample(
    loaded: Loaded, real: tuple[Tensor, Tensor], agreement: Agreement
) -> None:
    start, label = real
    wanted = (label + 1 + torch.arange(N) % 9) % 10
    condition = {"label": wanted, "start_label": label, "start": start}

    def run(**settings: Any) -> tuple[float, float]:
        images = loaded(num_inference_steps=20, guidance_scale=2.0, **settings).generate(condition, range(N))["image"]
        return agreement(images, wanted), _rms(images - start)

    fresh, edited, halfway = run(), run(source="edit"), run(source="edit", strength=0.6)
    assert edited[0] > 0.7
    assert edited[1] < 0.8 * fresh[1]
    assert halfway[1] < edited[1]  # the less is undone, the more is kept


def test_what_lies_between_two_real_samples_lies_between(
    loaded: Loaded, digits: Snapshot, agreement: Agreement
) -> None:
    assert digits.labels is not None
    rows = torch.stack([torch.nonzero(digits.labels == c)[:20, 0] for c in range(10)])
    first, second = (digits.unit("image", rows[:, part].flatten()) for part in (slice(0, 10), slice(10, 20)))
    label = torch.arange(10).repeat_interleave(10)

    def mixed(weight: float) -> Tensor:
        condition = {"label": label, "start": first, "other": second, "weight": torch.full((N,), weight)}
        return loaded(source="interpolate", num_inference_steps=15).generate(condition, range(N))["image"]

    path = [mixed(weight) for weight in (0.0, 0.25, 0.5, 1.0)]
    assert _rms(path[0] - first) < 0.05
    assert _rms(path[-1] - second) < 0.05
    to_first, to_second = ([_rms(images - end) for images in path] for end in (first, second))
    assert to_first == sorted(to_first)
    assert to_second == sorted(to_second, reverse=True)
    assert agreement(path[2], label) > 0.85
    # Not the mean of the two, which is grey where they differ.
    assert _rms(path[2]) > _rms((first + second) / 2) + 0.015


def test_slots_of_every_source_are_filled_from_real_samples(loaded: Loaded, digits: Snapshot) -> None:
    for settings in (
        {"source": "image", "strength": 0.5},
        {"source": "interpolate"},
        {"source": "edit"},
        {"source": "image", "repaint": 0.4},
    ):
        generator = loaded(**settings)
        planner = RealGuidedPlanner([1.0] * 10, generator.source, generator.repaint)
        planner.bind(digits)
        shard = fill_slot(3, Recipe(planner, generator, (), digits.spec, slot_size=20))
        assert shard.n == 20
        made = shard.fields["image"].float()
        source = digits.raw("image", torch.tensor([row["source_index"] for row in shard.rows])).float()
        other = digits.raw("image", torch.arange(20)).float()
        assert _rms(made - source) < _rms(made - other)
        if generator.repaint is not None:
            share = (made == source).float().mean()
            assert float(share) > 0.55  # bytes are the same where it is kept
        again = fill_slot(3, Recipe(planner, generator, (), digits.spec, slot_size=20))
        assert torch.equal(again.fields["image"], shard.fields["image"])


# Settings -----------------------------------------------------------------------------------------------

CHANGES: list[dict[str, Any]] = [
    {"guidance_scale": 2.0},
    {"guidance_scale": 2.0, "guidance_interval": [0.1, 0.9]},
    {"guidance_scale": 2.0, "guidance_rescale": 0.5},
    {"guidance_scale": 2.0, "negative_label": 1},
    {"stop_at": 0.1},
    {"scheduler": "ddim", "eta": 0.5},
    {"threshold": 0.99},
    {"source": "image"},
    {"source": "edit"},
    {"source": "edit", "inversion_steps": 5},
    {"source": "interpolate"},
    {"repaint": 0.5},
    {"repaint": 0.5, "resample": 2},
    {"repaint": 0.5, "jump": 2},
]


def test_every_control_names_another_pool_and_fits_nothing_anew() -> None:
    keys = [json.dumps(DiffusionGenerator(**change).sample_key(), sort_keys=True) for change in [{}, *CHANGES]]
    assert len(set(keys)) == len(keys)
    fits = {json.dumps(DiffusionGenerator(**change).fit_key(), sort_keys=True) for change in [{}, *CHANGES]}
    assert len(fits) == 1


def test_a_control_without_effect_names_no_other_pool(loaded: Loaded) -> None:
    plain = loaded()
    asked = {"label": LABELS[:4]}
    for change in ({"guidance_interval": [0.1, 0.9]}, {"guidance_rescale": 0.5}, {"resample": 3}, {"jump": 2}):
        changed = loaded(**change)
        assert changed.sample_key() == plain.sample_key(), change
        assert torch.equal(changed.generate(asked, range(4))["image"], plain.generate(asked, range(4))["image"])


@pytest.mark.parametrize("change", CHANGES)
def test_every_control_survives_its_plain_config(change: dict[str, Any]) -> None:
    generator = DiffusionGenerator(**change)
    again = DiffusionGenerator(**json.loads(json.dumps(generator.config())))
    assert again.config() == generator.config()
    assert again.sample_key() == generator.sample_key()
    assert again.source == generator.source


def test_where_samples_start_follows_from_what_is_varied() -> None:
    sources = [DiffusionGenerator(**s).source for s in ({}, {"strength": 0.5}, {"repaint": 0.5}, {"source": "edit"})]
    assert sources == ["noise", "image", "image", "edit"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"source": "thin air"}, "generator.source"),
        ({"source": "noise", "strength": 0.5}, "generator.source=image"),
        ({"source": "edit", "scheduler": "ddpm"}, "generator.scheduler"),
        ({"source": "interpolate", "scheduler": "ddim", "eta": 0.1}, "generator.eta=0"),
        ({"source": "interpolate", "repaint": 0.5}, "generator.repaint=null"),
        ({"inversion_steps": 0}, "generator.inversion_steps"),
        ({"repaint": 1.0}, "generator.repaint"),
        ({"negative_label": -1, "guidance_scale": 2.0}, "generator.negative_label"),
        ({"negative_label": 1}, "generator.guidance_scale"),
        ({"eta": 0.5}, "generator.scheduler=ddim"),
        ({"threshold": 2.0}, "generator.threshold"),
        ({"threshold": 0.9, "scheduler": "heun"}, "generator.threshold=null"),
        ({"threshold": 0.9, "codec": "vae"}, "generator.threshold=null"),
        ({"stop_at": 0.5, "strength": 0.4}, "generator.stop_at"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_the_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        DiffusionGenerator(**settings)


def test_every_control_is_a_documented_key_of_the_configuration() -> None:
    text = (Path(__file__).parents[2] / "conf" / "generator" / "diffusion.yaml").read_text()
    lines = {line.split(":")[0]: line for line in text.splitlines() if line and line[0].isalpha()}
    assert set(DiffusionGenerator().config()) <= set(lines)
