"""Boxes in the formats of Pascal VOC and COCO are read to the pixel, and what is wrong with a file is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from lightning_diffaug.data import SegmentationDataModule
from lightning_diffaug.data.box_files import coco_objects, voc_objects
from lightning_diffaug.data.mask_boxes import mask_regions
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.probing import equal, signature
from lightning_diffaug.transforms import JointSpatial

NAMES = ["background", "car", "dog"]
WIDTH, HEIGHT = 48, 32  # the central square begins at 8


def object_at(i: int) -> tuple[int, int, int, int, int]:
    """Left, top, right, bottom and class of image i's object."""
    return 10 + i, 4 + 2 * i, 20 + i, 12 + 2 * i, 1 + i % 2


def write_images(folder: Path, n: int) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        left, top, right, bottom, number = object_at(i)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[top:bottom, left:right] = number
        Image.fromarray(mask * 100).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")


def voc_text(objects: list[tuple[str, int, int, int, int]]) -> str:
    """Corners as VOC has them: the first and the last pixel, counted from 1."""
    shown = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for name, left, top, right, bottom in objects
    )
    return f"<annotation><folder>x</folder><filename>x.jpg</filename>{shown}</annotation>"


def write_voc(folder: Path, n: int) -> None:
    (folder / "boxes").mkdir()
    for i in range(n):
        left, top, right, bottom, number = object_at(i)
        (folder / "boxes" / f"{i}.xml").write_text(voc_text([(NAMES[number], left, top, right, bottom)]))


def coco(n: int) -> dict[str, Any]:
    """Category ids are not the masks' numbers: names decide."""
    annotations = []
    for i in range(n):
        left, top, right, bottom, number = object_at(i)
        box = [left, top, right - left, bottom - top]
        annotations.append({"id": i, "image_id": 100 + i, "category_id": 10 * number, "bbox": box, "iscrowd": 0})
    annotations.append({"id": n, "image_id": 100, "category_id": 10, "bbox": [0, 0, 48, 32], "iscrowd": 1})
    return {
        "images": [{"id": 100 + i, "file_name": f"images/{i}.png"} for i in range(n)],
        "categories": [{"id": 10 * number, "name": NAMES[number]} for number in (1, 2)],
        "annotations": annotations,
    }


def write_coco(folder: Path, n: int) -> None:
    (folder / "boxes.json").write_text(json.dumps(coco(n)))


def user_folder(root: Path, write: Callable[[Path, int], None], n: int = 6) -> Path:
    for part in ("train", "val", "test"):
        write_images(root / part, n)
        write(root / part, n)
    return root


@pytest.mark.parametrize("write", [write_voc, write_coco])
@pytest.mark.parametrize("size", [32, 16])
def test_boxes_are_around_what_the_masks_show(tmp_path: Path, write: Callable[[Path, int], None], size: int) -> None:
    data = SegmentationDataModule(user_folder(tmp_path, write), size=size, classes=NAMES)
    for part in (data.splits.train, data.splits.val, data.splits.test):
        for i in range(6):
            boxes, labels = part.fields["boxes"][i], part.fields["labels"][i]
            whole = torch.tensor([max(v, 0) for v in (object_at(i)[0] - 8, object_at(i)[1])])
            ends = torch.tensor([object_at(i)[2] - 8, object_at(i)[3]])
            assert isinstance(boxes, tv_tensors.BoundingBoxes)
            assert tuple(boxes.canvas_size) == (size, size)
            assert boxes.tolist() == [(torch.cat((whole, ends)) * size / 32).tolist()]
            assert labels.tolist() == [object_at(i)[4]]
            if size == 32:
                regions = mask_regions(part.fields["mask"][i])
                assert torch.equal(boxes.as_subclass(Tensor), regions.boxes)
                assert torch.equal(labels, regions.labels)


def test_a_folder_that_is_divided_keeps_each_images_boxes(tmp_path: Path) -> None:
    write_images(tmp_path, 10)
    write_voc(tmp_path, 10)
    splits = SegmentationDataModule(tmp_path, size=32, classes=NAMES, shots=3).splits
    for part in (splits.train, splits.val, splits.test):
        for i in range(len(part)):
            assert torch.equal(part[i]["boxes"].as_subclass(Tensor), mask_regions(part[i]["mask"]).boxes)
    assert len(splits.train) == 3


