"""Data sets of the Hugging Face hub: tests write them as parquet files, which the same calls load."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_diffaug.data import (
    AudioDataModule,
    ImageFolderDataModule,
    ImageTextDataModule,
    SegmentationDataModule,
)
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.pool.process import machine_id

installed = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the extra hub is not installed")
Write = Callable[..., Path]
Columns = dict[str, tuple[list[Any], Any]]


def stored(pixels: Any, kind: str = "png", name: str | None = None) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, kind)
    return {"bytes": file.getvalue(), "path": name}


def grey(level: int) -> dict[str, Any]:
    return stored(np.full((8, 8), level))


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes splits, each a dict of column → (values, feature or None), as parquet files."""
    import datasets

    datasets.disable_progress_bars()

    def written(**splits: Columns) -> Path:
        folder = tmp_path / "toy"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for name, columns in splits.items():
            data = datasets.Dataset.from_dict({column: values for column, (values, _) in columns.items()})
            for column, (_, feature) in columns.items():
                data = data if feature is None else data.cast_column(column, feature)
            data.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
        return folder

    yield written
    datasets.enable_progress_bars()


def labelled(levels: range, names: tuple[str, ...] = ("cat", "dog"), image: str = "img") -> Columns:
    """Images of one level each, whose class is the level's remainder."""
    import datasets

    labels = [level % len(names) for level in levels]
    return {
        image: ([grey(level) for level in levels], datasets.Image()),
        "label": (labels, datasets.ClassLabel(names=list(names))),
    }


def shown(part: Any) -> list[tuple[int, str]]:
    return sorted((int(image.flatten()[0]), part.classes[label]) for image, label in part)


def exported(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "default_cache" / "datasets").glob("*"))


@installed
def test_images_and_classes_are_those_of_the_splits(write: Write) -> None:
    import datasets

    root = write(train=labelled(range(20)), validation=labelled(range(20, 24)), test=labelled(range(24, 30)))
    data = ImageFolderDataModule(root)
    datasets.enable_progress_bars()
    data.prepare_data()
    assert datasets.is_progress_bar_enabled(), "as it was"
    for part, levels in (("train", range(20)), ("val", range(20, 24)), ("test", range(24, 30))):
        split = getattr(data.splits, part)
        split.transform = None
        assert shown(split) == [(level, ("cat", "dog")[level % 2]) for level in levels]
    assert data.class_names == ["cat", "dog"]


