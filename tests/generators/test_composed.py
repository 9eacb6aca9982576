"""DiffuseMix around any generator: half of the real sample, half of what was made of it, and a fractal blended in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from echo_generator import Echo
from PIL import Image
from refill_toys import Fitted, Steady, function, job_for, need, status, until, worker
from torch import Tensor
from training_toys import Noise, RealModule

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.conditions import RealGuidedPlanner
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import ComposedGenerator, DiffusionGenerator
from lightning_diffaug.generators.composed import HALVES, half
from lightning_diffaug.generators.fractals import julia
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe, row_seed
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

Loaded = Callable[..., DiffusionGenerator]
SEEDS = range(100, 164)


def _spec(shape: tuple[int, ...] = (1, 8, 8), **more: tuple[int, ...]) -> SampleSpec:
    shapes = {"image": shape, **more}
    return SampleSpec(tuple(FieldSpec(n, n, "tensor", "float32", s, -1.0, 1.0) for n, s in shapes.items()))


def _bound(generator: Any, spec: SampleSpec | None = None, **settings: Any) -> ComposedGenerator:
    composed = ComposedGenerator(generator, **settings)
    composed.bind(_spec() if spec is None else spec, ())
    return composed


def _mixed(fractal_weight: float, seeds: Sequence[int] = SEEDS, **settings: Any) -> Tensor:
    start = torch.zeros(len(seeds), 1, 8, 8)
    generator = _bound(Noise([1, 8, 8]), fractal_weight=fractal_weight, **settings)
    return generator.generate({"start": start}, seeds)["image"]


def test_of_each_sample_one_half_is_the_real_one_and_the_other_what_was_made_of_it(
    loaded: Loaded, digits: Snapshot
) -> None:
    plain = loaded(strength=0.7)
    composed = _bound(plain, fractal_weight=0.0)
    planner = RealGuidedPlanner([1.0] * 10, composed.source, composed.repaint, 0, composed.given, composed.derived)
    planner.bind(digits)
    plan = planner.plan(0, 32)
    seeds = range(32)
    made, mixed, real = plain.generate(plan, seeds)["image"], composed.generate(plan, seeds)["image"], plan["start"]
    assert not torch.equal(made, real)
    found = []
    for row in range(32):
        fits = [
            name for name in HALVES if torch.equal(mixed[row], torch.where(half(name, (8, 8)), real[row], made[row]))
        ]
        assert len(fits) == 1
        found += fits
    assert set(found) == set(HALVES)


@pytest.mark.parametrize("name", HALVES)
def test_only_the_halves_that_are_asked_for_are_kept(name: str) -> None:
    mixed = _mixed(0.0, kept_halves=[name])
    real = half(name, (8, 8)).expand_as(mixed)
    assert bool((mixed[real] == 0).all())
    assert not (mixed[~real] == 0).any()


def test_halves_of_odd_sizes_add_up() -> None:
    for first, second, axis in (("left", "right", 1), ("top", "bottom", 0)):
        kept = half(first, (5, 7))
        assert torch.equal(kept, ~half(second, (5, 7)))
        assert int(kept.sum()) == (5, 7)[axis] // 2 * (7, 5)[axis]
    assert half("left", (2, 3)).tolist() == [[True, False, False]] * 2


def test_a_fractal_is_blended_in_at_its_weight() -> None:
    plain, mixed, heavy = _mixed(0.0), _mixed(0.2), _mixed(0.5)
    fractals = (mixed - 0.8 * plain) / 0.2
    torch.testing.assert_close((heavy - 0.5 * plain) / 0.5, fractals, atol=1e-5, rtol=0)
    assert float(fractals.abs().max()) <= 1.0 + 1e-5
    assert float(fractals.flatten(1).std(1).min()) > 0.2, "none is blank"
    assert float(torch.pdist(fractals.flatten(1)).min()) > 0.1, "no two are alike"


def test_a_sample_depends_on_its_own_seed_alone() -> None:
    whole, part = _mixed(0.2), _mixed(0.2, SEEDS[5:8])
    assert torch.equal(whole[5:8], part)
    state = torch.get_rng_state()
    assert torch.equal(_mixed(0.2), whole)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 20)])
def test_julia_sets_are_varied_pictures(shape: tuple[int, ...]) -> None:
    pictures = julia([torch.Generator().manual_seed(seed) for seed in range(200)], shape)
    assert pictures.shape == (200, *shape)
    assert pictures.dtype == torch.float32
    assert float(pictures.min()) >= -1.0
    assert float(pictures.max()) <= 1.0
    assert float(pictures.flatten(1).std(1).min()) > 0.2
    if shape[0] == 3:
        assert float((pictures[:, 0] - pictures[:, 1]).abs().mean()) > 0.2, "in colours"


def test_the_pictures_of_a_folder_are_blended_in_and_name_the_pool(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name, colour in (("a.png", 0), ("more/b.png", 255)):
        Image.new("L", (20, 16), colour).save(folder / name)
    plain, mixed = _mixed(0.0), _mixed(0.25, fractals=str(folder))
    blended = ((mixed - 0.75 * plain) / 0.25).flatten(1)
    assert {round(value) for value in blended.mean(1).tolist()} == {-1, 1}
    assert float(blended.std(1).max()) < 1e-5

    composed = ComposedGenerator(Noise([1, 8, 8]), fractals=str(folder))
    before = composed.sample_key()
    assert ComposedGenerator(Noise([1, 8, 8])).sample_key() != before
    Image.new("L", (20, 16), 7).save(folder / "a.png")
    assert composed.sample_key() != before
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(ConfigurationError, match=r"a\.png.*generator\.fractals"):
        _mixed(0.2, fractals=str(folder))
    with pytest.raises(ConfigurationError, match=r"holds no pictures.*generator\.fractals"):
        ComposedGenerator(Noise(), fractals=str(tmp_path / "none"))


def test_fields_are_cut_alike_and_the_fractal_is_blended_into_the_image_alone() -> None:
    spec, seeds = _spec((3, 8, 8), mask=(1, 8, 8)), range(16)
    composed = _bound(Pairs(), spec)
    start = torch.cat((torch.full((16, 3, 8, 8), 0.5), torch.ones(16, 1, 8, 8)), 1)
    made = composed.generate({"start": start}, seeds)
    by_field = composed.generate({"start": {"image": start[:, :3], "mask": start[:, 3:]}}, seeds)
    assert all(torch.equal(made[name], by_field[name]) for name in made)
    assert set(made["mask"].unique().tolist()) == {-1.0, 1.0}, "what is a label stays one"
    real = made["mask"] > 0
    assert bool((real.flatten(1).sum(1) == 32).all())
    plain = _bound(Pairs(), spec, fractal_weight=0.0).generate({"start": start}, seeds)
    assert torch.equal(plain["image"][:, :1] == 0.5, real)
    assert not torch.equal(made["image"], plain["image"])


class Pairs:
    """Black images and empty masks."""

    source = "image"

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Tensor]:
        return {"image": torch.full((len(seeds), 3, 8, 8), -1.0), "mask": torch.full((len(seeds), 1, 8, 8), -1.0)}


def test_a_sample_that_diverged_stays_recognisable() -> None:
    class Diverged(Noise):
        def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
            return torch.full((len(seeds), 1, 8, 8), torch.nan)

    mixed = _bound(Diverged()).generate({"start": torch.zeros(8, 1, 8, 8)}, range(8))["image"]
    assert bool(mixed.isnan().flatten(1).any(1).all())


def test_slots_hold_halves_of_the_real_samples_that_provenance_names(digits: Snapshot) -> None:
    """Around a generator from noise too: the planner is asked for a real sample of the class."""
    composed = ComposedGenerator(Noise([1, 8, 8]), fractal_weight=0.0)
    assert composed.source == "image"
    assert ComposedGenerator(Noise(), kept_halves=[]).source == "noise"
    planner = RealGuidedPlanner([1.0] * 10, composed.source)
    planner.bind(digits)
    composed.bind(digits.spec, digits.class_names)
    shard = fill_slot(2, Recipe(planner, composed, (), digits.spec, slot_size=20))
    assert shard.n == 20
    source = digits.raw("image", torch.tensor([row["source_index"] for row in shard.rows]))
    assert bool(((shard.fields["image"] == source).flatten(1).sum(1) >= 32).all())
    assert shard.rows[3]["seed"] == row_seed(0, 2, 3, 0)


def test_what_starts_from_another_class_is_refused(digits: Snapshot, loaded: Loaded) -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.generator\.source.*generator\.kept_halves=\[\]"):
        ComposedGenerator(Echo("edit"))
    ComposedGenerator(Echo("edit"), kept_halves=[])
    condition = {"start": torch.zeros(2, 1, 8, 8), "label": torch.tensor([0, 1])}
    composed = _bound(loaded(strength=0.5))
    composed.generate({**condition, "start_label": torch.tensor([0, 1])}, [1, 2])
    with pytest.raises(ConfigurationError, match=r"wrong label.*generator\.kept_halves"):
        composed.generate({**condition, "start_label": torch.tensor([0, 2])}, [1, 2])


def test_it_has_of_the_protocol_what_the_wrapped_generator_has() -> None:
    beats: list[int] = []
    wrapped = DiffusionGenerator(conditions={"label": "class", "edges": {"of": "image", "how": "edges"}})
    composed = ComposedGenerator(wrapped)
    assert composed.derived == wrapped.derived
    assert (composed.given, composed.repaint) == ([], None)
    assert composed.fit_key() == wrapped.fit_key()
    composed.on_progress, composed.trainer_devices = lambda: beats.append(1), (1,)
    assert wrapped.on_progress is not None
    wrapped.on_progress()
    assert (len(beats), list(wrapped.trainer_devices)) == (1, [1])
    for name in ("on_progress", "trainer_devices", "fit_key", "find_fitted", "ready", "follow"):
        assert not hasattr(ComposedGenerator(Steady()), name)
    assert copy.copy(composed).config() == composed.config()
    assert ComposedGenerator(composed).fitted is wrapped


def test_it_is_named_by_its_settings_and_those_of_the_wrapped_generator(tmp_path: Path) -> None:
    fit = {"steps": 3}
    changes: list[dict[str, Any]] = [{}, {"kept_halves": ["left"]}, {"kept_halves": []}, {"fractal_weight": 0.3}]
    pools, generators = [], [ComposedGenerator(DiffusionGenerator(fit=fit, strength=0.7), **c) for c in changes]
    generators.append(ComposedGenerator(DiffusionGenerator(fit=fit, strength=0.6)))
    for generator in generators:
        again = build(json.loads(json.dumps(name_of(generator))))
        assert again.config() == generator.config()
        assert job_for(again, tmp_path).pool_header(again, "w") == job_for(generator, tmp_path).pool_header(
            generator, "w"
        )
        pools.append(job_for(generator, tmp_path).pool_header(generator, "w").fingerprint)
    assert len(set(pools)) == len(pools)
    shuffled = ComposedGenerator(DiffusionGenerator(fit=fit, strength=0.7), kept_halves=HALVES[::-1])
    assert job_for(shuffled, tmp_path).pool_header(shuffled, "w").fingerprint == pools[0]
    one, other = (ComposedGenerator(wrapped) for wrapped in (function, Noise([1, 4, 4])))
    assert one.sample_key() != other.sample_key()


def test_the_fitted_weights_are_those_of_the_plain_generator(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    plain = Fitted(str(diary))
    composed = ComposedGenerator(plain, kept_halves=[])
    jobs = [job_for(generator, tmp_path) for generator in (plain, composed)]
    names = {job.fit_fingerprint(generator) for job, generator in zip(jobs, (plain, composed), strict=True)}
    assert len(names) == 1
    pools = []
    for job in jobs:
        Path(job.run_dir, "status.json").unlink(missing_ok=True)
        need(job, 1)
        with worker(job):
            path = until(lambda job=job: status(job).pool or status(job).failure)
            pool = SyntheticPool.open(path)
            until(lambda pool=pool: pool.has(0))
        pools.append(pool.read(0))
    assert len(diary.read_text().splitlines()) == 1, "it was fitted once"
    assert not torch.equal(pools[0].fields["image"], pools[1].fields["image"])
    found = jobs[1].find_pool(composed)
    assert found is not None
    assert found.has(0)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"kept_halves": ["middle"]}, "generator.kept_halves"),
        ({"kept_halves": "left"}, "generator.kept_halves"),
        ({"kept_halves": ["left", "left"]}, "generator.kept_halves"),
        ({"fractal_weight": 1.0}, "generator.fractal_weight"),
        ({"fractal_weight": -0.1}, "generator.fractal_weight"),
        ({"fractal_weight": True}, "generator.fractal_weight"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        ComposedGenerator(Noise(), **settings)
    with pytest.raises(ConfigurationError, match=r"generator\.generator"):
        ComposedGenerator(None)


@pytest.mark.parametrize(
    ("settings", "spec", "key"),
    [
        ({"fractal_weight": 0.0}, _spec((2, 50)), "generator.kept_halves"),
        ({"fractal_weight": 0.0}, _spec((6,)), "generator.kept_halves"),
        ({"kept_halves": ["left"]}, _spec((2, 50)), "generator.fractal_weight=0"),
        ({"kept_halves": []}, _spec((2, 8, 8)), "generator.fractal_weight=0"),
        ({}, SampleSpec((_spec(a=(1, 8, 8)).fields[1], _spec(b=(1, 8, 8)).fields[1])), "data.fields"),
    ],
)
def test_data_that_the_settings_do_not_suit_are_refused(settings: dict[str, Any], spec: SampleSpec, key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        _bound(Noise(), spec, **settings)


def test_sounds_are_cut_in_time() -> None:
    composed = _bound(Noise([2, 9]), _spec((2, 9)), kept_halves=["left"], fractal_weight=0.0)
    made = composed.generate({"start": torch.zeros(4, 2, 9)}, range(4))["image"]
    assert bool((made[:, :, :4] == 0).all())
    assert not (made[:, :, 4:] == 0).any()


def test_what_is_missing_is_said() -> None:
    with pytest.raises(GeneratorError, match="bind"):
        ComposedGenerator(Noise()).generate({}, [0])
    with pytest.raises(GeneratorError, match="'start'"):
        _bound(Noise([1, 8, 8])).generate({}, [0])


def test_a_device_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    data = DiffAugDataModule(
        RealModule(), ComposedGenerator(DiffusionGenerator(device="cuda:7")), cache_dir=tmp_path, window=16, slot_size=8
    )
    data.setup("fit")
    try:
        with pytest.raises(ConfigurationError, match=r"generator\.device"):
            data.train_dataloader()
    finally:
        data.close()


def test_every_setting_is_a_documented_key_of_the_configuration() -> None:
    text = (Path(__file__).parents[2] / "conf" / "generator" / "diffusemix.yaml").read_text()
    lines = {line.split(":")[0] for line in text.splitlines() if line and line[0].isalpha()}
    assert set(ComposedGenerator(Noise()).config()) <= lines
