"""The fit as a LightningModule: in a user's own Trainer, judged on what is kept aside, and quiet inside of others."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from tiny_denoiser import TinyDenoiser, pictures
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import DenoiserFit
from lightning_diffaug.generators.fit import Fitted, fit_denoiser
from lightning_diffaug.generators.fit_data import ClassBalancedDraws, HeldOutBatches, kept_aside, labels_of
from lightning_diffaug.generators.fit_module import HELD_OUT_LOSS
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.snapshot import Snapshot

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def _images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def _network(classes: int = 0) -> TinyDenoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyDenoiser(16, classes)


def _fit(snapshot: Snapshot, progress: Any = lambda step, total: None, **settings: Any) -> Fitted:
    plain = {"steps": 30, "batch_size": 8, "lr": 0.01, "augment_p": 0.0, "ema": 0.9}
    settings = {**plain, **settings}
    network = _network(len(snapshot.class_names))
    return fit_denoiser(lambda: network, snapshot, ["image"], FitSettings(**settings), 0, torch.device("cpu"), progress)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_a_share_of_each_class_is_kept_aside_and_none_of_a_tiny_one(share: float) -> None:
    labels = torch.tensor([0] * 4 + [2] * 5 + [3] * 50)[torch.randperm(59, generator=torch.Generator().manual_seed(1))]
    fitted, aside = kept_aside(labels, 59, share, seed=0)
    assert torch.cat((fitted, aside)).sort().values.tolist() == list(range(59))
    expected = {0: 0, 1: 0, 2: max(1, round(5 * share)), 3: max(1, round(50 * share))}
    assert {c: int((labels[aside] == c).sum()) for c in range(4)} == expected
    assert kept_aside(labels, 59, share, seed=0)[1].tolist() == aside.tolist()
    assert kept_aside(labels, 59, share, seed=5)[1].tolist() != aside.tolist()
    assert len(kept_aside(None, 59, share, seed=0)[1]) == max(1, round(59 * share))


def test_keeping_aside_of_classes_that_are_all_tiny_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.hold_out=0"):
        _fit(pictures(_images(8), torch.arange(8) % 2), hold_out=0.2)


def test_draws_of_a_part_are_balanced_and_never_leave_it() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10)
    part = torch.cat((torch.arange(5, 50), torch.arange(52, 60)))
    rows = ClassBalancedDraws(labels, 60, 1.0, part)(4000, torch.Generator().manual_seed(0))
    assert set(rows.tolist()) == set(part.tolist())
    assert abs(float((labels[rows] == 1).float().mean()) - 0.5) < 0.04


def test_what_is_kept_aside_is_only_ever_judged() -> None:
    snapshot = pictures(_images(40), torch.arange(40) % 2)
    _, aside = kept_aside(snapshot.labels, 40, 0.25, seed=0)
    drawn: list[set[int]] = []
    labels = labels_of(snapshot)

    def conditions(rows: Tensor) -> Any:
        drawn.append(set(rows.tolist()))
        return labels(rows)

    settings = FitSettings(steps=60, batch_size=8, augment_p=0.0, hold_out=0.25, check_every=60)
    network = _network(2)
    fit_denoiser(
        lambda: network, snapshot, ["image"], settings, 0, torch.device("cpu"), lambda *_: None, conditions=conditions
    )
    fitted, judged = set().union(*drawn[:60]), set().union(*drawn[60:])
    assert fitted == set(range(40)) - set(aside.tolist())
    assert judged == set(aside.tolist())
    assert sum(map(len, drawn[60:])) >= 256, "few samples are judged under much noise each"


class _Checks(Callback):
    """Writes down every check."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics[HELD_OUT_LOSS]))


def _trainer(**settings: Any) -> Trainer:
    plain = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "num_sanity_val_steps": 0, "max_epochs": -1,
    }  # fmt: skip
    return Trainer(**{**plain, **settings})


