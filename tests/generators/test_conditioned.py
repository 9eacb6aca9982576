"""Conditions steer samples: each kind, with each denoiser that knows it, on small real fits."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import own_denoiser
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lightning_diffaug.conditions import RealGuidedPlanner
from lightning_diffaug.conditions.derived import edges, low_resolution
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.generators.denoisers.own import OwnDenoiser
from lightning_diffaug.generators.diffusion_fit import fit_to
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.given import condition_settings
from lightning_diffaug.generators.weights import weights_hash
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

N = 256
FIT: dict[str, Any] = {"batch_size": 32, "lr": 1e-2, "warmup_steps": 5, "ema": 0.9, "augment_p": 0.0}


def _snapshot(classes: int = 0, **fields: Tensor) -> Snapshot:
    def spec(name: str, value: Tensor) -> FieldSpec:
        if name == "label":
            return FieldSpec(name, name, "scalar", "int64", (), 0.0, 0.0)
        return FieldSpec(name, name, "tensor", "float32", tuple(value.shape[1:]), -1.0, 1.0)

    names = [str(c) for c in range(classes)]
    return Snapshot(SampleSpec(tuple(spec(*item) for item in fields.items())), fields, names, list(range(classes)))


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _uniform(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


def _fitted(snapshot: Snapshot, folder: Path, steps: int, fit: Mapping[str, Any], **settings: Any) -> Any:
    """``made(**sampling)``: a generator with the weights of one fit."""
    fit = {**FIT, "steps": steps, **fit}
    DiffusionGenerator(fit=fit, **settings).fit(snapshot, folder, lambda step, total: None)

    def made(**sampling: Any) -> DiffusionGenerator:
        generator = DiffusionGenerator(fit=fit, **settings, **{"num_inference_steps": 6, **sampling})
        generator.load(folder)
        return generator

    return made


def _pattern(*shape: int) -> Tensor:
    """1 in the first half of a sample (behind its channels; of a point), -1 in the second."""
    half = torch.ones(shape[1])
    half[shape[1] // 2 :] = -1.0
    return half.view(-1, *[1] * (len(shape) - 2)).expand(shape)


def _patterned(strength: Tensor, *shape: int) -> Tensor:
    """Samples that show the pattern, each as strongly as said, with a little noise."""
    wide = strength.view(-1, *[1] * len(shape)) * _pattern(*shape)
    return (wide + 0.03 * _noise(len(strength), *shape, seed=1)).clamp(-1, 1)


WANTED = torch.linspace(-0.7, 0.7, 12)

# What says how strongly a sample shows the pattern, and to which denoiser: (kind, shape, condition, fit, steps).
STEERED: dict[str, tuple[str, tuple[int, ...], Callable[[Tensor], Tensor], dict[str, Any], int]] = {
    "vector, unet": ("vector", (1, 4, 4), lambda b: torch.stack((3 * b, -b), 1), {"channels": [16, 16]}, 80),
    "vector, unet1d": ("vector", (1, 8), lambda b: torch.stack((3 * b, -b), 1), {"denoiser": "unet1d"}, 50),
    "tokens, unet_cross": (
        "cross", (1, 4, 4), lambda b: torch.stack((b, -b, b), 1)[..., None].expand(-1, -1, 2).clone(),
        {"channels": [16, 16]}, 80,
    ),
    "tokens, dit": (
        "cross", (1, 4, 4), lambda b: torch.stack((b, -b, b), 1)[..., None].expand(-1, -1, 2).clone(),
        {"denoiser": "dit", "denoiser_args": {"width": 32, "depth": 2}}, 200,
    ),
    "a map of tokens, dit of points": (
        "cross", (8, 3), lambda b: b.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone(),
        {"denoiser": "dit", "denoiser_args": {"width": 32, "depth": 2}}, 200,
    ),
    "another tensor, unet": ("concat", (1, 4, 4), lambda b: b.view(-1, 1, 1, 1).expand(-1, 2, 3, 3).clone(),
                            {"channels": [8, 8]}, 60),
}  # fmt: skip


@pytest.mark.parametrize("case", list(STEERED))
def test_a_condition_steers_and_guidance_changes_the_samples(case: str, tmp_path: Path) -> None:
    kind, shape, told, fit, steps = STEERED[case]
    strength = _uniform(N) * 0.8
    snapshot = _snapshot(image=_patterned(strength, *shape), told=told(strength))
    made = _fitted(snapshot, tmp_path, steps, fit, conditions={"told": kind})

    def shown(**sampling: Any) -> Tensor:
        samples = made(**sampling).generate({"told": told(WANTED)}, range(len(WANTED)))
        assert list(samples) == ["image"]  # what is given is not made
        return (samples["image"] * _pattern(*shape)).flatten(1).mean(1)

    plain = shown()
    assert float((plain - WANTED).abs().mean()) < 0.2  # by chance .5
    assert float((shown(guidance_scale=2.0) - plain).abs().mean()) > 1e-3


def test_several_labels_combine(tmp_path: Path) -> None:
    has = (_uniform(N, 2) > 0).float()  # each says whether one half is bright
    halves = (1.4 * has - 0.7)[:, None, None, :].repeat_interleave(2, -1).expand(-1, 1, 4, -1)
    snapshot = _snapshot(image=halves + 0.03 * _noise(N, 1, 4, 4), tags=has)
    made = _fitted(snapshot, tmp_path, 80, {"channels": [16, 16]}, conditions={"tags": "labels"})
    wanted = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(4, 1)
    images = made().generate({"tags": wanted}, range(16))["image"]
    bright = images.unflatten(-1, (2, 2)).mean((1, 2, 4)) > 0
    assert float((bright == (wanted > 0.5)).float().mean()) > 0.95
    guided = made(guidance_scale=2.0).generate({"tags": wanted}, range(16))["image"]
    assert float((guided - images).abs().mean()) > 1e-3


def test_low_resolution_and_edges_of_real_samples_are_followed(digits: Snapshot, tmp_path: Path) -> None:
    conditions = {
        "low": {"of": "image", "how": "low_resolution", "factor": 4},
        "edges": {"of": "image", "how": "edges"},
    }
    fit = {"channels": [16, 16], "batch_size": 32}
    generator = _fitted(digits, tmp_path, 80, fit, conditions=conditions)()
    assert generator.given == []
    planner = RealGuidedPlanner([1.0] * 10, "noise", seed=1, derived=generator.derived)
    planner.bind(digits)
    plan = planner.plan(0, 64)
    made = generator.generate(plan, range(64))["image"]
    for name, found in (("low", low_resolution(made, 4)), ("edges", edges(made, 4))):
        right, wrong = ((found - given).abs().mean() for given in (plan[name], plan[name].roll(1, 0)))
        assert float(right) < 0.6 * float(wrong), name


CONDITIONS: dict[str, Any] = {"label": "class"}
EACH: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "unet": ((1, 5, 5), {"channels": [8, 8]}),
    "unet_cross": ((1, 5, 5), {"channels": [8, 8], "denoiser": "unet_cross", "denoiser_args": {"heads": 2}}),
    "dit": ((1, 5, 5), {"denoiser": "dit", "denoiser_args": {"width": 32, "depth": 1}}),
    "dit of points": ((6, 3), {"denoiser_args": {"width": 32, "depth": 1}, "denoiser": "dit"}),
    "unet1d": ((2, 9), {}),
    "own": ((1, 5, 5), {"denoiser": "own_denoiser.Mlp", "denoiser_args": {"width": 64}}),
}


@pytest.mark.parametrize("case", list(EACH))
def test_each_denoiser_is_fitted_kept_and_loaded(case: str, tmp_path: Path) -> None:
    shape, fit = EACH[case]
    labels, tokens = torch.arange(N) % 2, _noise(N, 3, 2)
    images = _patterned(1.4 * labels - 0.7, *shape)
    snapshot = _snapshot(2, image=images, label=labels, **({"tokens": tokens} if case == "unet_cross" else {}))
    conditions = CONDITIONS | ({"tokens": "cross"} if case == "unet_cross" else {})
    settings = FitSettings.of({**FIT, "steps": 40, **fit})
    cpu = torch.device("cpu")
    fitted, description = fit_to(
        snapshot, settings, condition_settings(conditions), None, 0, cpu, lambda step, total: None
    )
    assert sum(fitted.losses[-10:]) < 0.7 * sum(fitted.losses[:10])
    assert description["denoiser"]["name"] == fit.get("denoiser", case)

    short = {"steps": 3, **fit}
    made = _fitted(snapshot, tmp_path, 3, short, conditions=conditions)
    condition = {"label": torch.tensor([0, 1, 0]), "tokens": tokens[:3]}
    first, again = made(), made()
    written = load_file(tmp_path / "denoiser.safetensors")
    loaded = first.sampler.denoiser.state_dict()
    assert written.keys() == loaded.keys()
    assert all(torch.equal(written[name], loaded[name]) for name in written)
    samples = first.generate(condition, [1, 2, 3])["image"]
    assert samples.shape == (3, *shape)
    assert torch.equal(again.generate(condition, [1, 2, 3])["image"], samples)


def test_the_network_in_the_documentation_is_the_one_that_is_tested() -> None:
    text = textwrap.dedent(inspect.getdoc(OwnDenoiser) or "")
    shown = textwrap.dedent(text[text.index("    class Mlp") : text.index("Args:")]).strip()
    first, *rest = shown.splitlines()
    tested = inspect.getsource(own_denoiser.Mlp).strip().splitlines()
    assert [first.split("  #")[0], *rest] == tested


def test_a_null_condition_of_ones_own_is_what_guidance_moves_away_from(tmp_path: Path) -> None:
    labels = torch.arange(N) % 2
    snapshot = _snapshot(2, image=_patterned(1.4 * labels - 0.7, 1, 4, 4), label=labels)
    made = _fitted(snapshot, tmp_path, 3, {"denoiser": "own_denoiser.Stubborn"})
    zero, one = {"label": torch.zeros(3, dtype=torch.int64)}, {"label": torch.ones(3, dtype=torch.int64)}
    plain, guided = made(), made(guidance_scale=3.0)
    assert torch.allclose(plain.generate(zero, range(3))["image"], guided.generate(zero, range(3))["image"], atol=1e-5)
    assert not torch.allclose(
        plain.generate(one, range(3))["image"], guided.generate(one, range(3))["image"], atol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"conditions": {"mask": "concatenate"}}, r"generator\.conditions\.mask"),
        ({"conditions": {"mask": "class"}}, r"generator\.conditions\.mask"),
        ({"conditions": {"label": "vector"}}, r"generator\.conditions\.label"),
        ({"conditions": "label"}, r"generator\.conditions"),
        ({"conditions": {"low": {"of": "image", "how": "blurred"}}}, r"generator\.conditions\.low"),
        ({"conditions": {"low": {"of": "image", "how": "edges", "factor": 1}}}, r"generator\.conditions\.low\.factor"),
        ({"conditions": {"low": {"of": "image", "how": "edges", "kind": "vector"}}}, r"generator\.conditions\.low"),
        ({"conditions": {"low": {"from": "image"}}}, r"generator\.conditions\.low"),
        ({"conditions": {"mask": "concat"}, "strength": 0.5}, r"'mask'.*data\.fields"),
        ({"conditions": {"start": "concat"}}, r"'start'.*data\.fields"),
        ({"conditions": {"text": "vector"}, "source": "interpolate"}, r"generator\.source"),
        (
            {"conditions": {"text": "vector"}, "negative_label": 1, "guidance_scale": 2.0},
            r"generator\.conditions\.label",
        ),
        ({"conditions": {"text": "cross"}, "fit": {"denoiser": "unet"}}, r"'text' as cross.*generator\.fit\.denoiser"),
        ({"fit": {"denoiser": "transformer"}}, r"generator\.fit\.denoiser"),
        ({"fit": {"denoiser": "dit", "denoiser_args": {"layers": 2}}}, r"generator\.fit\.denoiser_args"),
        ({"fit": {"denoiser": "dit", "channels": [32, 32]}}, r"generator\.fit\.denoiser_args"),
        ({"fit": {"denoiser_args": {"patch": 2}}}, r"generator\.fit\.denoiser"),
        ({"fit": {"denoiser_args": [1]}}, r"generator\.fit\.denoiser_args"),
    ],
)
def test_what_cannot_go_together_is_refused_at_the_door_with_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        DiffusionGenerator(**settings)


def test_conditions_and_denoiser_name_the_fit_and_are_plain_settings() -> None:
    keys = []
    for settings in (
        {},
        {"conditions": {}},
        {"conditions": {"mask": "concat"}},
        {"conditions": {"mask": "cross"}},
        {"conditions": {"low": {"of": "image", "how": "edges"}}},
        {"fit": {"denoiser": "dit"}},
        {"fit": {"denoiser": "dit", "denoiser_args": {"depth": 2}}},
        {"fit": {"denoiser": "own_denoiser.Mlp"}},
    ):
        generator = DiffusionGenerator(**settings)
        again = DiffusionGenerator(**json.loads(json.dumps(generator.config())))
        assert again.fit_key() == generator.fit_key()
        keys.append(json.dumps(generator.fit_key(), sort_keys=True))
    assert len(set(keys)) == len(keys)
    assert len(json.loads(keys[-1])["denoiser"][1]) > 8  # the code of the user's network is part of it


def test_conditions_are_named_by_what_they_mean_however_they_are_spelled() -> None:
    def key(**conditions: Any) -> Any:
        return DiffusionGenerator(conditions=conditions).fit_key()

    low = {"of": "image", "how": "low_resolution"}
    assert key(low=low) == key(low={**low, "factor": 4, "kind": "concat"}) != key(low={**low, "factor": 2})
    edges = {"of": "image", "how": "edges"}
    assert key(edges=edges) == key(edges={**edges, "factor": 8}) != key(edges={**edges, "kind": "cross"})
    assert key(label="class") == DiffusionGenerator().fit_key() != key()


def test_a_denoiser_is_not_told_of_an_augmentation_that_is_off(few_digits: Snapshot, tmp_path: Path) -> None:
    """Else the same fingerprint would name other weights."""
    hashes = []
    for told in ("fitted", "condition"):
        fit = {"steps": 2, "batch_size": 4, "channels": [8, 8], "augment_p": 0.0, "augment_as": told}
        (tmp_path / told).mkdir()
        DiffusionGenerator(fit=fit).fit(few_digits, tmp_path / told, lambda step, total: None)
        hashes.append(weights_hash(tmp_path / told))
    assert hashes[0] == hashes[1]


NETWORK = """
from own_denoiser import Mlp

class Net(Mlp):
    pass
"""


def test_other_code_of_an_own_network_is_another_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights may be read by it, and mean something else."""
    file = tmp_path / "changing_net.py"
    file.write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    generator = DiffusionGenerator(fit={"denoiser": "changing_net.Net"})
    before = generator.sample_key()
    assert before == generator.sample_key()
    file.write_text(NETWORK.replace("pass", "null = None"))
    assert generator.sample_key() != before
