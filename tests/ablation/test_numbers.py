from __future__ import annotations

import pytest

from lightning_diffaug.ablation.differences import Comparison
from lightning_diffaug.ablation.numbers import compared, in_per_cent, in_points, p_value, points
from lightning_diffaug.ablation.statistics import Difference, Estimate


def test_a_zero_has_no_sign_of_its_own() -> None:
    tiny = Difference(5, -1e-6, -2e-6, 0.0, 0.2, -0.01)
    assert in_per_cent(tiny, 1, "+") == "+0.0 ± 0.0"
    assert in_points(tiny) == "+0.00 ± 0.00 points"
    assert points(tiny).text == "+0.0 ± 0.0"
    small = compared(Comparison("a", "b", tiny, deciding=tiny)).small
    assert small == "p\u00a00.20\u00a0(alone), d\u00a00.0, n\u00a05"


def test_one_mean_is_written_alike_wherever_it_stands() -> None:
    found = Difference(3, 0.0213, 0.0123, 0.0303, 0.0004)
    assert in_per_cent(found) == "2.1 ± 0.9"
    assert in_points(found) == "+2.1 ± 0.9 points"
    assert points(found).text == "+2.1 ± 0.9"
    assert in_per_cent(Estimate(2, 0.5), 2) == "50.00"
    assert in_per_cent(None) == "n/a"


@pytest.mark.parametrize(
    ("p", "said"), [(None, "n/a"), (0.0004, "< 0.001"), (0.0123, "0.012"), (0.123, "0.12"), (1.0, "1.00")]
)
def test_p_values(p: float | None, said: str) -> None:
    assert p_value(p) == said
