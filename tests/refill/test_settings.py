"""Wrong refill settings fail before anything runs, with the key to change."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.refill.settings import RefillSettings


def test_a_name_a_mapping_and_settings_are_accepted() -> None:
    assert RefillSettings.of("sync").mode == "sync"
    settings = RefillSettings.of({"mode": "local", "ahead": 0, "nice": 0, "max_restarts": 0, "backoff": 0})
    assert (settings.ahead, settings.nice, settings.max_restarts) == (0, 0, 0)
    assert RefillSettings.of(settings) is settings


def test_a_number_in_another_spelling_is_the_number() -> None:
    settings = RefillSettings.of({"ahead": 4.0, "threads": 2.0, "backoff": "1e-3", "duty": "5e-1"})
    assert list(range(settings.ahead + settings.threads)) == list(range(6))
    assert (settings.backoff, settings.duty) == (0.001, 0.5)


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = RefillSettings()
    assert (settings.mode, settings.ahead, settings.nice, settings.threads) == ("local", 4, 19, 1)
    assert settings.duty == 1.0


def test_a_duty_slows_who_works_beside_training_and_not_who_is_waited_for() -> None:
    assert RefillSettings.of({"mode": "local", "duty": 0.3}).working_share == 0.3
    assert RefillSettings.of({"mode": "sync", "duty": 0.3}).working_share == 1.0


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("later", "refill="),
        ({"mode": "ray"}, "refill="),
        ({"nicee": 3}, "refill.nicee"),
        ({"ahead": -1}, "refill.ahead"),
        ({"ahead": 4.5}, "refill.ahead"),
        ({"nice": -5}, "refill.nice"),
        ({"nice": 20}, "refill.nice"),
        ({"threads": 0}, "refill.threads"),
        ({"duty": 0}, "refill.duty"),
        ({"duty": 1.1}, "refill.duty"),
        ({"duty": True}, "refill.duty"),
        ({"duty": "half"}, "refill.duty"),
        ({"attempts": 0}, "refill.attempts"),
        ({"min_acceptance": 1.0}, "refill.min_acceptance"),
        ({"min_acceptance": -0.1}, "refill.min_acceptance"),
        ({"max_restarts": -1}, "refill.max_restarts"),
        ({"hang_timeout": 0}, "refill.hang_timeout"),
        ({"backoff": -1}, "refill.backoff"),
    ],
)
def test_wrong_settings_name_their_key(value: Any, key: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        RefillSettings.of(value)
