"""P5: interrupted and resumed equals uninterrupted, sample for sample, also in the middle of an epoch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from training_toys import Images, Noise, RealModule, Recorder, jitter, prefilled, same, trainer, unnamed

import lightning_diffaug.start
from lightning_diffaug import DiffAugDataModule

EPOCHS, BATCHES = 3, 6


class InterruptionError(Exception):
    """What ends the first run."""


class StopAfter(Callback):
    """Saves a checkpoint after so many steps and interrupts."""

    def __init__(self, steps: int, path: Path) -> None:
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            raise InterruptionError


def _mixed(cache: Path, workers: int = 0, **settings: Any) -> DiffAugDataModule:
    """Windows of two slots of 8, which move at every epoch; a random transform on everything."""
    real = RealModule(Images(transform=jitter), num_workers=workers)
    defaults: dict[str, Any] = {
        "generator": unnamed(),
        "synthetic_fraction": 0.4,
        "refill": "sync",
        "reuse": 1,
        "window": 16,
        "slot_size": 8,
        "return_source": True,
        "cache_dir": cache,
    }
    return DiffAugDataModule(real, **{**defaults, **settings})


def _fit(mixed: DiffAugDataModule, root: Path, one_cycle: bool = False, **options: Any) -> Recorder:
    model = Recorder(one_cycle)
    ckpt = options.pop("ckpt_path", None)
    trainer(root, EPOCHS, **options).fit(model, mixed, ckpt_path=ckpt, weights_only=True)
    return model


def _interrupted(mixed: DiffAugDataModule, steps: int, root: Path, **options: Any) -> tuple[list[Any], Path]:
    checkpoint = root / "interrupted.ckpt"
    model = Recorder(options.pop("one_cycle", False))
    with pytest.raises(InterruptionError):
        trainer(root, EPOCHS, callbacks=[StopAfter(steps, checkpoint)], **options).fit(model, mixed)
    return model.seen["train"], checkpoint


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    root = tmp_path_factory.mktemp("uninterrupted")
    batches = _fit(_mixed(root / "cache"), root).seen["train"]
    assert len(batches) == EPOCHS * BATCHES
    windows = [
        {k for batch in batches[e * BATCHES : (e + 1) * BATCHES] for k in batch[2]["slot"].tolist()} - {-1}
        for e in range(EPOCHS)
    ]
    assert windows[0] != windows[1] != windows[2]  # a resume that began at another window would show
    return batches


@pytest.mark.parametrize(
    ("steps", "workers", "one_cycle"),
    [
        *((steps, workers, False) for steps in (2, 6, 10, 17) for workers in (0, 2)),
        (6, 0, True),  # Lightning asks a loader for its length, and counts epochs, in advance
        (10, 2, True),
    ],
)
def test_resume_mid_epoch_equals_uninterrupted(
    steps: int, workers: int, one_cycle: bool, uninterrupted: list[Any], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    before, checkpoint = _interrupted(_mixed(cache, workers), steps, tmp_path, one_cycle=one_cycle)
    assert same(before, uninterrupted[:steps])
    after = _fit(_mixed(cache, workers), tmp_path, one_cycle, ckpt_path=checkpoint)
    assert same(after.seen["train"], uninterrupted[steps:])


class SaveAt(Callback):
    """Saves a checkpoint, named by the steps done, whenever the hook of this name is called."""

    def __init__(self, hook: str, root: Path) -> None:
        self._root = root
        setattr(self, hook, self._save)

    def _save(self, trainer: Any, *_: Any) -> None:
        trainer.save_checkpoint(self._root / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize(
    ("hook", "steps"),
    [("on_train_epoch_end", (6, 12)), ("on_validation_end", (2, 8, 10)), ("on_train_end", (18,))],
)
def test_resume_from_a_checkpoint_of_any_hook_equals_uninterrupted(
    hook: str, steps: tuple[int, ...], uninterrupted: list[Any], tmp_path: Path
) -> None:
    options = {"val_check_interval": 2} if hook == "on_validation_end" else {}
    _fit(_mixed(tmp_path / "cache"), tmp_path, callbacks=[SaveAt(hook, tmp_path)], **options)
    for step in steps:
        again = _fit(_mixed(tmp_path / "cache"), tmp_path, ckpt_path=tmp_path / f"{step}.ckpt", **options)
        assert same(again.seen["train"], uninterrupted[step:])


def test_resume_twice_equals_uninterrupted(uninterrupted: list[Any], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, checkpoint = _interrupted(_mixed(cache), 8, tmp_path)
    second = Recorder()
    with pytest.raises(InterruptionError):
        trainer(tmp_path, EPOCHS, callbacks=[StopAfter(10, tmp_path / "second.ckpt")]).fit(
            second, _mixed(cache), ckpt_path=checkpoint
        )
    third = _fit(_mixed(cache), tmp_path, ckpt_path=tmp_path / "second.ckpt")
    assert same(first + second.seen["train"] + third.seen["train"], uninterrupted)


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_batch_end", "on_train_epoch_end"])
def test_resumed_figures_count_the_whole_run(hook: str, tmp_path: Path) -> None:
    whole = _mixed(tmp_path / "cache")
    _fit(whole, tmp_path, callbacks=[SaveAt(hook, tmp_path)])
    names = [name for name in whole.figures() if name.startswith("mix/")]
    for steps in (6, 10, 12) if hook != "on_train_epoch_end" else (6, 12):
        resumed = _mixed(tmp_path / "cache")
        _fit(resumed, tmp_path, ckpt_path=tmp_path / f"{steps}.ckpt")
        figures = {name: resumed.figures()[name] for name in names}
        assert figures == pytest.approx({name: whole.figures()[name] for name in names}), steps


def test_checkpoint_holds_plain_values_only(tmp_path: Path) -> None:
    _, checkpoint = _interrupted(_mixed(tmp_path / "cache"), 8, tmp_path)
    state = torch.load(checkpoint, weights_only=True)["DiffAugDataModule"]

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(key) is str and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (bool, int, float, str)

    assert plain(state["mix"]), state["mix"]
    assert state["mix"]["epoch"] == 1


def test_resume_reaches_its_position_without_reading_what_is_before(tmp_path: Path) -> None:
    """O(1) in the position: the samples of the batches that were trained on are not fetched again."""
    _, checkpoint = _interrupted(_mixed(tmp_path / "cache"), 11, tmp_path)
    fetched: list[int] = []

    class Watched(Images):
        def __getitem__(self, index: int) -> Any:
            if training:
                fetched.append(index)
            return super().__getitem__(index)

    class Begin(Callback):
        def on_train_start(self, *_: Any) -> None:
            nonlocal training
            training = True

    training = False
    mixed = _mixed(tmp_path / "cache")
    mixed.real.train = Watched(transform=jitter)  # type: ignore[union-attr]
    model = Recorder()
    trainer(tmp_path, 2, callbacks=[Begin()]).fit(model, mixed, ckpt_path=checkpoint)
    assert len(model.seen["train"]) == 1
    assert len(fetched) == int((~model.seen["train"][0][2]["is_synthetic"]).sum())


def test_resume_with_a_pool_that_nobody_refills(
    uninterrupted: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled(range(8)))
    settings: dict[str, Any] = {"generator": Noise(), "refill": "none"}
    before, checkpoint = _interrupted(_mixed(tmp_path / "cache", **settings), 10, tmp_path)
    after = _fit(_mixed(tmp_path / "cache", **settings), tmp_path, ckpt_path=checkpoint)
    assert same(before + after.seen["train"], uninterrupted)


def test_resume_with_a_pool_that_lost_slots_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """refill=none cannot make the window's slots again: the epoch is counted as short."""
    settings: dict[str, Any] = {"generator": Noise(), "refill": "none"}
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled(range(8)))
    _, checkpoint = _interrupted(_mixed(tmp_path / "cache", **settings), 10, tmp_path)
    (folder,) = (tmp_path / "cache" / "pools").iterdir()
    for path in (folder / "slots").iterdir():
        path.unlink()
    monkeypatch.undo()
    resumed = _mixed(tmp_path / "cache", **settings)
    model = _fit(resumed, tmp_path, ckpt_path=checkpoint)
    assert len(model.seen["train"]) == 8
    figures = resumed.figures()
    assert figures["mix/short_epochs"] == 2  # the interrupted one and the one after it
    # .4 of the ten batches before the interruption, nothing after it
    assert figures["mix/achieved_fraction"] == pytest.approx(16 / 72)
    assert "when_short" in caplog.text


