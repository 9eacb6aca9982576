"""Starts a run: names what is to be made, starts who makes it, and puts the parts of the mix together."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.feedback.learner import network_name
from lightning_diffaug.gates.choice import chosen_gates, named_gates
from lightning_diffaug.gates.nearest import compared_field
from lightning_diffaug.generators.device import tell_trainer_devices
from lightning_diffaug.mixing.sampler import MixSampler, MixSettings
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.planning import named_planner, warn_of_unread_text
from lightning_diffaug.pool import EpochCache, capacity_slots
from lightning_diffaug.pool.private import remove_left_behind
from lightning_diffaug.pool.process import machine_id, surely_dead
from lightning_diffaug.pool.storage import Folder
from lightning_diffaug.pool_settings import PoolSettings, check_device, check_feedback, check_learner
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.ranks import Ranks
from lightning_diffaug.real import RealTraining
from lightning_diffaug.refill.fitted import NO_SNAPSHOT, remove_unfinished
from lightning_diffaug.refill.in_process import InProcessRefill, NoRefill
from lightning_diffaug.refill.job import Job, given_fields, made_spec, reads_data
from lightning_diffaug.refill.local import LocalRefill
from lightning_diffaug.refill.protocol import Refill
from lightning_diffaug.refill.settings import RefillSettings
from lightning_diffaug.refill.supply import WindowSupply
from lightning_diffaug.run import MixRun
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

log = logging.getLogger(__name__)

_NO_REAL_SAMPLES = (
    "the generator or the planner starts from real training samples, or a gate compares with them, and there is no "
    "snapshot of them (an IterableDataset has no index). Give raw=<map-style dataset>, or set generator.source=noise "
    "and gates that need none."
)
_LIVE_OBJECT = {"_target_": "lightning_diffaug.live_object"}


def start_run(
    pool: PoolSettings,
    mix: MixSettings,
    data: RealTraining,
    ranks: Ranks,
    trainer: Any,
    state: dict[str, Any] | None,
    held_out: Callable[[FieldSpec], Snapshot],
) -> MixRun:
    """Puts a run together. Its refill process starts with the first batch, on each node's leading rank.

    Args:
        pool: What fills the pool.
        mix: How real and synthetic are mixed.
        data: The real training data.
        ranks: This process among the ranks.
        trainer: The Trainer, or None.
        state: `MixRun.state` of the run that is resumed, or None.
        held_out: Reads a field of the validation and test data; called where a gate compares with them.

    Raises:
        ConfigurationError: Settings do not fit the data.
    """
    sampler = MixSampler(
        mix, data.members, data.mixed_classes, data.facts.batch_size, data.facts.drop_last, data.facts.shuffle,
        ranks.world_size, 1.0 if trainer is None else trainer.limit_train_batches,
    )  # fmt: skip
    if ranks.leads:
        _say_what_gives(sampler)
    run_id = ranks.agree(uuid.uuid4().hex[:12])
    cache = EpochCache(pool.cache_dir / "epoch_cache" / run_id)
    never = mix.fraction.is_constant and mix.fraction(0) == 0
    supply = helper = None
    private = None
    if pool.feedback is not None and not never:
        check_feedback(pool, mix)
        private = (state or {}).get("private") or run_id
    if ranks.leads_node and not never:
        refill = _refill(pool, mix, data, run_id, ranks, private, _learner_name(pool, trainer), held_out)
        if ranks.leads:
            resumed: dict[str, Any] = {"last_complete": [], "window": {"slots": []}} if state is None else state
            supply = WindowSupply(
                refill, cache, run_id, sampler.labelled, pool.when_short, pool.wait_timeout, pool.refill.mode == "sync",
                resumed["last_complete"], pool.refill.slots_ahead, resumed.get("behind"), resumed["window"]["slots"],
                partial(_end_on_sigterm, trainer),
            )  # fmt: skip
        else:
            helper = refill
    return MixRun(sampler, supply, helper, cache, ranks, trainer, state, private)


def _learner_name(pool: PoolSettings, trainer: Any) -> dict[str, Any] | None:
    """What the refill process makes the learner's network of; None where its weights are not handed over."""
    module = getattr(trainer, "lightning_module", None)
    if pool.feedback is None or not pool.feedback.hand_over or module is None:
        return None
    try:
        return network_name(module)
    except ConfigurationError:  # all ranks say it before the first batch: `LearnerFeedback.on_train_start`
        return None


def _end_on_sigterm(trainer: Any) -> None:
    """Lightning only records the signal and acts on it after a batch; a wait for the first one may be long."""
    if trainer is not None and trainer.received_sigterm:
        raise SIGTERMException


def _say_what_gives(sampler: MixSampler) -> None:
    """Says once where the shares asked for cannot all be had."""
    mix, found = sampler.settings, sampler.most_synthetic()
    if found.cap_raised:
        log.warning(
            "data.synthetic_fraction=%g is above data.max_class_share=%g, so the cap is raised alike for all classes: "
            "each has the synthetic share asked for in all.",
            float(mix.fraction.extremes[1]), mix.max_class_share,
        )  # fmt: skip
    if mix.window % mix.slot_size:
        log.warning(
            "data.window=%d is no multiple of data.slot_size=%d: a window is whole slots, so an epoch sees %d samples.",
            mix.window, mix.slot_size, len(sampler.slots(0)) * mix.slot_size,
        )  # fmt: skip
    if found.clipped:
        log.warning(
            "data.allocation=as_real asks for more synthetic draws of the largest classes than data.balance=classes "
            "gives them; the other classes take the rest."
        )
    if found.imbalance:
        log.warning(
            "data.mode=append levels the classes as far as its synthetic part reaches: %.0f draws above the level "
            "remain. A higher data.synthetic_fraction levels more.",
            found.imbalance,
        )


