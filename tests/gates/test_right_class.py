"""A sample passes that a classifier of the real training data, or the user's own, takes for what was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gate_data import IMAGE, LABEL, digits, honest, training, unlabelled
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.conditions import QuotaPlanner
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import RightClass, judge
from lightning_diffaug.gates.chain import ranking
from lightning_diffaug.gates.classifier import Classifier
from lightning_diffaug.gates.classifier_fit import FittedClassifier, best_temperature
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

STEPS = 120


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("classifier")
    seen: list[tuple[int, int]] = []
    state = torch.get_rng_state()
    FittedClassifier({"steps": STEPS}).fit(training(), folder, lambda step, total: seen.append((step, total)))
    assert seen == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert torch.equal(torch.get_rng_state(), state)
    return folder


def _gate(fitted: Path, **settings: Any) -> RightClass:
    gate = RightClass(fit={"steps": STEPS}, **settings)
    assert gate.fitted is not None
    gate.fitted.load(fitted)
    return gate


def _share(gate: RightClass, x: Tensor, labels: Tensor) -> float:
    return float(gate({"image": x}, {"label": labels}).passed.float().mean())


def test_real_samples_pass_and_samples_of_another_class_do_not(fitted: Path) -> None:
    gate, (x, labels) = _gate(fitted), honest()
    assert _share(gate, x, labels) > 0.93
    assert _share(gate, x, (labels + 3) % 10) < 0.03


def test_what_is_asked_for_is_enough_confidence_and_a_margin(fitted: Path) -> None:
    x, labels = honest()
    x = functional.avg_pool2d(x, 3, 1, 1)  # blurred: less sure
    shares = [_share(_gate(fitted, confidence=c), x, labels) for c in (0.0, 0.5, 0.9, 0.99)]
    assert shares[0] > shares[1] > shares[2] > shares[3]
    margins = [_share(_gate(fitted, confidence=0.0, margin=m), x, labels) for m in (0.0, 0.5, 0.9)]
    assert margins[0] > margins[1] > margins[2]


def test_more_of_the_best_classes_let_more_pass(fitted: Path) -> None:
    x, labels = honest()
    x = functional.avg_pool2d(x, 3, 1, 1)
    shares = [_share(_gate(fitted, confidence=0.0, top_k=k), x, labels) for k in (1, 2, 10)]
    assert shares[0] < shares[1] < shares[2] == 1.0


class Blurred:
    """Real digits of the class that is asked for, some of them blurred, by the seed."""

    def generate(self, condition: Any, seeds: Any) -> Tensor:
        x, labels = honest()
        blurred = torch.stack((x, functional.avg_pool2d(x, 3, 1, 1)))
        own = [torch.nonzero(labels == label)[:, 0] for label in condition["label"]]
        return torch.stack([blurred[seed % 2, rows[seed % len(rows)]] for rows, seed in zip(own, seeds, strict=True)])


def test_of_several_candidates_of_the_class_the_one_is_kept_that_it_is_least_sure_of(fitted: Path) -> None:
    entropies = {}
    for candidates in (1, 4):
        gate = _gate(fitted, confidence=0.0, candidates=candidates)
        assert gate.fitted is not None
        recipe = Recipe(QuotaPlanner([1.0] * 10), Blurred(), (gate,), training().spec, slot_size=40)
        shard = fill_slot(0, recipe)
        assert shard.n == 40
        labels = shard.fields["label"]
        assert ranking((gate,)) is (None if candidates == 1 else gate)
        unit = training().spec["image"].to_unit(shard.fields["image"])
        logits = gate.fitted.logits(unit)
        assert torch.equal(logits.argmax(1), labels), "of its class"
        entropies[candidates] = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
        rank = gate.rank({"image": unit}, {"label": labels})
        torch.testing.assert_close(rank, entropies[candidates], atol=1e-5, rtol=1e-4)
    assert entropies[4].mean() > 1.3 * entropies[1].mean()


def test_of_several_labels_the_entropies_add_up(fitted: Path) -> None:
    gate, (x, labels) = _gate(fitted), honest(n=8)
    assert gate.fitted is not None
    logits = gate.fitted.logits(x)
    p = logits.sigmoid()
    wanted = -(p * functional.logsigmoid(logits) + (1 - p) * functional.logsigmoid(-logits)).sum(1)
    several = functional.one_hot(labels, 10)
    torch.testing.assert_close(gate.rank({"image": x}, {"label": several}), wanted, atol=1e-4, rtol=1e-3)


def test_probability_and_margin_are_those_of_the_classifier(fitted: Path) -> None:
    gate, (x, labels) = _gate(fitted), honest(n=50)
    verdict = gate({"image": x}, {"label": labels})
    assert gate.fitted is not None
    probabilities = gate.fitted.logits(x).softmax(1)
    others = probabilities.scatter(1, labels[:, None], -1.0)
    best = others.amax(1)
    own = probabilities[torch.arange(50), labels]
    assert torch.allclose(verdict.scores["class_probability"], own)
    assert torch.allclose(verdict.scores["class_margin"], own - best, atol=1e-6)
    kept = judge({"image": x}, {"label": labels}, (gate,), 50)
    assert kept[0].scores.keys() == {"class_probability", "class_margin"}


def test_probabilities_are_about_as_often_right_as_they_say(fitted: Path) -> None:
    x, labels = honest(n=700)
    gate = _gate(fitted)
    assert gate.fitted is not None
    sure, found = gate.fitted.logits(x).softmax(1).max(1)
    assert abs(float(sure.mean()) - float((found == labels).float().mean())) < 0.05


def test_the_temperature_is_that_of_the_least_loss_and_never_below_one() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (4000,), generator=rng)
    logits = functional.one_hot(labels, 4) * 2.0 + torch.randn(4000, 4, generator=rng) * 1.4
    best = best_temperature(logits, labels)
    assert best_temperature(3.0 * logits, labels) == pytest.approx(3.0 * best, rel=0.1)
    assert best_temperature(100.0 * functional.one_hot(labels, 4), labels) == 1.0


def test_a_classifier_that_learned_its_samples_by_heart_is_made_less_sure(tmp_path: Path) -> None:
    images, labels = digits()
    labels = labels[:200].long().clone()
    labels[::3] = (labels[::3] + 1) % 10  # a third is wrong, so nobody can be sure
    data = Snapshot(SampleSpec((IMAGE, LABEL)), {"image": images[:200], "label": labels}, training().class_names)
    sure = []
    for hold_out in (0.0, 0.2):
        classifier, folder = (
            FittedClassifier({"steps": 150, "augment_p": 0.0, "hold_out": hold_out}),
            tmp_path / str(hold_out),
        )
        folder.mkdir()
        classifier.fit(data, folder, lambda step, total: None)
        classifier.load(folder)
        sure.append(float(classifier.logits(honest()[0]).softmax(1).amax(1).mean()))
    assert sure[1] < sure[0] - 0.1


def test_large_images_are_averaged_down_to_its_size() -> None:
    x = torch.rand(2, 3, 32, 16)
    network = Classifier((3, 32, 16), 4, width=8, size=16)
    assert network.seen(x).shape == (2, 3, 16, 8)
    assert network.seen(x)[0, 0].mean() == pytest.approx(float(x[0, 0].mean()), abs=1e-5)
    assert network.seen(x[:, :, :16, :16]).shape == (2, 3, 16, 16)
    assert network.eval()(x).shape == (2, 4)


def test_the_fit_is_the_same_again_and_follows_its_settings(tmp_path: Path) -> None:
    def weights(name: str, **settings: Any) -> bytes:
        (tmp_path / name).mkdir()
        FittedClassifier({"steps": 3, **settings}).fit(training(100), tmp_path / name, lambda step, total: None)
        return (tmp_path / name / "classifier.safetensors").read_bytes()

    first = weights("a")
    assert weights("b") == first
    changes: dict[str, Any] = {
        "steps": 4, "batch_size": 32, "lr": 0.02, "weight_decay": 0.5, "augment_p": 0.0, "seed": 1, "hold_out": 0.3,
    }  # fmt: skip
    others = [weights(f"{name}", **{name: value}) for name, value in changes.items()]
    assert len({first, *others}) == 1 + len(others)


def test_settings_name_another_fit_and_sampling_settings_none() -> None:
    def key(**settings: Any) -> Any:
        gate = RightClass(**settings)
        assert gate.fitted is not None
        return gate.fitted.fit_key()

    assert key(confidence=0.9, margin=0.2, top_k=3) == key() == key(fit={})
    assert key(fit={"width": 16}) != key()
    assert key(field="depth") != key()


def test_classes_are_drawn_alike_so_that_a_rare_one_is_known(tmp_path: Path) -> None:
    images, labels = digits()
    rows = torch.cat([(labels == 3).nonzero()[:150, 0], (labels == 7).nonzero()[:6, 0]])
    data = Snapshot(
        SampleSpec((IMAGE, LABEL)), {"image": images[rows], "label": (labels[rows] == 7).long()}, ("3", "7"), (3, 7)
    )
    classifier = FittedClassifier({"steps": 40})
    classifier.fit(data, tmp_path, lambda step, total: None)
    classifier.load(tmp_path)
    others = (labels == 7).nonzero()[20:, 0]
    assert float((classifier.logits(IMAGE.to_unit(images[others])).argmax(1) == 1).float().mean()) > 0.8


def test_a_few_samples_of_each_class_are_enough_for_a_fit(tmp_path: Path) -> None:
    FittedClassifier({"steps": 3}).fit(training(12), tmp_path, lambda step, total: None)
    FittedClassifier().load(tmp_path)


def _waves(*shape: int) -> Callable[[Tensor], Tensor]:
    """Class → samples of it, with a slow or a fast wave along the last axis."""

    def make(labels: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(len(labels))
        t = torch.linspace(0, 6.28, shape[-1])
        wave = torch.sin(t * (1.0 + 3.0 * labels[:, None]))
        noise = 0.3 * torch.randn((len(labels), *shape), generator=rng)
        return (0.7 * wave.reshape(len(labels), *[1] * (len(shape) - 1), -1) + noise).clamp(-1, 1)

    return make


@pytest.mark.parametrize("shape", [(12,), (2, 64), (1, 6, 6, 12), (3, 40, 40)])
def test_samples_of_other_shapes_have_a_classifier_too(shape: tuple[int, ...], tmp_path: Path) -> None:
    make, labels = _waves(*shape), torch.arange(120) % 2
    spec = SampleSpec((FieldSpec("x", "0", "tensor", "float32", shape, -1.0, 1.0), LABEL))
    gate = RightClass(fit={"steps": 25, "batch_size": 16, "width": 8, "size": 16})
    assert gate.fitted is not None
    data = Snapshot(spec, {"x": make(labels), "label": labels}, ("slow", "fast"), (0, 1))
    gate.fitted.fit(data, tmp_path, lambda step, total: None)
    gate.fitted.load(tmp_path)
    new = torch.arange(60) % 2
    assert float(gate({"x": make(new)}, {"label": new}).passed.float().mean()) > 0.9
    assert float(gate({"x": make(new)}, {"label": 1 - new}).passed.float().mean()) < 0.1


def _two_halves(tags: Tensor) -> Tensor:
    """Images whose upper, middle, lower part is bright where they have the tag."""
    rng = torch.Generator().manual_seed(len(tags))
    rows = tags.float().repeat_interleave(3, 1)[:, None, :, None].expand(-1, 1, 9, 9)
    return (rows * 1.2 - 0.6 + 0.3 * torch.randn((len(tags), 1, 9, 9), generator=rng)).clamp(-1, 1)


def test_with_several_labels_each_of_them_has_to_be_seen(tmp_path: Path) -> None:
    tags = torch.tensor([[i >> k & 1 for k in range(3)] for i in range(8)]).repeat(30, 1)
    spec = SampleSpec(
        (
            FieldSpec("image", "0", "tensor", "float32", (1, 9, 9), -1.0, 1.0),
            FieldSpec("tags", "1", "tensor", "int64", (3,), 0.0, 1.0),
        )
    )
    gate = RightClass(labels="tags", fit={"steps": 80, "augment_p": 0.0})
    assert gate.fitted is not None
    gate.fitted.fit(Snapshot(spec, {"image": _two_halves(tags), "tags": tags}), tmp_path, lambda step, total: None)
    gate.fitted.load(tmp_path)
    new = tags[:48]
    x = {"image": _two_halves(new)}
    right = gate(x, {"tags": new})
    assert right.passed.float().mean() > 0.9
    more = new.clone()
    more[:, 0] = 1  # asks for a tag that half of them do not show
    verdict = gate(x, {"tags": more})
    assert verdict.passed[new[:, 0] == 1].float().mean() > 0.9
    assert not verdict.passed[new[:, 0] == 0].any()
    # None asked for: what shows one is rejected, what shows none passes.
    none = gate(x, {"tags": torch.zeros_like(new)})
    assert torch.equal(none.passed, new.sum(1) == 0)
    # One that is shown and not asked for lowers the margin, not the probability.
    fewer = gate({"image": _two_halves(torch.tensor([[1, 1, 0]]))}, {"tags": torch.tensor([[1, 0, 0]])})
    assert fewer.scores["class_probability"] > 0.5
    assert fewer.scores["class_margin"] < 0.3


def _bright(quadrant: Tensor) -> Tensor:
    x = torch.full((len(quadrant), 1, 8, 8), -1.0)
    for i, q in enumerate(quadrant.tolist()):
        x[i, 0, q // 2 * 4 : q // 2 * 4 + 4, q % 2 * 4 : q % 2 * 4 + 4] = 1.0
    return x


def _own(**settings: Any) -> RightClass:
    return RightClass(**{"model": "gate_models.Quadrants", "args": {"scale": 4.0}, "labels": "label", **settings})


def test_a_model_of_ones_own_is_asked_and_nothing_is_fitted() -> None:
    gate, labels = _own(), torch.arange(4)
    assert gate.fitted is None
    assert gate({"image": _bright(labels)}, {"label": labels}).passed.all()
    assert not gate({"image": _bright(labels)}, {"label": (labels + 1) % 4}).passed.any()
    less = _own(args={"scale": 0.1})
    assert not less({"image": _bright(labels)}, {"label": labels}).passed.any()


def test_a_model_of_ones_own_gets_its_weights_and_the_form_of_images_it_knows(tmp_path: Path) -> None:
    save_file({"weight": -torch.ones(4)}, tmp_path / "w.safetensors")
    x, labels = {"image": _bright(torch.arange(4))}, torch.arange(4)
    turned = _own(weights=str(tmp_path / "w.safetensors"))
    assert not turned(x, {"label": labels}).passed.any()
    import gate_models

    form = {"size": 12, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.2, 0.1]}
    gate_models.SEEN.clear()
    _own(**form)(x, {"label": labels})
    (seen,) = gate_models.SEEN
    assert seen.shape == (4, 3, 12, 12)
    assert seen.amax((0, 2, 3)).tolist() == pytest.approx([1.0, 3.0, 7.0])
    assert seen.amin((0, 2, 3)).tolist() == pytest.approx([-1.0, -2.0, -3.0])


def test_other_weights_name_another_model(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"weight": torch.ones(4)}, file)
    first = _own(weights=str(file)).model_key()
    save_file({"weight": torch.ones(4) * 2}, file)
    os.utime(file, (0, 0))  # a file system's clock may be slower than this test
    assert _own(weights=str(file)).model_key() != first
    assert _own().model_key() != first


def test_a_gate_is_made_again_by_its_name(tmp_path: Path) -> None:
    for gate in (RightClass(confidence=0.7, fit={"steps": 9}), _own(confidence=0.2, size=[4, 4])):
        again = build(name_of(gate, "gates"), "gates")
        assert again.config() == gate.config()
    live = RightClass(model=nn.Flatten(1))  # an object that says what it is made of
    assert build(name_of(live)).config()["model"] == "torch.nn.modules.flatten.Flatten"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"confidence": 1.5}, r"gates\.class\.confidence"),
        ({"margin": -0.1}, r"gates\.class\.margin"),
        ({"top_k": 0}, r"gates\.class\.top_k"),
        ({"candidates": 0}, r"gates\.class\.candidates"),
        ({"weights": "w.safetensors"}, r"gates\.class\.model is not set"),
        ({"model": "gate_models.Quadrants", "fit": {}}, r"gates\.class\.fit"),
        ({"model": "gate_models.Quadrants", "weights": "w.pt"}, r"gates\.class\.weights.*safetensors"),
        ({"model": "gate_models.Quadrants", "mean": [0.5]}, r"gates\.class\.std"),
        ({"model": nn.Sequential(nn.Flatten())}, r"gates\.class\.args"),
        ({"fit": {"stepz": 1}}, r"gates\.class\.fit\.stepz.*steps"),
        ({"fit": {"steps": 0}}, r"gates\.class\.fit\.steps"),
        ({"fit": {"lr": "x"}}, r"gates\.class\.fit\.lr"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_key(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RightClass(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top_k": 99}, r"gates\.class\.top_k=99, and the data have 10 classes.*gates\.class=\{top_k: 1\}"),
        ({"model": "gate_models.Quadrants", "args": {"scall": 4}}, r"gates\.class\.model=.*TypeError.*scall"),
        ({"model": "gate_models.Quadrants"}, r"gates\.class\.model returned \(1, 4\) for 1 images of 10 classes"),
        ({"model": "gate_models.Quadrants", "mean": [0.5], "std": ["x"]}, r"gates\.class\.mean=.*std=\['x'\]"),
        ({"model": "gate_models.Quadrants", "size": -1}, r"gates\.class\.size=-1 is no"),
        ({"model": "torch.nn.Linear", "args": {"in_features": 3, "out_features": 10}},
         r"gates\.class\.model=torch\.nn\.Linear cannot be asked about samples of shape \(1, 8, 8\)"),
        ({"model": "gate_models.nothing"}, r"gates\.class\.model.*cannot be imported"),
        ({"model": "builtins.int"}, r"gates\.class\.model=builtins\.int made a int"),
        ({"model": "gate_models.Quadrants", "weights": "folder/none.safetensors"},
         r"gates\.class\.weights='folder/none\.safetensors': there is no file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_data_is_refused_before_anything_is_made(settings: dict[str, Any], words: str) -> None:
    data = training(20)
    with pytest.raises(ConfigurationError, match=words) as error:
        RightClass(**settings).check(data.spec, data.class_names)
    assert "hub" not in str(error.value)


def test_a_model_is_made_and_asked_at_the_door_and_changes_no_random_state() -> None:
    spec, state = training(20).spec, torch.get_rng_state()
    _own().check(spec, ("a", "b", "c", "d"))
    _own(size=4, mean=[0.5], std=[0.5]).check(spec, ("a", "b", "c", "d"))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_missing_is_said_with_its_key(tmp_path: Path) -> None:
    x = {"image": _bright(torch.arange(4))}
    with pytest.raises(ConfigurationError, match=r"gates\.class=\{labels: FIELD\}.*gates\.class=false"):
        _own()(x, {})
    with pytest.raises(ConfigurationError, match=r"gates\.class=false"):
        FittedClassifier().fit(unlabelled({"image": torch.rand(9, 1, 8, 8)}), tmp_path, lambda step, total: None)
    with pytest.raises(ConfigurationError, match=r"gates\.class=false"):
        RightClass().check(unlabelled({"image": torch.rand(9, 1, 8, 8)}).spec, ())
    with pytest.raises(ConfigurationError, match=r"gates\.class\.model.*cannot be imported"):
        _own(model="gate_models.Nothing").model_key()
    with pytest.raises(ConfigurationError, match=r"gates\.class\.weights"):
        _own(weights=str(tmp_path / "none.safetensors")).model_key()
    with pytest.raises(ConfigurationError, match=r"gates\.class\.model returned \(4, 4\).*of 6 classes"):
        _own()(x, {"label": torch.tensor([0, 1, 2, 5])})
    save_file({"other": torch.ones(4)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigurationError, match=r"gates\.class\.weights"):
        _own(weights=str(tmp_path / "w.safetensors"))(x, {"label": torch.arange(4)})