@installed
def test_pairs_of_image_and_mask_are_kept_all_of_them(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def pairs(levels: range) -> Columns:
        masks = [np.eye(8) * (level % 3) for level in levels]
        jpeg = [stored(np.full((8, 8), level), "jpeg", "photo.png") for level in levels]
        return {"image": (jpeg, datasets.Image()), "annotation": ([stored(mask) for mask in masks], datasets.Image())}

    monkeypatch.setattr(SegmentationDataModule, "few_shots", 3)
    data = SegmentationDataModule(write(train=pairs(range(40, 60)), test=pairs(range(60, 66))), shots="auto")
    assert len(data.splits.train) + len(data.splits.val) == 20
    assert data.mask_classes == ["0", "1", "2"]
    for part in (data.splits.train, data.splits.val, data.splits.test):
        for image, mask in zip(part.fields["image"], part.fields["mask"], strict=True):
            assert mask.tolist() == (np.eye(8) * (int(image[0, 0, 0]) % 3)).tolist()
    assert sorted(int(image[0, 0, 0]) for image in data.splits.test.fields["image"]) == list(range(60, 66))


@installed
@pytest.mark.parametrize("several", [False, True])
def test_captions_stay_with_their_images(write: Write, several: bool) -> None:
    import datasets

    texts: list[Any] = [[f"größer {i}", f"again {i}"] if several else f"größer {i}" for i in range(20)]
    texts[7] = [" "] if several else None
    root = write(train={"picture": ([grey(i) for i in range(20)], datasets.Image()), "text": (texts, None)})
    data = ImageTextDataModule(root)
    found = []
    for part in (data.splits.train, data.splits.val, data.splits.test):
        for image, text in zip(part.fields["image"], part.fields["caption"], strict=True):
            assert int(image.flatten()[0]) == int(text.split()[1])
            found.append(text)
    assert {f"größer {i}" for i in range(20) if i != 7} <= set(found)
    assert any("again" in text for text in found) is several


@installed
def test_sounds_keep_class_samples_and_the_names_of_their_files(write: Write) -> None:
    import datasets

    soundfile = pytest.importorskip("soundfile")

    def sounds(levels: list[float], kind: str) -> Columns:
        files = []
        for number, level in enumerate(levels):
            file = io.BytesIO()
            soundfile.write(file, np.full(8000, level, np.float32), 8000, format=kind)
            files.append({"bytes": file.getvalue(), "path": f"voice{number}_1.{kind}"})
        names = ["low" if level < 0.5 else "high" for level in levels]
        return {"audio": (files, datasets.Audio()), "word": (names, None)}

    root = write(train=sounds([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], "wav"), test=sounds([0.25, 0.75], "flac"))
    data = AudioDataModule(root, seconds=1.0, group=r"^voice(\d)", columns={"label": "word"}, memory_limit_mb=0)
    test = data.splits.test
    values = {round(float(test.images[i][0, 0]), 2): test.classes[label] for i, label in enumerate(test.targets)}
    assert values == {0.25: "low", 0.75: "high"}
    assert {path.suffix for path in test.images.paths} == {".flac"}


@installed
def test_what_was_written_is_used_again_and_changed_files_are_loaded_anew(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    root = write(train=labelled(range(20)))
    first = ImageFolderDataModule(root)
    first.setup()
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("it was loaded again"))
        again = ImageFolderDataModule(root)
        again.prepare_data()
        again.setup()
    assert shown(again.splits.test) == shown(first.splits.test)
    assert len(exported(tmp_path)) == 1
    (file,) = (root / "data").iterdir()
    os.utime(file, ns=(0, 0))  # of one size, and maybe another content
    assert ImageFolderDataModule(root).root != first.root
    write(train=labelled(range(20, 42)))
    data = ImageFolderDataModule(root)
    assert sum(map(len, (data.splits.train, data.splits.val, data.splits.test))) == 22
    assert not list((tmp_path / "default_cache").rglob("*.arrow"))


@installed
def test_an_export_that_fails_leaves_nothing(write: Write, tmp_path: Path) -> None:
    import datasets

    columns = labelled(range(20))
    images = columns["img"][0]
    images[11] = {"bytes": b"no image", "path": None}
    columns["img"] = (images, datasets.Image(decode=False))
    root = write(train=columns)
    with pytest.raises(ConfigurationError, match=r"the image of row 11 of its split train is of the format unknown"):
        ImageFolderDataModule(root, columns={"image": "img"}).setup()
    assert exported(tmp_path) == []


@installed
def test_a_killed_export_is_not_taken_for_whole_and_its_remains_are_removed(write: Write, tmp_path: Path) -> None:
    root = write(train=labelled(range(20)))
    script = (
        "import os, pathlib, sys\n"
        "from lightning_diffaug.data import ImageFolderDataModule\n"
        "count, plain = 0, pathlib.Path.write_bytes\n"
        "def dies(path, content):\n"
        "    global count\n"
        "    count += 1\n"
        "    return os._exit(9) if count == 8 else plain(path, content)\n"
        "pathlib.Path.write_bytes = dies\n"
        "ImageFolderDataModule(sys.argv[1]).prepare_data()\n"
    )
    assert subprocess.run([sys.executable, "-c", script, root], timeout=120).returncode == 9
    (left,) = exported(tmp_path)
    assert left.startswith(f".export-{machine_id()}-")
    data = ImageFolderDataModule(root)
    assert sum(map(len, (data.splits.train, data.splits.val, data.splits.test))) == 20
    assert len(exported(tmp_path)) == 1
    assert left not in exported(tmp_path)


@installed
def test_an_ambiguous_column_is_asked_for_with_all_columns_and_then_used(write: Write) -> None:
    root = write(train={"left": labelled(range(20))["img"], **labelled(range(50, 70), image="right")})
    with pytest.raises(ConfigurationError, match=r"any of left, right may be the image") as error:
        ImageFolderDataModule(root).setup()
    assert "left (Image), right (Image), label (ClassLabel). Set real.columns, e.g. {image: <column>" in str(
        error.value
    )
    data = ImageFolderDataModule(root, columns={"image": "right"})
    assert float(data.splits.train.images.min()) >= 50
    with pytest.raises(ConfigurationError, match=r"real\.columns\.label=right is no column that can be the label"):
        ImageFolderDataModule(root, columns={"image": "left", "label": "right"}).setup()
    with pytest.raises(ConfigurationError, match=r"real\.columns names mask, and what is read .* is image and label"):
        ImageFolderDataModule(root, columns={"mask": "left"})
    with pytest.raises(ConfigurationError, match=r"no column seems to be the caption"):
        ImageTextDataModule(root, columns={"image": "left"}).setup()


@installed
def test_validation_is_the_test_part_where_labels_of_the_test_are_hidden(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = labelled(range(4))
    hidden["label"] = ([-1] * 4, hidden["label"][1])
    splits = {"train": labelled(range(20)), "validation": labelled(range(20, 26))}
    with caplog.at_level(logging.INFO):
        data = ImageFolderDataModule(write(**splits, test=hidden))
        data.setup()
    assert "4 of the 4 rows of its split test lack img or label" in caplog.text
    assert "its validation split is the test part" in caplog.text
    assert data.splits.test.images.flatten(1)[:, 0].sort().values.tolist() == list(range(20, 26))
    assert len(data.splits.train) + len(data.splits.val) == 20


@installed
def test_one_split_of_any_name_is_divided_and_classes_are_safe_as_folders(write: Write) -> None:
    names = ("train", "a/b", "A:b", "..", ".hidden")
    data = ImageFolderDataModule(write(everything=labelled(range(50), names)))
    assert data.class_names == sorted(["train_", "a_b", "A_b_", "_", "hidden"])
    assert sum(map(len, (data.splits.train, data.splits.val, data.splits.test))) == 50


@installed
def test_splits_without_training_are_refused(write: Write) -> None:
    root = write(test=labelled(range(20)), validation=labelled(range(20)))
    with pytest.raises(
        ConfigurationError, match=r"has the splits (test, validation|validation, test), and none .* train"
    ):
        ImageFolderDataModule(root).setup()


@installed
def test_a_hub_that_cannot_be_reached_is_said_with_the_remedy(tmp_path: Path) -> None:
    script = (
        "from lightning_diffaug.data import AudioDataModule\n"
        "AudioDataModule('hf://datasets/nobody/nothing@v1/small').setup()\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    run = subprocess.run([sys.executable, "-c", script], env=offline, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert (
        "ConfigurationError: real.root=hf://datasets/nobody/nothing@v1/small cannot be loaded (ConnectionError" in last
    )
    assert "set real.root to a folder that holds its parquet files" in last
    assert exported(tmp_path) == []


def test_a_missing_package_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageFolderDataModule("hf://datasets/owner/name")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"package datasets.*pip install 'lightning-diffaug\[hub\]'"):
        data.prepare_data()


@pytest.mark.parametrize(
    "root",
    ["hf://models/a/b", "hf://datasets/mnist", "hf:/datasets/a/b", "hf://datasets/a/b/c/d", "hf://datasets/../b"],
)
def test_what_is_no_address_is_refused_at_once(root: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no address.*hf://datasets/<owner>/<name>"):
        SegmentationDataModule(root)


def test_another_address_is_answered_by_the_form_that_is_read() -> None:
    with pytest.raises(ConfigurationError, match=r"real\.root=https://.* is an address that nothing here reads.*hf://"):
        ImageTextDataModule("https://example.org/datasets/owner/name")


def test_an_address_says_name_revision_and_configuration(tmp_path: Path) -> None:
    hub = ImageTextDataModule("hf://datasets/own.er/na-me@refs%2Fpr%2F1/sub_set").hub
    assert hub is not None
    assert (hub.path, hub.revision, hub.config) == ("own.er/na-me", "refs/pr/1", "sub_set")
    assert hub.folder.name.startswith("own.er--na-me-")
    plain = ImageTextDataModule("hf://datasets/own.er/na-me").hub
    assert plain is not None
    assert (plain.revision, plain.config) == (None, None)
    others = ("hf://datasets/own.er/na-me@v1", "hf://datasets/own.er/na-me/v1", "hf://datasets/own.er/name")
    found = [ImageTextDataModule(root).hub for root in others]
    found += [ImageFolderDataModule("hf://datasets/own.er/na-me").hub]
    found += [ImageTextDataModule("hf://datasets/own.er/na-me", columns={"image": "img"}).hub]
    assert len({plain.folder, hub.folder, *(one.folder for one in found if one is not None)}) == 7


@installed
def test_the_package_is_asked_for_what_the_address_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*args: Any, **named: Any) -> Any:
        asked.append((args, named))
        raise ConnectionError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        ImageTextDataModule("hf://datasets/owner/name@v1/small").prepare_data()
    assert asked == [(("owner/name", "small"), {"revision": "v1", "cache_dir": None})]
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"working directory has a folder owner/name.*real\.root"):
        ImageTextDataModule("hf://datasets/owner/name").prepare_data()
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(ConfigurationError, match=r"of which 3\.6\.0 is installed.*pip install"):
        ImageTextDataModule("hf://datasets/owner/other").prepare_data()
    assert len(asked) == 1


