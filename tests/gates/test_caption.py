"""A sample passes that shows what its caption says, as a local image-text model or the user's scorer sees it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gate_data import IMAGE, LABEL, unlabelled
from tiny_clip import COLOURS, coloured, save_clip
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import CaptionAgreement
from lightning_diffaug.gates.choice import chosen_gates
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

LABELS = torch.arange(20) % 2


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return str(save_clip(tmp_path_factory.mktemp("clip")))


def _data(names: tuple[str, ...] = COLOURS) -> Snapshot:
    field = FieldSpec("image", "0", "tensor", "uint8", (3, 16, 16), 0.0, 255.0, "chw")
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    return Snapshot(SampleSpec((field, LABEL)), {"image": images, "label": torch.arange(2)}, names, (0, 1))


def _gate(model: Any, names: tuple[str, ...] = COLOURS, **settings: Any) -> CaptionAgreement:
    gate = CaptionAgreement(model, **settings)
    gate.bind(_data(names))
    return gate


def _captions(labels: Tensor, form: str = "a photo of a {}") -> list[str]:
    return [form.format(COLOURS[c]) for c in labels.tolist()]


def _asked(gate: CaptionAgreement, shown: Tensor, captions: list[str] | None, labels: Tensor | None = LABELS) -> Any:
    condition: dict[str, Any] = {} if captions is None else {"prompt": captions}
    if labels is not None:
        condition["label"] = labels
    return gate({"image": coloured(shown, seed=99)}, condition)


def test_images_agree_with_their_own_caption_better_than_with_that_of_another_class(clip: str) -> None:
    gate = _gate(clip)
    right = _asked(gate, LABELS, _captions(LABELS))
    wrong = _asked(gate, 1 - LABELS, _captions(LABELS))
    assert right.passed.all()
    assert not wrong.passed.any()
    assert torch.allclose(right.scores["caption_contrast"], -_asked(gate, LABELS, _captions(1 - LABELS), 1 - LABELS)
                          .scores["caption_contrast"], atol=1e-5)  # fmt: skip


def test_the_similarity_is_the_cosine_of_the_models_features(clip: str) -> None:
    from transformers import AutoModel, AutoProcessor

    x, captions = coloured(LABELS[:4], seed=99), _captions(LABELS[:4])
    model, processor = AutoModel.from_pretrained(clip).eval(), AutoProcessor.from_pretrained(clip)
    levels = list(((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    given = processor(text=captions, images=levels, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        said = model(**given)
    wanted = (said.image_embeds * said.text_embeds).sum(1)
    found = _gate(clip)({"image": x}, {"prompt": captions, "label": LABELS[:4]}).scores["caption_similarity"]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_threshold_is_asked_of_the_similarity_itself(clip: str) -> None:
    scores = _asked(_gate(clip), LABELS, _captions(LABELS)).scores["caption_similarity"]
    middle = float(scores.median())
    verdict = _asked(_gate(clip, threshold=middle, contrast=None), LABELS, _captions(LABELS))
    assert torch.equal(verdict.passed, scores >= middle)
    assert verdict.scores.keys() == {"caption_similarity"}
    assert not _asked(_gate(clip, threshold=1.0), LABELS, _captions(LABELS)).passed.any()


def test_more_contrast_lets_less_pass(clip: str) -> None:
    above = _asked(_gate(clip), LABELS, _captions(LABELS)).scores["caption_contrast"]
    middle = float(above.median())
    assert torch.equal(_asked(_gate(clip, contrast=middle), LABELS, _captions(LABELS)).passed, above > middle)


def test_without_captions_the_class_is_the_caption(clip: str) -> None:
    told = _asked(_gate(clip), LABELS, _captions(LABELS))
    assert torch.equal(
        _asked(_gate(clip), LABELS, None).scores["caption_similarity"], told.scores["caption_similarity"]
    )
    other = _asked(_gate(clip, template="the number {label}"), LABELS, None)
    said = _asked(_gate(clip), LABELS, _captions(LABELS, "the number {}"))
    assert torch.equal(other.scores["caption_similarity"], said.scores["caption_similarity"])


def test_a_caption_without_the_classs_name_is_compared_with_the_template(clip: str) -> None:
    gate = CaptionAgreement(clip, names={"x": COLOURS[0], "y": COLOURS[1]})
    gate.bind(_data(("x", "y")))
    assert _asked(gate, LABELS, _captions(LABELS)).passed.all()  # `names` says how captions name the class
    plain = _asked(gate, LABELS, ["a photo of a thing"] * 20)
    other = _asked(gate, LABELS, _captions(1 - LABELS)).scores["caption_similarity"]
    wanted = plain.scores["caption_similarity"] - other
    assert torch.allclose(plain.scores["caption_contrast"], wanted, atol=1e-5)


def test_data_without_classes_have_a_threshold_alone(clip: str) -> None:
    gate = CaptionAgreement(clip, threshold=0.3, contrast=None)
    right = gate({"image": coloured(LABELS)}, {"prompt": _captions(LABELS)})
    wrong = gate({"image": coloured(LABELS)}, {"prompt": _captions(1 - LABELS)})
    assert right.passed.all()
    assert not wrong.passed.any()
    assert torch.isfinite(right.scores["caption_similarity"]).all()


@pytest.mark.parametrize(
    "settings", [{"model": "gate_models.reds"}, {"model": "gate_models.Named", "args": {"word": COLOURS[0]}}]
)
def test_a_scorer_of_ones_own_is_asked(settings: dict[str, Any]) -> None:
    names = ("red", "blue") if settings["model"].endswith("reds") else COLOURS
    gate = _gate(settings["model"], names, args=settings.get("args"))
    captions = [f"a {names[c]} thing" for c in LABELS.tolist()]
    right = _asked(gate, LABELS, captions)
    assert right.passed.all()
    assert not _asked(gate, 1 - LABELS, captions).passed.any()
    again = build(name_of(gate, "gates"), "gates")
    assert again.config() == gate.config()
    assert again.model_key() == gate.model_key()


def test_the_models_files_name_it(clip: str) -> None:
    gate = _gate(clip)
    assert build(name_of(gate, "gates"), "gates").config() == gate.config()
    first = gate.model_key()
    file = Path(clip) / "config.json"
    file.write_text(file.read_text() + " ")
    assert _gate(clip).model_key() != first


def test_weights_that_could_run_code_are_not_read(clip: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(clip, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"gates\.caption\.model.*safetensors"):
        _asked(_gate(str(folder)), LABELS, None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, r"gates\.caption\.model is not set"),
        ({"model": "/x", "threshold": "high"}, r"gates\.caption\.threshold"),
        ({"model": "/x", "contrast": None}, r"gates\.caption\.threshold and gates\.caption\.contrast"),
        ({"model": "/x", "template": "a photo"}, r"gates\.caption\.template"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_key(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        chosen_gates({"caption": settings})


def test_what_is_missing_is_said_with_its_key(clip: str, tmp_path: Path) -> None:
    data, spec = _data(), SampleSpec((IMAGE,))
    with pytest.raises(ConfigurationError, match=r"gates\.caption\.model=.*no folder.*download"):
        CaptionAgreement(str(tmp_path / "none")).check(data.spec, data.class_names)
    with pytest.raises(ConfigurationError, match=r"gates\.caption\.contrast"):
        CaptionAgreement(clip).check(spec, ())
    with pytest.raises(ConfigurationError, match=r"gates\.caption\.names.*'z'"):
        CaptionAgreement(clip, names={"z": "zed"}).check(data.spec, data.class_names)
    with pytest.raises(ConfigurationError, match=r"data\.text"):
        _asked(CaptionAgreement(clip, threshold=0.1, contrast=None), LABELS, None, None)
    with pytest.raises(ConfigurationError, match=r"gates\.caption\.field"):
        CaptionAgreement(clip, threshold=0.1, contrast=None)({"sound": torch.zeros(2, 9)}, {"prompt": ["a", "b"]})
    with pytest.raises(ConfigurationError, match=r"gates\.caption\.model returned"):
        _asked(_gate("gate_models.twice"), LABELS, None)
    assert unlabelled({"image": torch.zeros(2, 3, 4, 4)}).class_names == ()
