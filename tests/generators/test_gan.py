"""The GAN learns the digits, is a generator like the others, and its samples follow from their seeds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_toys import RealModule

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import Fittable, GanGenerator
from lightning_diffaug.generators.gan_networks import Discriminator, GanNetwork, resolutions
from lightning_diffaug.generators.protocol import Bindable
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.snapshot import Snapshot

TINY = {"steps": 3, "batch_size": 8, "width": 8, "latent": 8}


def _ignore(step: int, total: int) -> None:
    pass


def _fitted(snapshot: Snapshot, folder: Path, **settings: Any) -> GanGenerator:
    folder.mkdir(parents=True)
    generator = GanGenerator(**{"fit": TINY, **settings})
    generator.fit(snapshot, folder, _ignore)
    generator.load(folder)
    return generator


@pytest.fixture(scope="module")
def learned(digits: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> GanGenerator:
    """A short but real fit."""
    fit = {"steps": 200, "width": 16, "augment_p": 0.0}
    return _fitted(digits, tmp_path_factory.mktemp("gan") / "fit", fit=fit)


def _images(generator: GanGenerator, label: Tensor, seed: int = 0) -> Tensor:
    return generator.generate({"label": label}, range(seed, seed + len(label)))["image"]


def test_it_learns_the_digits(learned: GanGenerator, agreement: Callable[[Tensor, Tensor], float]) -> None:
    labels = torch.arange(500) % 10
    images = _images(learned, labels)
    assert agreement(images, labels) > 0.6, "chance is 0.1"
    assert images.min() >= -1
    assert images.max() <= 1


def test_samples_of_a_class_are_not_all_alike(learned: GanGenerator, digits: Snapshot) -> None:
    real = digits.unit("image", (digits.labels == 3).nonzero().flatten())
    made = _images(learned, torch.full((100,), 3))
    assert made.std(0).mean() > 0.3 * real.std(0).mean()


def test_a_sample_follows_from_its_seed_and_class_alone(learned: GanGenerator) -> None:
    labels = torch.arange(20) % 10
    before = random.getstate()[1][:3], np.random.get_state()[1][:3].tolist(), torch.get_rng_state()  # type: ignore[index]
    whole = _images(learned, labels)
    after = random.getstate()[1][:3], np.random.get_state()[1][:3].tolist(), torch.get_rng_state()  # type: ignore[index]
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    torch.testing.assert_close(_images(learned, labels[7:8], 7), whole[7:8], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(_images(learned, labels, 100), whole, atol=0.1)
    assert not torch.allclose(_images(learned, labels.roll(1)), whole, atol=0.1)


def test_the_same_fit_gives_the_same_weights_and_leaves_the_random_states_alone(
    few_digits: Snapshot, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = _fitted(few_digits, tmp_path / "first")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    again, other = _fitted(few_digits, tmp_path / "again"), _fitted(few_digits, tmp_path / "other", seed=1)
    labels = torch.arange(10)
    assert torch.equal(_images(first, labels), _images(again, labels))
    assert not torch.equal(_images(first, labels), _images(other, labels))


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (5, 9), (64, 64), (3, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size(size: tuple[int, int], channels: int) -> None:
    shape, label = (channels, *size), torch.tensor([0, 1])
    made = GanNetwork(shape, 2, latent=8, width=8)(torch.randn(2, 8), label)
    assert made.shape == (2, *shape)
    assert Discriminator(shape, 2, width=8)(made, label).shape == (2,)
    assert max(resolutions(*size)[-1]) <= 4


def test_several_fields_are_made_together_and_data_need_no_labels(
    make_snapshot: Callable[..., Snapshot], tmp_path: Path
) -> None:
    pairs = make_snapshot(torch.rand(20, 3, 8, 8), None, mask=torch.rand(20, 1, 8, 8))
    made = _fitted(pairs, tmp_path / "fit").generate({}, range(5))
    assert {name: tuple(value.shape) for name, value in made.items()} == {"image": (5, 3, 8, 8), "mask": (5, 1, 8, 8)}


def test_progress_is_told_after_each_step(few_digits: Snapshot, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    GanGenerator(fit=TINY).fit(few_digits, tmp_path, lambda *step: steps.append(step))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_passes_are_counted_and_batches_change_no_sample(few_digits: Snapshot, tmp_path: Path) -> None:
    generator = _fitted(few_digits, tmp_path / "fit", batch_size=3)
    labels = torch.arange(10)
    small = _images(generator, labels)
    assert generator.network_passes == 10
    generator.batch_size = 128
    torch.testing.assert_close(_images(generator, labels), small, atol=1e-5, rtol=1e-4)


def test_it_is_a_fittable_generator_that_can_be_named() -> None:
    generator = GanGenerator(seed=2, fit={"steps": 7})
    assert isinstance(generator, Fittable)
    assert isinstance(generator, Bindable)
    again = build(name_of(generator))
    assert (again.config(), again.fit_key()) == (generator.config(), generator.fit_key())
    assert generator.fit_key() != GanGenerator().fit_key()
    assert generator.sample_key() == GanGenerator().sample_key(), "the weights' hash names the rest"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"fit": {"steps": 0}}, r"fit\.steps"),
        ({"fit": {"steps": 1.5}}, r"fit\.steps"),
        ({"fit": {"ema": 2}}, r"fit\.ema"),
        ({"fit": {"stepz": 2}}, r"fit\.stepz"),
    ],
)
def test_a_wrong_setting_names_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"generator\.{key}"):
        GanGenerator(**settings)


def test_what_it_cannot_make_is_said_at_the_door(
    make_snapshot: Callable[..., Snapshot], few_digits: Snapshot, tmp_path: Path
) -> None:
    large, sounds = (make_snapshot(torch.rand(4, *shape), None) for shape in ((1, 65, 65), (1, 40)))
    for data in (large, sounds):
        with pytest.raises(ConfigurationError, match=r"up to 64 pixels.*real\.size"):
            GanGenerator().bind(data.spec, ())
    with pytest.raises(GeneratorError, match=r"fit\(\.\.\.\) and load"):
        GanGenerator().generate({}, [0])
    generator = _fitted(few_digits, tmp_path / "fit")
    for condition in ({}, {"label": torch.tensor([10])}, {"label": torch.tensor([1, 2])}):
        with pytest.raises(GeneratorError, match=r"'label'.*10 classes"):
            generator.generate(condition, [0])


def test_a_fit_that_diverges_is_said(few_digits: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"loss is .*generator\.fit\.lr"):
        GanGenerator(fit={**TINY, "steps": 60, "lr": 1.0, "diversity": 100.0, "augment_p": 0.0}).fit(
            _broken(few_digits), tmp_path, _ignore
        )


def _broken(snapshot: Snapshot) -> Snapshot:
    images = snapshot.unit("image") / 2 + 0.5
    images[::2] = float("nan")
    spec = snapshot.spec
    from dataclasses import replace

    fields = tuple(
        replace(field, dtype="float32", high=1.0) if field.name == "image" else field for field in spec.fields
    )
    assert snapshot.labels is not None
    return Snapshot(type(spec)(fields), {"image": images, "label": snapshot.labels}, snapshot.class_names)


def test_a_run_takes_its_samples(tmp_path: Path) -> None:
    data = DiffAugDataModule(
        RealModule(), GanGenerator(fit=TINY), synthetic_fraction=0.5, refill="sync", window=16, slot_size=8, gates=[],
        cache_dir=tmp_path,
    )  # fmt: skip
    data.setup("fit")
    try:
        list(data.train_dataloader())
        figures = data.figures()
    finally:
        data.close()
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5)
    assert figures["generator/fit_seconds"] > 0
