"""Runs an ablation: each arm on each training set, what is finished is skipped, then arms of equal wall-clock time."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_diffaug.ablation.caveats import fitted_to
from lightning_diffaug.ablation.equal_time import equal_time_jobs
from lightning_diffaug.ablation.grid import ARM, SEED, Job, jobs, reaches
from lightning_diffaug.ablation.identity import arm_folder, is_finished, write_jobs
from lightning_diffaug.ablation.launch import Launch, Task
from lightning_diffaug.ablation.schedule import TrainingSet
from lightning_diffaug.ablation.settings import check_settings
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

_LOCK = ".sweep.lock"
_NOT_OF_A_RUN = (ARM, "ablation.arms", "ablation.workers")


@dataclass(frozen=True)
class _Asked:
    """What the sweep was asked for: values of what is swept, and overrides of every job."""

    swept: dict[str, list[str]]
    fixed: dict[str, str]

    @classmethod
    def of(cls, overrides: Sequence[Override]) -> _Asked:
        swept: dict[str, list[str]] = {}
        fixed: dict[str, str] = {}
        for override in overrides:
            key = override.get_key_element()
            swept.pop(key, None)  # the last one counts
            fixed.pop(key, None)
            if override.is_sweep_override():
                if not override.is_discrete_sweep():
                    raise ConfigurationError(
                        f"{override.input_line} is no list of values. Give {key} as {key}=a,b or {key}=range(5)."
                    )
                swept[key] = list(override.sweep_string_iterator())
            else:
                fixed[key] = override.get_value_element_as_str()
        return cls(swept, fixed)


def run_arms(sweeper: Any, arguments: Sequence[str]) -> list[Any]:
    """Runs what is left of an ablation.

    Args:
        sweeper: Hydra's sweeper, set up.
        arguments: Overrides of the sweep, those of the configuration first.

    Raises:
        SystemExit: A setting is wrong; nothing has run.
    """
    try:
        ablation = _Ablation(sweeper, arguments)
        with _alone(ablation.folder):
            return ablation.run()
    except ConfigurationError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


class _Ablation:
    def __init__(self, sweeper: Any, arguments: Sequence[str]) -> None:
        self._config: DictConfig = sweeper.config
        self._loader = sweeper.hydra_context.config_loader
        self._asked = _Asked.of(OverridesParser.create(config_loader=self._loader).parse_overrides(list(arguments)))
        self._arguments = list(arguments)
        self._synthetic: set[str] = set()  # arms with synthetic samples
        self._places: dict[tuple[str, ...], str] = {}  # what is swept beside the arms → what a generator is fitted to
        self.folder = Path(self._config.hydra.sweep.dir)
        self._done = 0
        self._launching = Launch(sweeper)

    def run(self) -> list[Any]:
        """All jobs, then those of equal time."""
        settings = self._config.ablation
        check_settings(settings)
        arms = self._arms()
        every = jobs(arms, {SEED: [str(self._config.seed)]} | self._swept(), self._keys_of)
        folders = self._folders(every)
        order = self._in_order_of(arms, every)
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._config, self.folder / "multirun.yaml")
        write_jobs(self.folder, [folders[job] for job in order], self._about())
        with self._launching as launching:
            self._launch(every, folders)
            if settings.equal in ("steps", "wall_clock") and settings.equal_time_limit:
                further = equal_time_jobs(self.folder, every, folders, settings)
                if further:
                    more = self._folders(further)
                    write_jobs(self.folder, [*(folders[job] for job in order), *more.values()], self._about())
                    self._launch(further, more)
        return launching.results

    def _about(self) -> dict[str, Any]:
        return {"overrides": self._arguments, "arms": OmegaConf.to_container(self._config.ablation.arms)}

    def _arms(self) -> list[Any]:
        if ARM in self._asked.swept:
            return self._asked.swept[ARM]
        if ARM in self._asked.fixed:
            return [self._asked.fixed[ARM]]
        plain = OmegaConf.to_container(self._config.ablation.arms)
        assert isinstance(plain, list)
        return plain

    def _swept(self) -> dict[str, list[str]]:
        return {key: values for key, values in self._asked.swept.items() if key != ARM}

    def _keys_of(self, arm: str) -> set[str]:
        """The keys, and groups, that an arm's file sets."""
        for source in self._loader.get_sources():
            if source.available() and source.is_config(f"arm/{arm}"):
                found = source.load_config(f"arm/{arm}").config
                return {*_flat(found), *_groups(found.get("defaults") or ())} - {"defaults"}
        raise ConfigurationError(
            f"ablation.arms holds {arm!r}, and there is no conf/arm/{arm}.yaml. Name one that is there, or add it (a "
            "folder of your own is searched with --config-dir)."
        )

    def _in_order_of(self, arms: Sequence[Any], every: Sequence[Job]) -> list[Job]:
        """The jobs as the arms are listed: the order of the report, not that in which they run."""
        names = [arm if isinstance(arm, str) else arm.get("name", arm["arm"]) for arm in arms]
        ranked: dict[str, int] = {}
        for rank, name in enumerate(names):
            for job in every:
                if job.arm == name or job.arm.startswith((f"{name}-", f"{name} (")):
                    ranked.setdefault(job.arm, rank)
        return sorted(every, key=lambda job: (ranked.get(job.arm, len(names)), job.wants))

    # -- configurations

    def _overrides(self, job: Job) -> list[str]:
        fixed = {key: value for key, value in self._asked.fixed.items() if key not in _NOT_OF_A_RUN}
        reached = {key for key in fixed if reaches(key.lstrip("+~"), job)}
        whole = [f"{key}={value}" for key, value in fixed.items() if key in reached]
        without = [key.lstrip("+~") for key in fixed if key not in reached]
        measuring = ("callbacks",) if self._measures(job) else ()
        keys = (*job.own, *measuring, *without)
        own = [f"ablation.own=[{','.join(keys)}]"] if keys else []
        return [*(f"{group}=fidelity" for group in measuring), *whole, *job.overrides, *own]

    def _measures(self, job: Job) -> bool:
        """Whether the fidelity of what a job was trained on is measured."""
        seeds = self._asked.swept.get(SEED, [job.seed])[: self._config.ablation.fidelity_seeds]
        return job.seed in seeds and job.arm in self._synthetic and "callbacks" not in self._asked.fixed

    def _composed(self, job: Job) -> DictConfig:
        try:
            composed: DictConfig = self._loader.load_sweep_config(self._config, self._overrides(job))
        except HydraException as error:
            raise ConfigurationError(
                f"the arm {job.arm} cannot be composed: {' '.join(str(error).split())} What is set for the whole sweep "
                "reaches each arm, but for keys and groups that the arm's file sets; what concerns one arm alone goes "
                f"into ablation.arms, such as {{arm: {job.overrides[0].partition('=')[2]}, key: value}}."
            ) from error
        devices, strategy = composed.trainer.get("devices", 1), str(composed.trainer.get("strategy", ""))
        if (
            (isinstance(devices, (int, float)) and devices > 1)
            or isinstance(devices, (list, ListConfig))
            or ("ddp" in strategy or "fsdp" in strategy or "deepspeed" in strategy)
        ):
            raise ConfigurationError(
                f"trainer.devices={devices}, trainer.strategy={strategy or None}: an ablation trains each run on one "
                "device, since every further rank would start the whole sweep again. Set trainer.devices=1 "
                "(trainer=cpu or trainer=gpu), and run a single arm under DDP without -m."
            )
        return composed

    def _folders(self, every: Sequence[Job]) -> dict[Job, str]:
        """Each job's folder in the sweep's; that of an arm is the same for all seeds."""
        of_arms: dict[str, str] = {}
        for job in every:
            if job.arm not in of_arms:
                composed = self._composed(job)
                of_arms[job.arm] = arm_folder(job.arm, composed)
                if composed.data.synthetic_fraction != 0:
                    self._synthetic.add(job.arm)
        return {job: f"{of_arms[job.arm]}/seed-{job.seed}" for job in every}

    # -- running

    def _launch(self, every: Sequence[Job], folders: Mapping[Job, str]) -> None:
        left = [job for job in every if not is_finished(self.folder / folders[job])]
        if len(left) < len(every):
            log.info("%d of %d runs are finished already and are not run again", len(every) - len(left), len(every))
        tasks = {
            job: Task(
                self._done + number,
                (*self._overrides(job), f"hydra.sweep.subdir='{folders[job]}'"),
                self.folder / folders[job],
            )
            for number, job in enumerate(left)
        }
        self._done += len(left)
        self._launching.run(list(tasks.values()), self._training_sets(tasks))

    def _training_sets(self, tasks: Mapping[Job, Task]) -> list[TrainingSet[Task]]:
        """The tasks by what their generators are fitted to; those without synthetic samples apart."""
        found: dict[str, tuple[list[Task], list[Task]]] = {}
        for job, task in tasks.items():
            if job.place not in self._places:
                self._places[job.place] = self._fitted_to(job)
            sharing, free = found.setdefault(self._places[job.place], ([], []))
            (sharing if job.arm in self._synthetic else free).append(task)
        return [TrainingSet(*both) for both in found.values()]

    def _fitted_to(self, job: Job) -> str:
        composed = self._composed(job)
        try:
            return fitted_to(
                {key: OmegaConf.to_container(composed[key], resolve=True) for key in ("generator", "real")}
            )
        except (ValueError, OmegaConfBaseException):  # what only a run can resolve: each place counts as another
            return repr(job.place)


def _flat(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of the leaves."""
    for key, value in config.items_ex(resolve=False):
        if isinstance(value, DictConfig) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _groups(defaults: Iterable[Any]) -> Iterator[str]:
    """The groups of a defaults list, such as ``generator`` of ``override /generator: gan``."""
    for entry in defaults:
        for key in entry if isinstance(entry, DictConfig) else ():
            yield str(key).split()[-1].lstrip("/").partition("@")[0]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuses a second sweep in a folder whose first is under way: both would write the same runs."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"a sweep is running in {folder}. Wait for it, or set hydra.sweep.dir to another folder."
            ) from None
        yield
