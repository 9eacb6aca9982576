"""Every choice of ``conf/`` composes and can be built, and what is wrong is said with the key that is wrong."""

from __future__ import annotations

import copy
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.experiment import build
from lightning_diffaug.gates.choice import GATES, ON, chosen_gates
from lightning_diffaug.paths import config_dir

CONF = config_dir()
CHOICES = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("hydra", "experiment")
)
EXPERIMENTS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix("")) for path in CONF.rglob("experiment/**/*.yaml")
)
ARMS = sorted(path.stem for path in (CONF / "arm").glob("*.yaml"))
# Without a meaning where `real` is a LightningDataModule, which it is on the command line; and the parts themselves.
NOT_OF_THE_COMMAND_LINE = {"real", "generator", "labels", "val", "test", "batch_size", "num_workers"}
# What a choice asks for besides, on a machine without a GPU.
NEEDED = {
    "generator=none": ["data.synthetic_fraction=0"],
    "model=completion": ["real=point_cloud", "loss=none"],
    "model=dual_encoder": ["real=image_text", "loss=none", "data.balance=none", "data.allocation=as_real"],
    "model=segmenter": ["real=segmentation", "loss=none"],
    "model=streams": ["real=audio_video", "loss=none"],
    "real=coco_captions": ["real.root=somewhere"],
    "real=flickr8k": ["real.root=somewhere"],
    "real=flickr30k": ["real.root=somewhere"],
    "real=image_folder": ["real.root=somewhere"],
    "trainer=gpu": ["trainer.accelerator=cpu"],
    "trainer=ddp": ["trainer.devices=1"],
}


def _compose(*overrides: str, root: Path | None = None) -> DictConfig:
    """What ``train.py`` composes; with `root` for its files it can be resolved and built."""
    GlobalHydra.instance().clear()
    files = [] if root is None else [f"paths.output_dir={root}", f"paths.cache_dir={root / 'cache'}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*overrides, *files])


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return plain


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_composes_and_can_be_built(choice: str, tmp_path: Path) -> None:
    """Choices that want a file, a download or a package of their own are composed and resolved only."""
    config = _compose(choice, *NEEDED.get(choice, []), root=tmp_path)
    assert _plain(config)["seed"] == 0
    wanting = ("real=", "logger=tensorboard", "logger=wandb", "logger=mlflow")
    if not choice.startswith(wanting) or choice == "real=digits":
        build(config)
    assert not (tmp_path / "cache").exists(), "nothing is made before training starts"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_opens_with_its_command(name: str, tmp_path: Path) -> None:
    first, second, *_ = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert first == "# @package _global_"
    assert second.startswith("# python train.py ")
    assert f"experiment={name}" in second
    build(_compose(f"experiment={name}", root=tmp_path))


def test_the_comparison_sweeps_arms_that_exist_over_five_seeds() -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=comparison"], return_hydra_config=True)
    params = config.hydra.sweeper.params
    assert (
        {"oversampling", "classical", "classical_mixup", "logit_adjusted", "mixed"}
        <= {*params.arm.split(",")}
        <= {*ARMS}
    )
    assert params.seed == "range(5)"


_DATA = "lightning_diffaug.data."


def _baseline(augment: str | None = None, mixing: str | None = None, **other: Any) -> dict[str, Any]:
    return {"role": "baseline", "fraction": 0, "augment": augment, "mixing": mixing, **other}


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("real_only", _baseline(balance="none")),
        ("oversampling", _baseline()),
        ("classical", _baseline("classical")),
        ("classical_strong", _baseline("classical", p=0.8)),
        ("randaugment", _baseline("randaugment")),
        ("trivialaugment", _baseline("trivialaugment")),
        ("autoaugment", _baseline("autoaugment")),
        ("mixup", _baseline(None, "mixup")),
        ("cutmix", _baseline(None, "cutmix")),
        ("remix", _baseline(None, "remix")),
        ("classical_mixup", _baseline("classical", "mixup")),
        ("classical_cutmix", _baseline("classical", "cutmix")),
        ("classical_remix", _baseline("classical", "remix")),
        ("trivialaugment_mixup", _baseline("trivialaugment", "mixup")),
        ("logit_adjusted", _baseline("classical", balance="none", loss="logit_adjusted")),
        ("mixed", {}),
        ("mixed_mixup", {"mixing": "mixup"}),
        ("gan", {"role": "other_generator", "generator": "GanGenerator"}),
        ("control", {"role": "control", "generator": "ControlGenerator"}),
    ],
)
def test_each_arm_is_what_its_name_says(arm: str, expected: dict[str, Any]) -> None:
    config = _compose(f"arm={arm}")
    augment = config.real.augment
    assert config.arm_name == arm
    assert {
        "role": config.ablation.role,
        "fraction": config.data.synthetic_fraction,
        "balance": config.data.balance,
        "augment": augment and augment._target_.removeprefix(_DATA),
        "p": augment.p if augment and "p" in augment else None,
        "mixing": config.model.mixing,
        "loss": config.model.loss,
        "generator": config.generator._target_.rpartition(".")[2],
    } == {
        "role": "synthetic", "fraction": 0.25, "balance": "classes", "augment": "classical", "mixing": None,
        "loss": "cross_entropy", "generator": "DiffusionGenerator",
        "p": 0.5 if expected.get("augment", "classical") == "classical" else None, **expected,
    }  # fmt: skip


