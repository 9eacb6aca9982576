from __future__ import annotations

import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_diffaug.data import CloudAugment, PointCloudDataModule, ScanOf
from lightning_diffaug.data.cloud_files import read_cloud
from lightning_diffaug.data.cloud_picture import oblique
from lightning_diffaug.data.terrain import CLASSES, RADIUS, terrain_tiles
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.points import chamfer_distance

VERTICES = np.array([[0, 0, 0], [1, 0, 0.5], [0, 2, -1], [1, 1, 1]], np.float32)


def _cloud(n: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).normal(5, 3, (n, 4)).astype(np.float32)  # a fourth column is left out


def _folder(root: Path, classes: tuple[str, ...] = ("",), each: int = 3, parts: tuple[str, ...] = ()) -> Path:
    for part in parts or ("train", "val", "test"):
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(each):
                np.savez(folder / f"{i}.npz", points=_cloud(40 + i, seed=i))
    return root


# -- terrain


def test_terrain_is_split_by_place() -> None:
    centres = {part: np.array(terrain_tiles(part).centres) for part in ("train", "val", "test")}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        apart = np.sqrt(((centres[one][:, None] - centres[other]) ** 2).sum(2)).min()
        assert apart >= 2 * RADIUS + 499.9


def test_tiles_are_the_map_and_the_same_each_time() -> None:
    from matplotlib import cbook

    tiles = terrain_tiles("val")
    assert all(np.array_equal(a, b) for a, b in zip(tiles.clouds, terrain_tiles("val").clouds, strict=True))
    with np.load(cbook.get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)) as file:
        elevation = file["elevation"][::-1].astype(float)
        step = 111_320 * float(file["dy"])
        wide = 111_320 * float(file["dx"]) * np.cos(np.radians(float(file["ymin"] + file["ymax"]) / 2))
    for (east, north), cloud in zip(tiles.centres, tiles.clouds, strict=True):
        x, y, z = (cloud * [1000, 1000, 400]).T
        assert np.hypot(x, y).max() <= RADIUS + 0.01
        row, column = (north + y) / step, (east + x) / wide
        cells = [elevation[row.astype(int) + i, column.astype(int) + j] for i in (0, 1) for j in (0, 1)]
        assert (np.min(cells, 0) - 0.1 <= z).all()
        assert (z <= np.max(cells, 0) + 0.1).all()


def test_clouds_and_scans_are_of_one_surface_and_classes_by_how_rugged_it_is() -> None:
    splits = PointCloudDataModule(points=64, scan_points=12).splits
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [360, 75, 225]
    sample = splits.test[0]
    assert sample["cloud"].shape == (64, 3)
    assert sample["scan"].shape == (12, 3)
    assert abs(float(sample["scan"][:, 2].mean())) < 1e-5
    cloud, scan = splits.test.fields["cloud"], splits.test.fields["scan"]
    assert chamfer_distance(scan, cloud).mean() < 0.8 * chamfer_distance(scan, cloud.roll(1, 0)).mean()
    spread = torch.stack([cloud[torch.tensor(splits.test.targets) == c, :, 2].std() for c in range(3)])
    assert splits.test.classes == list(CLASSES)
    assert spread.tolist() == sorted(spread.tolist())


def test_seeds_share_a_test_set_and_few_shots_are_of_each_class() -> None:
    first, second = (PointCloudDataModule(points=16, scan_points=6, shots=4, seed=seed) for seed in (0, 1))
    assert torch.equal(first.splits.test.fields["cloud"], second.splits.test.fields["cloud"])
    assert not torch.equal(first.splits.train.fields["cloud"], second.splits.train.fields["cloud"])
    assert first.class_counts == [4, 4, 4]
    facts = first.model_facts()
    assert facts["num_classes"] == 3
    assert torch.tensor(facts["mean_cloud"]).shape == (16, 3)


# -- files


