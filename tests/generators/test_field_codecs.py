"""Codecs of fields: what is denoised, or told, is another form of what the data hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.generators.field_codecs import Codecs, OneHot
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

N = 192
FIT: dict[str, Any] = {"steps": 150, "batch_size": 32, "lr": 1e-2, "warmup_steps": 5, "ema": 0.9, "augment_p": 0.0}
IMAGE = FieldSpec("image", "image", "tv_image", "uint8", (1, 8, 8), 0.0, 255.0)
MASK = FieldSpec("mask", "mask", "tv_mask", "int64", (8, 8), 0.0, 2.0)
WORD = FieldSpec("caption", "caption", "str", "str", (), 0.0, 0.0)


@dataclass(frozen=True)
class Level:
    """The first character of a text, a digit, as one token."""

    most: int = 2

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        return (1, 1)

    def encode(self, raw: Tensor | Sequence[str], field: FieldSpec) -> Tensor:
        return torch.tensor([[[2.0 * int(text[0]) / self.most - 1.0]] for text in raw])

    def decode(self, encoded: Tensor, field: FieldSpec) -> Tensor:
        raise NotImplementedError


def halves(texts: bool = False) -> Snapshot:
    """A left and a right half, each of a class 0 to 2; the image shows them as grey levels."""
    rng = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 3, (N, 1, 2), generator=rng).repeat_interleave(4, 2).expand(N, 8, 8).contiguous()
    if texts:
        level = mask[:, :1, :1]
        image = (100 * level.expand(N, 8, 8)).to(torch.uint8)[:, None].contiguous()
        words = [f"{int(i)} of two" for i in level.flatten()]
        return Snapshot(SampleSpec((IMAGE, WORD)), {"image": image}, texts={"caption": words})
    return Snapshot(SampleSpec((IMAGE, MASK)), {"image": (100 * mask).to(torch.uint8)[:, None], "mask": mask})


def fitted(snapshot: Snapshot, folder: Path, **settings: Any) -> DiffusionGenerator:
    generator = DiffusionGenerator(fit=FIT, num_inference_steps=8, **settings)
    generator.bind(snapshot.spec, ())
    generator.fit(snapshot, folder, lambda step, total: None)
    generator.load(folder)
    return generator


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8)])
@pytest.mark.parametrize("classes", [3, None])
def test_one_hot_returns_the_classes_that_it_was_given(shape: tuple[int, ...], classes: int | None) -> None:
    field = FieldSpec("mask", "mask", "tv_mask", "uint8", shape, 0.0, 2.0)
    mask = torch.arange(3 * 64).reshape(3, *shape) % 3
    codec = OneHot(classes)
    encoded = codec.encode(mask.to(torch.uint8), field)
    assert encoded.shape[1:] == codec.shape(field) == (3, 8, 8)
    assert encoded.unique().tolist() == [-1.0, 1.0]
    assert bool((codec.decode(encoded + 0.4, field) == mask).all())


def test_one_hot_refuses_a_class_that_it_was_not_told_of() -> None:
    with pytest.raises(ConfigurationError, match=r"class 2.*generator\.codecs\.mask\.classes"):
        OneHot(2).encode(torch.full((1, 8, 8), 2), MASK)


def test_one_hot_asks_where_the_data_do_not_say_how_many_classes_there_are() -> None:
    plain = FieldSpec("mask", "mask", "tensor", "uint8", (8, 8), 0.0, 255.0)
    with pytest.raises(ConfigurationError, match=r"'mask' is uint8.*generator\.codecs\.mask\.classes"):
        OneHot().shape(plain)
    assert OneHot(3).shape(plain) == (3, 8, 8)
    with pytest.raises(ConfigurationError, match=r"class 7.*data\.image_range=\{mask: \[0, 7\]\}"):
        OneHot().encode(torch.full((1, 8, 8), 7), MASK)


def test_image_and_mask_are_made_jointly_and_agree(tmp_path: Path) -> None:
    generator = fitted(halves(), tmp_path, conditions={}, codecs={"mask": OneHot(3)})
    made = generator.generate({}, list(range(48)))
    assert made["mask"].shape == (48, 8, 8)
    mask = MASK.from_unit(made["mask"])
    image = IMAGE.from_unit(made["image"])[:, 0].float()
    assert mask.dtype == torch.int64
    assert set(mask.unique().tolist()) <= {0, 1, 2}
    agree = ((image - 100.0 * mask).abs() < 50).float().mean()
    assert float(agree) > 0.8  # a third by chance


def test_an_image_is_made_of_a_given_mask_of_classes(tmp_path: Path) -> None:
    generator = fitted(halves(), tmp_path, conditions={"mask": "concat"}, codecs={"mask": OneHot(3)})
    mask = halves().raw("mask")[:48]
    made = generator.generate({"mask": mask}, list(range(48)))
    assert list(made) == ["image"]
    image = IMAGE.from_unit(made["image"])[:, 0].float()
    assert float(((image - 100.0 * mask).abs() < 50).float().mean()) > 0.9


@pytest.mark.parametrize("key", ["prompt", "caption"])
def test_an_image_is_made_of_a_text(tmp_path: Path, key: str) -> None:
    generator = fitted(halves(texts=True), tmp_path, conditions={"caption": "cross"}, codecs={"caption": Level()})
    wanted = torch.arange(48) % 3
    made = generator.generate({key: [f"{int(i)} of two" for i in wanted]}, list(range(48)))
    level = IMAGE.from_unit(made["image"]).float().mean((1, 2, 3)) / 100
    assert float(((level - wanted).abs() < 0.5).float().mean()) > 0.9


def test_a_text_needs_a_codec_and_a_codec_needs_its_field() -> None:
    spec = halves(texts=True).spec
    with pytest.raises(ConfigurationError, match=r"generator\.codecs\.caption"):
        DiffusionGenerator(conditions={"caption": "cross"}, fit=FIT).bind(spec, ())
    with pytest.raises(ConfigurationError, match=r"'mask'.*data\.fields"):
        DiffusionGenerator(conditions={}, codecs={"mask": OneHot(3)}, fit=FIT).bind(spec, ())
    with pytest.raises(ConfigurationError, match=r"generator\.codecs\.image.*no codec"):
        DiffusionGenerator(codecs={"image": {"_target_": "builtins.dict"}})


def test_the_arguments_of_a_codec_name_fit_and_pool_however_they_are_spelled() -> None:
    def keys(codec: Any) -> tuple[str, str]:
        generator = DiffusionGenerator(conditions={"caption": "cross"}, codecs={"caption": codec}, fit=FIT)
        again = DiffusionGenerator(**generator.config())  # as another process makes it
        assert again.fit_key() == generator.fit_key()
        return str(generator.fit_key()), str(generator.sample_key())

    name = f"{Level.__module__}.Level"
    assert keys(Level()) == keys(Level(2)) == keys({"_target_": name})
    assert all(a != b for a, b in zip(keys(Level(2)), keys(Level(3)), strict=True))
    assert DiffusionGenerator(fit=FIT).fit_key() == DiffusionGenerator(fit=FIT, codecs={}).fit_key()
    assert "codecs" not in DiffusionGenerator(fit=FIT).fit_key()


def test_real_samples_are_varied_through_a_codec(tmp_path: Path) -> None:
    whole = halves()
    masks = Snapshot(SampleSpec((MASK,)), {"mask": whole.raw("mask")})
    generator = fitted(masks, tmp_path, conditions={}, codecs={"mask": OneHot(3)}, strength=0.1)
    start = masks.unit("mask", torch.arange(24))
    made = generator.generate({"start": start}, list(range(24)))
    assert float((MASK.from_unit(made["mask"]) == whole.raw("mask")[:24]).float().mean()) > 0.95


def test_a_real_image_is_varied_after_a_given_mask_that_is_encoded(tmp_path: Path) -> None:
    classes = replace(MASK, name="classes", path="classes")  # "mask" says which part of a start is kept
    whole = halves()
    pairs = Snapshot(SampleSpec((IMAGE, classes)), {"image": whole.raw("image"), "classes": whole.raw("mask")})
    codecs, conditions = {"classes": OneHot(3)}, {"classes": "concat"}
    generator = fitted(pairs, tmp_path, conditions=conditions, codecs=codecs, strength=0.1)
    start = whole.unit("image", torch.arange(24))
    made = generator.generate({"start": start, "classes": whole.raw("mask")[:24]}, list(range(24)))
    assert made["image"].shape == start.shape
    assert float((made["image"] - start).abs().mean()) < 0.2


def test_two_encoded_fields_cannot_start_from_real_samples() -> None:
    generator = DiffusionGenerator(conditions={}, codecs={"mask": OneHot(3)}, strength=0.5, fit=FIT)
    with pytest.raises(ConfigurationError, match=r"generator\.source=noise"):
        generator.bind(halves().spec, ())


def test_no_part_of_an_encoded_field_can_be_kept_and_that_is_said_before_the_fit() -> None:
    generator = DiffusionGenerator(conditions={}, codecs={"mask": OneHot(3)}, repaint=0.5, fit=FIT)
    with pytest.raises(ConfigurationError, match=r"generator\.repaint=null"):
        generator.bind(halves().spec, ())


def test_without_codecs_the_training_data_are_not_copied() -> None:
    snapshot = halves()
    assert Codecs(None).snapshot(snapshot) is snapshot
