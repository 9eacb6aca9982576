"""Plans are immutable, checked, found by slot and by epoch; weights stay while a slot refers to them."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch

from lightning_diffaug.errors import DamagedShardError
from lightning_diffaug.pool.plans import Plans


def test_a_slot_has_the_last_plan_up_to_its_number(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    for from_slot, epoch in ((4, 0), (9, 2)):
        plans.write(from_slot, epoch, {}, {})
    found = [plan and plan.from_slot for plan in map(Plans(tmp_path).at, (0, 3, 4, 8, 9, 100))]
    assert found == [None, None, 4, 4, 9, 9]
    assert [plan and plan.from_slot for plan in map(plans.of_epoch, (0, 1, 2))] == [4, None, 9]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    content = {"classes": {"loss": [0.1, math.nan, math.inf]}, "metric": "loss"}
    samples = {"loss": torch.tensor([0.5, math.nan, 2.0])}
    Plans(tmp_path).write(4, 0, content, samples)
    (plan,) = Plans(tmp_path).all()
    assert list(map(float, plan.content["classes"]["loss"])) == pytest.approx([0.1, math.nan, math.inf], nan_ok=True)
    assert torch.equal(Plans(tmp_path).samples(plan)["loss"].nan_to_num(9), samples["loss"].nan_to_num(9))


def test_who_comes_second_adopts_the_plan_that_is_there(tmp_path: Path) -> None:
    first = Plans(tmp_path).write(4, 0, {"by": "first"}, {"loss": torch.zeros(3)})
    second = Plans(tmp_path).write(4, 1, {"by": "second"}, {"loss": torch.ones(3)})
    assert second == first
    assert second.content == {"by": "first"}
    assert torch.equal(Plans(tmp_path).samples(second)["loss"], torch.zeros(3))


def test_a_plan_that_another_process_writes_is_seen(tmp_path: Path) -> None:
    reader = Plans(tmp_path)
    assert reader.at(5) is None
    Plans(tmp_path).write(4, 0, {}, {})
    assert reader.at(5) is not None


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "version"])
def test_a_damaged_plan_is_set_aside_and_the_one_before_holds(
    change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plans = Plans(tmp_path)
    plans.write(4, 0, {"a": 1}, {})
    plans.write(9, 1, {"a": 2}, {})
    path = tmp_path / "plans" / f"{9:09d}.json"
    text = path.read_text()
    changed = {"flip": text.replace('"a": 2', '"a": 3'), "cut": text[:50], "empty": ""}
    path.write_text(changed.get(change, json.dumps({**json.loads(text), "version": 99})))
    again = Plans(tmp_path)
    with caplog.at_level(logging.ERROR):
        assert [plan.from_slot for plan in (again.at(20), again.at(20)) if plan] == [4, 4]
    assert len(caplog.records) == 1
    assert "follow the plan before" in caplog.text
    assert list((tmp_path / "damaged").iterdir()), "nothing is deleted"


@pytest.mark.parametrize("harm", ["unreadable", "damaged"])
def test_a_plan_that_can_neither_be_read_nor_set_aside_is_left_out(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = Plans(tmp_path)
    plans.write(4, 0, {"a": 1}, {})
    plans.write(9, 1, {"a": 2}, {})
    path, read = tmp_path / "plans" / f"{9:09d}.json", Path.read_bytes
    if harm == "damaged":
        path.write_text("")
        (tmp_path / "damaged").symlink_to(tmp_path / "damaged")
    else:

        def fails(self: Path) -> bytes:
            if self == path:
                raise OSError(5, "Input/output error")
            return read(self)

        monkeypatch.setattr(Path, "read_bytes", fails)
    again = Plans(tmp_path)
    with caplog.at_level(logging.ERROR):
        assert [plan.from_slot for plan in (again.at(20), again.at(20)) if plan] == [4, 4]
    assert len(caplog.records) == 1
    assert path.exists()


@pytest.mark.parametrize("sub", ["plans", "scorers"])
def test_tensors_are_read_as_they_were_written_or_not_at_all(sub: str, tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    scorer = plans.put_scorer({"w": torch.arange(6.0)}, {"network": "x"})
    plan = plans.write(4, 0, {}, {"loss": torch.arange(6.0)}, scorer)
    read = {"plans": plans.samples, "scorers": plans.scorer}[sub]
    read(plan)
    (path,) = (tmp_path / sub).glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedShardError):
        read(plan)
    with pytest.raises(FileNotFoundError):
        read(plan)


def test_tied_weights_are_stored(tmp_path: Path) -> None:
    plans, weight = Plans(tmp_path), torch.arange(6.0).reshape(2, 3)
    digest = plans.put_scorer({"a": weight, "b": weight, "c": weight.T}, {})
    tensors, _ = plans.scorer(plans.write(0, 0, {}, {}, digest))
    assert torch.equal(tensors["b"], weight)
    assert torch.equal(tensors["c"], weight.T)


def test_weights_stay_while_a_slot_refers_to_them(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    digests = [plans.put_scorer({"w": torch.full((2,), float(i))}, {}) for i in range(3)]
    for i, digest in enumerate(digests):
        plans.write(10 * (i + 1), i, {}, {}, digest)
    there = lambda: {path.stem for path in (tmp_path / "scorers").iterdir()}  # noqa: E731
    assert plans.remove_scorers(25, lambda k: True) == [], "slots that are there refer to them"
    assert plans.remove_scorers(15, lambda k: False) == [], "slots that are needed may be made"
    assert plans.remove_scorers(25, lambda k: k == 19) == []
    assert plans.remove_scorers(25, lambda k: k >= 20) == [digests[0]]
    assert there() == set(digests[1:])
    assert plans.remove_scorers(99, lambda k: False) == [digests[1]], "the last plan has no end"
