"""The parts of a user's folder."""

from __future__ import annotations

from pathlib import Path

from lightning_diffaug.data.parts import folder_parts


def _files(folder: Path) -> list[str]:
    return sorted(f"{folder.name}/{path.name}" for path in folder.iterdir())


def test_validation_data_are_those_of_the_first_folder_that_holds_some(tmp_path: Path) -> None:
    for part in ("train", "val", "validation", "test"):
        (tmp_path / part).mkdir()
    for part in ("train", "validation", "test"):
        (tmp_path / part / "0").touch()
        (tmp_path / part / "1").touch()

    def parts() -> dict[str, list[str]]:
        return folder_parts(tmp_path, _files, "", (0.5, 0.25, 0.25))

    assert parts() == {
        part: [f"{of}/0", f"{of}/1"] for part, of in (("train", "train"), ("val", "validation"), ("test", "test"))
    }
    (tmp_path / "val" / "2").touch()
    assert parts()["val"] == ["val/2"]
