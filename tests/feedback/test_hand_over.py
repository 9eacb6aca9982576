"""The learner is handed over as it is: weights, network and input; it practises on what it finds hard."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from feedback_toys import CLASSES, SHAPE, Learner, Patterns, Real, Rows, fitted, mixed, own_pool, plans_in, scaled
from torchvision.transforms import v2
from training_toys import unnamed

from lightning_diffaug.conditions.feedback import scores_of
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.feedback.conversion import Conversion, found_conversion
from lightning_diffaug.feedback.learner import network_name
from lightning_diffaug.feedback.reading import PlanReader
from lightning_diffaug.gates.hard import LEAST_BOUND
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.pool.plans import Plans
from lightning_diffaug.refill.recipe import row_seed
from lightning_diffaug.spec import FieldSpec

PRACTICE = {"hand_over": True, "strength": 0.0}


def _mixed(cache: Path, **settings: Any) -> Any:
    return mixed(cache, **{"generator": unnamed(Rows()), "feedback": PRACTICE, **settings})


def _unit(raw: torch.Tensor) -> torch.Tensor:
    return raw.float() * (2 / 255) - 1


def _raw() -> torch.Tensor:
    return torch.stack([Patterns()[i][0] for i in range(len(Patterns()))])


def test_the_learner_in_the_refill_sees_and_says_just_what_it_does_in_training(tmp_path: Path) -> None:
    learner = fitted(_mixed(tmp_path), tmp_path, 1)
    plan = plans_in(tmp_path).of_epoch(0)
    assert plan is not None
    feedback = PlanReader(own_pool(tmp_path), network_name(Learner()))(plan.from_slot)
    assert feedback is not None
    assert feedback.learner is not None
    network = feedback.learner()
    inputs = network.inputs({"image": _unit(_raw())})
    assert torch.equal(inputs, torch.stack([scaled(raw) for raw in _raw()])), "bit for bit"
    learner.eval()
    with torch.no_grad():
        assert torch.equal(network(inputs), learner(inputs))
    loss = scores_of(network(inputs), network.columns[torch.tensor(Patterns().targets)])["loss"]
    assert torch.allclose(loss, feedback.samples["loss"], atol=1e-6)
    assert not any(parameter.requires_grad for parameter in network.parameters())  # type: ignore[attr-defined]
    assert feedback.learner() is not network, "who moves it to a device moves his own"


@pytest.mark.parametrize("off", [0.3, -0.3])
def test_what_is_in_between_is_rounded_as_the_pool_does_and_has_a_gradient(off: float, tmp_path: Path) -> None:
    fitted(_mixed(tmp_path), tmp_path, 1)
    feedback = PlanReader(own_pool(tmp_path), network_name(Learner()))(999)
    assert feedback is not None
    assert feedback.learner is not None
    network = feedback.learner()
    unit = (_unit(_raw()[:2]) + off / 127.5).requires_grad_()
    inputs = network.inputs({"image": unit})
    assert torch.equal(inputs, torch.stack([scaled(raw) for raw in _raw()[:2]]))
    inputs.sum().backward()
    assert unit.grad is not None
    assert torch.allclose(unit.grad, torch.full_like(unit, 0.5 / 0.25))  # [-1, 1] → [0, 1] → / 0.25


def test_of_several_candidates_the_plausible_one_that_the_learner_finds_hardest_is_kept(tmp_path: Path) -> None:
    """By a refill process, and checked against candidates that are made here anew."""
    gates = [{"_target_": "lightning_diffaug.gates.hard.Hard", "candidates": 3, "criterion": "loss", "plausible": 0.9}]
    fitted(mixed(tmp_path, feedback=PRACTICE, gates=gates), tmp_path, 3)
    pool, plans = SyntheticPool.open(own_pool(tmp_path)), plans_in(tmp_path).all()
    before, after = pool.read(0), pool.read(plans[0].from_slot)
    assert all("scores" not in row for row in before.rows), "as long as nothing was said, nothing is ranked"
    assert before.made["generated"] == 16
    assert after.made["generated"] >= 3 * 16
    feedback = PlanReader(pool.folder, network_name(Learner()))(plans[0].from_slot)
    assert feedback is not None
    assert feedback.learner is not None
    network = feedback.learner()
    bound = max(LEAST_BOUND, float(feedback.samples["loss"].quantile(0.9)))
    chosen = 0
    for row in after.rows:
        if row["attempt"] >= 3:
            continue
        seeds = [row_seed(0, plans[0].from_slot, row["row"], c) for c in range(3)]
        label = torch.tensor([row["label"]] * 3)
        images = Rows().generate({"label": label}, seeds)
        loss = scores_of(network(network.inputs({"image": images})), network.columns[label])["loss"]
        wanted = torch.where(loss <= bound, loss, -1.0)
        assert row["attempt"] == int(wanted.argmax())
        assert row["scores"]["learner_loss"] == pytest.approx(float(wanted.max()), rel=1e-4)
        chosen += 1
    assert chosen > 8


@pytest.mark.parametrize("named", [True, False])
def test_a_file_with_weights_never_says_what_is_imported(
    named: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted(_mixed(tmp_path), tmp_path, 1)
    plans, called = plans_in(tmp_path), list[Any]()
    tensors, meta = plans.scorer(plans.all()[0])
    assert set(meta) == {"field"}
    monkeypatch.setattr(torch, "load", lambda *given, **more: called.append((given, more)))
    foreign = Plans(tmp_path / "foreign")
    network = {"_target_": "torch.load", "f": "somewhere.pt", "inner": {"_target_": "torch.load", "f": "x"}}
    digest = foreign.put_scorer(tensors, {**meta, "network": json.dumps(network)})
    foreign.write(0, 0, plans.all()[0].content, {}, digest)
    feedback = PlanReader(tmp_path / "foreign", network_name(Learner()) if named else None)(0)
    assert feedback is not None
    assert not called
    if named:
        assert feedback.learner is not None
        assert type(feedback.learner().network) is Learner  # type: ignore[attr-defined]
    else:
        assert feedback.learner is None
        assert any("made without the learner" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_weights_that_cannot_be_read_are_said_and_slots_are_made_without(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Harm(Learner):
        def on_train_epoch_start(self) -> None:
            for path in own_pool(tmp_path).glob("scorers/*.safetensors"):
                path.unlink() if harm == "gone" else path.write_bytes(b"no weights")

    learner = Harm()
    with pytest.raises(ConfigurationError, match="cannot be named"):  # a local class
        fitted(_mixed(tmp_path / "named", gates={"hard": True}), tmp_path, 1, learner)
    learner = Learner()
    learner.on_train_epoch_start = Harm.on_train_epoch_start.__get__(learner)  # type: ignore[method-assign]
    fitted(_mixed(tmp_path, gates={"hard": True, "copy": False, "duplicate": False}), tmp_path, 3, learner)
    assert len(learner.seen["train"]) == 18
    assert any("made without the learner" in record.getMessage() for record in caplog.records)
    pool = SyntheticPool.open(own_pool(tmp_path))
    last = pool.read(pool.slots()[-1])
    assert last.n == 16
    assert all("scores" not in row for row in last.rows)


class Given(Learner):
    """Is given a network as an object."""

    def __init__(self, network: Any = None) -> None:
        super().__init__()
        self._hparams = {"network": torch.nn.Linear(2, 2)}  # type: ignore[assignment]


class Otherwise(Learner):
    """Its forward depends on what is in no state."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.arange(CLASSES) * self.bias