def _ply(kind: str) -> bytes:
    header = (
        f"ply\nformat {kind} 1.0\ncomment of a test\nelement vertex 4\nproperty uchar red\nproperty float x\n"
        "property float y\nproperty double z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    if kind == "ascii":
        rows = "".join(f"7 {x:g} {y:g} {z:g}\n" for x, y, z in VERTICES)
        return header.encode() + rows.encode() + b"3 0 1 2\n"
    order = "<" if "little" in kind else ">"
    return header.encode() + b"".join(struct.pack(f"{order}Bffd", 7, *v) for v in VERTICES) + b"\x03" + bytes(12)


def _npz() -> bytes:
    content = io.BytesIO()
    np.savez(content, points=VERTICES)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_vertices_of_a_ply_file(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(_ply(kind))
    assert np.array_equal(read_cloud(tmp_path / "a.ply").points, VERTICES)


def test_arrays_and_a_scan_that_comes_with_them(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _cloud())
    np.savez(tmp_path / "b.npz", anything=_cloud())
    np.savez(tmp_path / "c.npz", points=_cloud(), scan=_cloud(5), colour=np.zeros(3))
    for name in ("a.npy", "b.npz", "c.npz"):
        assert np.array_equal(read_cloud(tmp_path / name).points, _cloud()[:, :3])
    scan = read_cloud(tmp_path / "c.npz").scan
    assert scan is not None
    assert np.array_equal(scan, _cloud(5)[:, :3])


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.ply", b"solid of another format", "no PLY file"),
        ("a.ply", _ply("binary_little_endian")[:-80], "buffer is smaller"),
        ("a.ply", _ply("ascii").replace(b"float x", b"float u"), "no x"),
        ("a.ply", _ply("ascii").replace(b"vertex 4", b"vertex 9"), "a.ply"),
        ("a.ply", _ply("ascii").replace(b"element vertex 4\n", b""), "property before any element"),
        ("a.npz", b"nothing of the kind", "a.npz"),
        ("a.npz", _npz()[:-40], "not a zip file"),
        ("a.npz", _npz().replace(VERTICES.tobytes(), bytes(VERTICES.nbytes)), "CRC"),
        ("a.npy", np.zeros((4, 2)), "numbers"),
        ("a.npy", np.full((4, 3), np.nan), "not finite"),
    ],
)
def test_a_file_that_is_none_is_named(name: str, content: bytes | np.ndarray, why: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(ConfigurationError, match=why) as error:
        read_cloud(tmp_path / name)
    assert name in str(error.value)
    assert "real.root" in str(error.value)


# -- the user's folder


def test_a_folder_with_classes(tmp_path: Path) -> None:
    data = PointCloudDataModule(_folder(tmp_path, ("car", "tree")), points=32, scan_points=8, scan="random")
    assert data.class_names == ["car", "tree"]
    assert data.class_counts == [3, 3]
    sample = data.splits.train[0]
    assert sample["label"] == 0
    assert sample["scan"].shape == (8, 3)
    whole = {tuple(p) for i in range(2) for p in data.splits.train[i]["cloud"].tolist()}
    assert len(whole) > 32
    assert all(np.linalg.norm(p) <= 1 + 1e-5 for p in whole)


def test_a_folder_without_classes_or_validation_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = _folder(tmp_path, each=8, parts=("train", "test"))
    data = PointCloudDataModule(root, points=200, scan_points=8, normalise="cube")
    assert "7 of 7 clouds have fewer points than real.points=200" not in caplog.text
    data.setup()
    assert "7 of 7 clouds have fewer points than real.points=200" in caplog.text
    assert data.class_names == ["cloud"]
    assert data.model_facts()["num_classes"] == 0, "there is nothing to tell apart"
    assert [len(part) for part in (data.splits.train, data.splits.val, data.splits.test)] == [7, 1, 8]
    cloud = data.splits.test[2]["cloud"]
    assert cloud.shape == (200, 3)
    assert len({tuple(p) for p in cloud.tolist()}) == 42  # of a small cloud points come several times
    assert float(cloud.abs().max()) == pytest.approx(1, abs=1e-5)


def test_an_empty_validation_folder_is_as_none(tmp_path: Path) -> None:
    root = _folder(tmp_path, ("car", "tree"), each=8, parts=("train", "test"))
    (root / "val" / "car").mkdir(parents=True)
    splits = PointCloudDataModule(root).splits
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [14, 2, 16]


def test_one_folder_is_split_by_ratio_and_a_scan_of_its_own_is_kept(tmp_path: Path) -> None:
    for i in range(10):
        points = _cloud(50, i)
        np.savez(tmp_path / f"{i}.npz", points=points, scan=points[:6])
    splits = PointCloudDataModule(tmp_path, points=50, scan_points=6).splits
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [7, 1, 2]
    sample = splits.test[1]
    assert {tuple(p) for p in sample["scan"].tolist()} <= {tuple(p) for p in sample["cloud"].tolist()}


@pytest.mark.parametrize("normalise", ["ball", "cube"])
def test_a_cloud_far_from_the_origin_keeps_its_shape(normalise: str, tmp_path: Path) -> None:
    """A tile of a city in UTM: metres east and north of an origin far away."""
    near = np.random.RandomState(0).uniform([0, 0, 0], [100, 80, 20], (100_000, 3))
    far = near + np.array([5e5, 4.65e6, 300])
    clouds = []
    for name, points in (("near", near), ("far", far)):
        for part in ("train", "val", "test"):
            (tmp_path / name / part).mkdir(parents=True)
            np.savez(tmp_path / name / part / "a.npz", points=points, scan=points[:50])
        data = PointCloudDataModule(tmp_path / name, normalise=normalise)
        clouds.append(data.splits.test.fields)
    for field in ("cloud", "scan"):
        torch.testing.assert_close(clouds[1][field], clouds[0][field], rtol=0, atol=1e-5)


def test_hidden_files_are_not_read(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    (root / "test" / "._0.ply").write_bytes(b"what macOS keeps beside a file")
    assert len(PointCloudDataModule(root).splits.test) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="the file system refuses such a name")
def test_a_name_in_another_encoding_is_read(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    (root / "test" / "0.npz").rename(root / "test" / os.fsdecode(b"caf\xe9.npz"))  # Latin-1
    assert len(PointCloudDataModule(root).splits.test) == 3


@pytest.mark.parametrize("case", ["missing", "empty", "no test", "mixed", "unknown class"])
def test_another_layout_is_refused_with_the_expected_one(case: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    if case == "empty":
        root.mkdir()
    elif case == "no test":
        _folder(root, parts=("train", "val"))
    elif case == "mixed":
        np.save(_folder(root, ("car",)) / "train" / "a.npy", _cloud())
    elif case == "unknown class":
        _folder(root, ("car",))
        (root / "test" / "car").rename(root / "test" / "lorry")
    with pytest.raises(ConfigurationError, match=r"<root>/train/\*\.npz") as error:
        PointCloudDataModule(root).setup()
    assert "real.root" in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": 2}, {"scan": "spiral"}, {"sampling": "nearest"}, {"normalise": "sphere"}, {"scan_lines": 30},
        {"split": [0.5, 0.5]}, {"scan_lines": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range_name_their_key(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=rf"real\.{next(iter(wrong))}"):
        PointCloudDataModule(**wrong)  # type: ignore[arg-type]


# -- further samples


def test_cloud_and_scan_turn_together_and_only_the_scan_is_inexact() -> None:
    sample = {"cloud": torch.from_numpy(_cloud()[:, :3]), "scan": torch.from_numpy(_cloud(9)[:, :3]), "label": 1}
    sample["cloud"][:9] = sample["scan"]
    torch.manual_seed(3)
    moved = CloudAugment(jitter=0.0)(sample)
    assert torch.equal(moved["cloud"][:9], moved["scan"])
    assert torch.equal(moved["cloud"][:, 2], sample["cloud"][:, 2])
    assert not torch.allclose(moved["cloud"], sample["cloud"])
    assert moved["label"] == 1
    torch.manual_seed(3)
    inexact = CloudAugment(jitter=0.02)(sample)
    assert torch.equal(inexact["cloud"], moved["cloud"])
    assert 0 < float((inexact["scan"] - moved["scan"]).abs().max()) <= 0.06 + 1e-6
    with pytest.raises(ConfigurationError, match=r"real\.augment\.jitter"):
        CloudAugment(jitter=-1)


def test_a_made_cloud_has_one_scan() -> None:
    cloud = torch.from_numpy(_cloud()[:, :3])
    scan = ScanOf(points=12)({"cloud": cloud})
    assert scan.shape == (12, 3)
    assert torch.equal(scan, ScanOf(points=12)({"cloud": cloud}))
    with pytest.raises(ConfigurationError, match=r"real\.scan"):
        ScanOf(how="spiral")


def _of_pairs(cloud: torch.Tensor, scan: torch.Tensor) -> dict[str, float]:
    """Statistics of pairs (n, P, 3) and (n, S, 3), whose scans are along three lines."""
    lines = scan[..., :2].reshape(len(scan), 3, -1, 2)
    wide, long = torch.linalg.svdvals(lines - lines.mean(2, keepdim=True)).flip(2).unbind(2)
    nearest = torch.cdist(scan, cloud).amin(2)
    return {
        "width": float(wide.max()),
        "length": float(long.mean()),
        "nearest": float(nearest.mean()),
        "at own points": float((nearest < 1e-3).float().mean()),
        "level": float(scan[..., 2].mean(1).abs().max()),
        "height": float(scan[..., 2].std(1).mean()),
        "cloud": float(cloud[..., 2].mean(1).abs().mean()),
    }


def test_made_pairs_are_like_real_ones_in_scan_and_level() -> None:
    data = PointCloudDataModule()
    clouds = data.splits.test.fields["cloud"]  # 128 of 1,024 points: as sparse as made ones
    real = _of_pairs(clouds, data.splits.test.fields["scan"])
    lifted = clouds + torch.linspace(-0.3, 0.3, len(clouds))[:, None, None] * torch.tensor([0.0, 0, 1])
    samples = [data.conversion({"cloud": cloud, "scan": ScanOf()({"cloud": cloud}), "label": 0}) for cloud in lifted]
    made = _of_pairs(*(torch.stack([sample[name] for sample in samples]) for name in ("cloud", "scan")))
    for pairs in (real, made):
        assert pairs["width"] < 1e-5
        assert pairs["level"] < 1e-6
        assert pairs["at own points"] < 0.02
    for name in ("length", "nearest", "height", "cloud"):
        assert made[name] == pytest.approx(real[name], rel=0.25), name
    sample = data.splits.test[3]
    assert torch.allclose(sample["cloud"], clouds[3], atol=1e-6), "real pairs are level as they are"


def test_a_picture_shows_cloud_and_scan() -> None:
    cloud = torch.tensor([[0.0, 0, 0.5], [0.5, 0, -0.5]])
    plain, with_scan = oblique(cloud), oblique(cloud, cloud[1:])
    assert plain.shape == (3, 48, 48)
    assert torch.equal(plain[0], plain[2])
    assert float(plain.max()) == 1
    assert int((plain[0] > 0).sum()) == 8
    assert bool((with_scan[0] > with_scan[2]).any())
    above = oblique(torch.tensor([[0.0, 0, 0.5]]))[0].nonzero().float().mean(0)
    below = oblique(torch.tensor([[0.0, 0, -0.5]]))[0].nonzero().float().mean(0)
    assert above[0] < below[0]
    assert above[1] == below[1]
