"""Asks the learner at epoch ends and writes plans. The DataModule attaches it by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.feedback.conversion import Conversion, found_conversion
from lightning_diffaug.feedback.learner import network_name, packed, rebuilt, same_logits
from lightning_diffaug.feedback.measure import Scores, asked, by_class, measure
from lightning_diffaug.feedback.samples import LearnerSamples, chosen
from lightning_diffaug.feedback.settings import FeedbackSettings
from lightning_diffaug.figures import MANY_CLASSES
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.pool.plans import Plan, Plans
from lightning_diffaug.ranks import Ranks
from lightning_diffaug.run import MixRun

if TYPE_CHECKING:
    from lightning_diffaug.datamodule import DiffAugDataModule

log = logging.getLogger(__name__)

_TRIED = 8  # real samples on which what is handed over is tried


class LearnerFeedback(Callback):
    """Measures at epoch ends what the learner finds hard in the *training* data, and writes it down as a plan.

    A plan holds from the first slot on that nobody has been asked for. That number follows from the epoch alone, so
    that runs with the same seeds are the same under ``refill=sync``. A plan that the epoch has already, because the run
    was resumed, is kept and nothing is measured. What fails is said, and plans stay as they are: training goes on.

    Args:
        datamodule: Whose training data.
        settings: When and how the learner is asked.
        ahead: Slots that the refill makes beyond those of the next window.
    """

    def __init__(self, datamodule: DiffAugDataModule, settings: FeedbackSettings, ahead: int) -> None:
        self._datamodule = datamodule
        self._settings = settings
        self._ahead = ahead
        self._samples: LearnerSamples | None = None
        self._scores: Scores | None = None
        self._handed: tuple[dict[str, Any], Conversion] | None = None
        self._said_failure = False

    @classmethod
    def attach(cls, trainer: Any, datamodule: DiffAugDataModule, settings: FeedbackSettings | None, ahead: int) -> None:
        """Gives a trainer the feedback of the DataModule that is fitted now, or none."""
        others = [callback for callback in trainer.callbacks if not isinstance(callback, cls)]
        own = [] if settings is None else [cls(datamodule, settings, ahead)]
        trainer.callbacks = [*own, *others]  # first: a checkpoint that is written later then has its epoch's plan

    def _run(self, trainer: Any) -> MixRun | None:
        """The run, unless nothing is ever mixed, or a later fit is on other data."""
        return self._datamodule.mix_run if trainer.datamodule is self._datamodule else None

    # -- before training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at what would fail at the first epoch's end.

        Raises:
            ConfigurationError: Samples have no index, or the learner cannot be handed over.
        """
        data = self._datamodule.real_training
        if self._run(trainer) is None or data is None:
            return
        self._samples = LearnerSamples(self._datamodule.real, data)
        given = self._settings.scores
        if isinstance(given, str):  # the import path of a function
            given = {"_target_": "hydra.utils.get_object", "path": given}
        named = isinstance(given, Mapping)
        self._scores = build(name_of(given, "feedback.scores"), "feedback.scores") if named else given
        if not (self._scores is None or callable(self._scores)):
            raise ConfigurationError(
                f"feedback.scores={self._settings.scores!r} is a {type(self._scores).__name__}, which cannot be called "
                "with (module, batch). Set feedback.scores to the import path of a function, or to null."
            )
        if trainer.is_global_zero:
            self._say_lost(self._run(trainer))
        if self._settings.hand_over:
            self._handed = self._prepared(trainer, pl_module, self._samples)

    def _say_lost(self, run: MixRun | None) -> None:
        """Warns of a resume whose plans are gone with their pool, or cannot be read."""
        try:
            self._say_gone(run)
        except Exception as error:  # of a damaged file system; training does without
            log.warning("the plans of the resumed run cannot be read (%s: %s)", type(error).__name__, error)

    def _say_gone(self, run: MixRun | None) -> None:
        if run is None or not run.resumes_own_pool:
            return
        due = [epoch for epoch in range(run.epoch or 0) if self._due(run, epoch)]
        if due and (run.pool is None or Plans(run.pool.folder).of_epoch(due[-1]) is None):
            log.warning(
                "the run is resumed, and what the learner said at the end of its epoch %d is not in the cache folder: "
                "the pool was removed, data.cache_dir is another one, or the learner could not be asked then. Slots "
                "that are made again, and those to come, may not be what they would have been.",
                due[-1],
            )

    def _prepared(self, trainer: Any, module: Any, samples: LearnerSamples) -> tuple[dict[str, Any], Conversion]:
        """Name and conversion of what is handed over, tried."""
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
            raise ConfigurationError(
                f"feedback.hand_over=true: with {type(trainer.strategy).__name__} no rank has all of the learner's "
                "weights. Train with trainer.strategy=ddp, or set feedback.hand_over=false."
            )
        name = network_name(module)
        network = rebuilt(name, module.state_dict())
        some = list(range(min(len(samples), _TRIED)))
        with asked(trainer, module) as to_device:
            inputs = samples.image_of(to_device(samples.batch(some)))
            conversion = found_conversion(
                samples.image,
                lambda raw: samples.image_of(to_device(samples.made(raw))),
                samples.raw(samples.image, some),
                inputs,
            )
            same_logits(module, network, inputs)
        return name, conversion

    # -- at epoch ends

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks the learner, if it is time, writes the plan and logs its class figures."""
        run, samples = self._run(trainer), self._samples
        epoch = None if run is None else run.epoch
        if run is None or samples is None or epoch is None or not self._due(run, epoch):
            return
        ranks = Ranks.of(trainer)
        found, failure = _of_leader(ranks, lambda: None if run.pool is None else Plans(run.pool.folder).of_epoch(epoch))
        if found is None and not failure:
            values, failure = self._measured(trainer, pl_module, samples, epoch, ranks)
            failure = failure or self._failure_of(values)
            if not failure:
                found, failure = _of_leader(ranks, lambda: self._written(run, epoch, pl_module, samples, values))
        if failure:
            self._say(failure, ranks)
        if found is not None:
            pl_module.log_dict(self._figures(found, samples))

    def _due(self, run: MixRun, epoch: int) -> bool:
        """Whether the end of an epoch has a plan: one is due since the last one, and there will be slots to follow it.

        A pure function of the settings and the epoch.
        """
        if run.asked_stop(epoch + 1) <= run.asked_stop(epoch):
            return False  # the next epoch asks for nothing new
        while epoch >= 0:
            if self._settings.marked(epoch):
                return True
            epoch -= 1
            if run.asked_stop(epoch + 1) > run.asked_stop(epoch):
                return False  # what was due before, that epoch has
        return False

    def _measured(
        self, trainer: Any, module: Any, samples: LearnerSamples, epoch: int, ranks: Ranks
    ) -> tuple[dict[str, Tensor], str]:
        """Metric → (n,), NaN where a sample was not looked at; and what failed on any rank, or "". Alike on all ranks.

        Every rank looks at a part, and at equally many.
        """
        seed = (self._datamodule.settings.seed, epoch)
        indices = chosen(len(samples), samples.class_index, self._settings.samples, seed)
        share = -(-len(indices) // ranks.world_size)
        padded = [indices[i % len(indices)] for i in range(share * ranks.world_size)]
        own, values, failure = padded[ranks.rank :: ranks.world_size], dict[str, Tensor](), ""
        try:
            values = measure(trainer, module, samples, own, samples.batch_size, self._scores)
        except Exception as error:  # the learner's own code, which may raise anything
            failure = f"{type(error).__name__}: {error}"
            log.debug("the learner's feedback failed", exc_info=True)
        gathered = ranks.gather((own, values, failure))
        failure = next((text for _, _, text in gathered if text), "")
        whole = {metric: torch.full((len(samples),), torch.nan) for metric in values}
        for part, found, text in gathered:
            for metric, value in found.items() if not text else ():
                if metric in whole:
                    whole[metric][part] = value
        return whole, failure

    def _failure_of(self, values: dict[str, Tensor]) -> str:
        metric = self._settings.metric
        if metric not in values:
            return f"the learner said nothing of feedback.metric={metric}, only {', '.join(values) or 'nothing'}"
        return "" if bool(values[metric].isfinite().any()) else f"the learner's {metric} is not finite on any sample"

    def _written(
        self, run: MixRun, epoch: int, module: Any, samples: LearnerSamples, values: dict[str, Tensor]
    ) -> Plan:
        """Writes the plan for the slots that nobody was asked for and nobody makes.

        Raises:
            ConfigurationError: There is no pool yet, or the learner's state is more than tensors.
        """
        pool = run.pool
        if pool is None:
            raise ConfigurationError("there is no pool")
        plans = Plans(pool.folder)
        before = [*pool.slots(), *pool.claims(), *(plan.from_slot for plan in plans.all())]
        from_slot = max([run.asked_stop(epoch) + self._ahead, *(slot + 1 for slot in before)])
        scorer = None
        if self._handed is not None:
            columns = torch.tensor(samples.columns)
            scorer = plans.put_scorer(*packed(module, self._handed[1], columns))
        count = len(samples.class_names)
        classes = {metric: by_class(value, samples.class_index, count) for metric, value in values.items()}
        content = {"metric": self._settings.metric, "strength": self._settings.strength, "classes": classes}
        content["means"] = {metric: float(value.double().nanmean()) for metric, value in values.items()}
        plan = plans.write(from_slot, epoch, content, values, scorer)
        plans.remove_scorers(min([*run.window_slots, from_slot]), pool.has)
        return plan

    def _say(self, failure: str, ranks: Ranks) -> None:
        if ranks.leads:
            log.log(
                logging.DEBUG if self._said_failure else logging.ERROR,
                "the learner could not be asked: %s\nThe plans stay as they are, and training goes on.",
                failure,
            )  # fmt: skip
        self._said_failure = True

    def _figures(self, plan: Plan, samples: LearnerSamples) -> dict[str, float]:
        """``feedback/<metric>``; up to `MANY_CLASSES` classes: ``feedback/<metric>_class_<name>`` of those seen."""
        figures = {"feedback/from_slot": float(plan.from_slot)}
        figures |= {f"feedback/{metric}": float(value) for metric, value in plan.content["means"].items()}
        if len(samples.class_names) <= MANY_CLASSES:
            for metric, values in plan.content["classes"].items():
                for name, value in zip(samples.class_names, map(float, values), strict=False):
                    figures |= {f"feedback/{metric}_class_{name}": value} if value == value else {}
        return figures


def _of_leader(ranks: Ranks, find: Callable[[], Plan | None]) -> tuple[Plan | None, str]:
    """What the leading rank finds or writes, and what failed, or ""; alike on all ranks, so that none waits for one."""
    found, failure = None, ""
    if ranks.leads:
        try:
            found = find()
        except ConfigurationError as error:
            failure = str(error)
        except Exception as error:
            log.debug("plans could not be read or written", exc_info=True)
            failure = f"the plans cannot be read or written ({type(error).__name__}: {error})"
    return ranks.agree((found, failure))
