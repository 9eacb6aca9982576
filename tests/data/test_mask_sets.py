"""torchvision's sets of images with masks are read where torchvision puts them, with the parts that they come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from served_files import packed, served
from torch import Tensor
from torchvision.datasets import OxfordIIITPet, oxford_iiit_pet, voc

from lightning_diffaug.data import SegmentationDataModule
from lightning_diffaug.data.mask_boxes import mask_regions
from lightning_diffaug.errors import ConfigurationError

BREEDS = ("Abyssinian", "beagle")
SIDE = 32


def write_pets(root: Path) -> None:
    """Trimaps: 1 an animal, 2 what is behind it, 3 the edge between; image i has the level i."""
    base = root / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations" / "trimaps").mkdir(parents=True)
    number = 0
    for part, count in (("trainval", 10), ("test", 4)):
        lines = []
        for breed, name in enumerate(BREEDS, 1):
            for i in range(count):
                called = f"{name}_{part}_{i}"
                trimap = np.full((SIDE, SIDE), 2, np.uint8)
                trimap[8:24, 8:24] = 3
                trimap[10:22, 10:22] = 1
                Image.fromarray(np.full((SIDE, SIDE, 3), number, np.uint8)).save(
                    base / "images" / f"{called}.jpg", quality=100
                )
                Image.fromarray(trimap).save(base / "annotations" / "trimaps" / f"{called}.png")
                lines.append(f"{called} {breed} {breed} 1")
                number += 1
        (base / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")


def write_voc(root: Path, year: str) -> None:
    """A dog in each image, with its edge of 255."""
    base = root / "VOCdevkit" / f"VOC{year}"
    for name in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    for number, (part, count) in enumerate((("train", 10), ("val", 4), ("test", 3))):
        if year == "2012" and part == "test":
            continue
        for i in range(count):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[4 + i : 13 + i, 5:16] = 255
            mask[5 + i : 12 + i, 6:15] = 12
            shown = Image.fromarray(mask).convert("P")
            shown.putdata(mask.flatten().tolist())
            shown.save(base / "SegmentationClass" / f"{part}_{i}.png")
            Image.fromarray(np.full((SIDE, SIDE, 3), 20 * number + i, np.uint8)).save(
                base / "JPEGImages" / f"{part}_{i}.jpg", quality=100
            )
            box = f"<xmin>7</xmin><ymin>{6 + i}</ymin><xmax>15</xmax><ymax>{12 + i}</ymax>"
            (base / "Annotations" / f"{part}_{i}.xml").write_text(
                f"<annotation><object><name>dog</name><bndbox>{box}</bndbox></object></annotation>"
            )
        (base / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("".join(f"{part}_{i}\n" for i in range(count)))


def levels(data: SegmentationDataModule) -> list[set[int]]:
    parts = (data.splits.train, data.splits.val, data.splits.test)
    return [{int(level) for level in part.fields["image"].amax((1, 2, 3))} for part in parts]


def test_pets_are_read_with_the_edge_as_void(tmp_path: Path) -> None:
    write_pets(tmp_path)
    data = SegmentationDataModule(tmp_path, name="oxford_iiit_pet", shots="auto")
    train, val, test = levels(data)
    assert (len(train), len(val), test) == (18, 2, set(range(20, 28)))
    assert train | val == set(range(20))
    assert len({level // 10 for level in val}) == 2, "of each breed"
    mask = data.splits.test.fields["mask"][0]
    assert (int(mask[0, 0]), int(mask[9, 9]), int(mask[16, 16])) == (0, 2, 1)
    assert mask.unique(return_counts=True)[1].tolist() == [SIDE**2 - 256, 144, 112]
    assert data.model_facts()["class_names"] == ["background", "pet"]
    assert "boxes" not in data.splits.test.fields
    assert data.synthetic_fill == {}


def test_void_is_minus_100_in_a_batch_and_white_in_a_picture(tmp_path: Path) -> None:
    write_pets(tmp_path)
    data = SegmentationDataModule(tmp_path, name="oxford_iiit_pet", batch_size=4)
    batch = next(iter(data.test_dataloader()))
    assert batch["mask"].unique().tolist() == [-100, 0, 1]
    assert int((batch["mask"] == -100).sum()) == 8 * 112
    raw = {name: values[0] for name, values in data.splits.test.fields.items()}
    shown = data.picture(raw)[:, :, SIDE:]
    assert torch.equal(shown.amin(0) == 1, raw["mask"] == 2)


@pytest.mark.parametrize(
    ("year", "parts"),
    [("2007", [set(range(10)), set(range(20, 24)), {40, 41, 42}]), ("2012", [set(range(10)), set(range(20, 24))])],
)
def test_voc_is_read_with_its_parts_and_boxes(tmp_path: Path, year: str, parts: list[set[int]]) -> None:
    write_voc(tmp_path, year)
    data = SegmentationDataModule(tmp_path, name=f"voc{year}")
    train, val, test = levels(data)
    if year == "2007":
        assert [train, val, test] == parts
    else:
        assert [train | val, test] == parts
        assert len(val) == 1
    assert data.mask_classes[12] == "dog"
    assert len(data.mask_classes) == 21
    for part in (data.splits.train, data.splits.val, data.splits.test):
        for sample in (part[i] for i in range(len(part))):
            assert sample["mask"].unique().tolist() == [-100, 0, 12]
            assert torch.equal(sample["boxes"].as_subclass(Tensor), mask_regions(sample["mask"]).boxes)
            assert sample["labels"].tolist() == [12]
    fill = data.synthetic_fill
    raw = {"mask": data.splits.train.fields["mask"][0]}
    assert torch.equal(fill["boxes"](raw), data.splits.train.fields["boxes"][0])
    assert fill["labels"](raw).tolist() == [12]


@pytest.mark.parametrize("name", ["oxford_iiit_pet", "voc2007", "voc2012"])
def test_a_set_that_is_not_there_names_the_remedies(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"real\.root=.* does not hold {name} .*real\.download=true") as error:
        SegmentationDataModule(tmp_path, name=name).setup()
    where = tmp_path / ("oxford-iiit-pet" if "pet" in name else "VOCdevkit")
    assert str(where) in str(error.value)
    write_pets(tmp_path) if "pet" in name else write_voc(tmp_path, name[3:])
    with pytest.raises(ConfigurationError, match=rf"the folder that holds it, such as {tmp_path}\."):
        SegmentationDataModule(where, name=name).setup()


def test_a_file_that_is_not_of_the_set_is_named(tmp_path: Path) -> None:
    write_pets(tmp_path)
    path = tmp_path / "oxford-iiit-pet" / "annotations" / "trimaps" / "beagle_test_1.png"
    Image.fromarray(np.full((SIDE, SIDE), 7, np.uint8)).save(path)
    with pytest.raises(ConfigurationError, match=r"beagle_test_1\.png holds the value 7.*\[1, 2\].*real\.root"):
        SegmentationDataModule(tmp_path, name="oxford_iiit_pet").setup()


def test_what_was_not_unpacked_to_its_end_is_said_and_fetched_where_that_can_be(tmp_path: Path) -> None:
    write_pets(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "images" / "beagle_test_1.jpg").unlink()
    with pytest.raises(ConfigurationError, match=r"lacks 1 files of oxford_iiit_pet, such as .*beagle_test_1.*Remove"):
        SegmentationDataModule(tmp_path, name="oxford_iiit_pet").setup()
    write_voc(tmp_path, "2007")
    path = tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "train_3.xml"
    path.write_text("<annotation>")
    with pytest.raises(ConfigurationError, match=r"train_3\.xml cannot be used .*Remove .*real\.download=true"):
        SegmentationDataModule(tmp_path, name="voc2007").setup()


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path) as address:
        resources = tuple((f"{address}/{name}.tar.gz", "0") for name in ("images", "annotations"))
        monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", resources)
        data = SegmentationDataModule(tmp_path / "here", name="oxford_iiit_pet", download=True)
        with pytest.raises(
            ConfigurationError, match=r"oxford_iiit_pet could not be fetched .*HTTPError.*real\.download"
        ):
            data.prepare_data()


def _of_pets(monkeypatch: pytest.MonkeyPatch, server: Path, address: str) -> None:
    base = server / "oxford-iiit-pet"
    archives = [
        (f"{address}/{name}.tar.gz", packed(base / name, server / f"{name}.tar.gz"))
        for name in ("images", "annotations")
    ]
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", tuple(archives))


def _of_voc(monkeypatch: pytest.MonkeyPatch, server: Path, address: str) -> None:
    known = voc.DATASET_YEAR_DICT["2012"]
    md5 = packed(server / "VOCdevkit", server / known["filename"])
    monkeypatch.setitem(voc.DATASET_YEAR_DICT, "2012", {**known, "url": f"{address}/{known['filename']}", "md5": md5})


@pytest.mark.parametrize(
    ("name", "write", "offer"),
    [("oxford_iiit_pet", write_pets, _of_pets), ("voc2012", lambda root: write_voc(root, "2012"), _of_voc)],
)
def test_what_is_missing_is_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], None], offer: Any
) -> None:
    server, here = tmp_path / "server", tmp_path / "here"
    write(server)
    with served(server) as address:
        offer(monkeypatch, server, address)
        SegmentationDataModule(here, name=name, download=True).prepare_data()
    with monkeypatch.context() as patch:
        for module in (voc, oxford_iiit_pet):
            patch.setattr(module, "download_and_extract_archive", lambda *_, **__: pytest.fail("it is there"))
        data = SegmentationDataModule(here, name=name, download=True)
        data.setup()
    assert levels(data) == levels(SegmentationDataModule(server, name=name))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"root": "data", "name": "cityscapes"}, r"real\.name='cityscapes' is none of oxford_iiit_pet, voc2007"),
        ({"name": "voc2012"}, r"real\.root"),
        ({"root": "data", "name": "voc2012", "classes": ["a", "b"]}, r"real\.classes and real\.void are known"),
        ({"root": "data", "name": "voc2012", "void": 255}, r"real\.name=null"),
        ({"root": "data", "download": True}, r"real\.download=true needs the name"),
        ({"root": "data", "void": 0}, r"real\.void=0"),
        ({"root": "hf://datasets/a/b", "name": "voc2012"}, r"real\.name=voc2012 .*real\.root=hf://datasets/a/b"),
        ({"root": "data", "columns": {"mask": "m"}}, r"real\.columns"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        SegmentationDataModule(**settings)
