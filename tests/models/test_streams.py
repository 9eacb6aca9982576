"""The learner of streams: it finds an offset that it was not told, and says how it does without a stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models import StreamsModel
from lightning_diffaug.models.streams import late

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval", "ignore:.*no `val_dataloader`"
)
RATE, FRAMES, SECONDS = 1600, 16, 2


def clips(n: int, seed: int, hiss: float = 0.0, events: bool = True) -> list[dict[str, Any]]:
    """A flash and a click at one time; class 1 is the brighter flash and the higher click."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        label, at = i % 2, int(torch.randint(8, 20, (), generator=rng))
        video, audio = torch.zeros(FRAMES * SECONDS, 1, 2, 2), hiss * torch.randn(1, RATE * SECONDS, generator=rng)
        time = torch.arange(300) / RATE
        if events:
            video[at : at + 3, :, : 1 + label] = 1.0
            audio[0, at * RATE // FRAMES :][:300] += 0.5 * torch.sin(2 * torch.pi * (100 + 400 * label) * time)
        found.append({"video": video, "audio": audio, "label": label})
    return found


def model(**settings: Any) -> StreamsModel:
    return StreamsModel((FRAMES * SECONDS, 1, 2, 2), RATE, FRAMES, **{"width": 16, "mels": 12, **settings})


def trained(learner: StreamsModel, epochs: int = 40, **given: Any) -> dict[str, float]:
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(learner, DataLoader(clips(64, 0, **given), batch_size=32, shuffle=True))
    return scored(learner, clips(64, 1, **given))


def scored(learner: StreamsModel, found: list[dict[str, Any]], batch_size: int = 32) -> dict[str, float]:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    (figures,) = trainer.test(learner, DataLoader(found, batch_size=batch_size), verbose=False)
    return dict(figures)


def test_the_offset_is_found_and_either_stream_tells_the_class() -> None:
    figures = trained(model(num_classes=2, lr=1e-2))
    assert figures["test/sync_error_trivial"] > 0.2
    assert figures["test/sync_error"] < figures["test/sync_error_trivial"] / 4
    assert figures["test/acc_trivial"] == 0.5
    assert figures["test/acc"] > 0.9
    assert min(figures["test/acc_without_audio"], figures["test/acc_without_video"]) > 0.8


def test_clips_without_events_tell_no_offset() -> None:
    """Neither to a learner of events, nor to one that has nothing else to look for."""
    learner = model(lr=1e-2)
    figures = trained(learner, hiss=0.01)
    assert figures["test/sync_error"] < figures["test/sync_error_trivial"] / 4
    for figures in (
        scored(learner, clips(64, 1, hiss=0.01, events=False)),
        trained(model(lr=1e-2), hiss=0.01, events=False),
    ):
        assert figures["test/sync_error"] > 0.95 * figures["test/sync_error_trivial"]


def test_the_test_does_not_depend_on_the_size_of_its_batches() -> None:
    learner = model(num_classes=2)
    found = [scored(learner, clips(24, 1), batch_size) for batch_size in (5, 24)]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_no_two_ranks_share_an_offset() -> None:
    learner, alone = model(), model()

    class Ranks:
        def __init__(self, world_size: int, rank: int) -> None:
            self.world_size, self.global_rank = world_size, rank

    found = []
    for rank in range(2):
        learner._seen, learner._trainer = 0, Ranks(2, rank)
        found.append(torch.cat([learner._fixed_offsets(3), learner._fixed_offsets(2)]))
    alone._trainer = Ranks(1, 0)
    assert torch.equal(torch.stack(found, 1).flatten(), alone._fixed_offsets(10))
    assert len(torch.cat(found).unique()) == 10


def test_clips_without_classes_have_an_offset_alone() -> None:
    figures = trained(model(), epochs=1)
    assert set(figures) == {"test/sync_error", "test/sync_error_trivial"}


def test_sounds_are_moved_each_by_its_own_time_to_the_sample() -> None:
    audio = torch.arange(100.0).repeat(3, 2, 1)
    moved = late(audio, torch.tensor([0.1, -0.2, 0.0]), sample_rate=100)
    for sound, given, by in zip(moved, audio, (10, -20, 0), strict=True):
        assert torch.equal(sound, given.roll(by, -1))


def test_lags_count_in_the_direction_in_which_sound_is_moved() -> None:
    learner = model()
    features: Tensor = torch.randn(2, 16, 32)
    torch.nn.init.dirac_(learner.changes["video"].weight)
    torch.nn.init.dirac_(learner.changes["audio"].weight)
    with torch.no_grad():
        for name in ("video", "audio"):
            learner.changes[name].bias.zero_()
        learner.sharpness.fill_(6.0)
        logits = learner.lag_logits(features, features.roll(3, -1))  # three frames late
        assert learner.offset_of(logits).tolist() == pytest.approx([3 / FRAMES] * 2, abs=0.02)


def test_an_offset_that_does_not_fit_the_clip_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.max_offset=1\.5"):
        model(max_offset=1.5)
