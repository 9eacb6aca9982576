from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_diffaug.data import DigitsDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models import ImageClassifier
from lightning_diffaug.models.classifier import recalls, small_cnn

pytestmark = [
    # Lightning's own: it calls a deprecated function of torch, and advises more workers on larger machines.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def trainer(folder: Path, **settings: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**(defaults | settings))


def batches(count: int = 40, classes: int = 4, size: int = 8, batch_size: int = 8) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 1, size, size, generator=generator)
    y = torch.arange(count) % classes
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (1, 5), (3, 48)])
def test_network_serves_every_image_size(channels: int, size: int) -> None:
    assert small_cnn(channels, 7, width=4)(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_training_on_digits_reaches_93_percent_in_200_steps(tmp_path: Path) -> None:
    pl.seed_everything(0)
    data = DigitsDataModule(shots=80)
    model = ImageClassifier(data.num_classes, data.in_channels)
    run = trainer(tmp_path, max_steps=200, max_epochs=-1, limit_val_batches=0, num_sanity_val_steps=0)
    run.fit(model, data)
    figures = run.test(model, data, verbose=False)[0]
    assert figures["test/acc"] > 0.93
    assert figures["test/acc_balanced"] > 0.93
    assert figures["test/auroc"] > 0.99


def test_the_trivial_accuracy_is_that_of_the_most_frequent_class_of_training(tmp_path: Path) -> None:
    model = ImageClassifier(4, class_counts=[3, 9, 5, 9])
    figures = trainer(tmp_path).test(model, batches(38), verbose=False)[0]
    assert figures["test/acc_trivial"] == pytest.approx(10 / 38)
    assert trainer(tmp_path).validate(model, batches(39), verbose=False)[0]["val/acc_trivial"] == pytest.approx(10 / 39)


def test_figures_equal_scikit_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = ["ant", "bee", "cow", "doe"]
    model = ImageClassifier(4, rare_classes=[1, 3], class_names=names)
    loader = batches(37)
    figures = trainer(tmp_path).test(model, loader, verbose=False)[0]
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(x) for x, _ in loader])
    y = torch.cat([y for _, y in loader])
    predicted = logits.argmax(dim=1)
    recall = recall_score(y, predicted, average=None)
    expected = {
        "test/loss": F.cross_entropy(logits, y).item(),
        "test/acc": (predicted == y).float().mean().item(),
        "test/acc_balanced": balanced_accuracy_score(y, predicted),
        "test/acc_rare": (recall[1] + recall[3]) / 2,
        "test/acc_trivial": (y == 0).float().mean().item(),
        "test/auroc": roc_auc_score(y, logits.softmax(dim=1), multi_class="ovr", average="macro"),
    } | {f"test/acc_class_{name}": value for name, value in zip(names, recall, strict=True)}
    assert figures == pytest.approx(expected, abs=1e-5)


def test_acc_rare_is_absent_without_rare_classes(tmp_path: Path) -> None:
    figures = trainer(tmp_path).test(ImageClassifier(4), batches(), verbose=False)[0]
    assert "test/acc_rare" not in figures
    assert "test/acc_class_3" in figures


def test_a_class_without_a_sample_counts_in_no_mean() -> None:
    recall = recalls(torch.tensor([[3, 1, 0], [0, 0, 0], [2, 0, 2]]))
    assert recall[[0, 2]].tolist() == [0.75, 0.5]
    assert recall[1].isnan()
    assert recall.nanmean() == 0.625


