"""Ways to run a mix: plain datasets, no Trainer, several fits, streams, and loader workers of every kind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler
from training_toys import Fitted, Images, Noise, RealModule, Recorder, jitter, same, trainer, unnamed

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError

SMALL: dict[str, Any] = {
    "synthetic_fraction": 0.5,
    "refill": "sync",
    "reuse": 1,
    "window": 16,
    "slot_size": 8,
    "return_source": True,
}


def _mixed(tmp_path: Path, real: Any = None, **settings: Any) -> DiffAugDataModule:
    generator = settings.pop("generator", unnamed())
    return DiffAugDataModule(
        RealModule() if real is None else real,
        generator,
        cache_dir=tmp_path / "cache",
        **{**SMALL, **settings},
    )


def _train(mixed: DiffAugDataModule, tmp_path: Path, epochs: int = 2, **options: Any) -> list[Any]:
    model = Recorder()
    trainer(tmp_path, epochs, **options).fit(model, mixed)
    return model.seen["train"]


# Loader workers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])  # a spawned one imports everything
def test_batches_do_not_depend_on_workers_or_how_they_start(context: str, workers: int, tmp_path: Path) -> None:
    alone = _train(_mixed(tmp_path, RealModule(Images(transform=jitter))), tmp_path)
    real = RealModule(Images(transform=jitter), num_workers=workers, multiprocessing_context=context)
    assert same(_train(_mixed(tmp_path, real), tmp_path), alone)


def _helps_python(process: psutil.Process) -> bool:
    return any(name in " ".join(process.cmdline()) for name in ("resource_tracker", "forkserver"))


def test_workers_persist_over_epochs_and_end_with_the_fit(tmp_path: Path) -> None:
    class Workers(Callback):
        seen: list[set[int]]

        def on_train_epoch_start(self, *_: Any) -> None:
            self.seen = [*getattr(self, "seen", []), set()]

        def on_train_batch_start(self, *_: Any) -> None:
            children = [child for child in psutil.Process().children() if not _helps_python(child)]
            self.seen[-1] |= {child.pid for child in children}

    workers = Workers()
    mixed = _mixed(tmp_path, RealModule(num_workers=2, persistent_workers=False))
    batches = _train(mixed, tmp_path, epochs=3, callbacks=[workers])
    assert len(batches) == 18
    assert workers.seen[0] == workers.seen[1] == workers.seen[2]
    assert len(workers.seen[0]) == 2
    assert not any(psutil.pid_exists(pid) for pid in workers.seen[0])


def test_workers_see_every_new_window(tmp_path: Path) -> None:
    """Only indices reach a worker, so what was started before a slot was made reads it all the same."""
    batches = _train(_mixed(tmp_path, RealModule(num_workers=2)), tmp_path, epochs=3)
    for epoch in range(3):
        slots = {k for batch in batches[epoch * 6 : epoch * 6 + 6] for k in batch[2]["slot"].tolist()} - {-1}
        first = epoch * 12 // 8
        assert slots == {first, first + 1}


def test_loader_options_of_the_wrapped_module_are_kept(tmp_path: Path) -> None:
    started: list[int] = []
    real = RealModule(num_workers=2, prefetch_factor=3, timeout=50, worker_init_fn=started.append)
    mixed = _mixed(tmp_path, real)
    inner = mixed.train_dataloader()._inner
    mixed.close()
    assert (inner.num_workers, inner.prefetch_factor, inner.timeout) == (2, 3, 50)
    assert inner.worker_init_fn == started.append


def test_a_failing_sample_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Images):
        def __getitem__(self, index: int) -> Any:
            if index == 17:
                raise KeyError("sample 17 is broken")
            return super().__getitem__(index)

    with pytest.raises(KeyError, match="sample 17 is broken"):
        _train(_mixed(tmp_path, RealModule(Broken(), num_workers=2)), tmp_path)
    assert not list((tmp_path / "cache" / "runs").glob("*"))


# Life cycle ------------------------------------------------------------------------------------------------------


def test_plain_datasets_are_wrapped(tmp_path: Path) -> None:
    mixed = _mixed(
        tmp_path, Images(), val=Images(8, offset=100), test=Images(8, offset=150), batch_size=6, num_workers=0
    )
    model, run = Recorder(), trainer(tmp_path)
    run.fit(model, mixed)
    run.test(model, mixed, verbose=False)
    assert [len(batch[1]) for batch in model.seen["train"]] == [6] * 4
    real = [i for batch in model.seen["train"] for i in batch[2]["real_index"].tolist() if i >= 0]
    assert real != sorted(real)  # shuffled
    assert sorted({int(v) for batch in model.seen["val"] for v in batch[0].unique()}) == list(range(100, 108))
    assert sorted({int(v) for batch in model.seen["test"] for v in batch[0].unique()}) == list(range(150, 158))


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="LightningDataModule, or a torch Dataset"):
        DiffAugDataModule([1, 2, 3], Noise())  # type: ignore[arg-type]


def test_iteration_without_a_trainer_equals_that_of_a_trainer(tmp_path: Path) -> None:
    expected = _train(_mixed(tmp_path, RealModule(Images(transform=jitter))), tmp_path, epochs=3)
    mixed = _mixed(tmp_path, RealModule(Images(transform=jitter)))
    mixed.prepare_data()
    mixed.setup("fit")
    loader = mixed.train_dataloader()
    assert len(loader) == 6
    batches = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        batches += list(loader)
    mixed.teardown("fit")
    assert same(batches, [list(batch) for batch in expected]) or same(batches, expected)


def test_iteration_without_set_epoch_moves_on(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path)
    loader = mixed.train_dataloader()
    first, second = list(loader), list(loader)
    loader.set_epoch(0)
    again = list(loader)
    mixed.close()
    assert not same(first, second)
    assert same(first, again)


def test_an_iterator_that_is_only_probed_counts_no_epoch(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path)
    loader = mixed.train_dataloader()
    for _ in range(3):
        iter(loader)
    assert same(list(loader), list(_reference(tmp_path)))
    mixed.close()


def _reference(tmp_path: Path) -> Iterator[Any]:
    mixed = _mixed(tmp_path)
    yield from mixed.train_dataloader()
    mixed.close()


def test_two_fits_with_one_datamodule_are_alike(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, RealModule(Images(transform=jitter), num_workers=2))
    first = _train(mixed, tmp_path)
    figures = {k: v for k, v in mixed.figures().items() if k.startswith("mix/")}
    second = _train(mixed, tmp_path)
    assert same(first, second)
    assert {k: v for k, v in mixed.figures().items() if k.startswith("mix/")} == figures


def test_a_fit_after_a_resumed_one_starts_anew(tmp_path: Path) -> None:
    """A checkpoint's state is for the fit that loads it."""
    mixed, run = _mixed(tmp_path), trainer(tmp_path, 2)
    run.fit(Recorder(), mixed)
    run.save_checkpoint(tmp_path / "two.ckpt")
    whole = _train(_mixed(tmp_path), tmp_path, epochs=3)
    model = Recorder()
    trainer(tmp_path, 3).fit(model, mixed, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert same(model.seen["train"], whole[12:])
    assert same(_train(mixed, tmp_path, epochs=1), whole[:6])
    figures = mixed.figures()
    assert sum(figures[f"mix/draws_class_{c}"] for c in range(3)) == 24


def test_a_fit_that_goes_on_goes_on(tmp_path: Path) -> None:
    whole = _train(_mixed(tmp_path), tmp_path)
    mixed, model, run = _mixed(tmp_path), Recorder(), trainer(tmp_path, 1)
    run.fit(model, mixed)
    run.fit_loop.max_epochs = 2
    run.fit(model, mixed)
    assert same(model.seen["train"], whole)


def test_one_trainer_logs_the_figures_of_the_module_that_it_fits(tmp_path: Path) -> None:
    run = trainer(tmp_path, 1)
    run.fit(Recorder(), _mixed(tmp_path, synthetic_fraction=0.25))
    assert float(run.callback_metrics["mix/achieved_fraction"]) == 0.25
    run.fit_loop.max_epochs = 2
    run.fit(Recorder(), _mixed(tmp_path, synthetic_fraction=0.5))
    assert float(run.callback_metrics["mix/achieved_fraction"]) == 0.5


def test_reloading_loaders_every_epoch_changes_nothing(tmp_path: Path) -> None:
    whole = _train(_mixed(tmp_path, RealModule(num_workers=2)), tmp_path, epochs=3)
    again = _train(_mixed(tmp_path, RealModule(num_workers=2)), tmp_path, epochs=3, reload_dataloaders_every_n_epochs=1)
    assert same(whole, again)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_cut_short_is_followed_by_a_whole_one(workers: int, tmp_path: Path) -> None:
    frozen = {"reuse": float("inf")}  # a cut epoch uses fewer samples, so its window would move less
    whole = _train(_mixed(tmp_path, **frozen), tmp_path, epochs=3)
    cut = _train(_mixed(tmp_path, RealModule(num_workers=workers), **frozen), tmp_path, epochs=3, limit_train_batches=2)
    assert same(cut, [batch for epoch in range(3) for batch in whole[epoch * 6 : epoch * 6 + 2]])


def test_fit_with_accumulated_gradients_and_validation_in_between(tmp_path: Path) -> None:
    whole = _train(_mixed(tmp_path), tmp_path)
    again = _train(_mixed(tmp_path), tmp_path, accumulate_grad_batches=4, val_check_interval=2)
    assert same(whole, again)


def test_a_look_at_the_loader_before_a_fit_changes_nothing(tmp_path: Path) -> None:
    untouched = _train(_mixed(tmp_path), tmp_path)
    mixed = _mixed(tmp_path)
    mixed.setup("fit")
    assert len(mixed.train_dataloader()) == 6
    next(iter(mixed.train_dataloader()))
    assert same(_train(mixed, tmp_path), untouched)
    figures = mixed.figures()
    assert sum(value for key, value in figures.items() if key.startswith("mix/draws_class_")) == 2 * 24


class Peeking(Callback):
    """Looks at the training loader in the middle of the loop."""

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        next(iter(trainer.train_dataloader))  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_look_beside_the_loop_changes_neither_batches_nor_figures(workers: int, tmp_path: Path) -> None:
    plain, peeked = (_mixed(tmp_path, RealModule(num_workers=workers)) for _ in range(2))
    untouched = _train(plain, tmp_path)
    assert same(_train(peeked, tmp_path, callbacks=[Peeking()]), untouched)
    counts, expected = ({k: v for k, v in m.figures().items() if "seconds" not in k} for m in (peeked, plain))
    assert counts == expected


def test_what_is_dropped_without_an_end_leaves_no_process(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, generator=Noise(), refill={"nice": 0})
    next(iter(mixed.train_dataloader()))
    assert mixed._run is not None
    del mixed
    gc.collect()
    assert not list((tmp_path / "cache" / "runs").glob("*"))


def test_the_wrapped_modules_attributes_are_still_there(tmp_path: Path) -> None:
    real = RealModule(batch_size=6)
    real.prepare_data_per_node = False
    mixed = _mixed(tmp_path, real)
    assert mixed.train is real.train
    assert mixed.prepare_data_per_node is False
    mixed.batch_size = 3
    assert real.batch_size == mixed.batch_size == 3
    with pytest.raises(AttributeError, match="no_such_thing"):
        mixed.no_such_thing  # noqa: B018


def test_trainer_settings_that_a_mix_cannot_follow_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError, match=r"trainer\.overfit_batches"):
        _train(_mixed(tmp_path), tmp_path, overfit_batches=2)
    _train(_mixed(tmp_path), tmp_path, reload_dataloaders_every_n_epochs=1)
    assert "reload_dataloaders_every_n_epochs" in caplog.text


