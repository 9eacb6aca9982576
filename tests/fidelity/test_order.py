"""Held-back real samples, a fitted generator in ten steps and in two, blurred images and noise, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from lightning_diffaug.fidelity import Fidelity, Samples, measure
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

QUICK = {"classifier": {"steps": 80, "width": 16}}
KINDS = ("real", "ten", "two", "blurred", "noise")
FIT = {"steps": 160, "batch_size": 40, "lr": 6e-3, "channels": [16, 32], "augment_p": 0.0}


def _made(train: Samples, labels: Tensor, folder: Path) -> dict[str, Samples]:
    """The same noise denoised in ten steps and in two, by one short fit."""
    assert train.labels is not None
    image = FieldSpec("image", "0", "tensor", "float32", (1, 8, 8), -1.0, 1.0)
    spec = SampleSpec((image, FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0)))
    names = tuple(map(str, range(10)))
    data = Snapshot(spec, {"image": train.values, "label": train.labels}, names, range(10))
    found = {}
    for kind, steps in (("ten", 10), ("two", 2)):
        generator = DiffusionGenerator(num_inference_steps=steps, fit=FIT)
        generator.bind(spec, names)
        if not found:
            generator.fit(data, folder, lambda *_: None)
        generator.load(folder)
        made = generator.generate({"label": labels}, list(range(len(labels))))
        found[kind] = Samples(made if isinstance(made, Tensor) else made["image"], labels)
    return found


@pytest.fixture(scope="module")
def measured(digits: dict[str, Samples], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fidelity]:
    torch.set_num_threads(1)
    real, labels = digits["test"].values, digits["test"].labels
    assert labels is not None
    blurred = avg_pool2d(pad(real, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    samples = {
        "real": digits["test"],
        **_made(digits["train"], labels, tmp_path_factory.mktemp("fitted")),
        "blurred": Samples(blurred, labels),
        "noise": Samples(noise, labels),
    }
    return {kind: measure(digits["train"], samples[kind], digits["val"], settings=QUICK) for kind in KINDS}


def _values(measured: dict[str, Fidelity], name: str) -> list[float]:
    return [measured[kind].measured[name].value for kind in KINDS]


@pytest.mark.parametrize("name", ["frechet", "kid"])
def test_distances_rise_from_real_to_noise(measured: dict[str, Fidelity], name: str) -> None:
    values = _values(measured, name)
    assert values == sorted(values)
    assert values[2] > 1.3 * values[1]


@pytest.mark.parametrize("name", ["coverage", "vendi"])
def test_what_measures_variety_falls_from_real_to_noise(measured: dict[str, Fidelity], name: str) -> None:
    values = _values(measured, name)
    assert values == sorted(values, reverse=True)
    assert values[2] < 0.95 * values[1]


def test_recall_falls_to_nothing(measured: dict[str, Fidelity]) -> None:
    real, ten, two, blurred, noise = _values(measured, "recall")
    assert real > ten > two > max(blurred, noise)


@pytest.mark.parametrize("name", ["precision", "density", "class_agreement", "trts", "tstr"])
def test_what_asks_whether_samples_are_plausible_sees_no_lack_of_variety_but_all_else(
    measured: dict[str, Fidelity], name: str
) -> None:
    """Two steps make the mean of what is likely, which is plausible: only variety is lost."""
    real, ten, two, blurred, noise = _values(measured, name)
    assert min(ten, two) > noise
    assert blurred > noise
    if name in ("precision", "density", "tstr"):
        assert real > ten > blurred
        assert two > blurred
    else:
        assert real > ten


def test_how_images_look_falls_from_real_to_blurred_and_noise_is_too_sharp(measured: dict[str, Fidelity]) -> None:
    real, ten, two, blurred, noise = _values(measured, "sharpness")
    assert real > ten > two > blurred
    assert noise > 1.3 * real
    spectra = _values(measured, "spectrum")
    assert spectra[:4] == sorted(spectra[:4])
    assert spectra[4] > spectra[1]


def test_samples_that_are_not_like_real_ones_are_no_copies_and_real_ones_are_as_near_as_others(
    measured: dict[str, Fidelity],
) -> None:
    assert all(one.measured["closer_than_real"].p > 1e-3 for one in measured.values())  # type: ignore[operator]
    authentic = _values(measured, "authenticity")
    assert authentic[0] == min(authentic)


def test_copies_of_training_samples_are_said(digits: dict[str, Samples]) -> None:
    """What no other figure objects to: it looks better than real."""
    copies = digits["train"].take(torch.arange(0, 997, 3))
    found = measure(digits["train"], copies, digits["val"], settings={**QUICK, "train_on_synthetic": False}).measured
    assert found["frechet"].value < found["frechet"].real  # type: ignore[operator]
    assert (found["closer_than_real"].value, found["authenticity"].value) == (1.0, 0.0)
    assert found["closer_than_real"].p < 1e-9  # type: ignore[operator]


def test_held_back_real_samples_are_at_the_level_of_real_ones(measured: dict[str, Fidelity]) -> None:
    found = measured["real"].measured
    for name in ("precision", "recall", "density", "coverage", "vendi", "within_class", "class_agreement", "sharpness"):
        assert found[name].value == pytest.approx(found[name].real, rel=0.12), name
    kid = found["kid"]
    assert abs(kid.value - kid.real) < 4 * kid.standard_error  # type: ignore[operator]
    assert found["frechet"].value < 2 * found["frechet"].real  # type: ignore[operator]
