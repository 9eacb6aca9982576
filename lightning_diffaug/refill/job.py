"""The job: what crosses the process boundary, as import paths and plain values, and the names that follow from it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.naming import build, defined_at, source_digest
from lightning_diffaug.pool import PoolHeader, SyntheticPool, fingerprint
from lightning_diffaug.pool.storage import Folder
from lightning_diffaug.refill.fill_slot import Recipe
from lightning_diffaug.refill.fitted import fitted_folder, fitted_weights
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import SampleSpec


def reads_data(planner: dict[str, Any]) -> bool:
    """Whether a named planner reads the real training data: those have a method ``bind(snapshot)``."""
    return hasattr(build(planner, "planner"), "bind")


@dataclass(frozen=True)
class Job:
    """A run's order to the refill side. Plain values only.

    Attributes:
        generator: Name of the generator (`lightning_diffaug.naming.name_of`).
        planner: Name of the planner.
        gates: Names of the gates, in order.
        spec: `SampleSpec.to_json` of the sample.
        class_names: Class names in order; [] when unlabelled.
        snapshot: File of the training snapshot, or None where nothing needs it.
        snapshot_hash: Its hash.
        slot_size: Rows a slot.
        pool_seed: Seed of the pool.
        attempts: Attempts a row.
        cache_dir: Folder of fitted generators and pools.
        run_dir: Folder of this run's own files (status, lease).
        run_id: Name of the run.
        parent_pid: Process whose end ends the refill.
        ahead: Slots made beyond those that the run needs.
        nice: Niceness of the refill process, 0 … 19.
        threads: Threads it computes with.
        trainer_devices: GPUs of this node that training computes on, the process that looks after the refill first.
        duty: Share of the time in which the generator may compute, in (0, 1].
        capacity: Slots that the pool may hold, or None.
        private: Name of the run that alone uses the pool, or None for a shared pool.
    """

    generator: dict[str, Any]
    planner: dict[str, Any]
    gates: list[dict[str, Any]]
    spec: list[dict[str, Any]]
    class_names: list[str]
    snapshot: str | None
    snapshot_hash: str | None
    slot_size: int
    pool_seed: int
    attempts: int
    cache_dir: str
    run_dir: str
    run_id: str
    parent_pid: int
    ahead: int = 4
    nice: int = 19
    threads: int = 1
    trainer_devices: list[int] = field(default_factory=list)
    duty: float = 1.0
    capacity: int | None = None
    private: str | None = None

    def write(self, path: Path) -> Path:
        """Writes the job as JSON."""
        Folder(path.parent).replace_bytes(path.name, json.dumps(dataclasses.asdict(self), indent=1).encode())
        return path

    @classmethod
    def read(cls, path: Path) -> Job:
        """The inverse of `write`."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def load_snapshot(self) -> Snapshot | None:
        """The training snapshot, checked against its hash."""
        return None if self.snapshot is None else Snapshot.load(Path(self.snapshot))

    def fit_fingerprint(self, generator: Any, name: dict[str, Any] | None = None) -> str | None:
        """Names a fitted generator: training snapshot and fit settings. None where there is nothing to fit.

        Args:
            generator: The generator.
            name: Its name; None: `generator`.
        """
        name = self.generator if name is None else name
        fit_key = getattr(generator, "fit_key", None)
        if fit_key is None:
            return None
        parts = {
            "class": defined_at(name),
            "source": source_digest(name),
            "fit": fit_key(),
            "snapshot": self.snapshot_hash,
        }
        return fingerprint(parts)

    def pool_header(self, generator: Any, weights: str | None) -> PoolHeader:
        """Names the pool by every setting that changes a sample, and nothing else.

        Args:
            generator: The generator that `generator` names.
            weights: Hash of its fitted weights, or None.
        """
        sample_key = getattr(generator, "sample_key", None)
        named = {"class": defined_at(self.generator), "source": source_digest(self.generator)}
        planned_from = self.snapshot_hash if reads_data(self.planner) else None
        parts: dict[str, Any] = {
            "generator": named | {"settings": sample_key() if sample_key else self.generator},
            "weights": weights,
            "planner": {"name": self.planner, "source": source_digest(self.planner), "snapshot": planned_from},
            "gates": [{"name": gate, "source": source_digest(gate)} for gate in self.gates],
            "spec": self.spec,
            "class_names": self.class_names,
            "slot_size": self.slot_size,
            "pool_seed": self.pool_seed,
            "attempts": self.attempts,
            "private": self.private,
        }
        return PoolHeader(fingerprint(parts), parts, self.slot_size, {"fields": self.spec})

    def create_pool(self, generator: Any, weights: str | None) -> SyntheticPool:
        """The pool that the settings and the fitted weights name; made if absent."""
        header = self.pool_header(generator, weights)
        return SyntheticPool.create(Path(self.cache_dir) / "pools" / header.fingerprint, header)

    def find_pool(self, generator: Any) -> SyntheticPool | None:
        """The pool, or None as long as the generator has to be fitted first (its weights name the pool)."""
        name = self.fit_fingerprint(generator)
        if name is None:
            return self.create_pool(generator, None)
        try:
            weights = fitted_weights(fitted_folder(Path(self.cache_dir), name))
        except GeneratorError:
            return None  # the refill process sets it aside and fits again
        return None if weights is None else self.create_pool(generator, weights)

    def recipe(self, generator: Any) -> Recipe:
        """The recipe of slots with the generator at hand, which learns what the data are if it has ``bind``.

        A planner with ``bind`` gets the training snapshot itself.
        """
        spec = SampleSpec.from_json(self.spec)
        if hasattr(generator, "bind"):
            generator.bind(spec, tuple(self.class_names))
        planner = build(self.planner, "planner")
        if reads_data(self.planner):
            planner.bind(self.load_snapshot())
        return Recipe(
            planner=planner,
            generator=generator,
            gates=tuple(build(gate, "gates") for gate in self.gates),
            spec=spec,
            slot_size=self.slot_size,
            pool_seed=self.pool_seed,
            attempts=self.attempts,
        )