def test_validation_alone_starts_nothing(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, generator=Noise(), refill={"nice": 0})
    model = Recorder()
    trainer(tmp_path).validate(model, mixed, verbose=False)
    assert len(model.seen["val"]) == 2
    assert not (tmp_path / "cache").exists()


def test_close_may_be_called_at_any_time(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path)
    mixed.close()
    mixed.teardown("fit")
    iterator = iter(mixed.train_dataloader())
    next(iterator)
    mixed.close()
    mixed.close()
    assert not list((tmp_path / "cache" / "runs").glob("*"))
    assert not (tmp_path / "cache" / "epoch_cache").exists() or not list((tmp_path / "cache" / "epoch_cache").iterdir())


# Loaders that cannot be mixed ---------------------------------------------------------------------------------------


class OwnBatches(torch.utils.data.Sampler[list[int]]):
    def __iter__(self) -> Iterator[list[int]]:
        yield [0, 1]

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_sampler": OwnBatches()}, "batch sampler of its own.*data.balance=classes"),
        ({"batch_size": None}, "batch_size=None"),
        ({"batch_size": 4, "sampler": WeightedRandomSampler([1.0] * 24, 24)}, "WeightedRandomSampler"),
    ],
    ids=["batch sampler", "batches", "weights"],
)
def test_a_loader_whose_order_would_be_overridden_is_refused(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    real = RealModule()
    real.train_dataloader = lambda: DataLoader(Images(), **options)  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match=f"(?s){words}"):
        _mixed(tmp_path, real).train_dataloader()


