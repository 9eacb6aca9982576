"""Data sets of the Hugging Face hub, written once as a folder of the layout that a data module reads."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload
from urllib.parse import unquote

from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_diffaug.data.hub_columns import check_named, chosen_columns
from lightning_diffaug.data.hub_files import SplitWriter
from lightning_diffaug.data.parts import VAL_NAMES, shown_files, shown_folders
from lightning_diffaug.data.sound_files import EXTENSIONS
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.paths import default_cache_dir
from lightning_diffaug.pool import fingerprint
from lightning_diffaug.publishing import published, remove_dead

log = logging.getLogger(__name__)

_URI = re.compile(r"hf://datasets/(?P<name>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[^/@]+))?(/(?P<config>[^/@]+))?/?")
_SPLITS = {"train": ("train",), "val": (*VAL_NAMES, "dev"), "test": ("test",)}
_PART = ".export-"
_DATA = {*IMG_EXTENSIONS, *EXTENSIONS, ".csv", ".jsonl", ".npz", ".npy", ".ply"}
_LEAST_VERSION = 4
_FORMAT = 1  # of what is written; a change of it writes all anew


@dataclass(frozen=True)
class HubSet:
    """A data set that the package ``datasets`` loads, and the folder that it is written to.

    Attributes:
        root: ``real.root``.
        roles: What is read: ``image`` or ``audio``, then ``label``, ``mask`` or ``caption``.
        columns: Role → column, as far as the user says.
        path: Name on the hub, or folder of parquet files.
        revision: On the hub: branch, tag or commit; None: the newest.
        config: Configuration (subset) on the hub; None: the default one.
        files: Of a local data set.
        folder: Where it is written to.
    """

    root: str
    roles: tuple[str, str]
    columns: Mapping[str, str]
    path: str
    revision: str | None
    config: str | None
    files: tuple[Path, ...]
    folder: Path

    def export(self) -> None:
        """Loads and writes it, where that was not done before: each file as it is stored.

        ``validation`` takes the place of a ``test`` that is missing or whose rows have no answers; where there is
        neither, all is one folder, which is divided as `folder_parts` does. `folder` is there as a whole or not at all.

        Raises:
            ConfigurationError: The package is missing, the data set cannot be loaded or written, its columns are
                ambiguous, or it holds files that cannot be read.
        """
        if self.folder.is_dir():
            return
        log.info("real.root=%s is loaded by the package datasets and written to %s.", self.root, self.folder)
        try:
            remove_dead(self.folder.parent, _PART)
            with published(self.folder, _PART) as part:
                # What is downloaded stays in Hugging Face's own cache; of files that are here no copy is kept.
                cache = part / ".cache" if self.files else None
                self._write(self._loaded(cache), part)
                if cache is not None:
                    shutil.rmtree(cache)
        except OSError as error:
            raise ConfigurationError(
                f"real.root={self.root} cannot be written to {self.folder} ({error}). Make room or grant access there, "
                "or set LIGHTNING_DIFFAUG_CACHE to another folder."
            ) from error
        if not self.files and self.revision is None:
            log.info("Later runs use it as it is now. For a newer one remove the folder, or name an @<revision>.")

    def _loaded(self, cache: Path | None) -> Mapping[str, Any]:
        datasets = _package(self.root)
        if not self.files and Path(self.path).exists():  # load_dataset would take it first
            raise ConfigurationError(
                f"real.root={self.root}: the working directory has a folder {self.path}, which would be read in place "
                f"of the hub. Start in another directory, or set real.root to {Path(self.path).resolve()}."
            )
        quiet = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            splits: Mapping[str, Any] = datasets.load_dataset(
                self.path, self.config, revision=self.revision, cache_dir=None if cache is None else str(cache)
            )
        except Exception as error:  # of the network, of file formats, of the package: they have no common base
            raise ConfigurationError(
                f"real.root={self.root} cannot be loaded ({type(error).__name__}: {error}). Check its name, your "
                "network, and, where access is restricted, that you are logged in (hf auth login); without a network, "
                "set real.root to a folder that holds its parquet files."
            ) from error
        finally:
            if not quiet:
                datasets.enable_progress_bars()
        return splits

    def _write(self, splits: Mapping[str, Any], part: Path) -> None:
        found = {
            ours: next((splits[name] for name in names if name in splits), None) for ours, names in _SPLITS.items()
        }
        if found["train"] is None and len(splits) == 1:
            found["train"] = next(iter(splits.values()))
        if found["train"] is None:
            raise ConfigurationError(
                f"real.root={self.root} has the splits {', '.join(splits)}, and none is called train, so nothing says "
                "what to train on. Set real.root to another data set or configuration."
            )
        columns = chosen_columns(found["train"].features, self.roles, self.columns, self.root)
        log.info("%s: %s", self.root, ", ".join(f"{role} is the column {name}" for role, name in columns.items()))
        writer = SplitWriter(self.root, columns, [Path(self.path)] if self.files else _downloads())
        written = {ours: 0 if split is None else writer.write(split, part / ours) for ours, split in found.items()}
        if not written["train"]:
            raise ConfigurationError(
                f"real.root={self.root}: no training row has both {' and '.join(columns.values())}, so there is "
                "nothing to learn. Set real.root, or real.columns."
            )
        if written["test"]:
            return
        if written["val"]:
            log.info("%s has no test split with answers: its validation split is the test part.", self.root)
            (part / "val").rename(part / "test")
            return
        aside = (part / "train").rename(part / ".whole")
        for path in list(aside.iterdir()):
            path.rename(part / path.name)
        aside.rmdir()


@overload
def located(
    root: None, roles: tuple[str, str], columns: Mapping[str, str] | None, name: str | None = None
) -> tuple[None, None]: ...
@overload
def located(
    root: str | Path, roles: tuple[str, str], columns: Mapping[str, str] | None, name: str | None = None
) -> tuple[Path, HubSet | None]: ...
def located(
    root: str | Path | None, roles: tuple[str, str], columns: Mapping[str, str] | None, name: str | None = None
) -> tuple[Path | None, HubSet | None]:
    """The folder that is read, and the data set that has to be written to it first, if there is one.

    What names the folder that it is written to is known without loading: address and columns; of local files names,
    sizes and times. So every rank finds it, and later runs need neither the network nor the package.

    Args:
        root: ``hf://datasets/<owner>/<name>[@<revision>][/<config>]``, or a folder of parquet files and no others that
            are data, by itself or in ``data/``.
        roles: See `HubSet`.
        columns: ``real.columns``.
        name: ``real.name``, of a set of torchvision that `root` holds.

    Raises:
        ConfigurationError: The address is none, or `columns` or `name` do not fit.
    """
    if root is not None and "://" in str(root) and not str(root).startswith("hf:"):
        raise ConfigurationError(
            f"real.root={root} is an address that nothing here reads. Set real.root to a folder, or, for a data set of "
            "the Hugging Face hub, to hf://datasets/<owner>/<name>."
        )
    named = {} if columns is None else {str(role): str(name) for role, name in columns.items()}
    local = None if root is None or str(root).startswith("hf:") else Path(root).expanduser().absolute()
    files = () if local is None else _parquet_files(local)
    if root is None or (local is not None and not files):
        if named:
            raise ConfigurationError(
                f"real.columns={named} are of a data set of Hugging Face, and real.root={root} is none. Set "
                "real.columns to null, or real.root to hf://datasets/<owner>/<name> or a folder of parquet files."
            )
        return None if root is None else Path(root).expanduser(), None
    if name is not None:
        raise ConfigurationError(
            f"real.name={name} is a data set of torchvision, and real.root={root} one of Hugging Face. Set real.name "
            "to null, or real.root to the folder that holds the former."
        )
    check_named(named, roles, str(root))
    if local is not None:
        path, revision, config, short = str(local), None, None, local.name
    else:
        path, revision, config = _address(str(root))
        short = path.replace("/", "--")
    about = {"format": _FORMAT, "path": path, "revision": revision, "config": config, "roles": roles, "columns": named}
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    folder = default_cache_dir() / "datasets" / f"{short}-{fingerprint({**about, 'files': states}, 16)}"
    return folder, HubSet(str(root), roles, named, path, revision, config, files, folder)


def _parquet_files(folder: Path) -> tuple[Path, ...]:
    """The parquet files of a folder that holds nothing else to be read, by itself or in ``data/``."""
    if not folder.is_dir():
        return ()
    files = shown_files((*folder.glob("*"), *folder.glob("data/*")), {".parquet"})
    others = [found.name for found in shown_folders(folder) if found.name != "data"]
    others += [path.name for path in folder.iterdir() if path.is_file() and path.suffix.lower() in _DATA]
    if files and others:
        log.info(
            "real.root=%s holds %s beside parquet files, so it is read as a folder of files. To read the latter, set "
            "real.root to a folder of them alone.", folder, ", ".join(others[:3]),
        )  # fmt: skip
    return () if others else tuple(files)


def _downloads() -> list[Path]:
    """Where files of the hub are."""
    config: Any = importlib.import_module("datasets").config
    hub: Any = importlib.import_module("huggingface_hub.constants")
    folders = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH)
    return [Path(folder) for folder in (*folders, hub.HF_HUB_CACHE)]


def _address(root: str) -> tuple[str, str | None, str | None]:
    """Name, revision and configuration."""
    match = _URI.fullmatch(root)
    if match is None:
        raise ConfigurationError(
            f"real.root={root} is no address of a data set. Set real.root to hf://datasets/<owner>/<name>, with "
            "@<revision> and /<config> where they matter."
        )
    revision = match["revision"]
    return match["name"], None if revision is None else unquote(revision), match["config"]


def _package(root: str) -> Any:
    if importlib.util.find_spec("datasets") is None:
        raise ConfigurationError(
            f"real.root={root} is a data set that the package datasets loads, and it is not installed. Run: "
            "pip install 'lightning-diffaug[hub]'"
        )
    package = importlib.import_module("datasets")
    if int(package.__version__.partition(".")[0]) < _LEAST_VERSION:
        raise ConfigurationError(
            f"real.root={root} is loaded by the package datasets, of which {package.__version__} is installed: before "
            f"{_LEAST_VERSION} it may run code that comes with a data set. Run: pip install 'lightning-diffaug[hub]'"
        )
    return package