def test_an_over_fitted_run_stops_early_and_keeps_the_weights_of_its_best_check() -> None:
    few, many = pictures(_images(6)), pictures(_images(64, seed=1))
    settings = FitSettings(
        steps=600, batch_size=32, lr=0.02, augment_p=0.0, ema=0.5, hold_out=0.1, patience=3, check_every=20
    )
    held_out = HeldOutBatches(many, ["image"], labels_of(many), torch.arange(64), 64)
    loader = DataLoader(TensorDataset(few.unit("image").repeat(200, 1, 1, 1)), 32, collate_fn=lambda rows: _stack(rows))
    fit, checks = DenoiserFit(_network(), settings), _Checks()
    trainer = _trainer(callbacks=[checks], max_steps=600, val_check_interval=20, check_val_every_n_epoch=None)
    trainer.fit(fit, loader, held_out)
    assert trainer.global_step < 600
    best = min(checks.losses)
    assert checks.losses.index(best) == len(checks.losses) - 4, "three checks without a lower loss"
    assert fit.losses[-1] < fit.losses[0], "it went on learning what it was fitted on"
    judged = DenoiserFit(fit.denoiser, settings)
    _trainer().validate(judged, held_out, verbose=False)
    assert judged.held_out_loss == pytest.approx(best, rel=1e-5), "the best weights are kept"
    assert max(checks.losses[-3:]) > best * 1.001


def _stack(rows: list[tuple[Tensor]]) -> Tensor:
    return torch.stack([row[0] for row in rows])


def test_patience_ends_fit_denoiser_early_and_without_it_the_fit_runs_to_its_end() -> None:
    snapshot = pictures(_images(20))
    settings = {"steps": 400, "lr": 0.02, "hold_out": 0.3, "check_every": 10, "ema": 0.5, "weight_decay": 0.0}
    stopped = _fit(snapshot, patience=2, **settings)
    assert len(stopped.losses) < 400
    assert len(stopped.losses) % 10 == 0
    short = {**settings, "steps": 60}
    assert len(_fit(snapshot, **short).losses) == 60


@pytest.mark.parametrize("check_every", [5, 12, 1000])
def test_the_last_step_is_judged_too(check_every: int) -> None:
    """A fit that only gets better is best at its end, wherever the checks before fall."""
    snapshot = pictures(_images(20))
    settings = {"steps": 29, "lr": 0.003, "hold_out": 0.3, "warmup_steps": 0, "ema": 0.0, "precision": "32-true"}
    steps: list[int] = []
    kept = _fit(snapshot, lambda step, total: steps.append(step), check_every=check_every, **settings)
    last = _fit(snapshot, check_every=29, **settings)
    for name, value in last.denoiser.state_dict().items():
        assert torch.equal(kept.denoiser.state_dict()[name], value), name
    once = steps.count(29) - 1
    assert once > 0, "the last check shows life"
    assert {steps.count(step) - 1 for step in set(steps)} == {0, once}, "none is checked twice"
    assert len(kept.losses) == 29


def test_a_users_own_trainer_and_loader_fit_a_network_as_fit_denoiser_does() -> None:
    """From the same batches come the same weights: the averages, clipped gradients and schedule are the module's."""
    images, labels = _images(32) * 2 - 1, torch.arange(32) % 4
    settings = FitSettings(steps=12, batch_size=8, lr=0.01, augment_p=0.5)
    mine = DenoiserFit(_network(4), settings)
    _trainer(max_steps=12).fit(mine, DataLoader(TensorDataset(images, labels), 8))
    by_name = DenoiserFit(_network(4), settings)
    batches = [(x, {"label": label}) for x, label in zip(images.split(8), labels.split(8), strict=True)]
    _trainer(max_steps=12).fit(by_name, DataLoader(batches, batch_size=None))
    assert len(mine.losses) == 12
    assert mine.losses == by_name.losses
    from lightning_diffaug.generators.fit_trainer import run

    quiet = DenoiserFit(_network(4), settings)
    run(quiet, DataLoader(batches * 3, batch_size=None), None, torch.device("cpu"), lambda *_: None, None)
    assert quiet.losses == mine.losses
    for name, value in quiet.denoiser.state_dict().items():
        assert torch.equal(value, mine.denoiser.state_dict()[name])
    assert not torch.equal(quiet.denoiser.inside.weight, _network(4).inside.weight)


