"""COCO Captions, Flickr8k and Flickr30k by name, each in the layouts that it is handed out in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from PIL import Image

from lightning_diffaug.data import ImageTextDataModule
from lightning_diffaug.data.image_files import ImageFiles
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.paths import config_dir

TRAIN, VAL, TEST = range(8), range(8, 11), range(11, 15)
SPLIT = {"train": TRAIN, "val": VAL, "test": TEST}


def _images(folder: Path, numbers: Sequence[int], prefix: str = "") -> list[str]:
    """Image i is filled with 10 i."""
    folder.mkdir(parents=True)
    names = [f"{prefix}{i:03}.png" for i in numbers]
    for i, name in zip(numbers, names, strict=True):
        Image.fromarray(np.full((6, 6, 3), 10 * i, np.uint8)).save(folder / name)
    return names


def _told(i: int) -> list[str]:
    return [f"picture {i}, first", f"picture {i}, second"]


def _coco(root: Path, year: str = "2017") -> None:
    (root / "annotations").mkdir(parents=True)
    for part, numbers in (("train", [*TRAIN, *VAL]), ("val", TEST)):
        names = _images(root / f"{part}{year}", numbers)
        content = {
            "images": [{"id": 7 * i, "file_name": name} for i, name in zip(numbers, names, strict=True)],
            # as COCO's, not sorted by image
            "annotations": [{"image_id": 7 * i, "caption": f" {_told(i)[k]}\n"} for k in (0, 1) for i in numbers],
        }
        (root / "annotations" / f"captions_{part}{year}.json").write_text(json.dumps(content))


def _karpathy(root: Path, file: str, folders: dict[str, str], restval: Sequence[int] = ()) -> None:
    entries: list[dict[str, Any]] = []
    for part, numbers in SPLIT.items():
        for i in numbers:
            sentences = [{"raw": text, "tokens": text.split()} for text in _told(i)]
            entry = {"filename": f"{i:03}.png", "split": "restval" if i in restval else part, "sentences": sentences}
            entries.append(entry | ({"filepath": folders[part]} if folders else {}))
    (root / file).write_text(json.dumps({"images": entries, "dataset": "x"}))


def _coco_karpathy(root: Path) -> None:
    _images(root / "train2014", TRAIN)
    _images(root / "val2014", [*VAL, *TEST])
    _karpathy(
        root, "dataset_coco.json", {"train": "train2014", "val": "val2014", "test": "val2014"}, restval=TRAIN[-2:]
    )


def _flickr8k(root: Path) -> None:
    _images(root / "Flicker8k_Dataset", [*TRAIN, *VAL, *TEST])
    text = root / "Flickr8k_text"
    text.mkdir()
    # one entry of the published file is of no image; it is in no list
    lines = ["2258277193_586949ec62.jpg.1#0\tpeople wait"]
    lines += [f"{i:03}.png#{k}\t{told}" for i in [*TEST, *TRAIN, *VAL] for k, told in enumerate(_told(i))]
    (text / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for name, part in (("train", TRAIN), ("dev", VAL), ("test", TEST)):
        (text / f"Flickr_8k.{name}Images.txt").write_text("".join(f"{i:03}.png\n" for i in part))


def _flickr8k_karpathy(root: Path) -> None:
    _images(root / "Images", [*TRAIN, *VAL, *TEST])
    _karpathy(root, "dataset_flickr8k.json", {})


def _flickr30k_karpathy(root: Path) -> None:
    _images(root / "flickr30k-images", [*TRAIN, *VAL, *TEST])
    (root / "results_20130124.token").write_text("is not read")
    _karpathy(root, "dataset_flickr30k.json", {})


def _table(root: Path) -> None:
    _images(root / "Images", [*TRAIN, *VAL, *TEST])
    rows = [f'{i:03}.png,"{text}"' for i in range(15) for text in _told(i)]
    (root / "captions.txt").write_text("\n".join(["image,caption", *rows]))


def _flickr30k(root: Path) -> None:
    _images(root / "flickr30k_images", [*TRAIN, *VAL, *TEST])
    lines = [f"{i:03}.png#{k}\t{told}" for i in range(15) for k, told in enumerate(_told(i))]
    (root / "results_20130124.token").write_text("\n".join(lines))


def _shown(data: ImageTextDataModule) -> dict[str, list[int]]:
    """Part → the numbers of its samples' images, each of which its caption is true of."""
    parts = {"train": data.splits.train, "val": data.splits.val, "test": data.splits.test}
    for part in parts.values():
        for image, text in zip(part.fields["image"], part.fields["caption"], strict=True):
            assert f"picture {int(image.max()) // 10}," in text
    return {name: [int(image.max()) // 10 for image in part.fields["image"]] for name, part in parts.items()}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("coco_captions", _coco_karpathy),
        ("flickr8k", _flickr8k),
        ("flickr8k", _flickr8k_karpathy),
        ("flickr30k", _flickr30k_karpathy),
    ],
)
def test_a_published_split_is_kept(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    data = ImageTextDataModule(tmp_path, name=name, shots="auto")
    shown = _shown(data)
    assert {part: sorted(set(numbers)) for part, numbers in shown.items()} == {k: [*v] for k, v in SPLIT.items()}
    assert sorted(data.splits.train.fields["caption"]) == sorted(text for i in TRAIN for text in _told(i))
    for part, numbers in ((data.splits.val, VAL), (data.splits.test, TEST)):
        assert part.fields["caption"] == [_told(i)[0] for i in numbers]


@pytest.mark.parametrize("year", ["2017", "2014"])
def test_of_coco_val_is_the_test_part_and_validation_is_split_off_train(year: str, tmp_path: Path) -> None:
    _coco(tmp_path, year)
    other = {"2017": "2014", "2014": "2017"}[year]
    (tmp_path / "annotations" / f"captions_train{other}.json").write_text("of images that are not here")
    data = ImageTextDataModule(tmp_path, name="coco_captions", split=(0.6, 0.2, 0.2))
    shown = _shown(data)
    assert shown["test"] == [*TEST]
    assert (len(shown["train"]), len(shown["val"])) == (16, 3)
    assert {*shown["train"]} | {*shown["val"]} == {*TRAIN, *VAL}
    assert not {*shown["train"]} & {*shown["val"]}
    assert all(
        text.endswith("first") for text in data.splits.test.fields["caption"] + data.splits.val.fields["caption"]
    )
    again = ImageTextDataModule(tmp_path, name="coco_captions", split=(0.6, 0.2, 0.2), seed=1)
    assert _shown(again) == shown


@pytest.mark.parametrize(("name", "write"), [("flickr8k", _table), ("flickr30k", _table), ("flickr30k", _flickr30k)])
def test_what_no_file_divides_is_split_by_ratio(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    shown = _shown(ImageTextDataModule(tmp_path, name=name, split=(0.6, 0.2, 0.2)))
    assert [len(numbers) for numbers in shown.values()] == [18, 3, 3]
    assert sorted(i for numbers in shown.values() for i in {*numbers}) == [*range(15)]


def test_lists_divide_a_table_too(tmp_path: Path) -> None:
    _flickr8k(tmp_path)
    (tmp_path / "Flickr8k_text" / "Flickr8k.token.txt").unlink()
    rows = [f'{i:03}.png,"{text}"' for i in range(15) for text in _told(i)]
    (tmp_path / "captions.txt").write_text("\n".join(["image,caption", *rows]))
    shown = _shown(ImageTextDataModule(tmp_path, name="flickr8k"))
    assert {part: sorted({*numbers}) for part, numbers in shown.items()} == {k: [*v] for k, v in SPLIT.items()}


def test_of_the_training_images_only_those_that_are_kept_are_decoded_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _flickr8k(tmp_path)
    read: list[Path] = []
    of_files = ImageFiles.__getitem__

    def noted(self: ImageFiles, index: int, /) -> Any:
        read.append(self.paths[index])
        return of_files(self, index)

    monkeypatch.setattr(ImageFiles, "__getitem__", noted)
    assert len(_shown(ImageTextDataModule(tmp_path, name="flickr8k", shots=2))["train"]) == 2
    assert len(read) <= 2 + len(VAL) + len(TEST)
    read.clear()
    ImageTextDataModule(tmp_path, name="flickr8k").setup()
    assert len(read) == len({*read}) == 15


@pytest.mark.parametrize(
    ("name", "write"), [("coco_captions", _coco), ("flickr8k", _flickr8k), ("flickr30k", _flickr30k)]
)
def test_the_experiment_takes_a_set_by_name_and_keeps_all_of_it(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["experiment=image_text", f"real={name}", f"real.root={tmp_path}"])
    data = instantiate(config.real)
    assert (data.name, data.shots) == (name, "auto")
    shown = _shown(data)
    assert len(shown["train"]) == 2 * len({*shown["train"]}), "with both captions"
    assert sorted(i for numbers in shown.values() for i in {*numbers}) == [*range(15)]


def _refused(name: str, root: Path) -> str:
    with pytest.raises(ConfigurationError) as error:
        ImageTextDataModule(root, name=name).setup()
    assert "real.root" in str(error.value)
    return str(error.value)


def test_names_and_roots_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"real\.name='coco'.*one of coco_captions, flickr8k, flickr30k"):
        ImageTextDataModule(tmp_path, name="coco")
    with pytest.raises(ConfigurationError, match=r"real\.name=flickr8k is read from files[\s\S]*Flickr8k\.token\.txt"):
        ImageTextDataModule(name="flickr8k")
    assert "is not a folder, so flickr30k cannot be read" in _refused("flickr30k", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "write", "gone", "said"),
    [
        ("coco_captions", None, "", "lacks captions_train2017.json (searched: "),
        ("coco_captions", _coco, "annotations/captions_val2017.json", "lacks captions_val2017.json (searched: "),
        ("coco_captions", _coco, "train2017", "lacks train2017 (searched: "),
        ("coco_captions", _coco_karpathy, "val2014", "lacks val2014 (searched: "),
        ("flickr8k", None, "", "lacks Flickr8k.token.txt or captions.txt (searched: "),
        ("flickr8k", _flickr8k, "Flicker8k_Dataset", "lacks Flicker8k_Dataset or Flickr8k_Dataset or Images (searched"),
        ("flickr8k", _flickr8k, "Flickr8k_text/Flickr_8k.devImages.txt", "lacks Flickr_8k.devImages.txt (searched: "),
        ("flickr30k", None, "", "lacks results_20130124.token or captions.txt (searched: "),
        ("flickr30k", _flickr30k, "flickr30k_images", "lacks flickr30k-images or flickr30k_images or Images (searched"),
    ],
)
def test_what_is_missing_is_named_with_the_layout(
    name: str, write: Callable[[Path], None] | None, gone: str, said: str, tmp_path: Path
) -> None:
    if write is not None:
        write(tmp_path)
        (tmp_path / gone).rename(tmp_path.parent / f"{tmp_path.name}-gone")
    error = _refused(name, tmp_path)
    assert f"real.root={tmp_path} {said}" in error
    assert "Expected is" in error


