"""P3 and P6 at the freeze: what is short is decided by ``when_short`` and said; a damaged slot is never read."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refill_toys import SLOT, Faulty, Steady, job_for

from lightning_diffaug.errors import ConfigurationError, ShortWindowError
from lightning_diffaug.pool import EpochCache, SyntheticPool
from lightning_diffaug.pool.frozen import FrozenWindow
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.protocol import Request
from lightning_diffaug.refill.status import Status
from lightning_diffaug.refill.supply import WindowSupply


class Hand:
    """A refill by hand: `makes` slots come at the next poll after `need`."""

    def __init__(self, root: Path, generator: Any = None, makes: Any = ()) -> None:
        self.generator = generator or Steady()
        self.job = job_for(self.generator, root)
        self.live = self.job.create_pool(self.generator, None)
        self.recipe = self.job.recipe(self.generator)
        self.makes = list(makes)
        self.needed: list[tuple[int, int]] = []
        self.gave_up = ""
        self.misconfigured = False
        self.status = Status(phase="fill")
        self.known = True
        self.polls = 0
        self.closed = 0

    def pool(self) -> SyntheticPool | None:
        return self.live if self.known else None

    def need(self, first: int, stop: int) -> None:
        self.needed.append((first, stop))

    def publish(self, *slots: int) -> None:
        for k in slots:
            self.live.publish(k, fill_slot(k, self.recipe))

    def poll(self) -> None:
        self.polls += 1
        first, stop = self.needed[-1] if self.needed else (0, 0)
        self.publish(*[k for k in self.makes if first <= k < stop and not self.live.has(k)])

    def close(self) -> None:
        self.closed += 1


def _supply(hand: Hand, root: Path, when_short: Any = "reuse", timeout: float = 0.3, **changes: Any) -> WindowSupply:
    changes = {"always_wait": False, **changes}
    return WindowSupply(hand, EpochCache(root / "cache"), "run", True, when_short, timeout, **changes)


def _request(slots: range, synthetic: Any = (4, 2, 2)) -> Request:
    return Request(slots, slots.stop + 1, np.array(synthetic))


def _slots(supply: WindowSupply) -> list[int]:
    return sorted({int(k) for segment in supply.segments for k in segment.slot})


def test_the_first_window_is_waited_for(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(9))
    supply = _supply(hand, tmp_path, timeout=30)
    window = supply.freeze(_request(range(0, 3)))
    assert (window.slots, window.short, window.available) == ([0, 1, 2], "", [1.0, 1.0, 1.0])
    assert _slots(supply) == [0, 1, 2]
    assert hand.needed == [(0, 4)]
    supply.close()
    assert hand.closed == 1
    assert not (tmp_path / "cache").exists()
    assert hand.live.live_leases() == []


def test_an_epoch_that_asks_for_nothing_waits_for_nothing_but_has_slots_made_for_later(tmp_path: Path) -> None:
    hand = Hand(tmp_path)
    window = _supply(hand, tmp_path).freeze(_request(range(3), (0, 0, 0)))
    assert (window.slots, window.available, window.short) == ([], [1.0] * 3, "")
    assert hand.needed == [(0, 4)]
    assert hand.polls == 0


@pytest.mark.parametrize("when_short", ["reuse", "wait", "real", "error"])
def test_when_short_decides(tmp_path: Path, when_short: str, caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand(tmp_path, makes=range(2))
    supply = _supply(hand, tmp_path, when_short, timeout=0.4 if when_short == "wait" else 60)
    supply.freeze(_request(range(0, 2)))
    if when_short == "error":
        with pytest.raises(ShortWindowError, match=r"data\.when_short"):
            supply.freeze(_request(range(1, 3)))
        return
    started = time.monotonic()
    window = supply.freeze(_request(range(1, 3)))
    waited = time.monotonic() - started
    assert waited > 0.4 if when_short == "wait" else waited < 30
    assert "1 of the window's 2 slots" in window.short
    if when_short == "real":
        assert window.slots == [1]
        assert window.available == [0.5] * 3
    else:
        assert window.slots == [0, 1], "the newest complete one"
        assert window.available == [1.0] * 3
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    supply.freeze(_request(range(1, 3)))
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1, "said once"
    supply.close()


@pytest.mark.parametrize("when_short", ["reuse", "wait", "real"])
def test_an_empty_first_window_is_real(tmp_path: Path, when_short: str) -> None:
    hand = Hand(tmp_path)
    supply = _supply(hand, tmp_path, when_short)
    window = supply.freeze(_request(range(0, 2)))
    assert window.slots == []
    assert window.available == [0.0] * 3
    assert window.short
    supply.close()


def test_a_supervisor_that_gave_up_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand(tmp_path)
    hand.gave_up, hand.known = "it is broken for good", False
    supply = _supply(hand, tmp_path, timeout=60)
    started = time.monotonic()
    assert supply.freeze(_request(range(0, 2))).slots == []
    assert time.monotonic() - started < 5
    assert "it is broken for good" in caplog.text
    assert "data.reuse" not in caplog.text, "no setting of it would help"
    supply.close()


def test_a_fit_is_not_the_pools_delay_but_starting_is(tmp_path: Path) -> None:
    class Fitting(Hand):
        def poll(self) -> None:
            super().poll()
            if self.polls == 20:
                self.status = Status(phase="fill")
                self.known = True

    hand = Fitting(tmp_path, makes=range(9))
    hand.known, hand.status = False, Status(phase="fit", step=1, total=9)
    supply = _supply(hand, tmp_path, timeout=0.2)
    assert supply.freeze(_request(range(0, 2))).slots == [0, 1]
    supply.close()
    slow = Hand(tmp_path / "slow")
    slow.known, slow.status = False, Status(phase="starting")
    started = time.monotonic()
    _supply(slow, tmp_path / "slow", timeout=0.3).freeze(_request(range(0, 2)))
    assert time.monotonic() - started < 5


def test_a_class_without_rows_is_real_and_counted_as_short(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(9))
    only = [i % 2 for i in range(SLOT)]
    hand.recipe = hand.job.recipe(hand.generator)
    object.__setattr__(hand.recipe, "planner", type("P", (), {"plan": lambda self, slot, rows: {"label": only}})())
    supply = _supply(hand, tmp_path, timeout=30)
    window = supply.freeze(_request(range(0, 2)))
    assert window.available == [1.0, 1.0, 0.0]
    assert "no sample of 1 of the classes" in window.short
    assert supply.freeze(_request(range(0, 2), (4, 4, 0))).available == [1.0, 1.0, 1.0]
    supply.close()


def test_a_pool_of_rejected_samples_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand(tmp_path, Faulty("nan"), makes=range(9))
    hand.status = Status(phase="fill", generated=64, rejections={"finite": 60, "range": 4})
    supply = _supply(hand, tmp_path, timeout=30)
    assert supply.freeze(_request(range(0, 2))).available == [0.0] * 3
    assert "Of 64 samples made, every sample was rejected (finite 60, range 4)" in caplog.text
    assert "generator.fit.steps" in caplog.text
    assert "data.reuse" not in caplog.text, "which would not help"
    supply.close()


def test_where_most_samples_are_rejected_more_time_is_no_advice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hand = Hand(tmp_path)
    hand.status = Status(phase="fill", generated=253, admitted=1, rejections={"duplicate": 252})
    supply = _supply(hand, tmp_path)
    assert supply.freeze(_request(range(0, 2))).slots == []
    assert "Of 253 samples made, 252 were rejected (duplicate 252). duplicate: " in caplog.text
    assert "data.reuse" not in caplog.text, "which would not help"
    supply.close()


class Few(Steady):
    """One sample of a slot is whole."""

    def generate(self, condition: Any, seeds: Any) -> Any:
        made = super().generate(condition, seeds)
        made[1 if len(seeds) == SLOT else 0 :] = float("nan")
        return made


def test_a_window_that_gates_left_nearly_empty_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand(tmp_path, Few(), makes=range(9))
    hand.status = Status(phase="fill", generated=SLOT, admitted=1, rejections={"finite": SLOT - 1})
    supply = _supply(hand, tmp_path, timeout=30)
    for start in range(2):
        window = supply.freeze(_request(range(start, start + 2), (4, 0, 0)))
        assert (window.slots, window.short) == ([start, start + 1], "")
    assert caplog.text.count(f"the window of {2 * SLOT} samples holds 2") == 1
    supply.close()


def _damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pickle":
        path.write_bytes(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.")
    else:
        path.write_bytes(b"a text of another program\n" * 40)


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "pickle", "foreign"])
def test_a_damaged_slot_is_set_aside_and_never_read(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand(tmp_path, makes=range(4))
    good = fill_slot(2, hand.recipe).content
    supply = _supply(hand, tmp_path, timeout=0.3)
    supply.freeze(_request(range(0, 2)))
    hand.publish(2)
    _damage(hand.live.path(2), how)
    hand.makes = []
    window = supply.freeze(_request(range(1, 3)))
    assert window.slots == [0, 1]
    assert window.short
    assert _slots(supply) == [0, 1]
    assert "damaged" in caplog.text
    assert len(list((hand.live.folder / "damaged").iterdir())) == 1, "set aside, not deleted"
    hand.publish(2)
    assert supply.freeze(_request(range(1, 3))).slots == [1, 2]
    assert hand.live.read(2).content == good
    supply.close()


def test_damage_to_the_first_window_is_waited_for(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(4))
    hand.publish(0, 1)
    _damage(hand.live.path(1), "flipped")
    supply = _supply(hand, tmp_path, timeout=30)
    window = supply.freeze(_request(range(0, 2)))
    assert (window.slots, window.short) == ([0, 1], "")
    supply.close()


def test_a_lease_holds_the_slots_needed_and_those_made_ahead_and_is_written_once_a_wait(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(9))
    supply = _supply(hand, tmp_path, timeout=30, ahead=4)
    supply.freeze(_request(range(3, 5)))
    (lease,) = hand.live.live_leases()
    assert lease.window == range(3, 6 + 4), "the next epoch's slot and four ahead"
    before = (hand.live.folder / "leases" / "run.json").stat().st_mtime_ns
    supply.poll()
    supply.poll()
    assert (hand.live.folder / "leases" / "run.json").stat().st_mtime_ns - before < 10**9
    supply.close()
    supply.close()
    assert hand.live.live_leases() == []


def test_a_wrong_setting_ends_training_before_its_first_window_and_not_later(tmp_path: Path) -> None:
    hand = Hand(tmp_path)
    hand.gave_up, hand.misconfigured, hand.known = "generator.fit.channels is wrong", True, False
    supply = _supply(hand, tmp_path, timeout=60)
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.channels is wrong"):
        supply.freeze(_request(range(0, 2)))
    hand.known = True
    hand.publish(0, 1)
    assert supply.freeze(_request(range(0, 2))).slots == [0, 1], "the pool has what is needed"
    assert supply.freeze(_request(range(1, 3))).slots == [0, 1], "training goes on with the newest complete one"
    supply.close()


def test_sync_waits_for_a_slow_slot_however_long_and_no_longer_than_there_is_hope(tmp_path: Path) -> None:
    class Slow(Hand):
        def poll(self) -> None:
            super().poll()
            if self.polls % 10 == 0 and self.makes == []:
                self.publish(next(k for k in range(9) if not self.live.has(k)))
            if self.live.has(3):
                self.gave_up = "it broke"

    hand = Slow(tmp_path)
    supply = _supply(hand, tmp_path, timeout=0.1, always_wait=True)
    for slots in (range(0, 2), range(1, 4)):
        window = supply.freeze(_request(slots))
        assert (window.slots, window.short) == (list(slots), "")
    assert supply.freeze(_request(range(8, 11))).short
    supply.close()


def test_the_last_complete_window_is_leased_as_long_as_it_may_be_needed(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(2))
    supply = _supply(hand, tmp_path)
    supply.freeze(_request(range(0, 2)))
    for slots in (range(4, 6), range(6, 8)):
        assert supply.freeze(_request(slots)).slots == [0, 1]
        (lease,) = hand.live.live_leases()
        assert lease.window == range(0, slots.stop + 1)
        assert hand.live.drop_beyond(1) == []
        assert hand.needed[-1] == (4, slots.stop + 1), "the old window is only kept; the refill goes on where it is"
    supply.close()


def test_with_a_generator_slower_than_the_demand_windows_slide_as_fast_as_it_makes_slots(tmp_path: Path) -> None:
    """The demand moves by three slots an epoch, the generator makes one; later it catches up."""

    class Slow(Hand):
        pace = 1

        def epoch(self) -> None:
            first, stop = self.needed[-1]
            self.publish(*[k for k in range(first, stop) if not self.live.has(k)][: self.pace])

    def demand(epoch: int) -> Request:
        return Request(range(3 * epoch, 3 * epoch + 4), 3 * epoch + 7, np.array([4, 2, 2]))

    hand = Slow(tmp_path, makes=range(4))
    supply = _supply(hand, tmp_path)
    supply.freeze(demand(0))
    hand.makes, read = [], []
    for epoch in range(1, 8):
        hand.epoch()
        window = supply.freeze(demand(epoch))
        assert window.short
        assert window.slots == _slots(supply) == supply.last_complete
        read.append(window.slots)
    assert read == [list(range(k, k + 4)) for k in range(1, 8)]
    assert hand.live.live_leases()[0].window.start == 6, "what is behind the window read last may go"
    hand.pace = 6
    for epoch in range(8, 20):
        hand.epoch()
        window = supply.freeze(demand(epoch))
        if not window.short:
            break
    assert window.slots == list(range(3 * epoch, 3 * epoch + 4)), "it has caught up"
    assert hand.live.slots() == list(range(3 * epoch + 4)), "no slot was left out"
    supply.freeze(_request(range(60, 64)))
    assert hand.needed[-1] == (60, 65), "a run that is not behind asks for what it needs alone"
    supply.close()


def test_a_complete_window_that_others_made_is_read_if_it_is_newer(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(2))
    supply = _supply(hand, tmp_path)
    supply.freeze(_request(range(0, 2)))
    hand.publish(3, 4, 6, 9, 10)
    assert supply.freeze(_request(range(7, 9))).slots == [3, 4], "not 6 alone, and nothing beyond what was asked for"
    hand.live.path(3).unlink()
    assert supply.freeze(_request(range(8, 10))).slots == [6, 9], "never an older one: the newest that are there"
    supply.close()


def test_as_long_as_no_window_was_complete_what_is_there_is_read(tmp_path: Path) -> None:
    hand = Hand(tmp_path)
    hand.publish(0, 1)
    supply = _supply(hand, tmp_path)
    assert supply.freeze(_request(range(0, 4))).slots == [0, 1]
    hand.publish(2)
    assert supply.freeze(_request(range(6, 10))).slots == [0, 1, 2], "the demand has left them, the generator not"
    assert hand.needed[-1] == (2, 11)
    assert hand.live.live_leases()[0].window.start == 0
    hand.publish(3, 4)
    assert supply.freeze(_request(range(12, 16))).slots == [1, 2, 3, 4]
    supply.close()


def test_a_damaged_slot_of_the_newest_window_is_not_read(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(2))
    supply = _supply(hand, tmp_path)
    supply.freeze(_request(range(0, 2)))
    hand.publish(2, 3)
    _damage(hand.live.path(3), "flipped")
    assert supply.freeze(_request(range(4, 6))).slots == [1, 2]
    assert _slots(supply) == [1, 2]
    supply.close()


@pytest.mark.parametrize("resumed", [False, True])
def test_the_first_window_after_a_resume_is_waited_for_too(resumed: bool, tmp_path: Path) -> None:
    """The window that the checkpoint froze is there at once, and the process that makes the next is only starting."""

    class Starting(Hand):
        def poll(self) -> None:
            super().poll()
            if self.polls == 12:
                self.publish(2)

    hand = Starting(tmp_path)
    hand.publish(0, 1)
    supply = _supply(hand, tmp_path, timeout=30, last_complete=[0, 1])
    pinned = FrozenWindow([0, 1], [1.0] * 3)
    if resumed:
        assert supply.freeze(Request(range(0, 2), 3, np.array([4, 2, 2]), pinned)) == pinned
    assert supply.freeze(_request(range(1, 3))).short == ""
    hand.makes = []
    assert supply.freeze(_request(range(2, 4))).short, "later ones are not"
    supply.close()


@pytest.mark.parametrize("again", [True, False], ids=["in the middle of an epoch", "between two"])
def test_a_run_that_was_behind_goes_on_so_after_a_resume(again: bool, tmp_path: Path) -> None:
    """Neither does it wait for the far window, nor is the refill sent there."""
    hand = Hand(tmp_path)
    hand.publish(0, 1, 2)
    supply = _supply(hand, tmp_path, timeout=60, last_complete=[1, 2], behind=3, read=[1, 2])
    pinned = FrozenWindow([1, 2], [1.0] * 3, "short")
    if again:
        assert supply.freeze(Request(range(10, 12), 14, np.array([4, 2, 2]), pinned)) == pinned
    began = time.monotonic()
    window = supply.freeze(_request(range(12, 14)))
    assert time.monotonic() - began < 50
    assert hand.needed[-1] == (3, 15)
    assert (window.slots, bool(window.short)) == ([1, 2], True)
    supply.close()


def test_a_run_that_was_behind_waits_for_its_window_where_the_pool_is_another(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(12, 14))
    supply = _supply(hand, tmp_path, timeout=60, last_complete=[1, 2], behind=3, read=[1, 2])
    window = supply.freeze(_request(range(12, 14)))
    assert hand.needed[-1] == (12, 15)
    assert (window.slots, window.short) == ([12, 13], "")
    supply.close()


def test_where_the_last_complete_window_is_gone_the_newest_slots_are_read(tmp_path: Path) -> None:
    hand = Hand(tmp_path, makes=range(2))
    supply = _supply(hand, tmp_path)
    supply.freeze(_request(range(0, 2)))
    hand.live.path(0).unlink()
    hand.makes = []
    hand.publish(4)
    window = supply.freeze(_request(range(4, 6)))
    assert window.slots == [1, 4]
    assert _slots(supply) == [1, 4]
    assert window.short
    supply.close()


def test_a_failure_is_said_once_while_training_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand(tmp_path)
    hand.status.failure = "slot 0: Connection refused"
    _supply(hand, tmp_path).freeze(_request(range(2)))
    (said,) = [record for record in caplog.records if "training waits" in record.getMessage()]
    assert "Connection refused" in said.getMessage()
    assert hand.polls > 2
