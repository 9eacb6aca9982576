"""P2: validation, test and prediction are the wrapped module's own; nothing that is trained on has seen them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from training_toys import Fitted, Images, Noise, RealModule, Recorder, same, trainer, unnamed

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.snapshot import Snapshot


def _mixed(tmp_path: Path, real: Any = None, **settings: Any) -> DiffAugDataModule:
    defaults: dict[str, Any] = {
        "generator": unnamed(),
        "synthetic_fraction": 1,
        "refill": "sync",
        "window": 16,
        "slot_size": 8,
        "cache_dir": tmp_path / "cache",
    }
    return DiffAugDataModule(RealModule() if real is None else real, **{**defaults, **settings})


def test_validation_test_and_prediction_are_the_wrapped_modules_own(tmp_path: Path) -> None:
    seen = []
    for datamodule in (RealModule(), _mixed(tmp_path)):
        seed_everything(0, verbose=False)
        model, run = Recorder(), trainer(tmp_path, num_sanity_val_steps=2)
        run.fit(model, datamodule)
        run.validate(model, datamodule, verbose=False)
        run.test(model, datamodule, verbose=False)
        run.predict(model, datamodule)
        seen.append(model.seen)
    for stage in ("val", "test", "predict"):
        assert seen[0][stage]
        assert same(seen[0][stage], seen[1][stage])


def test_loaders_are_handed_on_as_they_are() -> None:
    class Own(RealModule):
        def val_dataloader(self) -> Any:
            return ["val"]

        def test_dataloader(self) -> Any:
            return {"a": ["test"]}

        def predict_dataloader(self) -> Any:
            return [["one"], ["two"]]

    mixed = DiffAugDataModule(Own(), Noise())
    assert mixed.val_dataloader() == ["val"]
    assert mixed.test_dataloader() == {"a": ["test"]}
    assert mixed.predict_dataloader() == [["one"], ["two"]]


class Sealed(RealModule):
    """Whose evaluation data must not be looked at."""

    def val_dataloader(self) -> Any:
        raise AssertionError("validation data were read")

    test_dataloader = predict_dataloader = val_dataloader


def test_training_and_the_fit_of_a_generator_see_the_training_data_alone(tmp_path: Path) -> None:
    """What crosses to the refill process is the training set, raw, and nothing else; no other loader is asked for."""
    real = Sealed(Images(24, transform=lambda image: image.float() + 0.5))
    mixed = _mixed(
        tmp_path,
        real,
        generator=Fitted(),
        refill={"mode": "sync", "nice": 0},
        allocation="deficit",
        balance="classes",
    )
    trainer(tmp_path, limit_val_batches=0).fit(Recorder(), mixed)
    assert mixed.figures()["mix/achieved_fraction"] == 1
    (record,) = (tmp_path / "cache" / "generators").rglob("seen.json")
    seen = json.loads(record.read_text())
    assert seen["images"] == list(range(24))  # image i has the value i: validation begins at 100
    assert seen["labels"] == Images(24).targets
    (file,) = (tmp_path / "cache" / "snapshots").glob("*.safetensors")
    snapshot = Snapshot.load(file)
    assert snapshot.raw("image").unique().tolist() == list(range(24))
    assert snapshot.raw("image").dtype == torch.uint8


class Hooked(RealModule):
    """Writes down which of its hooks are called, and keeps state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[str] = []
        self.counter = 0

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        self.calls.append(f"setup {TrainerFn(stage).value}")

    def teardown(self, stage: str) -> None:
        self.calls.append(f"teardown {TrainerFn(stage).value}")

    def on_exception(self, exception: BaseException) -> None:
        self.calls.append(f"on_exception {type(exception).__name__}")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.calls.append("before_transfer")
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        self.calls.append("transfer")
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert self.trainer is not None
        images, labels = batch
        return images.float() / 255 if self.trainer.training else images, labels

    def state_dict(self) -> dict[str, Any]:
        return {"counter": self.counter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counter = state_dict["counter"]


@pytest.mark.parametrize("fraction", [0, 0.5])
def test_hooks_trainer_and_state_are_the_wrapped_modules(fraction: float, tmp_path: Path) -> None:
    real = Hooked()
    mixed = _mixed(tmp_path, real, synthetic_fraction=fraction)
    model = Recorder()
    run = trainer(tmp_path)
    real.counter = 7
    run.fit(model, mixed)
    assert real.trainer is run
    assert real.calls[:2] == ["prepare_data", "setup fit"]
    assert real.calls[-1] == "teardown fit"
    assert real.calls.count("before_transfer") == real.calls.count("transfer") == 6 + 2  # train and validation
    assert all(batch[0].is_floating_point() for batch in model.seen["train"])
    assert all(batch[0].dtype == torch.uint8 for batch in model.seen["val"])

    run.save_checkpoint(tmp_path / "state.ckpt")
    again = Hooked()
    trainer(tmp_path, 2).fit(
        Recorder(),
        _mixed(tmp_path, again, synthetic_fraction=fraction),
        ckpt_path=tmp_path / "state.ckpt",
        weights_only=True,
    )
    assert again.counter == 7


def test_an_exception_reaches_the_wrapped_module(tmp_path: Path) -> None:
    class Failing(Recorder):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise RuntimeError("of the user")

    real = Hooked()
    with pytest.raises(RuntimeError, match="of the user"):
        trainer(tmp_path).fit(Failing(), _mixed(tmp_path, real))
    assert real.calls[-1] == "on_exception RuntimeError"
    assert not list((tmp_path / "cache" / "runs").iterdir())


def test_hooks_that_the_wrapped_module_lacks_stay_lacking(tmp_path: Path) -> None:
    """Lightning asks whether a loader is overridden: a module without validation has none when it is wrapped."""

    class TrainOnly(Sealed):
        pass

    bare = TrainOnly()
    for name in ("val_dataloader", "test_dataloader", "predict_dataloader"):
        setattr(bare, name, getattr(super(RealModule, bare), name))
    model = Recorder()
    with pytest.warns(UserWarning, match="no `val_dataloader`"):
        trainer(tmp_path).fit(model, _mixed(tmp_path, bare))
    assert len(model.seen["train"]) == 6


@pytest.mark.parametrize(
    "loaders",
    [lambda one: [one, one], lambda one: {"a": one, "b": one}, lambda one: iter(one)],
    ids=["list", "dict", "iterator"],
)
def test_several_training_loaders_are_refused_with_the_remedy(loaders: Callable[[Any], Any], tmp_path: Path) -> None:
    real = RealModule()
    one = real.train_dataloader()
    real.train_dataloader = lambda: loaders(one)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="one torch DataLoader"):
        trainer(tmp_path).fit(Recorder(), _mixed(tmp_path, real))
