"""Distances agree with other implementations of them, and say where they cannot be had."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.statistical import coverage_of, frechet_distance, kernel_distance, moments

pytestmark = pytest.mark.filterwarnings("ignore:.*will save all extracted features")


def drawn(n: int, d: int = 12, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    mixed = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) / d**0.5
    return (torch.randn(n, d, generator=rng) * scale) @ mixed + shift


class Same(torch.nn.Module):
    """Features of torchmetrics: what it is given."""

    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_frechet_distance_agrees_with_torchmetrics() -> None:
    first, second = drawn(200), drawn(150, seed=1, scale=1.4, shift=0.3)
    metric = FrechetInceptionDistance(Same(), input_img_size=(12,), normalize=True)  # type: ignore[arg-type]
    metric.update(first, real=True)
    metric.update(second, real=False)
    assert frechet_distance(first, second) == pytest.approx(float(metric.compute()), abs=1e-4)


def test_frechet_distance_agrees_with_scipys_matrix_root() -> None:
    first, second = drawn(200), drawn(150, seed=1, scale=1.4, shift=0.3)
    (mean, cov), (other, other_cov) = (
        (x.double().mean(0).numpy(), np.cov(x.double().numpy().T)) for x in (first, second)
    )
    root = scipy.linalg.sqrtm(cov @ other_cov).real
    expected = np.sum((mean - other) ** 2) + np.trace(cov + other_cov - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(float(expected), abs=1e-4)


def test_fewer_samples_than_dimensions_have_a_distance() -> None:
    """Covariances without full rank: the root of their product is the nuclear norm of the centred products."""
    first, second = drawn(8, 40), drawn(6, 40, seed=1, shift=0.5)
    centred = [(x.double() - x.double().mean(0)) / (len(x) - 1) ** 0.5 for x in (first, second)]
    shared = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    apart = (first.double().mean(0) - second.double().mean(0)).square().sum()
    expected = apart + sum(x.square().sum() for x in centred) - 2 * shared
    assert frechet_distance(first, second) == pytest.approx(float(expected), abs=1e-4)


def test_identical_sets_are_at_no_distance() -> None:
    x = drawn(60)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)
    assert kernel_distance(x, x).value < 0  # unbiased: pairs of a row with itself count between the sets alone
    found = coverage_of(x, x)
    assert (found.precision, found.recall, found.coverage) == (1.0, pytest.approx(1.0), pytest.approx(1.0))


def test_kernel_distance_agrees_with_torchmetrics() -> None:
    first, second = drawn(120), drawn(120, seed=1, scale=1.4, shift=0.3)
    metric = KernelInceptionDistance(Same(), subsets=1, subset_size=120, normalize=True)  # type: ignore[arg-type]
    metric.update(first, real=True)
    metric.update(second, real=False)
    with torch.random.fork_rng(devices=[]):
        mean, _ = metric.compute()
    assert kernel_distance(first, second).value == pytest.approx(float(mean), abs=1e-4)


def test_all_pairs_are_what_random_subsets_give_on_average() -> None:
    first, second = drawn(40), drawn(40, seed=1, scale=1.4, shift=0.3)
    metric = KernelInceptionDistance(Same(), subsets=3000, subset_size=10, normalize=True)  # type: ignore[arg-type]
    metric.update(first, real=True)
    metric.update(second, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, spread = metric.compute()
    found = kernel_distance(first, second)
    assert abs(found.value - float(mean)) < 4 * float(spread) / 3000**0.5


def test_the_standard_error_is_the_spread_of_the_estimate_over_samples() -> None:
    found = [kernel_distance(drawn(60, 5, seed), drawn(60, 5, 1000 + seed, 1.5, 0.5)) for seed in range(120)]
    spread = float(np.std([one.value for one in found]))
    said = float(np.mean([one.standard_error for one in found]))  # type: ignore[misc]
    assert 0.8 * spread < said < 1.4 * spread


def test_weights_undo_other_class_shares() -> None:
    """A reference of nine of one class and one of the other, against samples of both alike."""
    means = torch.stack((drawn(1, 6, 7)[0] * 3, drawn(1, 6, 8)[0] * 3))
    labels, alike = torch.tensor([0] * 180 + [1] * 20), torch.arange(200) % 2
    reference, samples = drawn(200, 6, 1) + means[labels], drawn(200, 6, 2) + means[alike]
    weights = torch.where(labels == 0, 1 / 360, 1 / 40).double()
    mean, _ = moments(reference, weights)
    assert torch.allclose(mean, torch.stack([reference[labels == c].double().mean(0) for c in (0, 1)]).mean(0))
    assert frechet_distance(reference, samples, weights) < 0.3 * frechet_distance(reference, samples)
    plain, weighted = kernel_distance(reference, samples), kernel_distance(reference, samples, weights, labels)
    assert abs(weighted.value) < 0.2 * plain.value
    assert coverage_of(reference, samples, weights).recall == pytest.approx(
        sum(_recalled(reference[labels == c], samples) for c in (0, 1)) / 2, abs=1e-6
    )


def test_equal_weights_are_none() -> None:
    first, second, weights = drawn(50), drawn(40, seed=1, shift=0.2), torch.full((50,), 1 / 50)
    assert frechet_distance(first, second, weights) == pytest.approx(frechet_distance(first, second))
    found, plain = kernel_distance(first, second, weights), kernel_distance(first, second)
    assert found.value == pytest.approx(plain.value)
    assert found.standard_error == pytest.approx(plain.standard_error)


def _reach(x: Tensor, k: int) -> Tensor:
    return torch.cdist(x.double(), x.double()).sort(1).values[:, k]  # the first is the row itself


def _recalled(real: Tensor, samples: Tensor) -> float:
    near = torch.cdist(real.double(), samples.double()) <= _reach(samples, 3)[None]
    return float(near.any(1).double().mean())


def test_coverage_is_that_of_the_papers_definitions() -> None:
    real, samples = drawn(70, 4), drawn(50, 4, seed=1, scale=1.3, shift=0.2)
    apart = torch.cdist(real.double(), samples.double())
    found = coverage_of(real, samples)
    assert found.precision == pytest.approx(float((apart <= _reach(real, 3)[:, None]).any(0).double().mean()))
    assert found.recall == pytest.approx(_recalled(real, samples))
    near = apart <= _reach(real, 5)[:, None]
    assert found.density == pytest.approx(float(near.sum()) / (5 * 50))
    assert found.coverage == pytest.approx(float(near.any(1).double().mean()))
    assert 0 < found.coverage < 1


def test_features_that_are_not_finite_are_refused_and_counted() -> None:
    broken = drawn(20)
    broken[3, 2], broken[5, 1] = torch.nan, torch.inf
    for measure in (frechet_distance, kernel_distance, coverage_of):
        with pytest.raises(ConfigurationError, match=r"NaN or infinite in 2 of 20 rows.*[Ss]et features"):
            measure(drawn(20), broken)


@pytest.mark.parametrize(
    ("measure", "least"),
    [(frechet_distance, 2), (kernel_distance, 2), (coverage_of, 4)],
    ids=["frechet", "kid", "k-NN"],
)
def test_too_few_rows_are_refused(measure: object, least: int) -> None:
    measure(drawn(8), drawn(least))  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=f"at least {least}"):
        measure(drawn(8), drawn(least - 1))  # type: ignore[operator]


_LARGE = """
import resource, torch
from lightning_diffaug.fidelity.diversity import distance_within_classes, vendi_score
from lightning_diffaug.fidelity.statistical import coverage_of, frechet_distance, kernel_distance
torch.set_num_threads(1)
def measure(n):
    x, y = torch.randn(n, 48), torch.randn(n, 48) * 1.1
    frechet_distance(x, y), kernel_distance(x, y), coverage_of(x, y), vendi_score(y)
    distance_within_classes(y, torch.arange(n) % 2)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
measure(200)
before = peak()
measure(10_000)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
def test_ten_thousand_samples_take_little_memory() -> None:
    """One matrix of all distances would be 800 MB."""
    done = subprocess.run([sys.executable, "-c", _LARGE], capture_output=True, text=True, check=True, timeout=250)
    assert float(done.stdout) < 300