@pytest.mark.parametrize("when_short", ["reuse", "real"])
def test_rest_of_a_short_epoch_is_equal_after_a_resume(
    when_short: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an epoch froze stays frozen, though the pool is whole when the run resumes."""
    settings: dict[str, Any] = {"generator": Noise(), "refill": "none", "when_short": when_short}
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1]))
    whole = _fit(_mixed(tmp_path / "one", **settings), tmp_path).seen["train"]
    _, checkpoint = _interrupted(_mixed(tmp_path / "two", **settings), 8, tmp_path)  # epoch 1 was short
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled(range(8)))
    resumed = _mixed(tmp_path / "two", **settings)
    after = _fit(resumed, tmp_path, ckpt_path=checkpoint).seen["train"]
    assert same(after[:4], whole[8:12])
    assert resumed.figures()["mix/short_epochs"] == 1


def test_resume_with_the_refill_process_makes_deleted_slots_again(uninterrupted: list[Any], tmp_path: Path) -> None:
    """The window's slots are gone when the run resumes: they are made again, and the batches are the same."""
    cache = tmp_path / "cache"
    local = {"mode": "local", "nice": 0}
    settings: dict[str, Any] = {"generator": Noise(), "refill": local, "when_short": "wait"}
    before, checkpoint = _interrupted(_mixed(cache, **settings), 10, tmp_path)
    (folder,) = (cache / "pools").iterdir()
    made = {path: path.read_bytes() for path in (folder / "slots").iterdir()}
    assert made
    for path in made:
        path.unlink()
    resumed = _mixed(cache, **settings)
    after = _fit(resumed, tmp_path, ckpt_path=checkpoint)
    assert same(before + after.seen["train"], uninterrupted)
    assert resumed.figures()["mix/short_epochs"] == 0


def test_a_finished_run_that_is_resumed_keeps_its_figures(tmp_path: Path) -> None:
    whole, run = _mixed(tmp_path / "cache"), trainer(tmp_path, EPOCHS)
    run.fit(Recorder(), whole)
    run.save_checkpoint(tmp_path / "end.ckpt")
    resumed, again = _mixed(tmp_path / "cache"), trainer(tmp_path, EPOCHS)
    model = Recorder()
    again.fit(model, resumed, ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    assert model.seen["train"] == []
    figures = {key: value for key, value in whole.figures().items() if key.startswith("mix/")}
    assert figures["mix/achieved_fraction"] > 0
    assert {key: resumed.figures()[key] for key in figures} == figures
    again.save_checkpoint(tmp_path / "again.ckpt")
    states = [
        torch.load(tmp_path / name, weights_only=True)["DiffAugDataModule"] for name in ("end.ckpt", "again.ckpt")
    ]
    assert states[0] == states[1], "and hands them on"


def test_the_first_epoch_after_a_resume_waits_for_its_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the checkpoint of an epoch's last batch, whose window is there; the next one's slots are late."""
    settings: dict[str, Any] = {"generator": Noise(), "refill": "none"}
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled(range(2)))
    _, checkpoint = _interrupted(_mixed(tmp_path / "cache", **settings), BATCHES, tmp_path)
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled((), range(8), 0.5))
    resumed = _mixed(tmp_path / "cache", **settings)
    _fit(resumed, tmp_path, ckpt_path=checkpoint)
    assert resumed.figures()["mix/short_epochs"] == 0


@pytest.mark.parametrize("steps", [8, 12], ids=["in the middle of an epoch", "at its end"])
def test_a_run_that_is_behind_its_demand_resumes_as_it_would_have_gone_on(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator made two slots and no more: the last epoch reads them again, with or without a resume."""
    settings: dict[str, Any] = {"generator": Noise(), "refill": "none", "wait_timeout": 60.0}
    needed: list[tuple[int, int]] = []

    class Slow(prefilled([0, 1])):  # type: ignore[misc]
        def __init__(self, job: Any, generator: Any) -> None:
            super().__init__(job, generator)
            self.gave_up = ""  # there is hope, so that what is waited for takes its time

        def need(self, first: int, stop: int) -> None:
            needed.append((first, stop))

    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", Slow)
    whole = _fit(_mixed(tmp_path / "one", **settings), tmp_path).seen["train"]
    wanted = needed[-1]
    before, checkpoint = _interrupted(_mixed(tmp_path / "two", **settings), steps, tmp_path)
    began = time.monotonic()
    after = _fit(_mixed(tmp_path / "two", **settings), tmp_path, ckpt_path=checkpoint).seen["train"]
    assert time.monotonic() - began < 50, "it did not wait for a window that cannot come"
    assert same(before + after, whole)
    assert needed[-1] == wanted


def test_a_checkpoint_that_does_not_say_whether_its_run_was_behind_resumes(
    uninterrupted: list[Any], tmp_path: Path
) -> None:
    before, checkpoint = _interrupted(_mixed(tmp_path / "cache"), 8, tmp_path)
    written = torch.load(checkpoint, weights_only=True)
    del written["DiffAugDataModule"]["mix"]["behind"]
    torch.save(written, checkpoint)
    after = _fit(_mixed(tmp_path / "cache"), tmp_path, ckpt_path=checkpoint)
    assert same(before + after.seen["train"], uninterrupted)