def test_averaged_weights_and_the_early_stop_come_with_the_module() -> None:
    kinds = {type(callback).__name__ for callback in DenoiserFit(_network()).configure_callbacks()}
    assert kinds == {"AveragedWeights"}
    stop = DenoiserFit(_network(), FitSettings(hold_out=0.1, patience=4)).configure_callbacks()[1]
    assert isinstance(stop, EarlyStopping)
    assert (stop.monitor, stop.patience) == (HELD_OUT_LOSS, 4)


@pytest.mark.parametrize("clip", [1e-6, 1e6])
def test_gradients_are_clipped(clip: float) -> None:
    fit = DenoiserFit(_network(), FitSettings(grad_clip=clip))
    for parameter in fit.denoiser.parameters():
        parameter.grad = torch.ones_like(parameter)
    fit.configure_gradient_clipping(torch.optim.SGD(fit.denoiser.parameters()))
    norm = float(torch.cat([p.grad.flatten() for p in fit.denoiser.parameters() if p.grad is not None]).norm())
    assert norm == pytest.approx(clip, rel=0.01) if clip < 1 else norm > 1


def test_the_held_out_loss_is_the_same_each_time_and_draws_nothing() -> None:
    rng = torch.Generator().manual_seed(3)
    fit, before = DenoiserFit(_network(), rng=rng), rng.get_state()
    losses = []
    for _ in range(2):
        _trainer().validate(fit, DataLoader([_images(8), _images(8, 1)], batch_size=None), verbose=False)
        losses.append(fit.held_out_loss)
    assert losses[0] == losses[1]
    assert torch.equal(rng.get_state(), before)


def test_a_users_checkpoint_holds_the_draws_and_the_losses() -> None:
    fit, batch = DenoiserFit(_network(), FitSettings(augment_p=0.0)), _images(8)
    trainer = _trainer(max_steps=2)
    trainer.fit(fit, DataLoader([batch, batch, batch], batch_size=None))
    checkpoint: dict[str, Any] = {}
    fit.on_save_checkpoint(checkpoint)
    resumed = DenoiserFit(fit.denoiser, fit.settings)
    resumed.on_load_checkpoint(checkpoint)
    assert resumed.losses == fit.losses
    assert len(resumed.losses) == 2
    assert torch.equal(resumed.training_step(batch, 2), fit.training_step(batch, 2)), "the same noise comes next"


def test_a_fit_says_writes_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Inside of a refill process, or of another training: no folder, no word, no signal handler, no global setting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS", "4")  # a cluster's settings are the outer trainer's
    monkeypatch.setenv("SLURM_JOB_NAME", "job")
    level = logging.getLogger("lightning.pytorch").level
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    environment, seen = dict(os.environ), []

    def progress(step: int, total: int) -> None:
        seen.append([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)])

    _fit(pictures(_images(30)), progress, hold_out=0.2, check_every=10)
    assert all(during == handlers for during in seen)
    assert len(seen) >= 30
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == handlers
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning.pytorch").level == level
    assert dict(os.environ) == environment
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()


def test_an_interrupt_stays_one_and_other_errors_stay_themselves() -> None:
    handler = signal.getsignal(signal.SIGINT)
    for error in (KeyboardInterrupt, ZeroDivisionError, SystemExit):

        def progress(step: int, total: int, error: type[BaseException] = error) -> None:
            if step == 3:
                raise error

        with pytest.raises(error):
            _fit(pictures(_images(30)), progress)
        assert signal.getsignal(signal.SIGINT) is handler


def test_a_loss_that_is_not_finite_is_an_error_in_a_users_trainer_too() -> None:
    fit = DenoiserFit(_network(), FitSettings(steps=5, augment_p=0.0))
    with pytest.raises(GeneratorError, match=r"step 2 of 5.*generator\.fit\.lr"):
        _trainer(max_steps=5).fit(fit, DataLoader([_images(4), _images(4) * float("nan")], batch_size=None))
