from __future__ import annotations

import pytest

from lightning_diffaug.data import progress
from lightning_diffaug.data.progress import followed


@pytest.mark.parametrize(("after", "shown"), [(0.0, True), (60.0, False)])
def test_all_items_come_and_a_bar_only_where_they_take_long(
    after: float, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SHOW_AFTER", after)
    assert list(followed(iter("abc"), "reading letters", "letter", 3)) == ["a", "b", "c"]
    assert ("reading letters" in capsys.readouterr().err) == shown