@pytest.mark.parametrize(
    ("name", "write", "image"),
    [
        ("coco_captions", _coco, "val2017/012.png"),
        ("flickr8k", _flickr8k, "Flicker8k_Dataset/012.png"),
        ("flickr30k", _flickr30k_karpathy, "flickr30k-images/012.png"),
    ],
)
def test_an_image_that_is_not_there_is_named(
    name: str, write: Callable[[Path], None], image: str, tmp_path: Path
) -> None:
    write(tmp_path)
    (tmp_path / image).unlink()
    assert f"lacks 1 of the 15 images that have captions, such as {tmp_path / image}, so" in _refused(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "write", "file", "content", "said"),
    [
        ("coco_captions", _coco, "annotations/captions_train2017.json", '{"images": [', "no JSON, or was cut short"),
        ("coco_captions", _coco, "annotations/captions_train2017.json", "[]", "lacks what COCO's have"),
        (
            "coco_captions",
            _coco,
            "annotations/captions_val2017.json",
            '{"images": [{"id": 1, "file_name": "011.png"}], "annotations": [{"image_id": 5, "caption": "a cat"}]}',
            "1 annotations are of an image it does not list, such as 5",
        ),
        (
            "coco_captions",
            _coco,
            "annotations/captions_val2017.json",
            '{"images": [{"id": 1, "file_name": "011.png"}], "annotations": []}',
            "it holds no captions",
        ),
        (
            "coco_captions",
            _coco_karpathy,
            "dataset_coco.json",
            '{"images": [{"split": "train"}]}',
            "lacks its filename",
        ),
        (
            "flickr8k",
            _flickr8k_karpathy,
            "dataset_flickr8k.json",
            '{"images": []}',
            "no captions of the part train and",
        ),
        (
            "flickr8k",
            _flickr8k,
            "Flickr8k_text/Flickr8k.token.txt",
            "000.png#0\ta dog\n000.png#0 a cat\n",
            "line 2 is not image.jpg#number",
        ),
        ("flickr8k", _flickr8k, "Flickr8k_text/Flickr8k.token.txt", "", "it holds no captions"),
        ("flickr8k", _flickr8k, "Flickr8k_text/Flickr_8k.testImages.txt", "\n", "it names no image"),
        (
            "flickr8k",
            _flickr8k,
            "Flickr8k_text/Flickr_8k.testImages.txt",
            "099.png\n",
            "1 of its images have no caption in",
        ),
        ("flickr30k", _table, "captions.txt", "image,label\n", "its columns are"),
    ],
)
def test_what_is_damaged_is_named_with_what_is_wrong(
    name: str, write: Callable[[Path], None], file: str, content: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path)
    (tmp_path / file).write_text(content)
    error = _refused(name, tmp_path)
    assert error.startswith(f"{tmp_path / file} cannot be used: ")
    assert said in error
    (tmp_path / file).write_bytes(b"\xff\xfe\xfa")
    assert _refused(name, tmp_path).startswith(f"{tmp_path / file} cannot be used: "), "and so is what is no text"


def test_an_image_of_two_parts_is_refused(tmp_path: Path) -> None:
    _flickr8k(tmp_path)
    lists = [tmp_path / "Flickr8k_text" / f"Flickr_8k.{part}Images.txt" for part in ("train", "test")]
    first = lists[0].read_text().splitlines()[0]
    lists[1].write_text(lists[1].read_text() + f"{first}\n")
    said = _refused("flickr8k", tmp_path)
    assert f"says that {first} is of train and of test" in said
    assert "trained on" in said