def test_what_the_crop_cuts_off_has_no_box_and_what_it_cuts_into_ends_there(tmp_path: Path) -> None:
    user_folder(tmp_path, write_voc)
    outside, across = ("car", 0, 0, 8, 32), ("dog", 0, 4, 12, 8)
    for part in ("train", "val", "test"):
        (tmp_path / part / "boxes" / "0.xml").write_text(voc_text([outside, across]))
        (tmp_path / part / "boxes" / "1.xml").write_text(voc_text([]))
    fields = SegmentationDataModule(tmp_path, size=32, classes=NAMES).splits.test.fields
    assert fields["boxes"][0].tolist() == [[0, 4, 4, 8]]
    assert fields["labels"][0].tolist() == [2]
    assert (fields["boxes"][1].shape, fields["labels"][1].shape) == ((0, 4), (0,))


def test_boxes_move_with_the_image_and_those_that_leave_it_are_dropped(tmp_path: Path) -> None:
    shift = v2.RandomAffine(0, translate=(0.6, 0.6))
    data = SegmentationDataModule(
        user_folder(tmp_path, write_voc), size=32, classes=NAMES, augment=JointSpatial(shift), batch_size=6
    )
    left_out = 0
    for _ in range(10):
        for batch in data.train_dataloader():
            assert [len(boxes) for boxes in batch["boxes"]] == [len(labels) for labels in batch["labels"]]
            for mask, boxes in zip(batch["mask"], batch["boxes"], strict=True):
                there = mask_regions(mask, least=1).boxes
                left_out += len(boxes) == 0
                assert torch.equal(boxes.as_subclass(Tensor), there)
    assert left_out


def test_numbers_of_the_masks_name_classes_that_have_no_names(tmp_path: Path) -> None:
    user_folder(tmp_path, write_coco)
    for part in ("train", "val", "test"):
        told = coco(6)
        for one in (*told["categories"], *told["annotations"]):
            key = "id" if "name" in one else "category_id"
            one[key] //= 10
        (tmp_path / part / "boxes.json").write_text(json.dumps(told))
    labels = SegmentationDataModule(tmp_path).splits.test.fields["labels"]
    assert [one.tolist() for one in labels] == [[object_at(i)[4]] for i in range(6)]


# What is wrong ----------------------------------------------------------------------------------------


def no_file(root: Path) -> None:
    (root / "train" / "boxes" / "2.xml").unlink()


def no_image(root: Path) -> None:
    (root / "train" / "boxes" / "9.xml").write_text(voc_text([]))


def no_xml(root: Path) -> None:
    (root / "train" / "boxes" / "2.xml").write_text("<annotation><object>")


def no_corner(root: Path) -> None:
    text = voc_text([("car", 1, 2, 3, 4)]).replace("<ymin>3</ymin>", "")
    (root / "train" / "boxes" / "2.xml").write_text(text)


def no_number(root: Path) -> None:
    (root / "train" / "boxes" / "2.xml").write_text(voc_text([("car", 1, 2, 3, 4)]).replace("<xmin>2<", "<xmin>left<"))


def no_area(root: Path) -> None:
    (root / "val" / "boxes" / "2.xml").write_text(voc_text([("car", 5, 2, 3, 4)]))


def other_class(root: Path) -> None:
    (root / "test" / "boxes" / "2.xml").write_text(voc_text([("cat", 1, 2, 3, 4)]))


def elsewhere(root: Path) -> None:
    (root / "test" / "boxes" / "2.xml").write_text(voc_text([("car", 20, 20, 400, 400)]))


def other_size(root: Path) -> None:
    text = voc_text([("car", 1, 2, 3, 4)]).replace(
        "<object>", "<size><width>96.0</width><height>64</height></size><object>"
    )
    (root / "test" / "boxes" / "2.xml").write_text(text)


def told_twice(root: Path) -> None:
    (root / "test" / "boxes.json").write_text("{}")


def nested(root: Path) -> None:
    (root / "train" / "boxes" / "2.xml").write_text("<a>" * 20_000 + "</a>" * 20_000)


