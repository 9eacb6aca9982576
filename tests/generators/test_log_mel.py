"""Sound that is denoised as a spectrogram: the codec, its vocoder, and samples through it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.generators.field_codecs import Codecs, LogMel
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

SAMPLES = 3200
AUDIO = FieldSpec("audio", "0", "tensor", "float32", (1, SAMPLES), -1.0, 1.0)
LABEL = FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0)
FIT: dict[str, Any] = {
    "steps": 200, "batch_size": 32, "lr": 5e-3, "warmup_steps": 5, "ema": 0.9, "augment_p": 0.0, "denoiser": "dit",
    "denoiser_args": {"patch": 4, "width": 32, "depth": 2},
}  # fmt: skip


def tones(n: int = 64) -> tuple[Tensor, Tensor]:
    """Low (500 Hz, 0) and high (2,000 Hz, 1) tones of random level, pitch and place, (n, 1, samples), and classes."""
    rng = torch.Generator().manual_seed(0)
    high = torch.arange(n) % 2
    frequency = (500 + 1500 * high) * (1 + 0.1 * torch.rand(n, generator=rng))
    phase = 2 * math.pi * torch.rand(n, 1, generator=rng)
    level = 0.1 + 0.8 * torch.rand(n, 1, generator=rng)
    place = 0.25 + 0.5 * torch.rand(n, 1, generator=rng)
    fading = torch.exp(-80 * (torch.linspace(0, 1, SAMPLES) - place).square())
    waves = level * fading * torch.sin(2 * math.pi * frequency[:, None] * torch.arange(SAMPLES) / 8000 + phase)
    return waves[:, None], high


def pitch(sounds: Tensor) -> Tensor:
    """Frequency of the loudest partial in Hz, (n,)."""
    return torch.fft.rfft(sounds.flatten(1)).abs().argmax(1) * 8000 / SAMPLES


def generator(**settings: Any) -> DiffusionGenerator:
    codec = {"_target_": "lightning_diffaug.generators.field_codecs.LogMel", "mels": 16, "iterations": 16}
    return DiffusionGenerator(fit=FIT, num_inference_steps=12, codecs={"audio": codec}, **settings)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Snapshot]:
    """A short real fit to the tones: its folder, and what it was fitted to."""
    waves, labels = tones()
    snapshot = Snapshot(SampleSpec((AUDIO, LABEL)), {"audio": waves, "label": labels}, ["low", "high"], [0, 1])
    folder = tmp_path_factory.mktemp("fit")
    fitting = generator()
    fitting.bind(snapshot.spec, snapshot.class_names)
    fitting.fit(snapshot, folder, lambda step, total: None)
    return folder, snapshot


def made(folder: Path, condition: dict[str, Tensor], **settings: Any) -> Tensor:
    sampling = generator(**settings)
    sampling.load(folder)
    sounds = sampling.generate(condition, list(range(len(condition["label"]))))
    return sounds["audio"] if isinstance(sounds, dict) else sounds


def test_channels_stay_channels_and_come_back() -> None:
    codec = LogMel()
    for shape, encoded_shape in (((SAMPLES,), (1, 32, 16)), ((1, SAMPLES), (1, 32, 16)), ((2, SAMPLES), (2, 32, 16))):
        field = FieldSpec("audio", "0", "tensor", "float32", shape, -1.0, 1.0)
        low, high = tones(2)[0].flatten(1)
        raw = (
            torch.stack([low, high])
            if len(shape) == 1
            else torch.stack([low, high]).expand(3, 2, SAMPLES)[:, : shape[0]]
        )
        encoded = codec.encode(raw, field)
        assert codec.shape(field) == encoded_shape
        assert encoded.shape == (len(raw), *encoded_shape)
        assert float(encoded.min()) >= -1.0
        assert float(encoded.max()) < 1.3
        decoded = codec.decode(encoded, field)
        assert decoded.shape == raw.shape
        assert torch.allclose(pitch(decoded.reshape(-1, 1, SAMPLES)), pitch(raw.reshape(-1, 1, SAMPLES)), rtol=0.03)


@pytest.mark.parametrize(
    "field",
    [
        FieldSpec("audio", "0", "tensor", "uint8", (1, SAMPLES), 0.0, 255.0),
        FieldSpec("audio", "0", "tensor", "float32", (3, 8, 8), 0.0, 1.0),
        FieldSpec("audio", "0", "tensor", "float32", (1, 100), -1.0, 1.0),
        FieldSpec("audio", "0", "str", "str", (), 0.0, 0.0),
    ],
)
def test_a_field_that_is_no_sound_is_refused(field: FieldSpec) -> None:
    with pytest.raises(ConfigurationError, match=r"'audio'.*is no sound.*generator\.codecs\.audio"):
        LogMel().shape(field)


@pytest.mark.parametrize("settings", [{"hop_length": 300}, {"iterations": -1}, {"momentum": 1.0}])
def test_arguments_out_of_range_name_the_key(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.codecs\.<field>"):
        LogMel(**settings)


def test_sounds_are_made_of_the_class_that_is_asked_for(fitted: tuple[Path, Snapshot]) -> None:
    wanted = torch.arange(16) % 2
    sounds = made(fitted[0], {"label": wanted})
    assert sounds.shape == (16, 1, SAMPLES)
    assert float(sounds.abs().max()) <= 1.0
    assert float(((pitch(sounds) > 1000).long() == wanted).float().mean()) >= 0.9


def test_a_sound_made_from_a_real_one_is_the_nearer_the_less_it_was_noised(fitted: tuple[Path, Snapshot]) -> None:
    folder, snapshot = fitted
    assert snapshot.labels is not None
    real, labels = snapshot.raw("audio")[:16], snapshot.labels[:16]
    codec = LogMel(mels=16)

    def distance(strength: float, partner: Tensor) -> float:
        sounds = made(folder, {"label": labels, "start": real}, strength=strength)
        return float((codec.encode(sounds, AUDIO) - codec.encode(partner, AUDIO)).flatten(1).norm(dim=1).mean())

    own = [distance(strength, real) for strength in (0.1, 0.4, 0.8)]
    assert own == sorted(own)
    assert own[0] < 0.75 * distance(0.1, real.roll(2, 0))  # another one of its class


def test_a_sound_is_made_of_an_embedding(tmp_path: Path) -> None:
    waves, high = tones()
    embedding = torch.stack([2.0 * high - 1.0, torch.zeros(len(high))], 1)
    field = FieldSpec("embedding", "1", "tensor", "float32", (2,), -1.0, 1.0)
    snapshot = Snapshot(SampleSpec((AUDIO, field)), {"audio": waves, "embedding": embedding})
    fitting = generator(conditions={"embedding": "vector"})
    fitting.bind(snapshot.spec, ())
    fitting.fit(snapshot, tmp_path, lambda step, total: None)
    fitting.load(tmp_path)
    sounds = fitting.generate({"embedding": embedding[:12]}, list(range(12)))
    audio = sounds["audio"] if isinstance(sounds, dict) else sounds
    assert ((pitch(audio) > 1000).long() == high[:12]).float().mean() >= 0.9


def test_a_classifier_hears_the_same_in_sounds_that_went_through_the_codec() -> None:
    pytest.importorskip("espeakng_loader")
    from sklearn.linear_model import LogisticRegression

    from lightning_diffaug.data import AudioDataModule

    data = AudioDataModule(voices=12)
    train, test = data.splits.train, data.splits.test.select(range(0, 1120, 7))
    field = FieldSpec("audio", "0", "tensor", "float32", (1, 6400), -1.0, 1.0)
    codec = LogMel()
    told = LogisticRegression(C=0.01, max_iter=100)
    told.fit(data.spectrogram(train.images).flatten(1).numpy(), train.targets)
    real = codec.encode(test.images, field)
    again = codec.encode(codec.decode(real, field), field)
    assert told.score(real.flatten(1).numpy(), test.targets) > 0.7
    agree = told.predict(real.flatten(1).numpy()) == told.predict(again.flatten(1).numpy())
    assert agree.mean() > 0.95


def _vocoder(folder: Path, seed: int = 0, **settings: Any) -> Path:
    import transformers

    config = transformers.SpeechT5HifiGanConfig(
        **{
            "model_in_dim": 16, "sampling_rate": 8000, "upsample_initial_channel": 16, "upsample_rates": [10, 20],
            "upsample_kernel_sizes": [20, 40], "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]],
            **settings,
        }
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.SpeechT5HifiGan(config).save_pretrained(folder)
    return folder


def test_a_vocoder_gets_the_spectrogram_that_its_feature_extractor_makes(tmp_path: Path) -> None:
    from transformers import SpeechT5FeatureExtractor, SpeechT5HifiGan

    codec = LogMel(n_fft=512, mels=16, min_frequency=80.0, max_frequency=3800.0, vocoder=str(_vocoder(tmp_path)))
    waves = tones(3)[0]
    spoken = codec.decode(codec.encode(waves, AUDIO), AUDIO)
    assert spoken.shape == waves.shape
    assert torch.equal(spoken, codec.decode(codec.encode(waves, AUDIO), AUDIO))
    extractor = SpeechT5FeatureExtractor(
        sampling_rate=8000, num_mel_bins=16, hop_length=25, win_length=64, fmin=80, fmax=3800, mel_floor=1e-10
    )  # milliseconds
    assert (extractor.sample_size, extractor.sample_stride) == (512, 200)
    vocoder = SpeechT5HifiGan.from_pretrained(tmp_path).eval()
    heard: list[Tensor] = []
    handle = codec._model.register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    codec.decode(codec.encode(waves, AUDIO), AUDIO)
    handle.remove()
    theirs = torch.from_numpy(extractor(audio_target=waves[0, 0].numpy(), sampling_rate=8000).input_values[0])
    loud = theirs[:16] > theirs.max() - 2  # softer bands are at the codec's floor
    assert int(loud.sum()) > 12
    assert torch.allclose(heard[0][0][loud], theirs[:16][loud], atol=1e-3)
    with torch.no_grad():
        assert torch.allclose(vocoder(heard[0])[0, :SAMPLES], spoken[0, 0], atol=1e-5)


def test_a_vocoder_of_other_spectrograms_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no folder with config\.json.*generator\.codecs\.<field>\.vocoder"):
        LogMel(vocoder=str(tmp_path))
    _vocoder(tmp_path)
    with pytest.raises(ConfigurationError, match=r"was trained for .*'mels': 16.*and the codec has .*'mels': 32"):
        LogMel(vocoder=str(tmp_path))


@pytest.mark.parametrize("codec", ["LogMel", "LogMelSequence"])
def test_the_same_vocoder_in_another_folder_names_the_same_fit(tmp_path: Path, codec: str) -> None:
    def key(folder: Path) -> Any:
        named = {"_target_": f"lightning_diffaug.generators.field_codecs.{codec}", "mels": 16}
        return Codecs({"audio": {**named, "vocoder": str(folder)}}).key()

    one, same = _vocoder(tmp_path / "one"), _vocoder(tmp_path / "same")
    assert key(one) == key(same)
    assert key(one) != key(_vocoder(tmp_path / "other", seed=1))


def test_other_weights_in_the_same_folder_are_another_codec(tmp_path: Path) -> None:
    folder = str(_vocoder(tmp_path / "vocoder"))
    first = LogMel(mels=16, vocoder=folder)
    digest = first.digest
    assert LogMel(mels=16).digest is None
    _vocoder(tmp_path / "vocoder", seed=1)
    assert LogMel(mels=16, vocoder=folder).digest != digest
    with pytest.raises(ConfigurationError, match="was changed since it was named"):
        LogMel(mels=16, vocoder=folder, digest=digest).digest  # noqa: B018
