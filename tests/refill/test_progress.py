"""While training waits it shows what for, and says once how long a long fit takes and what would shorten it."""

from __future__ import annotations

import time

import pytest

from lightning_diffaug.refill.progress import WaitDisplay
from lightning_diffaug.refill.status import Status


def _fit(total: int, pause: float) -> None:
    with WaitDisplay(4) as display:
        display.fit(Status(phase="starting"))
        for step in range(1, 15):
            display.fit(Status(phase="fit", step=step, total=total))
            time.sleep(pause)


def test_a_long_fit_is_estimated_once_with_the_remedies(capsys: pytest.CaptureFixture[str]) -> None:
    _fit(10**6, 0.005)
    shown = capsys.readouterr().err
    assert shown.count("The fit will take about") == 1
    assert all(key in shown for key in ("generator.fit.steps", "real.size", "refill.threads"))
    assert "fitting the generator" in shown


def test_a_short_fit_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    _fit(20, 0.005)
    assert "will take" not in capsys.readouterr().err


def test_a_window_that_is_there_shows_nothing_and_one_that_is_waited_for_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with WaitDisplay(4) as display:
        display.slots(1)
    assert capsys.readouterr().err == ""
    with WaitDisplay(4) as display:
        time.sleep(0.55)
        display.slots(3)
    assert "filling the first window" in capsys.readouterr().err
