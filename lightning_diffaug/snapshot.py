"""The real training data as plain tensors: what a generator is fitted on and what gates compare with.

A snapshot holds raw samples (transform off) in safetensors under the hash of its content, so the refill side
never needs the user's live objects. Above a limit of bytes nothing is copied: the snapshot then names the
dataset by its import path, and rows are read from it on demand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_diffaug.errors import DamagedShardError
from lightning_diffaug.pool.fingerprint import fingerprint, tensors_digest
from lightning_diffaug.pool.storage import Folder
from lightning_diffaug.spec import LabelValue, SampleSpec


class Snapshot:
    """Raw training samples by field name.

    Args:
        spec: The fields and their ranges.
        fields: Name → (n, *shape) tensors in the stored dtype; ``label`` holds int64 class indices.
        class_names: Name of each class index; () when unlabelled.
        label_values: The user's own label for each class index; () when unlabelled.
        source: Reads rows on demand where the data are too large to be copied (then `fields` holds labels only).
        source_name: Import path of `source`.
        texts: Field name → n texts.
    """

    def __init__(
        self,
        spec: SampleSpec,
        fields: Mapping[str, Tensor],
        class_names: Sequence[str] = (),
        label_values: Sequence[LabelValue] = (),
        source: Any = None,
        source_name: Mapping[str, Any] | None = None,
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.spec = spec
        self.class_names = tuple(class_names)
        self.label_values = tuple(label_values)
        self.texts = {name: list(of) for name, of in (texts or {}).items()}
        self._fields = dict(fields)
        self._source = source
        self._source_name = dict(source_name) if source_name is not None else None
        self.hash = fingerprint({"meta": self._meta(), "fields": tensors_digest(self._fields)}, 32)

    def _meta(self) -> dict[str, Any]:
        return {
            "spec": self.spec.to_json(),
            "class_names": list(self.class_names),
            "label_values": list(self.label_values),
            "source": self._source_name,
            **({"texts": self.texts} if self.texts else {}),
        }

    def __len__(self) -> int:
        if self._source is not None:
            return len(self._source)
        return len(next(iter(self._fields.values())))

    @property
    def labels(self) -> Tensor | None:
        """Class index of each sample, int64 (n,), or None when unlabelled."""
        return self._fields.get("label")

    def raw(self, name: str, indices: Tensor | None = None) -> Tensor:
        """Raw values of a field.

        Args:
            name: The field.
            indices: int64 (m,) rows; None for all.

        Returns:
            (m, *shape) tensor in the stored dtype.
        """
        if name in self._fields:
            values = self._fields[name]
            return values if indices is None else values.index_select(0, indices)
        from lightning_diffaug.sample import leaf_to_tensor  # torchvision; only large data sets need it
        from lightning_diffaug.structure import leaves

        field = self.spec[name]
        wanted = range(len(self)) if indices is None else indices.tolist()
        return torch.stack([leaf_to_tensor(leaves(self._source[i])[field.path], field) for i in wanted])

    def unit(self, name: str, indices: Tensor | None = None) -> Tensor:
        """A field scaled from its raw range to float32 in [-1, 1]; (m, *shape)."""
        return self.spec[name].to_unit(self.raw(name, indices))

    def save(self, folder: Path) -> Path:
        """Writes the snapshot under its hash, once.

        Args:
            folder: Folder of snapshots; made if absent.

        Returns:
            The file.
        """
        files, name = Folder(folder), f"{self.hash}.safetensors"
        if files.path(name).exists():
            try:
                Snapshot.load(files.path(name))
            except DamagedShardError:
                files.set_aside(name)
        meta = {"meta": json.dumps(self._meta())}
        files.put_if_absent(name, lambda path: save_file(self._fields, path, metadata=meta))
        return files.path(name)

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Reads a snapshot and checks its hash.

        Raises:
            DamagedShardError: The file is not the snapshot that its name says.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
                meta = json.loads(header["meta"])
                fields = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except Exception as error:
            raise DamagedShardError(f"{path} is not a readable snapshot: {error}") from error
        snapshot = cls(
            SampleSpec.from_json(meta["spec"]), fields, meta["class_names"], meta["label_values"], None, meta["source"],
            meta.get("texts"),
        )  # fmt: skip
        if snapshot.hash != path.stem:
            raise DamagedShardError(f"{path} was altered: its content has the hash {snapshot.hash}")
        if meta["source"] is not None:  # only now: an altered file must not name what is run
            from lightning_diffaug.naming import build

            snapshot._source = build(meta["source"], "raw")
        return snapshot