def test_an_order_without_shuffling_is_kept(tmp_path: Path) -> None:
    batches = _train(_mixed(tmp_path, RealModule(shuffle=False)), tmp_path, epochs=1)
    real = [i for batch in batches for i in batch[2]["real_index"].tolist() if i >= 0]
    assert real == list(range(12))


def test_a_subset_sampler_is_a_subset(tmp_path: Path) -> None:
    chosen = torch.utils.data.SubsetRandomSampler([3, 5, 8, 13])
    batches = _train(_mixed(tmp_path, RealModule(shuffle=None, sampler=chosen)), tmp_path, epochs=1)
    real = {int(batch[0][i].max()) for batch in batches for i in range(4) if not batch[2]["is_synthetic"][i]}
    assert real <= {3, 5, 8, 13}
    assert len(batches) == 1


def test_empty_training_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        _mixed(tmp_path, RealModule(Images(labels=[]), shuffle=False)).train_dataloader()


# Streams --------------------------------------------------------------------------------------------------------------


class Stream(IterableDataset[Any]):
    """Images 0 … n − 1 without labels, shared among loader workers."""

    def __init__(self, n: int = 24) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for i in range(first, self.n, step):
            yield torch.full((1, 4, 4), i, dtype=torch.uint8)


class SizedStream(Stream):
    def __len__(self) -> int:
        return self.n