@installed
@pytest.mark.parametrize("beside", ["train/a.png", "captions.csv", "a.wav", "images/a.png"])
def test_a_folder_with_other_data_is_read_as_it_is(beside: str, write: Write) -> None:
    root = write(train=labelled(range(20)))
    assert ImageFolderDataModule(root).hub is not None
    (root / beside).parent.mkdir(exist_ok=True)
    (root / beside).touch()
    assert ImageFolderDataModule(root).hub is None


@installed
def test_files_that_rows_name_are_read_only_where_they_are_the_data_sets_own(write: Write, tmp_path: Path) -> None:
    import datasets

    outside = tmp_path / "private.png"
    outside.write_bytes(grey(3)["bytes"])
    own = write() / "own.bin"
    own.write_bytes(grey(5)["bytes"])

    def rows(*paths: Path) -> Columns:
        columns = labelled(range(20))
        files = [{"bytes": None, "path": str(path)} for path in paths]
        return {**columns, "img": ([*columns["img"][0][len(files) :], *files], datasets.Image())}

    levels = {level for level, _ in shown(_raw(ImageFolderDataModule(write(train=rows(own), test=rows(own)))))}
    assert 5 in levels
    with pytest.raises(ConfigurationError, match=r"names the file .*private\.png, which is none of its own"):
        ImageFolderDataModule(write(train=rows(own, outside))).setup()


