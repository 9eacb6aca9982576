"""P6: a damaged file is noticed, set aside, made again and never trained on; a folder of no use is named."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from refill_toys import Fitted, Steady

from lightning_diffaug import DiffAugDataModule, SyntheticPool
from lightning_diffaug.errors import PoolError, PoolFormatError
from lightning_diffaug.pool.fingerprint import checksum_of

pytestmark = pytest.mark.faults
WAYS = ("truncated", "flipped", "empty", "foreign", "pickle")


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


def damage(path: Path, how: str, mark: Path) -> None:
    data = path.read_bytes()
    if how == "truncated":
        data = data[:-7]
    elif how == "flipped":
        data = data[:-30] + bytes([data[-30] ^ 255]) + data[-29:]  # in the pixels
    elif how == "empty":
        data = b""
    elif how == "foreign":
        data = b"the file of another program"
    else:
        data = pickle.dumps(Bomb(str(mark)))
    path.write_bytes(data)


class Damages(Callback):
    """Damages, at each epoch's end, every slot that is there and that a later window needs, each in its own way."""

    def __init__(self, mix: DiffAugDataModule, mark: Path) -> None:
        self.mix, self.mark = mix, mark
        self.damaged: dict[int, str] = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pool = self.mix.pool
        assert pool is not None
        (pool.folder / "slots" / "notes.txt").write_text("a user's file")
        sampler = self.mix._run._sampler  # type: ignore[union-attr]
        for k in pool.slots():
            if k >= sampler.slots(trainer.current_epoch).stop and k not in self.damaged:
                self.damaged[k] = WAYS[len(self.damaged) % len(WAYS)]
                damage(pool.path(k), self.damaged[k], self.mark)


def test_damage_during_a_run_is_never_trained_on(mixed: Any, train: Any, tmp_path: Path, caplog: Any) -> None:
    mix = mixed(Steady(), window=8, when_short="wait")
    damages = Damages(mix, tmp_path / "exploded")
    model = train(mix, 5, damages)
    assert set(damages.damaged.values()) == set(WAYS)
    assert not (tmp_path / "exploded").exists()
    assert mix.figures()["mix/short_epochs"] == 0, "they were made again in time"
    assert mix.figures()["mix/achieved_fraction"] == 0.5
    (folder,) = (tmp_path / "cache").glob("pools/*")
    pool = SyntheticPool.open(folder)
    used: set[int] = set()
    for image, label, source in model.seen["train"]:
        for i in source["is_synthetic"].nonzero()[:, 0].tolist():
            slot, row = int(source["slot"][i]), int(source["row"][i])
            shard = pool.read(slot)
            used.add(slot)
            assert torch.equal(image[i], shard.fields["image"][row])
            assert label[i] == shard.fields["label"][row]
    again = used & set(damages.damaged)
    assert len(again) >= 4, "the damaged ones were made again and used"
    aside = [path.name for path in (folder / "damaged").iterdir()]
    assert len(aside) >= len(again), "nothing is deleted"
    assert all(f"Slot {k} of" in caplog.text for k in again)
    assert (folder / "slots" / "notes.txt").read_text() == "a user's file"


def test_a_pool_of_another_format_version_ends_with_a_clear_word(mixed: Any, train: Any, tmp_path: Path) -> None:
    train(mixed(Steady()), 1)
    (header,) = (tmp_path / "cache").glob("pools/*/pool.json")
    state = json.loads(header.read_text())
    del state["checksum"]
    state["version"] = 99
    header.write_text(json.dumps({**state, "checksum": checksum_of(state)}))
    slots = sorted(path.name for path in (header.parent / "slots").iterdir())
    with pytest.raises(PoolFormatError, match=r"format version 99.*paths\.cache_dir"):
        train(mixed(Steady()), 1)
    assert sorted(path.name for path in (header.parent / "slots").iterdir()) == slots
    assert not list((tmp_path / "cache").glob("runs/*"))


def test_an_altered_generator_is_fitted_again_and_the_run_goes_on(mixed: Any, train: Any, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    train(mixed(Fitted(str(diary))), 1)
    (weights,) = (tmp_path / "cache").glob("generators/*/mean.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    mix = mixed(Fitted(str(diary)))
    model = train(mix, 1)
    assert sum(int(batch[2]["is_synthetic"].sum()) for batch in model.seen["train"]) == 12
    assert len(diary.read_text().splitlines()) == 2
    assert len(list((tmp_path / "cache").glob("generators/*.damaged-*"))) == 1


@pytest.mark.parametrize("refill", ["local", "sync", "none"])
def test_a_cache_folder_that_cannot_be_made_is_named(refill: str, mixed: Any, train: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PoolError, match=r"a file stands where a folder is needed.*paths\.cache_dir"):
        train(mixed(Steady(), {"mode": refill}, cache_dir=tmp_path / "file" / "cache"), 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Fills(Callback):
    """Fills the disk up at the end of the first epoch."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        try:
            with (self.disk / "ballast").open("ab") as file:
                while True:
                    file.write(b"\0" * 4096)
                    file.flush()
        except OSError:
            return


def test_a_disk_that_runs_full_ends_with_its_name_and_nothing_is_lost(small_disk: Path, mixed: Any, train: Any) -> None:
    mix = mixed(Steady(), {"ahead": 0}, cache_dir=small_disk / "cache", window=8)
    with pytest.raises(PoolError, match=r"the disk is full.*paths\.cache_dir"):
        train(mix, 6, Fills(small_disk))
    (folder,) = small_disk.glob("cache/pools/*")
    pool = SyntheticPool.open(folder)
    assert pool.slots()
    assert pool.verify() == {}
    assert not list(small_disk.rglob(".tmp-*"))
    (small_disk / "ballast").unlink()
    model = train(mixed(Steady(), cache_dir=small_disk / "cache", window=8), 2)
    assert len(model.seen["train"]) == 12


def test_a_cache_that_became_read_only_ends_with_its_name(small_disk: Path, mixed: Any, train: Any) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(PoolError, match=r"the file system is read-only.*paths\.cache_dir"):
        train(mixed(Steady(), cache_dir=small_disk / "cache"), 1)
