"""DiffAugDataModule: real data and a pool of synthetic samples as one LightningDataModule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from lightning_diffaug.audit import AUDITED, audit, nothing_used, says_contamination
from lightning_diffaug.callbacks import MixMonitor
from lightning_diffaug.conditions.real_guided_settings import RealGuided
from lightning_diffaug.costs import costs
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.feedback.callback import LearnerFeedback
from lightning_diffaug.feedback.settings import FeedbackSettings
from lightning_diffaug.figures import mix_figures
from lightning_diffaug.gates.choice import chosen_gates
from lightning_diffaug.held_out import all_held_out
from lightning_diffaug.mixing import as_schedule
from lightning_diffaug.mixing.sampler import MixSettings
from lightning_diffaug.naming import build
from lightning_diffaug.paths import default_cache_dir
from lightning_diffaug.pool import SyntheticPool, capacity_slots
from lightning_diffaug.pool_settings import PoolSettings
from lightning_diffaug.ranks import Ranks
from lightning_diffaug.real import RealTraining
from lightning_diffaug.refill.protocol import WhenShort
from lightning_diffaug.refill.settings import RefillSettings
from lightning_diffaug.run import MixRun
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec
from lightning_diffaug.start import start_run

log = logging.getLogger(__name__)

# Lightning asks whether these hooks are overridden, so the wrapped module's own are handed on as they are.
_HANDED_ON = (
    "val_dataloader",
    "test_dataloader",
    "predict_dataloader",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
)


class DiffAugDataModule(LightningDataModule):
    """Mixes a pool of synthetic samples, which a background process refills, into real training data.

    Training batches keep the structure, types and length of the wrapped module's; validation, test and prediction
    are the wrapped module's own. With a constant ``synthetic_fraction=0`` and ``balance="none"`` so is training.

    Texts name a setting by its place on the command line: ``data.reuse`` is the argument `reuse`, ``refill.nice`` the
    key ``"nice"`` of `refill`, ``generator.steps`` an argument of the generator, ``real.root`` one of the real data.

    Args:
        real: The LightningDataModule to wrap, or a training dataset (then with `val`, `test`, `batch_size`).
        generator: Makes samples: an object with ``generate(condition, seeds)``, a callable of that form, or a mapping
            ``{"_target_": "package.module.Class", ...}``. None: only with ``synthetic_fraction=0``.
        synthetic_fraction: Share of each batch that is synthetic, in [0, 1]; or a schedule over epochs, such as
            ``{"name": "linear", "start": 0.5, "end": 0.0, "epochs": 20}``.
        mode: ``"replace"``: an epoch stays as long as the real one; ``"append"``: every real sample once, synthetic
            ones on top.
        balance: ``"none"``: classes as in the data; ``"classes"``: equal shares of an epoch.
        allocation: Which classes the synthetic part stands for: ``"as_real"``, ``"deficit"`` (those that lack most) or
            ``{class: share}``.
        max_class_share: Largest synthetic share of a class's draws under ``"deficit"``, in [0, 1].
        exact: Whether each batch has its share to the rounding (carried over); else each draw decides by itself.
        reuse: Mean uses of a pooled sample before the window leaves it, at least 1; ``inf`` freezes the pool.
        window: Pooled samples that an epoch sees.
        slot_size: Samples a slot of the pool.
        capacity: Samples that the pool keeps at most; None: all.
        when_short: When the window lacks samples: ``"reuse"`` the newest complete one, ``"wait"``, take ``"real"``
            ones, or ``"error"``.
        wait_timeout: Seconds that a first or waited-for window may take; a living fit does not count, and
            ``refill="sync"`` waits as long as the process lives.
        refill: ``"local"``, ``"sync"``, ``"none"``, or a mapping of `RefillSettings`.
        planner: Which classes the pool holds: ``"auto"`` (the allocation's shares), ``"uniform"``, ``"as_real"``,
            ``{class: share}``, ``{"fill": samples}`` (what each class lacks to them), ``{"temperature": T}`` (shares in
            proportion to the real ones to the power 1/T), the last two also with ``"uniform": part``; or a planner
            object. A class that is called like a rule: ``{"shares": {class: share}}``. Data with several labels a
            sample: ``"field"`` names the vector of ones and zeros.
        text: Prompts of the rows, which generators read and provenance keeps: one or more templates, or a mapping of
            `TextSettings`; None: the generator's own. A string of the sample that `fields` calls ``"caption"`` is it.
        real_guided: Which real samples are varied where the generator starts from some: a mapping of `RealGuided`.
        soft_labels: Whether training batches have float32 (C,) probabilities in the place of each label: of a synthetic
            sample those that its planner made (``real_guided`` with a ``gamma``), else 1 at its class. C is the highest
            label after its transform + 1; where labels are negative or strings, their number. For the mix a
            sample counts for its class. Where the wrapped module's own loader is used, labels are its own.
        gates: What may enter the pool. None: the gates against what is wrong (finite, in range, not blank, no copy of a
            training sample, no duplicate in its slot). A mapping changes these by name, as `gates.choice.chosen_gates`
            says; a list is all there is, in order.
        keep_rejected: How many of the samples that gates reject are kept beside the pool's slots, for each slot and
            reason, for a look by ``diffaug pool grid <pool> --rejected``. Nothing else reads them.
        feedback: When the learner is asked what it finds hard in the training data, which later slots then hold more
            of: a mapping of `FeedbackSettings`. None: it is not.
        synthetic_transform: Transform of pooled samples, called as the real one is; None: the real training transform.
        augment_synthetic: False: pooled samples go through the wrapped module's ``eval_transform`` (conversion without
            augmentation) in place of its training transform.
        raw: The training data without augmentation, for a dataset whose transform cannot be taken off. Index for index
            the same samples. Above `snapshot_limit`: also ``{"_target_": ...}``.
        fields: Path of a leaf of the sample → its name in the pool; None: one image and one integer are found.
        fill: Values for leaves that no generator makes, by path, before the wrapped module's ``synthetic_fill``.
        labels: The label of every training sample; None: the dataset's ``targets`` or ``labels``, or one pass.
        return_source: Adds to each batch what is synthetic, and from where.
        val: Validation dataset, with a dataset as `real`.
        test: Test dataset, with a dataset as `real`.
        batch_size: Batch size, with a dataset as `real`.
        num_workers: Loader workers, with a dataset as `real`.
        epoch_length: Samples an epoch of an IterableDataset that has no length.
        image_range: Value range of floating-point fields, or of fields by name, which holds the training data (some are
            looked at); None: found on them.
        seed: Seed of every order of the mix, at least 0.
        pool_seed: Seed of the pool's samples.
        cache_dir: Folder of fitted generators and pools; None: the user's cache folder.
        snapshot_limit: Bytes up to which the training data are copied for the refill process.

    Raises:
        ConfigurationError: A setting is out of range, or settings do not go together.
    """

    def __init__(
        self,
        real: LightningDataModule | Dataset[Any],
        generator: Any = None,
        synthetic_fraction: Any = 0.25,
        mode: Literal["replace", "append"] = "replace",
        balance: Literal["none", "classes"] = "none",
        allocation: Any = "as_real",
        max_class_share: float = 0.75,
        exact: bool = True,
        reuse: float = 8.0,
        window: int = 1024,
        slot_size: int = 64,
        capacity: int | None = None,
        when_short: WhenShort = "reuse",
        wait_timeout: float = 300.0,
        refill: Any = "local",
        planner: Any = "auto",
        text: Any = None,
        real_guided: Mapping[str, Any] | RealGuided | None = None,
        soft_labels: bool = False,
        gates: Mapping[str, Any] | Sequence[Any] | None = None,
        keep_rejected: int = 0,
        feedback: Mapping[str, Any] | FeedbackSettings | None = None,
        synthetic_transform: Callable[[Any], Any] | None = None,
        augment_synthetic: bool = True,
        raw: Any = None,
        fields: dict[str, str] | None = None,
        fill: dict[str, Any] | None = None,
        labels: Sequence[Any] | None = None,
        return_source: bool = False,
        val: Dataset[Any] | None = None,
        test: Dataset[Any] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        epoch_length: int | None = None,
        image_range: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
        seed: int = 0,
        pool_seed: int = 0,
        cache_dir: str | Path | None = None,
        snapshot_limit: int = 2 << 30,
    ) -> None:
        self.real = real = _as_datamodule(real, val, test, batch_size, num_workers)
        self._run: MixRun | None = None
        self._loader: Any = None
        self._state: dict[str, Any] | None = None
        self._data: RealTraining | None = None
        super().__init__()
        self.prepare_data_per_node = real.prepare_data_per_node
        self.allow_zero_length_dataloader_with_multiple_devices = (
            real.allow_zero_length_dataloader_with_multiple_devices
        )
        if real.hparams:
            self.save_hyperparameters(dict(real.hparams), logger=real._log_hyperparams)
        reuse = float("inf") if str(reuse) in ("inf", ".inf") else reuse  # YAML's word reaches us as text from Hydra
        self.settings = MixSettings(
            as_schedule(synthetic_fraction),
            mode,
            balance,
            allocation,
            max_class_share,
            exact,
            reuse,
            window,
            slot_size,
            seed,
        )
        capacity_slots(capacity, window, slot_size)
        ranges = image_range.values() if isinstance(image_range, Mapping) else [image_range]
        if any(bounds is not None and not bounds[0] < bounds[1] for bounds in ranges):
            raise ConfigurationError(
                f"data.image_range={image_range} is not (low, high): it is the value range of raw fields. Set "
                "data.image_range to e.g. [0, 1] or {mask: [0, 10]}, or null to have it found."
            )
        if generator is None and not self._never_synthetic:
            raise ConfigurationError(
                f"data.synthetic_fraction={synthetic_fraction} asks for synthetic samples and generator is None. Give "
                "generator=DiffusionGenerator() or your own, or set data.synthetic_fraction=0."
            )
        self._pool_settings = PoolSettings(
            generator=generator,
            planner=planner,
            text=text,
            real_guided=RealGuided.of(real_guided),
            gates=gates,
            refill=RefillSettings.of(refill),
            when_short=when_short,
            wait_timeout=wait_timeout,
            capacity=capacity,
            pool_seed=pool_seed,
            cache_dir=Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir(),
            keep_rejected=keep_rejected,
            feedback=FeedbackSettings.of(feedback),
        )
        self._about_data: dict[str, Any] = {
            "raw": raw,
            "fields": fields,
            "fill": fill,
            "labels": labels,
            "synthetic_transform": synthetic_transform,
            "augment_synthetic": augment_synthetic,
            "return_source": return_source,
            "soft_labels": soft_labels,
            "epoch_length": epoch_length,
            "value_range": image_range,
            "snapshot_limit": snapshot_limit,
        }
        for name in _HANDED_ON:
            setattr(self, name, getattr(self.real, name))

    @property
    def _never_synthetic(self) -> bool:
        return self.settings.fraction.is_constant and self.settings.fraction(0) == 0

    # -- hooks

    @property
    def trainer(self) -> Any:
        """The Trainer; the wrapped module has the same."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        self._trainer = trainer
        self.real.trainer = trainer

    def prepare_data(self) -> None:
        """Prepares the wrapped module's data."""
        self.real.prepare_data()

    def setup(self, stage: str) -> None:
        """Sets the wrapped module up; a fit starts a mix of its own, whatever was looked at before."""
        self.real.setup(stage)
        if stage == "fit":
            self.close()
            if self.trainer is not None:
                settings = self._pool_settings
                LearnerFeedback.attach(self.trainer, self, settings.feedback, settings.refill.slots_ahead)
                MixMonitor.attach(self.trainer, self)

    def train_dataloader(self) -> Any:
        """The mixed loader; the wrapped module's own where nothing is to be mixed."""
        if self._never_synthetic and self.settings.balance == "none":
            return self.real.train_dataloader()
        if self._run is not None and (self._run.trainer is not self.trainer or self._state is not None):
            self.close()  # it was looked at for another Trainer, or before a checkpoint was loaded
        if self._loader is None:
            _check_trainer(self.trainer)
            self._data = RealTraining.of(self.real, **self._about_data)
            ranks = Ranks.of(self.trainer)
            self._run = start_run(
                self._pool_settings, self.settings, self._data, ranks, self.trainer, self._state, self._held_out
            )
            self._state = None  # it is the run's now: a later fit starts anew, or loads its own
            self._loader = self._data.loader(self._run)
        return self._loader

    def teardown(self, stage: str) -> None:
        """Ends the refill and tears the wrapped module down."""
        if stage == "fit":
            self.close()
        self.real.teardown(stage)

    def on_exception(self, exception: BaseException) -> None:
        """Ends the refill when training ends by an error, Ctrl-C or a signal."""
        self.close()
        self.real.on_exception(exception)

    def close(self) -> None:
        """Ends refill, workers and epoch cache; safe to call again. What was counted stays to be read."""
        loader, self._loader = self._loader, None
        try:
            if loader is not None:
                loader.close()
        finally:  # whatever becomes of the workers, no process stays
            if self._run is not None:
                self._run.close()

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """The mix's position and the wrapped module's state; plain values."""
        state = self._state if self._run is None else self._run.state()
        return {"mix": state, "real": self.real.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where `state_dict` was called; before the first batch."""
        self._state = state_dict["mix"]
        self.real.load_state_dict(state_dict["real"])

    # -- figures

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, once the training data are known."""
        return () if self._data is None else self._data.class_names

    def figures(self) -> dict[str, float]:
        """The mix's figures so far, as logged: ``mix/…``, ``pool/…``, ``generator/…``, ``train/wait_seconds``."""
        return mix_figures(self._run, self.settings, self.class_names)

    def costs(self) -> dict[str, float]:
        """What the pooled samples of the run cost, after training; see `lightning_diffaug.costs.costs`."""
        return costs(self._run)

    def audit(self, samples: int = 2048) -> dict[str, float]:
        """Counts, after training, near-copies among the pooled samples that the run's windows held.

        It reads validation and test data, with their transform off; nothing that is trained on follows from it. On the
        rank that decides (0); elsewhere nothing is looked at.

        Args:
            samples: How many pooled samples are looked at, spread over the slots.

        Returns:
            ``pool/audited``, ``pool/near_duplicates``, ``pool/near_copies_train``, ``…_val`` and ``…_test``, as
            `lightning_diffaug.audit.audit` says, and ``gates/contamination`` (1 where a gate had compared with
            validation and test data).

        Raises:
            RuntimeError: Training is under way.
        """
        if self.trainer is not None and self.trainer.training:
            raise RuntimeError("audit() reads validation and test data, so it is for the time after training.")
        chosen = [] if self._never_synthetic else chosen_gates(self._pool_settings.gates)
        gates = [build(gate, "gates") if isinstance(gate, Mapping) else gate for gate in chosen]
        figures = nothing_used() | says_contamination(gates)
        run, data, pool = self._run, self._data, self.pool
        if run is None or data is None or pool is None or not run.progress.synthetic:
            return figures
        if not pool.folder.is_dir():
            log.warning("what the pool repeats is not counted: it went with the run (a generator without a name).")
            return says_contamination(gates) | {AUDITED: 0.0}
        return audit(pool, run.slots_used, data, self.real, gates, samples) | says_contamination(gates)

    def _held_out(self, field: FieldSpec) -> Snapshot:
        limit: int = self._about_data["snapshot_limit"]
        return all_held_out(self.real, field, limit)

    def warn_of_many_uses(self) -> None:
        """Says once for each class when its pooled samples are used far more often than `reuse` intends."""
        if self._run is not None:
            self._run.warn_of_many_uses()

    @property
    def pool(self) -> SyntheticPool | None:
        """The pool that the run draws from; None as long as there is none."""
        return None if self._run is None else self._run.pool

    @property
    def mix_run(self) -> MixRun | None:
        """The run of the fit under way, or of the last one."""
        return self._run

    @property
    def window_slots(self) -> list[int]:
        """Slots of the window that was frozen last; [] where nothing was drawn from a pool."""
        return [] if self._run is None else self._run.window_slots

    @property
    def real_training(self) -> RealTraining | None:
        """What the mix knows of the real training data; None before `train_dataloader`."""
        return self._data

    # -- the wrapped module's own attributes

    @property
    def batch_size(self) -> int:
        """The wrapped module's batch size; setting it sets it there (Lightning's batch-size finder does)."""
        size: int = getattr(self.real, "batch_size")  # noqa: B009 - not every module has one
        return size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        setattr(self.real, "batch_size", size)  # noqa: B010

    def __getattr__(self, name: str) -> Any:
        """What this module lacks is the wrapped module's: ``trainer.datamodule.num_classes`` goes on working."""
        real = self.__dict__.get("real")
        if real is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(real, name)


def _check_trainer(trainer: Any) -> None:
    """Says what of a Trainer's settings a mix cannot follow.

    Raises:
        ConfigurationError: ``overfit_batches``: Lightning makes only loaders of its own repeat their batches.
    """
    if trainer is None:
        return
    if trainer.overfit_batches > 0:
        raise ConfigurationError(
            f"trainer.overfit_batches={trainer.overfit_batches} wants the same batches in every epoch, and a mix draws "
            "anew. Set data.synthetic_fraction=0 and data.balance=none to overfit the wrapped module's own batches."
        )
    if trainer.reload_dataloaders_every_n_epochs > 0:
        log.warning(
            "trainer.reload_dataloaders_every_n_epochs=%d reloads validation, but the training data are looked at once "
            "a fit: a change of them between epochs does not reach the mix.",
            trainer.reload_dataloaders_every_n_epochs,
        )


def _as_datamodule(
    real: Any, val: Dataset[Any] | None, test: Dataset[Any] | None, batch_size: int, num_workers: int
) -> LightningDataModule:
    if isinstance(real, LightningDataModule):
        return real
    if not isinstance(real, Dataset):
        raise ConfigurationError(
            f"real is a {type(real).__name__}: give a LightningDataModule, or a torch Dataset of training samples "
            "(with val= and test=)."
        )
    return LightningDataModule.from_datasets(real, val, test, batch_size=batch_size, num_workers=num_workers)