class ManyStream(Stream):
    """Labelled samples; longer than an epoch."""

    def __iter__(self) -> Iterator[Any]:
        for picture in super().__iter__():
            yield picture, int(picture[0, 0, 0]) % 3


def _stream(stream: Dataset[Any], **loader: Any) -> RealModule:
    return RealModule(stream, shuffle=None, **loader)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("stream", "length"),
    [(SizedStream(), None), (Stream(), 24), (Stream(100), 24)],
    ids=["sized", "given", "long"],
)
def test_a_stream_is_mixed_batch_by_batch(stream: Any, length: Any, workers: int, tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, _stream(stream, num_workers=workers), epoch_length=length)
    batches = _train(mixed, tmp_path)
    assert len(batches) == 12
    for images, source in batches:
        assert images.shape == (4, 1, 4, 4)
        assert int(source["is_synthetic"].sum()) == 2
    real = [int(images[i].max()) for images, s in batches[:6] for i in range(4) if not s["is_synthetic"][i]]
    assert len(real) == len(set(real)) == 12
    if not workers:
        assert real == list(range(12))
    assert mixed.figures()["mix/achieved_fraction"] == 0.5


def test_a_stream_without_a_length_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.epoch_length"):
        _mixed(tmp_path, _stream(Stream())).train_dataloader()


def test_an_epoch_length_is_for_streams_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"epoch_length"):
        _mixed(tmp_path, epoch_length=7).train_dataloader()


def test_a_stream_that_ends_early_ends_the_epoch(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, _stream(Stream(9)), epoch_length=24)
    loader = mixed.train_dataloader()
    assert len(list(loader)) == 4  # two real samples a batch
    mixed.close()


def test_a_labelled_stream_needs_raw_data_to_know_its_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"raw="):
        _mixed(tmp_path, _stream(ManyStream(100)), epoch_length=24).train_dataloader()


def test_a_labelled_stream_with_raw_data(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, _stream(ManyStream(100)), epoch_length=24, raw=Images())
    batches = _train(mixed, tmp_path)
    assert len(batches) == 12
    for images, labels, source in batches:
        synthetic = source["is_synthetic"]
        assert (images[~synthetic, 0, 0, 0] % 3 == labels[~synthetic]).all()
        assert int(synthetic.sum()) == 2
    assert {int(label) for batch in batches for label in batch[1][batch[2]["is_synthetic"]]} == {0, 1, 2}


def test_a_resumed_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 8:
                trainer.save_checkpoint(tmp_path / "stream.ckpt")

    whole = _train(_mixed(tmp_path, _stream(SizedStream())), tmp_path, callbacks=[Save()])
    model = Recorder()
    trainer(tmp_path, 2).fit(model, _mixed(tmp_path, _stream(SizedStream())), ckpt_path=tmp_path / "stream.ckpt")
    assert same(model.seen["train"], whole[8:])


def test_a_stream_of_a_generator_that_must_be_fitted_needs_raw_data(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, _stream(SizedStream()), generator=Fitted())
    with pytest.raises(ConfigurationError, match=r"raw="):
        _train(mixed, tmp_path)
