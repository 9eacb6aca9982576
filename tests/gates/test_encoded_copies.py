"""Copies are seen in features too; either pixels or features suffice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gate_data import honest, training, unlabelled
from tiny_clip import coloured, save_clip
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import NotCopy, RightClass
from lightning_diffaug.gates.encoders import VisionFeatures
from lightning_diffaug.gates.models import LocalModel
from lightning_diffaug.naming import build, name_of

STEPS = 120


def _rejected(gate: NotCopy, x: Tensor) -> float:
    return float((~gate({"image": x}, {})).float().mean())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("classifier")
    gate = NotCopy(encoder={"class": {"steps": STEPS}})
    assert gate.fitted is not None
    gate.fitted.fit(training(), folder, lambda step, total: None)
    return folder


def _gate(fitted: Path, **settings: Any) -> NotCopy:
    gate = NotCopy(encoder={"class": {"steps": STEPS}}, **settings)
    assert gate.fitted is not None
    gate.fitted.load(fitted)
    gate.bind(training())
    return gate


def test_what_the_classifier_sees_alone_shows_copies(fitted: Path) -> None:
    x = training().unit("image")[:300]
    noisy = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    pixels_off: dict[str, Any] = {"ratio": 1e-6, "shift": 0, "mirror": False}
    assert _rejected(_gate(fitted, **pixels_off, feature_ratio=0.5), noisy) > 0.9
    assert _rejected(_gate(fitted, **pixels_off, feature_ratio=0.5), honest()[0]) <= 0.02
    plain = NotCopy(**pixels_off)
    plain.bind(training())
    assert _rejected(plain, noisy) == 0.0


def test_honest_samples_are_hardly_ever_copies_in_features_either(fitted: Path) -> None:
    assert _rejected(_gate(fitted), honest()[0]) <= 0.03


def test_pixels_still_say_what_is_a_copy(fitted: Path) -> None:
    mirrored = training().unit("image")[:200].flip(-1)  # other digits, for a classifier
    assert _rejected(_gate(fitted), mirrored) > 0.99


def test_a_higher_feature_ratio_rejects_more(fitted: Path) -> None:
    x = honest()[0]
    shares = [_rejected(_gate(fitted, feature_ratio=ratio), x) for ratio in (0.1, 0.7, 0.95)]
    assert shares[0] < shares[1] < shares[2]


def test_its_classifier_is_that_of_the_gate_of_that_name() -> None:
    copy, right = NotCopy(encoder="class").fitted, RightClass().fitted
    assert copy is not None
    assert right is not None
    assert copy.fit_key() == right.fit_key()
    assert name_of(copy) == name_of(right)
    assert NotCopy().fitted is None
    assert name_of(NotCopy(encoder="class")) == name_of(NotCopy(encoder={"class": {}}))


def test_a_module_of_ones_own_may_be_the_encoder() -> None:
    rows = torch.rand(40, 1, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gate = NotCopy(encoder="gate_models.Sums", shift=0, mirror=False)
    gate.bind(unlabelled({"image": rows}))
    shuffled = rows[..., torch.randperm(9, generator=torch.Generator().manual_seed(1))]
    assert _rejected(gate, shuffled) > 0.99
    plain = NotCopy(shift=0, mirror=False)
    plain.bind(unlabelled({"image": rows}))
    assert _rejected(plain, shuffled) == 0.0
    again = build(name_of(gate), "gates")
    assert again.encoder == gate.encoder == {"model": "gate_models.Sums", "args": None}
    assert again.model_key() == gate.model_key() != plain.model_key()


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision model of transformers as `save_pretrained` writes it."""
    from transformers import CLIPImageProcessor, ViTConfig, ViTModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vision")
    ViTModel(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=16,
            patch_size=8,
        )
    ).save_pretrained(folder)
    square = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=square).save_pretrained(folder)
    return folder


def test_a_local_vision_model_may_be_the_encoder(vision: Path) -> None:
    gate = NotCopy(encoder=str(vision), ratio=0.01)  # features decide
    gate.bind(training(200))
    noisy = training().unit("image")[:100]
    noisy = noisy + 0.05 * torch.randn(noisy.shape, generator=torch.Generator().manual_seed(0))
    assert _rejected(gate, noisy) > 0.9
    assert _rejected(gate, honest(n=100)[0]) < 0.1
    changed = vision / "config.json"
    before = gate.model_key()
    changed.write_text(changed.read_text() + " ")
    assert NotCopy(encoder=str(vision)).model_key() != before


def test_of_a_model_of_images_and_texts_the_images_features_are_compared(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoProcessor

    folder, labels = save_clip(tmp_path), torch.arange(12) % 2
    x = coloured(labels)
    gate = NotCopy(encoder=str(folder), ratio=1e-6, shift=0, mirror=False)
    gate.bind(unlabelled({"image": x}))
    assert gate({"image": x + 0.001}, {}).tolist() == [False] * 12
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    levels = list(((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    given = processor(images=levels, text=["a"] * 12, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        wanted = model(**given).image_embeds
    assert torch.allclose(VisionFeatures(LocalModel(str(folder), "cpu", "key"))(x), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ({"classes": {}}, r"gates\.copy\.encoder=.*class"),
        ({"class": {"stepz": 1}}, r"gates\.class\.fit\.stepz"),
        ({"model": "a.B", "wights": "w"}, r"gates\.copy\.encoder="),
        ({"model": "a.B", "weights": "w.bin"}, r"gates\.copy\.encoder\.weights"),
    ],
)
def test_what_is_no_encoder_is_refused_with_its_key(encoder: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        NotCopy(encoder=encoder)


def test_an_encoder_that_cannot_be_had_is_said_with_its_key(tmp_path: Path) -> None:
    data = unlabelled({"image": torch.rand(9, 1, 8, 8)})
    with pytest.raises(ConfigurationError, match=r"gates\.copy\.encoder=.*no folder"):
        NotCopy(encoder=str(tmp_path / "none")).model_key()
    with pytest.raises(ConfigurationError, match=r"gates\.copy\.encoder=class.*no classes"):
        NotCopy(encoder="class").check(data.spec, ())
    with pytest.raises(ConfigurationError, match=r"gates\.copy\.encoder\.model=gate_models\.Sums cannot be made"):
        NotCopy(encoder={"model": "gate_models.Sums", "args": {"n": 1}}).check(data.spec, ())
    with pytest.raises(ConfigurationError, match=r"gates\.copy\.encoder=.*no folder"):
        NotCopy(encoder=str(tmp_path / "none")).check(data.spec, ())
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ConfigurationError, match=r"gates\.copy\.encoder=.*safetensors"):
        NotCopy(encoder=str(tmp_path)).bind(data)
    with pytest.raises(ConfigurationError, match=r"gates\.copy\.feature_ratio"):
        NotCopy(encoder="class", feature_ratio=2)
