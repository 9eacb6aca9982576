"""Which runs an ablation consists of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lightning_diffaug.ablation.grid import Job, as_override, jobs, reaches
from lightning_diffaug.errors import ConfigurationError

FILES = {
    "real_only": {"data.synthetic_fraction", "data.balance", "augment", "arm_name", "ablation.role"},
    "mixed": {"arm_name", "ablation.role"},
    "gan": {"generator", "arm_name"},
}
SWEPT = {"data.synthetic_fraction": ["0", "0.25", "1"], "seed": ["0", "1"]}


def expanded(arms: Sequence[object], swept: dict[str, list[str]] | None = None) -> list[Job]:
    return jobs(arms, SWEPT if swept is None else swept, FILES.__getitem__)


def test_an_arm_that_says_its_fraction_is_no_product_with_those_swept() -> None:
    found = [(job.arm, job.seed) for job in expanded(["real_only", "mixed"])]
    assert sorted(found) == sorted(
        (arm, seed) for arm in ("real_only", "mixed-0", "mixed-0.25", "mixed-1") for seed in ("0", "1")
    )


def test_of_a_training_set_the_arm_that_needs_most_of_the_pool_comes_first() -> None:
    found = [(job.seed, job.arm) for job in expanded(["real_only", "mixed"])]
    assert found[0] == ("0", "mixed-1")
    assert [seed for seed, _ in found] == ["0"] * 4 + ["1"] * 4


def test_an_entry_sets_and_sweeps_keys_of_its_own() -> None:
    found = expanded(["mixed", {"arm": "gan", "data.synthetic_fraction": [0.1, 0.5], "name": "g", "data.reuse": 2}])
    (job,) = (job for job in found if job.arm == "g-0.5" and job.seed == "1")
    assert job.overrides == ("arm=gan", "data.synthetic_fraction=0.5", "data.reuse=2", "seed=1", "arm_name=g")
    assert job.own == ("data.reuse",)
    assert {job.arm for job in found if job.arm.startswith("g")} == {"g-0.1", "g-0.5"}


def test_what_else_is_swept_makes_other_tasks() -> None:
    found = expanded(
        ["real_only", "mixed"], {"data.synthetic_fraction": ["0.5"], "real.shots": ["5", "9"], "seed": ["3"]}
    )
    assert [job.arm for job in found] == [
        "mixed-0.5 (real.shots=5)", "real_only (real.shots=5)", "mixed-0.5 (real.shots=9)", "real_only (real.shots=9)",
    ]  # fmt: skip


def test_an_override_of_the_sweep_does_not_reach_an_arm_that_says_otherwise() -> None:
    (real,) = {job.arm: job for job in expanded(["real_only"])}.values()
    assert not reaches("data.synthetic_fraction", real)
    assert not reaches("augment", real)
    assert reaches("data", real), "a group has more than what the arm says of it, and the arm's word is last"
    assert reaches("data.reuse", real)
    assert reaches("trainer.max_epochs", real)


def test_two_arms_of_one_name_are_refused_and_one_listed_twice_is_one() -> None:
    with pytest.raises(ConfigurationError, match=r"ablation\.arms holds two arms.*name"):
        expanded(["mixed", {"arm": "mixed", "data.reuse": 4}])
    assert expanded(["mixed", "mixed"]) == expanded(["mixed"])


@pytest.mark.parametrize("arms", [[], [3], [{"name": "x"}], [None]])
def test_what_is_no_arm_is_said(arms: list[object]) -> None:
    with pytest.raises(ConfigurationError, match=r"ablation\.arms"):
        expanded(arms)


ODD = ("plain", "two words", "it's", "C:\\data\\x", "end\\", "\\'", "${seed}", "a,b", "a=b", "true", "null", "")


@pytest.mark.parametrize("value", [0, 0.1, 1e-9, True, None, *ODD, [1, "a b"], {"a": [1, 2]}])
def test_values_survive_the_grammar_of_overrides(value: object) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([f"key={as_override(value)}"])
    assert not parsed.is_sweep_override()
    found = parsed.value()
    assert found == value
    assert type(found) is type(value) or hasattr(found, "text")