@pytest.mark.filterwarnings("ignore:.*No positive samples in targets.*", "ignore:.*classes was `nan`.*")
def test_a_class_missing_from_the_test_set_has_no_figure(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ImageClassifier(5, rare_classes=[4])
    figures = trainer(tmp_path).test(model, batches(classes=4), verbose=False)[0]
    assert {"test/acc_class_4", "test/acc_rare"}.isdisjoint(figures)
    recall = [figures[f"test/acc_class_{i}"] for i in range(4)]
    assert figures["test/acc_balanced"] == pytest.approx(sum(recall) / 4)


def test_validation_figures_are_logged_anew_each_epoch(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=2, log_every_n_steps=1)
    model = ImageClassifier(4)
    run.fit(model, batches(), batches())
    assert {"train/loss", "val/loss", "val/acc", "val/acc_balanced"} <= set(run.callback_metrics)
    last = run.callback_metrics["val/acc"]
    assert run.validate(model, batches(), verbose=False)[0]["val/acc"] == pytest.approx(float(last))


def test_elements_behind_the_label_are_ignored(tmp_path: Path) -> None:
    x, y = next(iter(batches(count=32, batch_size=32)))
    wide, narrow = (DataLoader(TensorDataset(*tensors), batch_size=8) for tensors in ((x, y, y + 1), (x, y)))
    model = ImageClassifier(4)
    figures = [trainer(tmp_path).test(model, loader, verbose=False)[0] for loader in (wide, narrow)]
    assert figures[0] == figures[1]
    run = trainer(tmp_path, max_epochs=1, log_every_n_steps=1)
    run.fit(model, wide, wide)
    assert run.global_step == 4


def test_mixup_mixes_images_and_labels_and_only_when_asked() -> None:
    x, y = next(iter(batches()))
    plain, mixed = ImageClassifier(4), ImageClassifier(4, mixing="mixup", mixing_alpha=1.0)
    mixed.load_state_dict(plain.state_dict())
    plain.eval()
    mixed.eval()
    torch.manual_seed(0)
    losses = {float(mixed.training_loss(x, y).detach()) for _ in range(3)}
    assert len(losses) == 3
    assert len({float(plain.training_loss(x, y).detach()) for _ in range(3)}) == 1


def test_adjusted_loss_is_menons_equation_in_training_only() -> None:
    counts = [5, 80, 80, 5]
    x, y = next(iter(batches()))
    model = ImageClassifier(4, loss="logit_adjusted", logit_adjustment_tau=0.5, class_counts=counts).eval()
    prior = torch.tensor(counts) / sum(counts)
    expected = F.cross_entropy(model(x) + 0.5 * prior.log(), y)
    assert torch.allclose(model.training_loss(x, y), expected)
    assert torch.equal(model.predict_step((x, y), 0), model(x))


def test_adjusted_loss_with_equal_counts_is_cross_entropy() -> None:
    x, y = next(iter(batches()))
    plain = ImageClassifier(4).eval()
    adjusted = ImageClassifier(4, loss="logit_adjusted", class_counts=[9] * 4).eval()
    adjusted.load_state_dict(plain.state_dict())
    assert torch.allclose(plain.training_loss(x, y), adjusted.training_loss(x, y), atol=1e-5)


def test_learning_rate_rises_then_falls_to_zero_over_the_whole_run(tmp_path: Path) -> None:
    rates: list[float] = []

    class Record(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = ImageClassifier(4, lr=0.01)
    run = trainer(tmp_path, max_epochs=10, callbacks=[Record()], log_every_n_steps=1)
    run.fit(model, batches(), batches())
    assert len(rates) == 50
    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) == 5
    assert rates[-1] < 2e-4
    assert run.optimizers[0].param_groups[0]["lr"] == 0


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resumed_run_equals_uninterrupted_and_loads_plain_values_only(tmp_path: Path) -> None:
    def fit(checkpoint: Path | None = None) -> tuple[ImageClassifier, list[int]]:
        pl.seed_everything(1, verbose=False)
        # Tuples, as a caller may hand them over.
        model = ImageClassifier(4, class_counts=(10,) * 4, rare_classes=(1,), class_names=tuple("abcd"))
        trained: list[int] = []
        record = LambdaCallback(on_train_epoch_start=lambda run, _: trained.append(run.current_epoch))
        every = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        callbacks = [record, every]
        run = trainer(tmp_path, max_epochs=4, log_every_n_steps=1, enable_checkpointing=True, callbacks=callbacks)
        run.fit(model, batches(), batches(), ckpt_path=checkpoint, weights_only=True)
        return model, trained

    whole, _ = fit()
    resumed, trained = fit(tmp_path / "epoch=1.ckpt")
    assert trained == [2, 3]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_more_epochs_than_planned_do_not_break_the_schedule(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1, log_every_n_steps=1)
    run.fit(ImageClassifier(4), batches(), batches())
    run.save_checkpoint(tmp_path / "done.ckpt")
    longer = trainer(tmp_path, max_epochs=2, log_every_n_steps=1)
    longer.fit(ImageClassifier(4), batches(), batches(), ckpt_path=tmp_path / "done.ckpt", weights_only=True)
    assert longer.global_step == 10


def test_model_is_rebuilt_from_its_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1, log_every_n_steps=1)
    model = ImageClassifier(4, width=8, class_counts=[1, 2, 3, 4], loss="logit_adjusted")
    run.fit(model, batches(), batches())
    run.save_checkpoint(tmp_path / "model.ckpt")
    again = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    x, _ = next(iter(batches()))
    assert torch.equal(model.eval()(x), again.eval()(x))
    assert torch.equal(model.logit_adjustment, again.logit_adjustment)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"loss": "focal"}, r"model\.loss to one of cross_entropy, logit_adjusted"),
        ({"loss": "logit_adjusted"}, r"model\.class_counts"),
        ({"loss": "logit_adjusted", "class_counts": [1, 0, 1, 1]}, r"every class needs a count"),
        ({"class_counts": [1, 2]}, r"2 entries for model.num_classes=4"),
        ({"class_names": ["a"]}, r"model\.class_names"),
        ({"rare_classes": [4]}, r"rare_classes=\[4\] .* outside 0\.\.3"),
        ({"lr": 0.0}, r"model\.lr"),
        ({"mixing": "mixup", "mixing_alpha": -0.1}, r"model\.mixing_alpha"),
        ({"width": 0}, r"model\.width"),
        ({"num_classes": 1}, r"at least 2 classes"),
    ],
)
def test_a_wrong_setting_names_its_key(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        ImageClassifier(**({"num_classes": 4} | settings))


SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0], [0.2, 0.2, 0.6], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_soft_labels_weigh_the_loss_of_each_class(tau: float) -> None:
    settings: dict[str, Any] = {"loss": "logit_adjusted", "logit_adjustment_tau": tau, "class_counts": [8, 2, 90]}
    model = ImageClassifier(3, width=4, **settings)
    x = torch.rand(4, 1, 8, 8)
    log_p = (model(x) + model.logit_adjustment).log_softmax(1)
    assert model.training_loss(x, SOFT).item() == pytest.approx(-(SOFT * log_p).sum(1).mean().item(), rel=1e-5)
    hard = torch.tensor([1, 2, 2, 1])
    assert model.training_loss(x, F.one_hot(hard, 3).float()).item() == pytest.approx(
        model.training_loss(x, hard).item(), rel=1e-5
    )
