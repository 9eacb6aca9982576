"""The demo's learner for video with sound: how far the streams are apart, and what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models.predictions import LOGITS, TARGET
from lightning_diffaug.models.schedule import warmed_up_adamw
from lightning_diffaug.spectrogram import LogMelSpectrogram
from lightning_diffaug.transforms import ModalityDropout

MODALITIES = ("video", "audio")
_GOLDEN = (5**0.5 - 1) / 2


class StreamsModel(LightningModule):
    """Finds the offset between the streams of a clip (as SyncNet does, Chung & Zisserman 2016), and its class.

    Both streams become features of each frame; their agreement at each lag gives the offset, their largest values
    over time the class. In training the sound of each clip is moved by a random time, which is to be found; in
    validation and test by a fixed one, other for each clip. It is moved cyclically: what goes out at one end comes in
    at the other. This tells the time by itself only where begin and end of a sound do not go on into one another: in
    clips that are followed by silence, or cut out of speech or music, a lower ``sync_error`` than is true is possible.
    Clips whose events lie within, over one background, tell nothing else.

    Batches are dicts: ``video`` float32 (n, frames, C, H, W) in [0, 1], ``audio`` float32 (n, C, samples), ``label``
    int64 (n,) where there are classes. Logs ``<part>/sync_error``, the mean absolute error of the offset in seconds,
    and ``test/sync_error_trivial``, that of the mean offset, 0; with classes also ``<part>/acc``, ``test/acc_trivial``
    (the most frequent class of the test) and ``test/acc_without_<modality>``.

    Args:
        video_shape: (frames, C, H, W) of a clip.
        sample_rate: Of the sound in Hz.
        frame_rate: Of the video in frames a second.
        num_classes: 0 where there are none.
        class_names: Of the classes.
        width: Features of a frame.
        mels: Bands of the sound.
        max_offset: Seconds by which the sound is moved at most, either way.
        modality_dropout: Probability that a modality is missing in training; see `ModalityDropout`.
        lr: Highest learning rate.
        weight_decay: AdamW's.

    Raises:
        ConfigurationError: A value is out of range.
    """

    def __init__(
        self,
        video_shape: Sequence[int],
        sample_rate: int,
        frame_rate: float,
        num_classes: int = 0,
        class_names: Sequence[str] = (),
        width: int = 48,
        mels: int = 32,
        max_offset: float = 0.5,
        modality_dropout: float = 0.3,
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        frames, *of_frame = (int(length) for length in video_shape)
        lags = round(max_offset * frame_rate)
        if not 0 < lags < frames / 2 or width < 1 or lr <= 0:
            raise ConfigurationError(
                f"model.max_offset={max_offset} is {lags} frames of clips of {frames} (needed: 1 to under half of "
                f"them), or model.width={width}, model.lr={lr} are not above 0. Set model.max_offset to e.g. 0.5."
            )
        self.num_classes, self.frame_rate, self.max_offset = num_classes, frame_rate, max_offset
        self.sample_rate, self.lr, self.weight_decay, self.lags = sample_rate, lr, weight_decay, lags
        self.dropout = ModalityDropout(dict.fromkeys(MODALITIES, modality_dropout))
        pixels = of_frame[0] * of_frame[1] * of_frame[2]
        hop = round(sample_rate / frame_rate) // 2
        self.spectrogram = LogMelSpectrogram(sample_rate, 2 * hop, hop, mels)
        self.of_video = nn.Sequential(
            nn.Conv1d(pixels, width, 1), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
        )  # fmt: skip
        self.of_audio = nn.Sequential(
            nn.Conv1d(mels, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, width, 4, stride=2, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
        )  # fmt: skip
        self.changes: Any = nn.ModuleDict({name: nn.Conv1d(width, width, 3, padding=1) for name in MODALITIES})
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        if num_classes:
            self.classes = nn.Sequential(
                nn.Linear(2 * width + 2, 2 * width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(2 * width, num_classes)
            )
            self.accuracies: Any = nn.ModuleDict(
                {name: MulticlassAccuracy(num_classes, average="micro") for name in ("both", *MODALITIES)}
            )
            self.counts = MulticlassConfusionMatrix(num_classes)
        self.errors: Any = nn.ModuleDict({name: MeanMetric() for name in ("model", "trivial")})
        self._seen = 0

    # -- the network

    def features(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features (n, width, frames) of video and sound."""
        video = self.of_video(batch["video"].flatten(2).transpose(1, 2))
        audio = self.of_audio(self.spectrogram(batch["audio"].mean(1)))
        frames = min(video.shape[-1], audio.shape[-1])
        return video[..., :frames], audio[..., :frames]

    def lag_logits(self, video: Tensor, audio: Tensor) -> Tensor:
        """How well the streams agree with the sound late by each of -lags … lags frames, (n, 2 · lags + 1)."""
        v = functional.normalize(self.changes["video"](video), dim=1)
        a = functional.normalize(self.changes["audio"](audio), dim=1)
        n, frames = v.shape[0], v.shape[-1]
        around = functional.pad(a, (self.lags, self.lags), mode="circular")  # as `late` moves it
        at_lag = [(v * around[..., lag : lag + frames]).sum((1, 2)) for lag in range(2 * self.lags + 1)]
        logits: Tensor = torch.stack(at_lag, 1).reshape(n, -1) * self.sharpness.exp() / frames**0.5
        return logits

    def class_logits(self, video: Tensor, audio: Tensor, present: Tensor) -> Tensor:
        """Logits (n, classes) of what is present, bool (n, 2) in the order of `MODALITIES`."""
        known = present.to(video.dtype)
        pooled = [video.amax(-1) * known[:, :1], audio.amax(-1) * known[:, 1:], known]
        logits: Tensor = self.classes(torch.cat(pooled, 1))
        return logits

    def offset_of(self, logits: Tensor) -> Tensor:
        """Seconds by which the sound is late, the mean over the lags' probabilities."""
        lags = torch.arange(-self.lags, self.lags + 1, device=logits.device)
        return (logits.softmax(1) * lags).sum(1) / self.frame_rate

    # -- steps

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of the offset, on clips that have both streams, and of the class."""
        n = len(batch["video"])
        offset = (2 * torch.rand(n, device=batch["video"].device) - 1) * self.max_offset
        moved = {**batch, "audio": late(batch["audio"], offset, self.sample_rate)}
        seen, present = self.dropout(moved)
        video, audio = self.features(seen)
        both = present.all(1)
        logits, target = self.lag_logits(video, audio)[both], self._target(offset)[both]
        loss = functional.cross_entropy(logits, target) if len(logits) else video.sum() * 0.0
        if self.num_classes:
            loss = loss + functional.cross_entropy(self.class_logits(video, audio, present), batch["label"])
        self.log("train/loss", loss, batch_size=n)
        return loss

    def _target(self, offset: Tensor) -> Tensor:
        """Probability of each lag: that between two lags is shared by them."""
        place = (offset * self.frame_rate).clamp(-self.lags, self.lags) + self.lags
        lags = torch.arange(2 * self.lags + 1, device=offset.device)
        return (1 - (place[:, None] - lags).abs()).clamp(min=0.0)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Collects ``val/*``; gives ``logits`` and ``target`` where there are classes."""
        return self._evaluate(batch)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Collects ``test/*``; gives ``logits`` and ``target`` where there are classes."""
        return self._evaluate(batch, alone=True)

    def _fixed_offsets(self, n: int) -> Tensor:
        """Seconds of the next clips, spread evenly by the golden ratio: the same for any batch size and any ranks."""
        place = (self._seen + torch.arange(n)) * self.trainer.world_size + self.global_rank
        self._seen += n
        return (2 * (place.double() * _GOLDEN % 1) - 1).float() * self.max_offset

    def on_validation_epoch_start(self) -> None:
        """Begins with the offset of the first clip."""
        self._seen = 0

    def on_test_epoch_start(self) -> None:
        """Begins with the offset of the first clip."""
        self._seen = 0

    def _evaluate(self, batch: Mapping[str, Tensor], alone: bool = False) -> dict[str, Tensor]:
        offset = self._fixed_offsets(len(batch["video"])).to(batch["video"].device)
        moved = {**batch, "audio": late(batch["audio"], offset, self.sample_rate)}
        seen, present = self.dropout(moved)
        video, audio = self.features(seen)
        found = self.offset_of(self.lag_logits(video, audio))
        self.errors["model"].update((found - offset).abs())
        self.errors["trivial"].update(offset.abs())
        if not self.num_classes:
            return {}
        logits = self.class_logits(video, audio, present)
        self.accuracies["both"].update(logits, batch["label"])
        if alone:
            self.counts.update(logits, batch["label"])
            for name in MODALITIES:
                seen, present = self.dropout(moved, missing=name)
                without = self.class_logits(*self.features(seen), present)
                self.accuracies[name].update(without, batch["label"])
        return {LOGITS: logits, TARGET: batch["label"]}

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/*``."""
        self._log("val/sync_error", self.errors["model"])
        self.errors["trivial"].reset()
        if self.num_classes:
            self._log("val/acc", self.accuracies["both"])

    def on_test_epoch_end(self) -> None:
        """Logs ``test/*``."""
        self._log("test/sync_error", self.errors["model"])
        self._log("test/sync_error_trivial", self.errors["trivial"])
        if self.num_classes:
            self._log("test/acc", self.accuracies["both"])
            for name in MODALITIES:
                self._log(f"test/acc_without_{name}", self.accuracies[name])
            counts = self.counts.compute().sum(1)
            self.counts.reset()
            self.log("test/acc_trivial", counts.max() / counts.sum(), sync_dist=True)

    def _log(self, name: str, metric: Any) -> None:
        self.log(name, metric.compute(), sync_dist=True)
        metric.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up and a cosine to 0."""
        return warmed_up_adamw(self, self.lr, self.weight_decay)


def late(audio: Tensor, seconds: Tensor, sample_rate: int) -> Tensor:
    """Sounds (n, C, samples), each moved cyclically by its own time, to the sample.

    Silence that comes in would be as long as the time that is to be found.
    """
    n, channels, samples = audio.shape
    by = (seconds * sample_rate).round().to(torch.int64)
    source = (torch.arange(samples, device=audio.device) - by[:, None]) % samples
    return audio.gather(2, source[:, None].expand(n, channels, samples))
