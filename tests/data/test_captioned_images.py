"""Images with captions: measured ones of the digits, and the user's own folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_diffaug.data import ImageTextDataModule
from lightning_diffaug.data.captioned_digits import ATTRIBUTES, DIGITS, caption, levels, measured, said
from lightning_diffaug.data.image_text import captioned_digits
from lightning_diffaug.errors import ConfigurationError


def _images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(np.full((6, 6), 10 * number, np.uint8)).save(folder / name)


def _csv(folder: Path, rows: list[tuple[str, str]], start: str = "") -> None:
    lines = ["file_name,caption", *(f'{name},"{text}"' for name, text in rows)]
    (folder / "captions.csv").write_text(start + "\n".join(lines) + "\n", encoding="utf-8")


def test_captions_of_digits_are_true_of_their_images_and_each_is_of_one_image_of_a_gallery() -> None:
    splits = captioned_digits()
    for part in (splits.train, splits.val, splits.test):
        shown = levels(part.fields["image"].float() / 255).tolist()
        told = [said(text) for text in part.fields["caption"]]
        assert all(one is not None and list(one[1:]) == level for one, level in zip(told, shown, strict=True))
        if part is not splits.train:
            assert len(set(told)) == len(told) >= 100
    assert len(splits.train) == 1078
    assert captioned_digits().test.fields["caption"] == splits.test.fields["caption"]


def test_attributes_are_those_of_the_ink() -> None:
    line = torch.zeros(4, 1, 8, 8)
    line[0, 0, :, 3] = 1  # upright
    line[1, 0, torch.arange(8), 7 - torch.arange(8)] = 1  # leans right: to the right is up
    line[2, 0, torch.arange(8), torch.arange(8)] = 1
    line[3, 0, 6:, :] = 1  # low and wide
    found = measured(line)
    assert found["slant"][:3].tolist() == pytest.approx([0, 1, -1])
    assert levels(line)[:3, 2].tolist() == [1, 2, 0]
    assert found["balance"][3] == 6.5
    assert found["width"][0] == 0 < found["width"][1] == found["width"][3]
    assert found["weight"].tolist() == [0.125, 0.125, 0.125, 0.25]


def test_a_caption_says_what_it_was_made_of_in_words_that_mean_one_thing() -> None:
    kinds = [DIGITS, *ATTRIBUTES.values()]
    of_all = [word for kind in kinds for level in kind for word in level]
    assert len(set(of_all)) == len(of_all)
    assert {said(caption(7, (2, 0, 1, 2), seed)) for seed in range(50)} == {(7, 2, 0, 1, 2)}
    assert len({caption(7, (2, 0, 1, 2), seed) for seed in range(50)}) > 40
    assert said("a bold cat") == (-1, 2, -1, -1, -1)
    assert said("a bold thin cat") is None


def test_a_folder_with_parts_keeps_images_apart_and_gives_a_gallery_one_caption_an_image(tmp_path: Path) -> None:
    for part, n in (("train", 8), ("test", 4)):
        names = [f"{i}.png" for i in range(n)]
        _images(tmp_path / part, names)
        _csv(tmp_path / part, [(name, f"{part} {name[0]}, number {k}") for k in (1, 2) for name in names], "\ufeff")
    data = ImageTextDataModule(tmp_path, batch_size=4)
    train, val, test = data.splits.train, data.splits.val, data.splits.test
    assert (len(train) + 2 * len(val), len(test)) == (16, 4)
    of_train, of_val = ({text.split(",")[0] for text in part.fields["caption"]} for part in (train, val))
    assert not of_train & of_val
    assert test.fields["caption"] == [f"test {i}, number 1" for i in range(4)]
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (4, 1, 6, 6)
    assert batch["image"][3].flatten()[0] == pytest.approx(30 / 255)
    assert batch["caption"][3] == "test 3, number 1"
    assert {"train", "number"} <= set(data.model_facts()["vocabulary"])
    assert "test" not in data.model_facts()["vocabulary"]


@pytest.mark.parametrize("name", ["captions.jsonl", "metadata.jsonl"])
def test_one_folder_is_split_by_ratio_and_json_lines_are_read(tmp_path: Path, name: str) -> None:
    _images(tmp_path / "images", [f"{i}.png" for i in range(20)])
    rows = [{"file_name": f"images/{i}.png", "text": [f"picture {i}"]} for i in range(20)]
    (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = ImageTextDataModule(tmp_path)
    parts = [data.splits.train, data.splits.val, data.splits.test]
    assert [len(part) for part in parts] == [14, 2, 4]
    for part in parts:
        for image, text in zip(part.fields["image"], part.fields["caption"], strict=True):
            assert int(image.flatten()[0]) == 10 * int(text.split()[1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,label\n0.png,cat\n", r"captions\.csv.*columns.*file_name and caption"),
        ("file_name,caption\n0.png,a cat\n9.png,a dog\n", r"line 3, names the image '9\.png'"),
        ("file_name,caption\n0.png,a cat\n1.png,\n", r"line 3, cannot be used: 1\.png has no caption"),
        ("file_name,caption\n0.png,a cat, black\n", r"line 2, cannot be used: it has more values"),
        ("file_name,caption\n", "it holds no captions"),
    ],
)
def test_what_is_wrong_with_captions_is_said_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    _images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "captions.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said) as error:
        ImageTextDataModule(tmp_path).setup()
    assert "real.root" in str(error.value) or "captions.csv" in str(error.value)


def test_a_line_that_is_no_json_is_named_once(tmp_path: Path) -> None:
    _images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "captions.jsonl").write_text(
        '{"file_name": "0.png", "text": "a cat"}\n{"file_name": ', encoding="utf-8"
    )
    with pytest.raises(ConfigurationError, match=r"line 2, cannot be used: it is no JSON object") as error:
        ImageTextDataModule(tmp_path).setup()
    assert str(error.value).count("cannot be used") == 1


def test_another_layout_is_refused_with_the_one_that_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holds nothing[\s\S]*<root>/train/captions.csv"):
        ImageTextDataModule(tmp_path).setup()
    _images(tmp_path / "plain", ["0.png"])
    with pytest.raises(ConfigurationError, match=r"no file of captions[\s\S]*<root>/train/captions.csv"):
        ImageTextDataModule(tmp_path / "plain").setup()
    with pytest.raises(ConfigurationError, match=r"is not a folder[\s\S]*Expected is either"):
        ImageTextDataModule(tmp_path / "nowhere").setup()
    _images(tmp_path / "train", ["0.png"])
    _csv(tmp_path / "train", [("0.png", "a cat")])
    with pytest.raises(ConfigurationError, match=r"train/ but no test/"):
        ImageTextDataModule(tmp_path).setup()
    (tmp_path / "train" / "captions.csv").write_bytes("file_name,caption\n0.png,größer\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        ImageTextDataModule(tmp_path / "train").setup()


@pytest.mark.parametrize("of_root", [False, True])
def test_an_empty_validation_folder_is_as_none_and_one_without_captions_is_refused(
    of_root: bool, tmp_path: Path
) -> None:
    for part, n in (("train", 8), ("test", 4)):
        names = [f"{i}.png" for i in range(n)]
        _images(tmp_path / part, names)
        if not of_root:
            _csv(tmp_path / part, [(name, "a cat") for name in names])
    if of_root:
        _csv(tmp_path, [(f"{part}/{i}.png", "a cat") for part, n in (("train", 8), ("test", 4)) for i in range(n)])
    (tmp_path / "val").mkdir()
    splits = ImageTextDataModule(tmp_path).splits
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [7, 1, 4]
    _images(tmp_path / "val", ["0.png"])
    with pytest.raises(ConfigurationError, match=r"has no (file of captions|caption of an image in)"):
        ImageTextDataModule(tmp_path).setup()