def _raw(data: ImageFolderDataModule) -> Any:
    data.splits.test.transform = None
    return data.splits.test


@installed
def test_names_of_classes_are_names_of_folders_everywhere(write: Write) -> None:
    names = ("train", "train_", "CON", "aux.txt", "\N{SNOWMAN}" * 80)
    data = ImageFolderDataModule(write(train=labelled(range(50), names)))
    assert {"train_", "train__", "_CON", "_aux.txt"} < set(data.class_names)
    assert max(len(name.encode()) for name in data.class_names) <= 80


@installed
def test_what_is_no_sound_is_refused(write: Write) -> None:
    import datasets

    files = [{"bytes": b"no sound", "path": f"{i}.wav"} for i in range(9)]
    columns = {
        "audio": (files, datasets.Audio()),
        "label": ([i % 3 for i in range(9)], datasets.ClassLabel(num_classes=3)),
    }
    with pytest.raises(ConfigurationError, match=r"the audio of row 0 .* is of no format that is known"):
        AudioDataModule(write(train=columns)).setup()
    with pytest.raises(ConfigurationError, match=r"names one column for two things"):
        AudioDataModule("hf://datasets/a/b", columns={"audio": "x", "label": "x"})


def test_columns_without_such_a_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"real\.columns=.*real\.root=None is none.*hf://datasets"):
        ImageTextDataModule(columns={"image": "img"})
    with pytest.raises(ConfigurationError, match=r"real\.columns=.* is none"):
        ImageFolderDataModule(tmp_path, columns={"image": "img"})


@installed
def test_files_of_the_hub_are_where_its_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    (tmp_path / "big").mkdir()
    (tmp_path / "hub").symlink_to(tmp_path / "big")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", tmp_path / "extracted")
    (tmp_path / "extracted").mkdir()
    files = [tmp_path / "hub" / "a.png", tmp_path / "extracted" / "b.png"]
    for level, file in enumerate(files):
        file.write_bytes(grey(level)["bytes"])
    rows = labelled(range(20))["img"][0][2:] + [{"bytes": None, "path": str(file)} for file in files]
    data = datasets.Dataset.from_dict({"img": rows, "label": [i % 2 for i in range(20)]})
    data = data.cast_column("img", datasets.Image()).cast_column("label", datasets.ClassLabel(names=["a", "b"]))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(train=data))
    monkeypatch.chdir(tmp_path)
    module = ImageFolderDataModule("hf://datasets/owner/name")
    assert sum(map(len, (module.splits.train, module.splits.val, module.splits.test))) == 20
