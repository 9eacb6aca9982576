"""A job is plain JSON; the two fingerprints hold what changes a fit or a sample, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from refill_toys import Fitted, Steady, function, job_for, snapshot

from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.refill.job import Job


def test_a_job_survives_json_and_builds_the_same_generator(tmp_path: Path) -> None:
    job = job_for(Steady(0.25), tmp_path)
    again = Job.read(job.write(tmp_path / "job.json"))
    assert again == job
    json.loads((tmp_path / "job.json").read_text())
    recipe = again.recipe(Steady())
    assert recipe.planner.shares == [2.0, 1.0, 1.0]
    assert [gate.name for gate in recipe.gates] == ["finite", "range"]


def _pool(job: Job, generator: Any, weights: str | None = None) -> str:
    return job.pool_header(generator, weights).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"slot_size": 16},
        {"pool_seed": 1},
        {"attempts": 3},
        {"gates": []},
        {"planner": {"_target_": "lightning_diffaug.conditions.QuotaPlanner", "shares": [1.0, 1.0, 1.0]}},
        {"class_names": ["b", "a", "c"]},
        {"private": "run"},
    ],
)
def test_what_changes_a_sample_names_another_pool(tmp_path: Path, change: dict[str, Any]) -> None:
    job = job_for(Steady(), tmp_path)
    assert _pool(dataclasses.replace(job, **change), Steady()) != _pool(job, Steady())


def test_generator_arguments_and_weights_name_another_pool(tmp_path: Path) -> None:
    job = job_for(Steady(), tmp_path)
    names = {
        _pool(job, Steady()),
        _pool(job, Steady(), "weights"),
        _pool(job_for(Steady(0.5), tmp_path), Steady(0.5)),
        _pool(job_for(function, tmp_path), function),
    }
    assert len(names) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"ahead": 9},
        {"nice": 3},
        {"threads": 2},
        {"capacity": 50},
        {"run_id": "other"},
        {"parent_pid": 1},
        {"cache_dir": "/elsewhere"},
        {"run_dir": "/elsewhere"},
    ],
)
def test_what_changes_no_sample_names_the_same_pool(tmp_path: Path, change: dict[str, Any]) -> None:
    job = job_for(Steady(), tmp_path)
    assert _pool(dataclasses.replace(job, **change), Steady()) == _pool(job, Steady())


def test_the_fit_depends_on_training_data_and_fit_settings_alone(tmp_path: Path) -> None:
    def fit(generator: Any, data: str = "hash") -> str | None:
        job = dataclasses.replace(job_for(Fitted(), tmp_path), snapshot_hash=data)
        job = dataclasses.replace(job, generator={"_target_": "lightning_diffaug.generators.DiffusionGenerator"})
        return job.fit_fingerprint(generator)

    first = fit(DiffusionGenerator())
    sampling = DiffusionGenerator(scheduler="ddim", num_inference_steps=3, guidance_scale=2.0)
    assert fit(sampling) == first
    others = [
        fit(DiffusionGenerator(fit={"steps": 7})),
        fit(DiffusionGenerator(seed=1)),
        fit(DiffusionGenerator(), "x"),
    ]
    assert len({first, *others}) == 4
    assert job_for(Steady(), tmp_path).fit_fingerprint(Steady()) is None


def test_sampling_settings_name_another_pool_without_a_new_fit(tmp_path: Path) -> None:
    job = job_for(Fitted(), tmp_path)
    generators = [DiffusionGenerator(), DiffusionGenerator(scheduler="ddim"), DiffusionGenerator(num_inference_steps=3)]
    assert len({_pool(job, generator, "weights") for generator in generators}) == 3


def test_an_edit_of_the_users_generator_names_another_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "edited_generator.py"
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for body in ("return None", "return 1"):
        module.write_text(f"def make(condition, seeds):\n    {body}\n")
        import importlib
        import linecache
        import sys

        sys.modules.pop("edited_generator", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        make = importlib.import_module("edited_generator").make
        names.append(_pool(job_for(make, tmp_path), make))
    sys.modules.pop("edited_generator", None)
    assert names[0] != names[1]


def test_the_pool_is_not_known_before_the_fit(tmp_path: Path) -> None:
    job = job_for(Fitted(), tmp_path)
    assert job.find_pool(Fitted()) is None
    assert job.load_snapshot() is not None
    assert job.load_snapshot().hash == snapshot().hash