def test_arms_differ_in_nothing_else() -> None:
    """Steps, batches, learner, real data and seeds are equal, or it would be no comparison."""
    own = {"arm_name", "ablation.role", "data", "real.augment", "model.mixing", "model.mixing_alpha", "model.loss"}
    plains = {}
    for arm in ARMS:
        config = _compose(f"arm={arm}", root=Path("somewhere"))
        for key in own | ({"generator", "gates"} if arm in ("gan", "control") else set()):
            OmegaConf.update(config, key, None)
        plains[arm] = _plain(config)
    for other in ("gan", "control"):
        plains[other] |= {key: plains["mixed"][key] for key in ("generator", "gates")}
    assert all(plain == plains["mixed"] for plain in plains.values())


def test_what_fills_slots_without_a_generator_is_not_rejected_as_a_copy() -> None:
    assert _gates_of(_compose("arm=control")) == [name for name in ON if name not in ("copy", "duplicate")]
    assert _gates_of(_compose("arm=gan")) == list(ON)


GATE_ARMS = sorted(path.stem for path in (CONF / "arm" / "gates").glob("*.yaml"))


def _gates_of(config: DictConfig) -> list[str]:
    return [gate.name for gate in chosen_gates(OmegaConf.to_container(config.gates))]


def test_the_comparison_of_gates_sweeps_each_default_gate_off_and_each_of_taste_on() -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=gates"], return_hydra_config=True)
    arms = [arm.removeprefix("gates/") for arm in config.hydra.sweeper.params.arm.split(",")]
    assert sorted(arms) == GATE_ARMS
    off = {name for arm in arms for name in arm.split("_")[1:] if arm.startswith("no_")}
    assert off - {"gates"} == set(ON)
    assert config.hydra.callbacks.sweep_report.arm == "default_gates"


@pytest.mark.parametrize("arm", GATE_ARMS)
def test_each_arm_of_gates_has_the_gates_of_its_name_and_differs_in_nothing_else(arm: str, tmp_path: Path) -> None:
    config = _compose("experiment=gates", f"arm=gates/{arm}", root=tmp_path)
    assert config.arm_name == arm
    expected = list(ON)
    if arm == "no_gates":
        expected = []
    elif arm.startswith("no_"):
        expected = [name for name in ON if name not in arm.split("_")]
    elif arm != "default_gates":
        added = arm.partition("_")[0]
        expected = [name for name in GATES if name in ON or name == added]
    assert _gates_of(config) == expected
    build(config)
    if arm == "hard":
        assert (config.feedback.hand_over, config.feedback.strength) == (True, 0), "the learner, and no other quotas"
    default = _compose("experiment=gates", "arm=gates/default_gates", root=tmp_path)
    for one in (config, default):
        for key in ("arm_name", "gates", "data.gates", *(["feedback", "data.feedback"] if arm == "hard" else [])):
            OmegaConf.update(one, key, None)
    assert _plain(config) == _plain(default)


def test_the_default_arm_is_the_default_run() -> None:
    run, mixed = _compose(root=Path("somewhere")), _compose("arm=mixed", root=Path("somewhere"))
    run.arm_name, run.ablation.role = "mixed", "synthetic"
    assert _plain(run) == _plain(mixed)


def test_every_setting_of_the_datamodule_can_be_set_without_a_plus() -> None:
    settings = set(inspect.signature(DiffAugDataModule.__init__).parameters) - {"self"} - NOT_OF_THE_COMMAND_LINE
    assert set(_compose().data) - {"_target_"} == settings