def of_background(root: Path) -> None:
    (root / "test" / "boxes" / "2.xml").write_text(voc_text([("background", 1, 2, 3, 4)]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_file, r"boxes does not say where the objects of .*2\.png are.*a file without objects"),
        (no_image, r"boxes names the image '9', and there is none"),
        (no_xml, r"2\.xml cannot be used \(ParseError.*Pascal VOC's annotation"),
        (no_corner, r"2\.xml cannot be used \(KeyError: 'ymin'\)"),
        (no_number, r"2\.xml cannot be used \(ValueError.*left"),
        (no_area, r"2\.xml cannot be used .*a box of 'car' from \(5, 2\) to \(3, 4\) has no area"),
        (other_class, r"2\.xml has a box of the class 'cat', which is none of .*car.*dog.*real\.classes"),
        (elsewhere, r"2\.xml has a box from \(20, 20\) to \(400, 400\) in .*2\.png, which is, upright, 48 by 32"),
        (
            other_size,
            r"2\.xml says that .*2\.png is 96 by 64 pixels, which is, upright, 48 by 32, and boxes.*made of the masks",
        ),
        (told_twice, r"boxes and .*boxes\.json both say where objects are"),
        (nested, r"2\.xml cannot be used"),
        (of_background, r"2\.xml has a box of the class 'background'"),
    ],
)
def test_what_is_wrong_with_voc_files_is_said(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(user_folder(tmp_path, write_voc))
    with pytest.raises(ConfigurationError, match=f"(?s){says}"):
        SegmentationDataModule(tmp_path, classes=NAMES).setup()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda told: told.pop("categories"), r"boxes\.json cannot be used \(KeyError: 'categories'\)"),
        (lambda told: told["annotations"][0].update(image_id=7), r"cannot be used \(KeyError: 7 in annotations\[0\]\)"),
        (lambda told: told["images"][0].update(width=float("inf"), height=3), r"cannot be used \(OverflowError"),
        (lambda told: told["annotations"][0].update(bbox=[1, 2, 3]), r"cannot be used \(ValueError"),
        (lambda told: told["annotations"][0].update(bbox=[1, 2, 0, 3]), r"has no area"),
        (lambda told: told["annotations"][0].update(category_id=7), r"cannot be used \(KeyError: 7 in"),
        (lambda told: told["images"][0].update(file_name="other/1.png"), r"two of its images have one name"),
        (lambda told: told["images"].pop(), r"cannot be used \(KeyError: 105 in annotations\[5\]\)"),
    ],
)
def test_what_is_wrong_with_a_coco_file_is_said(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], says: str
) -> None:
    told = coco(6)
    damage(told)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(told))
    with pytest.raises(ConfigurationError, match=f"{says}.*real\\.root"):
        coco_objects(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigurationError, match=r"boxes\.json cannot be used"):
        coco_objects(path)
    path.write_text("[1, 2")
    with pytest.raises(ConfigurationError, match=r"boxes\.json cannot be used"):
        coco_objects(path)


def test_boxes_of_some_parts_alone_and_boxes_that_are_left_out_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    user_folder(tmp_path, write_coco)
    (tmp_path / "test" / "boxes.json").unlink()
    small = coco(6)
    for one in small["annotations"]:
        one["bbox"] = [0.2, 0.3, 0.5, 0.1]  # shares of the image's size
    (tmp_path / "val" / "boxes.json").write_text(json.dumps(small))
    with caplog.at_level("INFO"):
        SegmentationDataModule(tmp_path, classes=NAMES).setup()
    assert "has boxes in train and val alone" in caplog.text
    assert "6 of the 6 boxes in val are left out" in caplog.text
    assert "boxes in train are left out" not in caplog.text


def test_masks_and_boxes_are_of_the_upright_image(tmp_path: Path) -> None:
    """As a camera stores it: the pixels lie on their side, and a tag says so."""
    user_folder(tmp_path, write_voc)
    for part in ("train", "val", "test"):
        for path in (tmp_path / part / "images").iterdir():
            exif = Image.Exif()
            exif[0x0112] = 6  # to be turned clockwise
            Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    fields = SegmentationDataModule(tmp_path, size=32, classes=NAMES).splits.test.fields
    for image, mask, boxes in zip(fields["image"], fields["mask"], fields["boxes"], strict=True):
        assert torch.equal(image[0] > 0, mask > 0)
        assert torch.equal(boxes.as_subclass(Tensor), mask_regions(mask).boxes)


def test_samples_with_more_or_fewer_boxes_are_of_one_structure() -> None:
    def sample(boxes: int, side: int = 8) -> dict[str, Any]:
        found = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(boxes, 1)
        return {
            "image": torch.zeros(1, side, side), "labels": torch.ones(boxes, dtype=torch.int64),
            "boxes": tv_tensors.BoundingBoxes(found, format="XYXY", canvas_size=(side, side)),
        }  # fmt: skip

    assert signature(sample(2)) == signature(sample(0))
    assert signature(sample(2)) != signature(sample(2, side=9))
    assert signature(sample(2)) != signature({**sample(2), "labels": torch.ones(3)})
    assert signature({"x": torch.zeros(3)}) != signature({"x": torch.zeros(2)})
    assert equal(sample(2), sample(2))
    assert not any(equal(sample(one), sample(other)) for one, other in ((0, 1), (1, 2), (3, 5)))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"0\.xml cannot be used \(FileNotFoundError"):
        voc_objects(tmp_path / "0.xml")
