"""The settings of feedback are checked at the door."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.feedback.settings import FeedbackSettings


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"metric": "accuracy"}, "feedback.metric"),
        ({"strength": 1.5}, "feedback.strength"),
        ({"strength": "much"}, "feedback.strength"),
        ({"every": 0}, "feedback.every"),
        ({"every": 1.5}, "feedback.every"),
        ({"start": 0}, "feedback.start"),
        ({"samples": 0}, "feedback.samples"),
        ({"hand_over": 1}, "feedback.hand_over"),
        ({"epochs": 1}, "feedback.epochs"),
        ({"scores": 5}, "feedback.scores=5"),
        ({"scores": {"function": "a.b"}}, "feedback.scores="),
    ],
)
def test_what_is_wrong_is_said_with_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        FeedbackSettings.of(settings)


def test_a_word_is_no_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.feedback"):
        FeedbackSettings.of("classes")  # type: ignore[arg-type]


def test_off_is_none_or_no_metric() -> None:
    assert FeedbackSettings.of(None) is None
    assert FeedbackSettings.of({"metric": None}) is None
    assert FeedbackSettings.of({}) == FeedbackSettings()


def test_the_calendar_counts_from_the_start() -> None:
    settings = FeedbackSettings(every=3, start=2)
    assert [epoch for epoch in range(10) if settings.marked(epoch)] == [1, 4, 7]