class Resized(Real):
    """Its conversion is none of single values."""

    eval_transform = staticmethod(lambda image: scaled(image).roll(1, -1))


def _biased() -> Learner:
    learner = Otherwise()
    learner.bias = 1.0
    return learner


@pytest.mark.parametrize(
    ("learner", "real", "text"),
    [
        (Given, Real, "cannot be named"),
        (_biased, Real, "gives other logits"),
        (Learner, Resized, "depends on more than each of its values"),
    ],
    ids=["hyperparameters", "state", "conversion"],
)
def test_what_cannot_be_handed_over_is_refused_before_training(
    learner: Any, real: Any, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(ConfigurationError, match=text) as error:
        fitted(_mixed(tmp_path, real=real()), tmp_path, 1, learner())
    assert "feedback.hand_over=false" in str(error.value)
    made = learner()
    fitted(_mixed(tmp_path, real=real(), feedback={}), tmp_path, 1, made)
    assert len(made.seen["train"]) == 6, "without it the same can be asked"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        (FieldSpec("image", "0", "tensor", "uint8", (3, 4, 4), 0, 255, "chw"), v2.ToDtype(torch.float32, scale=True)),
        (
            FieldSpec("image", "0", "tensor", "uint8", (3, 4, 4), 0, 255, "chw"),
            v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])]),
        ),
        (FieldSpec("image", "0", "tensor", "uint8", SHAPE, 0, 255, "chw"), lambda x: (x.float() / 255).repeat(3, 1, 1)),
        (FieldSpec("image", "0", "tensor", "uint8", SHAPE, 0, 255, "chw"), lambda x: (x.float() / 255) ** 0.5),
        (FieldSpec("image", "0", "tensor", "float32", (2, 5), -3.0, 7.0), lambda x: x * 2 - 1),
        (FieldSpec("image", "0", "tensor", "float32", (5,), 0.0, 1.0), lambda x: x),
    ],
    ids=["scale", "normalise", "grey to RGB", "gamma", "float", "vector"],
)
def test_conversions_of_single_values_are_found(field: FieldSpec, change: Any) -> None:
    unit = torch.rand(8, *field.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    raw = field.from_unit(unit)

    def inputs(values: torch.Tensor) -> torch.Tensor:
        return torch.stack([change(value) for value in values])

    found = found_conversion(field, inputs, raw[:4], inputs(raw[:4]))
    assert isinstance(found, Conversion)
    if field.dtype == "uint8":
        assert torch.equal(found.of_unit(unit), inputs(raw))
    else:
        assert torch.allclose(found.of_unit(unit), inputs(raw), atol=1e-5)