@pytest.mark.parametrize(
    "group",
    [
        choice
        for choice in CHOICES
        if choice.startswith(("real=", "model=", "data=", "generator=di")) and choice != "generator=dit_xl"
    ],
)
def test_configured_keys_are_arguments_of_what_they_build(group: str) -> None:
    node = _compose(group, *NEEDED.get(group, []))[group.partition("=")[0]]
    target = get_class(node._target_)
    known = {
        name
        for of_class in target.__mro__
        if "__init__" in vars(of_class)
        for name in inspect.signature(vars(of_class)["__init__"]).parameters
    }
    assert set(node) - {"_target_"} <= known


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.synthetic_fractoin=0.5", "data.synthetic_fractoin"),
        ("reel=digits", "reel"),
        ("sead=1", "sead"),
        ("real.shotz=1", "real.shotz"),
        ("generator.fit.stepz=1", "generator.fit.stepz"),
        ("trainer.max_epoch=1", "trainer.max_epoch"),
        ("refill.nise=1", "refill.nise"),
    ],
)
def test_a_wrong_key_is_refused_by_its_name(override: str, key: str) -> None:
    with pytest.raises(ConfigCompositionException, match=key):
        _compose(override)


@pytest.mark.parametrize("choice", ["real=digitz", "augment=randomly", "arm=best", "experiment=unknown"])
def test_an_unknown_choice_is_refused_with_those_that_exist(choice: str) -> None:
    group, _, name = choice.partition("=")
    with pytest.raises((MissingConfigException, ConfigCompositionException), match=f"{group}.*{name}") as error:
        _compose(choice)
    assert all(path.stem in str(error.value) for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="module")
def default() -> DictConfig:
    return _compose(root=Path("replaced"))


def _with(default: DictConfig, key: str, value: Any, root: Path) -> DictConfig:
    """The default configuration with one other value, as an override gives it."""
    config = copy.deepcopy(default)
    files = {"paths.output_dir": str(root), "paths.cache_dir": str(root / "cache")}
    for name, given in {**files, key: value}.items():
        OmegaConf.update(config, name, given, merge=False, force_add=True)
    return config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.synthetic_fraction", 1.5),
        ("data.synthetic_fraction", -0.1),
        ("data.synthetic_fraction", "half"),
        ("data.synthetic_fraction", {"name": "parabola"}),
        ("data.mode", "prepend"),
        ("data.reuse", 0.5),
        ("data.window", 0),
        ("data.slot_size", 0),
        ("data.capacity", 1),
        ("data.when_short", "cry"),
        ("refill.ahead", -1),
        ("refill.nice", -50),
        ("refill.threads", 0),
        ("refill.nise", 1),
        ("generator.scheduler", "fast"),
        ("generator.num_inference_steps", 0),
        ("generator.guidance_scale", -1),
        ("generator.strength", 2),
        ("generator.batch_size", 0),
        ("generator.fit.steps", 0),
        ("generator.fit.lr", -1),
        ("generator.fit.stepz", 1),
        ("real.shots", 0),
        ("real.rare_classes", 11),
        ("real.rare_shots", 0),
        ("real.batch_size", 0),
        ("model.width", 0),
        ("seed", -1),
        ("seed", "x"),
        ("threads", 0),
        ("data.seed", -1),
        ("data.wait_timeout", -1),
        ("data.image_range", [1, 0]),
        ("data.balance", "perfect"),
        ("data.allocation", "mine"),
        ("data.max_class_share", 1.5),
        ("model.lr", 0),
        ("model.lr", "abc"),
        ("trainer.max_epochs", "abc"),
        ("refill.ahead", "abc"),
        ("real.shots", "many"),
        ("real.augment.p", "often"),
        ("callbacks.checkpoint.every_n_epochs", "often"),
        ("model.mixing", "blend"),
        ("model.loss", "hinge"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_before_anything_runs(
    key: str, value: Any, default: DictConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as error:
        build(_with(default, key, value, tmp_path))
    assert key in str(error.value)
    group, _, name = key.rpartition(".")
    if group in ("data", "real", "model", "refill", "trainer"):
        assert not re.search(rf"(?<![\w.]){name}=", str(error.value)), "a key is named with its full path"
    assert not (tmp_path / "cache").exists()


def test_what_lightning_refuses_is_said_with_the_group_that_is_wrong(default: DictConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"trainer cannot be made .*warp"):
        build(_with(default, "trainer.accelerator", "warp", tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.allocation", {"eleven": 1.0}),
        ("data.planner", "best"),
        ("data.snapshot_limit", -1),
    ],
)
def test_a_value_that_does_not_fit_the_data_is_refused_with_its_key_before_a_fit(
    key: str, value: Any, default: DictConfig, tmp_path: Path
) -> None:
    data = build(_with(default, key, value, tmp_path)).data
    data.setup("fit")
    try:
        with pytest.raises(ConfigurationError) as error:
            data.train_dataloader()
    finally:
        data.close()
    assert key in str(error.value)
    assert not (tmp_path / "cache" / "generators").exists()