def _refill(
    pool: PoolSettings,
    mix: MixSettings,
    data: RealTraining,
    run_id: str,
    ranks: Ranks,
    private: str | None,
    learner: dict[str, Any] | None,
    held_out: Callable[[FieldSpec], Snapshot],
) -> Refill:
    _remove_left_behind(pool.cache_dir, private)
    settings, devices = pool.refill, ranks.gpus
    named = _named(pool.generator, settings)
    if settings.mode != "none":
        check_device(named)
    generator = pool.generator
    with untouched_rng():
        if isinstance(generator, Mapping):
            generator = build(name_of(generator))
        planner = named_planner(pool.planner, pool.text, pool.real_guided, mix, data, generator, pool.pool_seed)
        planning = build(planner, "planner")
        if settings.mode != "none" and hasattr(generator, "bind"):
            made = made_spec(data.spec, generator, planning)
            generator.bind(made, tuple(data.class_names))  # what is wrong is said before anything starts
    tell_trainer_devices(generator, devices)
    judged = data.spec.without(given_fields(data.spec, generator, planning))
    gate_names = named_gates(_gates(pool.gates, data, judged), data.spec, judged)
    gates = [build(name, "gates") for name in gate_names]
    fits = named is not None and hasattr(generator, "fit_key")
    check_learner(pool, generator, gates)
    for gate, name in zip(gates, gate_names, strict=True):
        if settings.mode != "none" and "device" in getattr(gate, "unnamed", ()):
            check_device(name, f"gates.{gate.name}")
        if callable(getattr(gate, "check", None)):
            gate.check(data.spec, tuple(data.class_names))
    if pool.text is not None:
        warn_of_unread_text(generator, gates, data)
    snapshot = None
    if (fits or any(reads_data(part) for part in (planning, *gates))) and (snapshot := data.snapshot()) is None:
        raise ConfigurationError(NO_SNAPSHOT if fits else _NO_REAL_SAMPLES)
    contamination = next((gate for gate in gates if hasattr(gate, "bind_held_out")), None)
    unseen = None
    if contamination is not None:
        unseen = held_out(data.spec[compared_field(judged, getattr(contamination, "field", None))])
    run_dir = pool.cache_dir / "runs" / f"{run_id}-{machine_id()}-{os.getpid()}"
    job = Job(
        generator=named or _LIVE_OBJECT,
        planner=planner,
        gates=gate_names,
        spec=data.spec.to_json(),
        class_names=list(data.class_names),
        snapshot=None if snapshot is None else str(snapshot.save(pool.cache_dir / "snapshots")),
        snapshot_hash=None if snapshot is None else snapshot.hash,
        slot_size=mix.slot_size,
        pool_seed=pool.pool_seed,
        attempts=settings.attempts,
        cache_dir=str(pool.cache_dir if named is not None or private is not None else run_dir),
        run_dir=str(run_dir),
        run_id=run_id if ranks.leads else f"{run_id}-{ranks.rank}",
        parent_pid=os.getpid(),
        ahead=settings.slots_ahead,
        nice=settings.nice,
        threads=settings.threads,
        trainer_devices=list(devices),
        duty=settings.working_share,
        capacity=capacity_slots(pool.capacity, mix.window, mix.slot_size),
        private=private,
        learner=learner,
        min_acceptance=settings.min_acceptance,
        keep_rejected=pool.keep_rejected,
        held_out=None if unseen is None else str(unseen.save(pool.cache_dir / "snapshots")),
        held_out_hash=None if unseen is None else unseen.hash,
    )
    if settings.mode == "none":
        return NoRefill(job, generator)
    if named is not None:
        return LocalRefill(job, generator, settings)
    Folder(run_dir).create()
    try:
        return InProcessRefill(job, generator, data.snapshot)
    except BaseException:
        shutil.rmtree(run_dir, ignore_errors=True)
        raise


def _gates(gates: Any, data: RealTraining, judged: SampleSpec) -> list[Any]:
    """The gates; by default none that compares where nothing can be compared."""
    if (data.copied and judged.continuous) or isinstance(gates, (list, tuple)):
        return chosen_gates(gates)
    if not data.copied:
        log.warning(
            "the training data are a stream, or larger than data.snapshot_limit: by default samples are not compared "
            "with them, so copies of them go unseen. Where the data have an index, gates.copy={ratio: 0.33} asks for "
            "it."
        )
    return chosen_gates(gates, left_out=("copy", "duplicate"))


def _named(generator: Any, settings: RefillSettings) -> dict[str, Any] | None:
    """The generator's name; None for an object without one that the trainer's own process may use."""
    if isinstance(generator, Mapping):
        return name_of(generator)
    if inspect.isclass(generator) or not (callable(generator) or hasattr(generator, "generate")):
        raise ConfigurationError(
            f"generator={generator!r} makes no samples: give an object with generate(condition, seeds), a function of "
            'that form, or {"_target_": "package.module.Class", <arguments>}.'
        )
    try:
        return name_of(generator)
    except ConfigurationError:
        if settings.mode != "sync":
            raise
        return None


def _remove_left_behind(cache_dir: Path, private: str | None) -> None:
    """Removes the small files, epoch caches and half-done fits of runs on this machine whose process is gone.

    Old pools that are one run's own go too, but for that of the run that goes on (`private`).
    """
    remove_unfinished(cache_dir)
    remove_left_behind(cache_dir / "pools", keep=private)
    runs = cache_dir / "runs"
    for folder in runs.iterdir() if runs.is_dir() else ():
        run_id, machine, pid = [*folder.name.rsplit("-", 2), "", ""][:3]
        if pid.isdigit() and surely_dead(machine, int(pid)):
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
                EpochCache(cache_dir / "epoch_cache" / run_id).close()
