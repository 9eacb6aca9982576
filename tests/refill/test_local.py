"""P4 and P8: the refill process is a good neighbour, is restarted within bounds, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from refill_toys import SLOT, Faulty, Fitted, FullDisk, Server, Steady, job_for, until, watched

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.local import LocalRefill
from lightning_diffaug.refill.settings import RefillSettings

Start = Callable[..., LocalRefill]


def _pool(refill: LocalRefill) -> Any:
    return watched(refill, refill.pool)


def _filled(refill: LocalRefill, *slots: int) -> Any:
    pool = _pool(refill)
    watched(refill, lambda: all(pool.has(k) for k in slots))
    return pool


def _said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


def test_makes_what_is_needed_and_a_bound_more_then_sleeps(tmp_path: Path, start: Start) -> None:
    refill = start(Steady(), {"nice": 19})
    refill.need(0, 3)
    pool = _filled(refill, *range(5))
    process = psutil.Process(refill.pid)
    watched(refill, lambda: refill.status.phase == "idle")
    spent = process.cpu_times()
    time.sleep(1.5)
    refill.poll()
    assert pool.slots() == [0, 1, 2, 3, 4], "three needed and two ahead, no more"
    now = process.cpu_times()
    assert now.user + now.system - spent.user - spent.system < 0.5, "it sleeps"

    # Its manners.
    assert process.nice() == 19
    assert process.num_threads() <= 4
    assert os.getsid(process.pid) != os.getsid(0)
    process.send_signal(signal.SIGINT)

    # A slot that was deleted is made again, bit for bit, and the window moves on.
    before = pool.read(1)
    pool.path(1).unlink()
    refill.need(1, 4)
    pool = _filled(refill, 1, 5)
    after = pool.read(1)
    assert after.content == before.content == fill_slot(1, job_for(Steady(), tmp_path).recipe(Steady())).content
    assert all(torch.equal(after.fields[name], before.fields[name]) for name in before.fields)
    assert process.is_running(), "Ctrl-C is for the trainer"
    assert refill.status.generated == 7 * SLOT

    refill.close()
    refill.close()
    assert not process.is_running()
    assert refill.status.generated == 7 * SLOT, "what was counted stays to be read"
    assert not list((tmp_path / "runs").iterdir())
    assert not list(pool.folder.rglob(".tmp-*"))
    assert pool.claims() == {}


@pytest.mark.faults
def test_kill_9_is_followed_by_a_restart_that_goes_on_where_it_was(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    refill = start(Steady(0.2), max_restarts=1)
    refill.need(0, 40)
    for killed in range(2):  # two kills and one restart in a row allowed: slots made in between count as success
        pool = _filled(refill, 3 * killed)
        first = refill.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        watched(refill, lambda first=first: refill.pid not in (None, first))
        assert refill.gave_up == ""
    pool = _filled(refill, 8)
    assert pool.verify() == {}
    assert all(pool.read(k).n == SLOT for k in pool.slots())
    assert _said(caplog, "signal SIGKILL") == 2
    refill.close()
    assert not list(pool.folder.rglob(".tmp-*"))


@pytest.mark.faults
def test_a_generator_that_always_raises_is_given_up_and_publishes_nothing(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    refill = start(Faulty("raise"), max_restarts=1, backoff=0.5)
    refill.need(0, 3)
    pids: dict[int | None, float] = {}
    watched(refill, lambda: pids.setdefault(refill.pid, time.monotonic()) and refill.gave_up)
    assert len([pid for pid in pids if pid is not None]) == 2, "one restart"
    assert "the toy is broken" in refill.gave_up
    assert refill.pool().slots() == []  # type: ignore[union-attr]
    for _ in range(5):
        time.sleep(0.25)
        refill.poll()
    assert refill.pid is None
    assert _said(caplog, "Training goes on") == 1
    assert _said(caplog, "restart 1 of at most 1 in 0.5 s") == 1


@pytest.mark.faults
def test_a_generator_that_hangs_is_noticed_and_ended(start: Start) -> None:
    refill = start(Faulty("native"), hang_timeout=1.0, max_restarts=0)
    refill.need(0, 3)
    _pool(refill)
    watched(refill, lambda: refill.status.trying is not None)
    pid, hung = refill.pid, time.monotonic()
    watched(refill, lambda: refill.gave_up)
    assert 0.5 < time.monotonic() - hung < 60
    assert "no progress" in refill.gave_up
    assert "refill.hang_timeout" in refill.gave_up
    assert pid is not None
    assert not psutil.pid_exists(pid)


@pytest.mark.faults
def test_a_process_that_hangs_in_native_code_is_ended_by_close(start: Start) -> None:
    refill = start(Faulty("native"))
    refill.need(0, 3)
    watched(refill, lambda: refill.status.trying is not None)
    pid, began = refill.pid, time.monotonic()
    assert pid is not None
    refill.close()
    assert time.monotonic() - began < 60
    assert not psutil.pid_exists(pid)


@pytest.mark.faults
def test_a_slow_generator_gets_through(start: Start) -> None:
    refill = start(Steady(2.5), hang_timeout=2.0, max_restarts=3)
    refill.need(0, 1)
    pool = _filled(refill, 0)
    assert refill.gave_up == ""
    assert pool.read(0).n == SLOT


@pytest.mark.faults
def test_a_slot_that_ends_the_process_is_left_empty_and_blocks_nothing(start: Start) -> None:
    refill = start(Faulty("quit", [1]), max_restarts=2, backoff=0.0)
    refill.need(0, 3)
    pool = _filled(refill, 0, 1, 2, 3, 4)
    assert [pool.read(k).n for k in range(5)] == [SLOT, 0, SLOT, SLOT, SLOT]
    assert "ended while" in pool.read(1).rejected[0]["reason"]
    assert refill.gave_up == ""


@pytest.mark.faults
def test_what_the_process_cannot_import_is_given_up_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here_only = types.ModuleType("here_only")  # as a test or a plug-in loaded by its file is
    here_only.Generator = type("Generator", (Steady,), {"__module__": "here_only"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "here_only", here_only)
    refill = start(here_only.Generator(), max_restarts=5)
    began = time.monotonic()
    watched(refill, lambda: refill.gave_up)
    assert "here_only.Generator cannot be imported" in refill.gave_up
    assert time.monotonic() - began < 80
    assert "a restart would not help" in refill.gave_up
    assert refill.misconfigured
    assert "Training goes on" not in caplog.text, "it does not, where there is no window"


@pytest.mark.faults
def test_a_setting_that_only_sampling_finds_wrong_is_said_at_once_and_not_tried_again(start: Start) -> None:
    refill = start(Faulty("setting"), max_restarts=5, backoff=60.0)
    refill.need(0, 2)
    watched(refill, lambda: refill.gave_up)
    assert "Set generator.how" in refill.gave_up
    assert "a restart would not help" in refill.gave_up
    assert refill.misconfigured
    assert refill.status.slots == 0


@pytest.mark.faults
def test_a_fit_that_fails_is_given_up_with_its_reason(start: Start) -> None:
    refill = start(Fitted(broken=True), max_restarts=0)
    watched(refill, lambda: refill.gave_up)
    assert "the loss is not finite" in refill.gave_up
    assert not refill.misconfigured
    assert refill.pool() is None


@pytest.mark.faults
def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path, start: Start) -> None:
    refill = start(FullDisk(), max_restarts=0)
    pool = _pool(refill)
    refill.need(0, 3)
    watched(refill, lambda: refill.gave_up)
    assert "exit code 3" in refill.gave_up
    assert str(tmp_path) in refill.gave_up
    assert "larger than this file system or process may write" in refill.gave_up
    assert "paths.cache_dir" in refill.gave_up
    refill.close()
    assert pool.slots() == []
    assert not list(pool.folder.rglob(".tmp-*"))


@pytest.mark.faults
def test_a_process_started_from_another_thread_outlives_it_and_takes_its_own_children_along(
    tmp_path: Path, start: Start
) -> None:
    began: list[LocalRefill] = []

    def begin() -> None:
        began.append(start(Server(str(tmp_path / "helper.pid"))))
        watched(began[0], lambda: began[0].status.phase == "idle")  # it has asked the kernel for what it asks

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    (refill,) = began
    time.sleep(0.5)
    first = refill.pid
    refill.need(0, 1)
    _filled(refill, 0)
    assert refill.pid == first
    helper = int((tmp_path / "helper.pid").read_text())
    assert psutil.pid_exists(helper)
    refill.close()
    until(lambda: not psutil.pid_exists(helper) or psutil.Process(helper).status() == psutil.STATUS_ZOMBIE, 30)


def test_the_priority_is_lowered_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """The import of torch alone takes seconds of a core."""
    job = job_for(Steady(), tmp_path, nice=7).write(tmp_path / "job.json")
    script = f"""
import os, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.nice(0), flush=True)
            os._exit(0)

assert "torch" not in sys.modules
sys.meta_path.insert(0, Watch())
sys.argv = ["refill", {str(job)!r}]
runpy.run_module("lightning_diffaug.refill", run_name="__main__")
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert int(found.stdout) == os.nice(0) + 7, found.stderr


def test_a_system_without_process_groups_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(ConfigurationError, match=r"refill=local .*POSIX.*WSL"):
        LocalRefill(job_for(Steady(), tmp_path), Steady(), RefillSettings())
