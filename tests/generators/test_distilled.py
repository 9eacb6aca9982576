"""A distilled generator does in few steps nearly what its teacher does in many, and says what was lost."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refill_toys import job_for, need, status, until, worker
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_diffaug.cli import main
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import DiffusionGenerator, DistilledGenerator
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.distill import Halving
from lightning_diffaug.generators.distill_settings import DistillSettings
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.loop import noise_like, sample, seeded
from lightning_diffaug.generators.schedulers import ForwardProcess, make_scheduler
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.snapshot import Snapshot

Loaded = Callable[..., DiffusionGenerator]
FIT = {"steps": 140, "channels": [16, 32], "augment_p": 0.0}  # that of the fixture `fitted`
DISTILL = {"steps": 2, "teacher_steps": 4, "fit_steps": 120, "lr": 3e-3, "samples": 200}


def _ignore(step: int, total: int) -> None:
    pass


def _distilled(fitted: Path, **settings: Any) -> DistilledGenerator:
    generator = DistilledGenerator(**{"distill": DISTILL, "fit": FIT, **settings})
    generator.find_fitted = lambda other, progress: other.load(fitted)
    return generator


@pytest.fixture(scope="module")
def student(fitted: Path, digits: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    _distilled(fitted).fit(digits, folder, _ignore)
    return folder


def _rms(first: Tensor, second: Tensor) -> float:
    return float((first - second).square().mean().sqrt())


def test_two_distilled_steps_are_clearly_nearer_to_ten_steps_of_the_teacher_than_its_own_two(
    student: Path, loaded: Loaded, agreement: Callable[[Tensor, Tensor], float]
) -> None:
    labels = torch.arange(200) % 10

    def images(generator: DiffusionGenerator) -> Tensor:
        return generator.generate({"label": labels}, range(200))["image"]

    fast = DistilledGenerator(distill=DISTILL, fit=FIT)
    fast.load(student)
    ten, two = images(loaded(num_inference_steps=10)), images(loaded(scheduler="ddim", num_inference_steps=2))
    assert fast.controls.num_inference_steps == 2
    assert _rms(images(fast), ten) < 0.8 * _rms(two, ten), "sample for sample, from the same noise"
    spread = ten.std(0).mean()
    assert abs(images(fast).std(0).mean() - spread) < 0.8 * abs(two.std(0).mean() - spread), "as diverse"
    assert agreement(images(fast), labels) > agreement(ten, labels) - 0.1


def test_what_was_lost_is_recorded_and_printed(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((student / "fidelity.json").read_text())
    kinds = {(kind["of"], kind["scheduler"], kind["steps"]): kind for kind in record["kinds"]}
    assert [*kinds] == [("teacher", "dpmsolver++", 10), ("student", "ddim", 2), ("teacher", "ddim", 2)]
    usual, fast, slow = kinds.values()
    assert fast["frechet"] < 0.9 * slow["frechet"]
    assert fast["from_teacher"] < 0.8 * slow["from_teacher"]
    assert usual["from_teacher"] == 0.0
    assert fast["agreement"] > 0.5, "ten classes"
    assert 0.0 < fast["seconds"] < usual["seconds"]
    assert main(["fidelity", str(student)]) == 0
    printed = capsys.readouterr().out
    assert f"{fast['frechet']:.3f}" in printed
    assert "200 samples of each kind" in printed


def test_a_folder_without_a_record_is_said(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fidelity", str(fitted)]) == 1
    assert "no distilled generator" in capsys.readouterr().err


def test_a_distillation_is_the_same_each_time_and_leaves_the_random_states_alone(
    fitted: Path, digits: Snapshot, tmp_path: Path
) -> None:
    weights, steps = [], []
    for run, samples in enumerate((10, 0)):
        random.seed(run), np.random.seed(run), torch.manual_seed(run)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        folder = tmp_path / str(run)
        folder.mkdir()
        generator = _distilled(fitted, distill={"steps": 1, "teacher_steps": 4, "fit_steps": 3, "samples": samples})
        generator.fit(digits, folder, lambda step, total: steps.append((step, total)))
        assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        weights.append(load_file(folder / "denoiser.safetensors"))
        assert (folder / "fidelity.json").exists() == (samples > 0)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert steps[:6] == [(140 + step, 146) for step in range(1, 7)]
    teacher = load_file(fitted / "denoiser.safetensors")
    assert any(not torch.equal(weights[0][name], teacher[name]) for name in teacher)


def test_an_interrupted_distillation_goes_on_from_its_last_student(
    fitted: Path, digits: Snapshot, tmp_path: Path
) -> None:
    def distilled(name: str, checkpoint: Path | None = None, stop_at: int = 0) -> list[int]:
        steps: list[int] = []

        def progress(step: int, total: int) -> None:
            steps.append(step - 140)
            if steps[-1] == stop_at:
                raise InterruptedError

        (tmp_path / name).mkdir()
        distill = {"steps": 1, "teacher_steps": 8, "fit_steps": 3, "samples": 8}
        try:
            _distilled(fitted, distill=distill).fit(digits, tmp_path / name, progress, checkpoint)
        except InterruptedError:
            return steps
        return steps

    file = tmp_path / "fit.ckpt"
    distilled("whole")
    assert distilled("stopped", file, 8)[-1] == 8, "in the third of three halvings"
    assert [path.name for path in tmp_path.glob("fit.ckpt*")] == ["fit.ckpt.students"]
    assert distilled("resumed", file)[:3] == [7, 8, 9]
    whole, resumed = (load_file(tmp_path / name / "denoiser.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    kinds = [json.loads((tmp_path / name / "fidelity.json").read_text())["kinds"] for name in ("whole", "resumed")]
    assert [kind["frechet"] for kind in kinds[0]] == [kind["frechet"] for kind in kinds[1]]


class Towards(nn.Module):
    """Says that every sample is on its way to `end`, in terms of v."""

    shape = (1, 8, 8)

    def __init__(self, end: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.end = nn.Parameter(end)
        self.scale = scale
        self.process = ForwardProcess("v_prediction")

    def forward(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        levels = [self.process.level(float(time)) for time in t.expand(len(x_t))]
        signal, sigma = (
            torch.tensor([getattr(level, name) for level in levels]).view(-1, 1, 1, 1) for name in ("signal", "noise")
        )
        return (signal * x_t - self.end - self.scale * x_t.tanh()) / sigma

    def null(self, condition: Any) -> None:
        return None


def _halving(student: nn.Module, teacher: nn.Module, steps: int) -> Halving:
    return Halving(student, teacher, steps, FitSettings(), torch.Generator().manual_seed(0), clip=True)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_student_that_does_two_steps_in_one_has_no_loss(steps: int) -> None:
    x_0, noise, t = torch.rand(16, 1, 8, 8) - 0.5, torch.randn(16, 1, 8, 8), torch.arange(16) * 62
    end = torch.full((1, 8, 8), 0.25)
    straight = Towards(end, scale=0.0)  # however many steps, they end there
    assert float(_halving(straight, straight, steps).loss(x_0, noise, t, {}).detach()) < 1e-5
    other = Towards(-end, scale=0.0)
    assert float(_halving(other, straight, steps).loss(x_0, noise, t, {}).detach()) > 0.1


def test_the_target_is_where_two_steps_of_ddim_in_the_sampling_loop_end() -> None:
    teacher, seeds = Towards(torch.linspace(-0.5, 0.5, 64).view(1, 8, 8), scale=0.3), range(6)
    two = sample(teacher, make_scheduler("ddim", "v_prediction"), (1, 8, 8), {}, seeds, Controls(2))
    one = sample(teacher, make_scheduler("ddim", "v_prediction"), (1, 8, 8), {}, seeds, Controls(1))
    noise = noise_like((1, 8, 8), seeded(seeds))
    t = torch.zeros(6, dtype=torch.int64)  # any time: a student of one step has but one
    losses = [
        float(_halving(Towards(end, scale=0.0), teacher, 1).loss(torch.zeros(6, 1, 8, 8), noise, t, {}).detach())
        for end in (two, one)
    ]
    assert losses[0] < 1e-5
    assert losses[1] > 1e-3


def test_the_teacher_is_that_of_the_undistilled_generator_and_both_are_kept(tmp_path: Path) -> None:
    fit = {"steps": 3, "channels": [8, 8], "batch_size": 4}
    fast = DistilledGenerator(distill={"steps": 1, "teacher_steps": 2, "fit_steps": 2, "samples": 6}, fit=fit)
    usual = DiffusionGenerator(fit=fit)

    def kept() -> set[str]:
        return {path.parent.name for path in (tmp_path / "generators").glob("*/fitted.json")}

    def made(generator: Any) -> Any:
        job = job_for(generator, tmp_path)
        Path(job.run_dir, "status.json").unlink(missing_ok=True)
        need(job, 1)
        with worker(job):
            pool = until(lambda: status(job).failure or (status(job).pool and SyntheticPool.open(status(job).pool)))
            assert isinstance(pool, SyntheticPool), pool
            until(lambda: pool.has(0))
        return job

    fingerprints = {generator: job_for(generator, tmp_path).fit_fingerprint(generator) for generator in (fast, usual)}
    by_alias = {"_target_": "lightning_diffaug.generators.DiffusionGenerator", "fit": fit}  # as in conf/
    assert job_for(usual, tmp_path, generator=by_alias).fit_fingerprint(usual) == fingerprints[usual]
    made(fast)
    assert kept() == set(fingerprints.values())
    job = made(usual)
    assert kept() == set(fingerprints.values())
    assert status(job).fit_seconds == 0.0, "it was found"


def test_a_student_that_was_measured_otherwise_is_taken_as_it_is_and_says_so(
    tmp_path: Path, few_digits: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    def student(samples: int) -> DistilledGenerator:
        distill = {"steps": 1, "teacher_steps": 2, "fit_steps": 1, "samples": samples}
        return DistilledGenerator(distill=distill, fit={"steps": 1, "channels": [8, 8], "batch_size": 4})

    folder = tmp_path / "student"
    folder.mkdir()
    student(0).fit(few_digits, folder, lambda step, total: None)
    for samples, says in ((0, False), (6, True)):
        caplog.clear()
        with caplog.at_level("INFO"):
            student(samples).load(folder)
        assert (f"distill.samples={samples}" in caplog.text) == says


def test_another_distillation_is_another_student_of_the_same_teacher() -> None:
    settings: dict[str, Any] = {"guidance_scale": 2.0, "fit": {"steps": 7}}
    usual = DiffusionGenerator(**settings)
    students = [DistilledGenerator(distill={"steps": steps}, **settings) for steps in (2, 4)]
    assert {str(student.teacher().fit_key()) for student in students} == {str(usual.fit_key())}
    assert len({str(generator.fit_key()) for generator in (usual, *students)}) == 3
    for samples in (0, 7):
        measured = DistilledGenerator(distill={"steps": 2, "samples": samples}, **settings)
        assert measured.fit_key() == students[0].fit_key(), "it only sizes a measurement"
    again = DistilledGenerator(**students[0].config())
    assert again.config() == students[0].config()
    assert again.sample_key()["num_inference_steps"] == 2


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"distill": {"steps": 3}}, "generator.distill.steps"),
        ({"distill": {"teacher_steps": 12}}, "generator.distill.teacher_steps"),
        ({"distill": {"teacher_steps": 4}}, "generator.distill.teacher_steps"),
        ({"distill": {"fit_steps": 0}}, "generator.distill.fit_steps"),
        ({"distill": {"lr": 0}}, "generator.distill.lr"),
        ({"distill": {"samples": -1}}, "generator.distill.samples"),
        ({"distill": {"epochs": 1}}, "generator.distill.epochs"),
        ({"num_inference_steps": 10}, "generator.distill.steps"),
        ({"scheduler": "dpmsolver++"}, "generator.scheduler=ddim"),
        ({"source": "edit"}, "generator.source"),
        ({"fit": {"prediction_type": "epsilon"}}, "generator.fit.prediction_type"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_door_with_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        DistilledGenerator(**settings)


def test_halvings() -> None:
    assert DistillSettings(4, 16).halvings == [8, 4]
    assert DistillSettings(1, 2).halvings == [1]
    assert DistillSettings(1, 16, fit_steps=5).total == 20


@pytest.mark.parametrize("recipe", [{}, {"prediction_type": "sample", "augment_as": "condition", "hold_out": 0.1}])
def test_it_fits_its_own_teacher_where_nobody_keeps_it(
    recipe: dict[str, Any], few_digits: Snapshot, tmp_path: Path
) -> None:
    fit = {"steps": 3, "channels": [8, 16], **recipe}
    generator = DistilledGenerator(distill={"steps": 1, "teacher_steps": 2, "fit_steps": 2, "samples": 8}, fit=fit)
    with pytest.raises(GeneratorError, match="no weights yet"):
        generator.generate({"label": [0]}, [0])
    steps: list[tuple[int, int]] = []
    generator.fit(few_digits, tmp_path, lambda step, total: steps.append((step, total)))
    assert list(dict.fromkeys(steps)) == [(step, 5) for step in range(1, 6)]
    assert steps.count((5, 5)) == 1 + 10 + 1 + 1, "it shows life while it measures: ten steps, and one of each kind"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["denoiser.safetensors", "fidelity.json", "fit.json"]
    generator.load(tmp_path)
    assert generator.generate({"label": [0, 1]}, [0, 1])["image"].shape == (2, 1, 8, 8)
