"""The job: what crosses the process boundary, as import paths and plain values, and the names that follow from it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.feedback.reading import PlanReader
from lightning_diffaug.gates import Gate
from lightning_diffaug.generators.device import tell_trainer_devices
from lightning_diffaug.naming import build, defined_at, name_of, source_digest
from lightning_diffaug.pool import PoolHeader, SyntheticPool, fingerprint
from lightning_diffaug.pool.storage import Folder
from lightning_diffaug.refill.fitted import ensure_fitted, fit_seconds, fitted_folder, fitted_weights
from lightning_diffaug.refill.recipe import Recipe
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import SampleSpec


def reads_data(part: Any) -> bool:
    """Whether a planner or a gate reads the real training data: to know them, or to be fitted on them."""
    return hasattr(part, "bind") or fitted_part(part) is not None


def fitted_part(part: Any) -> Any:
    """What is to be fitted of a generator or a gate: itself, or what it names as ``fitted``; None where nothing is."""
    found = getattr(part, "fitted", None)
    found = part if found is None else found
    return found if callable(getattr(found, "fit_key", None)) else None


def made_spec(spec: SampleSpec, generator: Any, planner: Any) -> SampleSpec:
    """The fields that a generator is told of: all where it asks for some as conditions; else those it has to make.

    Args:
        spec: All fields of a sample.
        generator: The generator.
        planner: The planner, which gives some of the fields, as real samples have them.
    """
    return spec if hasattr(generator, "given") else spec.without(getattr(planner, "given", ()))


def given_fields(spec: SampleSpec, generator: Any, planner: Any) -> list[str]:
    """The fields of a sample that are real samples' own.

    The generator is told them (``given``) or starts from them and leaves them as they are (``kept``), or the planner
    gives them.
    """
    own = (getattr(generator, "given", ()), getattr(generator, "kept", ()), getattr(planner, "given", ()))
    given = {name for names in own for name in names}
    return [field.name for field in spec.continuous if field.name in given]


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
        held_out: File of a snapshot of the validation and test data, for a gate that asks for them; else None.
        held_out_hash: Its hash.
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
        min_acceptance: Share of the samples made below which filling ends, in [0, 1).
        keep_rejected: Rejected samples of each reason that are kept for each slot.
        private: Name of the run that alone uses the pool, or None for a shared pool.
        learner: Name of the network whose weights are handed over, or None where none are.
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
    min_acceptance: float = 0.05
    keep_rejected: int = 0
    held_out: str | None = None
    held_out_hash: str | None = None
    private: str | None = None
    learner: dict[str, Any] | None = None

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
            generator: The generator, or a gate. One that names another part as ``fitted`` shares the fit of that one.
            name: Its name; None: `generator`.
        """
        part = fitted_part(generator)
        if part is None:
            return None
        named = name_of(part) if part is not generator else self.generator if name is None else name
        parts = {
            "class": defined_at(named),
            "source": source_digest(named),
            "fit": part.fit_key(),
            "snapshot": self.snapshot_hash,
        }
        return fingerprint(parts)

    def make_gates(self) -> tuple[Gate, ...]:
        """The gates, which know no data yet."""
        gates = tuple(build(gate, "gates") for gate in self.gates)
        for gate in gates:
            tell_trainer_devices(getattr(gate, "asks", None), self.trainer_devices)
        return gates

    def pool_header(self, generator: Any, weights: str | None, gate_weights: Sequence[str | None] = ()) -> PoolHeader:
        """Names the pool by every setting that changes a sample, and nothing else.

        Args:
            generator: The generator that `generator` names.
            weights: Hash of its fitted weights, or None.
            gate_weights: Of each gate; () where no gate is fitted.
        """
        sample_key = getattr(generator, "sample_key", None)
        named = {"class": defined_at(self.generator), "source": source_digest(self.generator)}
        planner = build(self.planner, "planner")
        given = given_fields(SampleSpec.from_json(self.spec), generator, planner)
        gates = zip(self.gates, self.make_gates(), gate_weights or [None] * len(self.gates), strict=True)
        parts: dict[str, Any] = {
            "generator": named | {"settings": sample_key() if sample_key else self.generator},
            "weights": weights,
            "planner": self._known(self.planner, planner),
            "gates": [self._known(name, gate) | {"weights": fitted} for name, gate, fitted in gates],
            "spec": self.spec,
            "class_names": self.class_names,
            "slot_size": self.slot_size,
            "pool_seed": self.pool_seed,
            "attempts": self.attempts,
            "private": self.private,
        } | ({"given": given} if given else {})
        return PoolHeader(fingerprint(parts), parts, self.slot_size, {"fields": self.spec})

    def _known(self, name: dict[str, Any], part: Any) -> dict[str, Any]:
        """What a planner or gate decides by."""
        model_key = getattr(part, "model_key", None)
        return {
            "name": {key: value for key, value in name.items() if key not in getattr(part, "unnamed", ())},
            "source": source_digest(name),
            "snapshot": self.snapshot_hash if hasattr(part, "bind") else None,
            "model": model_key() if callable(model_key) else None,
        } | ({"held_out": self.held_out_hash} if hasattr(part, "bind_held_out") else {})

    def create_pool(
        self, generator: Any, weights: str | None, gate_weights: Sequence[str | None] = ()
    ) -> SyntheticPool:
        """The pool that the settings and the fitted weights name; made if absent."""
        header = self.pool_header(generator, weights, gate_weights)
        return SyntheticPool.create(Path(self.cache_dir) / "pools" / header.fingerprint, header)

    def find_pool(self, generator: Any) -> SyntheticPool | None:
        """The pool, or None as long as generator or gates have to be fitted first (their weights name the pool)."""
        weights: list[str | None] = []
        for part, name in [(generator, self.generator), *zip(self.make_gates(), self.gates, strict=True)]:
            fit_name = self.fit_fingerprint(part, name)
            try:
                found = None if fit_name is None else fitted_weights(fitted_folder(Path(self.cache_dir), fit_name))
            except GeneratorError:
                return None  # the refill process sets it aside and fits again
            if fit_name is not None and found is None:
                return None
            weights.append(found)
        return self.create_pool(generator, weights[0], weights[1:])

    def ensure_fitted(
        self, part: Any, name: dict[str, Any], progress: Callable[[int, int], None]
    ) -> tuple[str | None, float]:
        """Fits a part if it is not fitted yet, and loads it.

        Returns:
            Hash of its weights, and the seconds of the fit; None and 0 where there is nothing to fit.

        Raises:
            GeneratorError: The fit failed.
            ConfigurationError: There are no training data to fit on.
            PoolError: The cache folder cannot be written.
        """
        fit_name = self.fit_fingerprint(part, name)
        if fit_name is None:
            return None, 0.0
        folder = fitted_folder(Path(self.cache_dir), fit_name)
        return ensure_fitted(fitted_part(part), folder, self.load_snapshot, progress, self.run_id)

    def fit_gates(self, gates: Sequence[Gate], progress: Callable[[int, int], None]) -> tuple[list[str | None], float]:
        """`ensure_fitted` for each gate: the hashes of their weights, and the seconds of all fits."""
        fits = [self.ensure_fitted(gate, name, progress) for gate, name in zip(gates, self.gates, strict=True)]
        return [weights for weights, _ in fits], sum(seconds for _, seconds in fits)

    def fit_seconds(self, generator: Any) -> float:
        """Seconds that the fits of generator and gates took, whichever run fitted them; 0 for one that is not here."""
        seconds = 0.0
        for part, name in [(generator, self.generator), *zip(self.make_gates(), self.gates, strict=True)]:
            fit_name = self.fit_fingerprint(part, name)
            if fit_name is not None:
                with contextlib.suppress(OSError, ValueError, KeyError):
                    seconds += fit_seconds(fitted_folder(Path(self.cache_dir), fit_name))
        return seconds

    def recipe(self, generator: Any, gates: Sequence[Gate] | None = None, pool: SyntheticPool | None = None) -> Recipe:
        """The recipe of slots with the generator at hand, which learns what the data are if it has ``bind``.

        A planner or a gate with ``bind`` gets the training snapshot itself.

        Args:
            generator: The generator, fitted.
            gates: The gates, fitted; None: made anew, where none has to be.
            pool: Where the learner's plans are, if it is the run's own.
        """
        spec = SampleSpec.from_json(self.spec)
        planner = build(self.planner, "planner")
        if hasattr(generator, "bind"):
            generator.bind(made_spec(spec, generator, planner), tuple(self.class_names))
        gates = self.make_gates() if gates is None else tuple(gates)
        readers = [part for part in (planner, *gates) if hasattr(part, "bind")]
        snapshot = self.load_snapshot() if readers else None
        for reader in readers:
            reader.bind(snapshot)
            if hasattr(reader, "bind_held_out") and self.held_out is not None:
                reader.bind_held_out(Snapshot.load(Path(self.held_out)))
        reader = None if pool is None or self.private is None else PlanReader(pool.folder, self.learner)
        return Recipe(
            planner=planner,
            generator=generator,
            gates=tuple(gates),
            spec=spec,
            slot_size=self.slot_size,
            pool_seed=self.pool_seed,
            attempts=self.attempts,
            feedback=lambda slot: None if reader is None else reader(slot),
        )
