"""An images server that is slow, broken, busy, hostile or gone: bounded in time, said with its cause, paid for once."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import images_server
import pytest
import torch
from images_server import Handle, Server, bomb, encoded, free_port, picture, pixels, said, serving
from PIL import Image
from refill_toys import CLASSES, SPEC, job_for, until, watched

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators import remote
from lightning_diffaug.generators.remote import RemoteGenerator
from lightning_diffaug.generators.remote_pass import Breaker
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.local import LocalRefill
from lightning_diffaug.refill.settings import RefillSettings

SHAPE = (1, 4, 4)
# A healthy reply takes milliseconds, or seconds on a loaded machine: only what never comes is not waited for.
PATIENT = {"timeout": 20.0, "hang_timeout": 60.0, "backoff": 0.01, "max_backoff": 0.05, "retries": 2}
IMPATIENT = {**PATIENT, "timeout": 0.3, "retries": 30}

Make = Callable[..., RemoteGenerator]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture
def make(server: Server) -> Make:
    """A generator that tries again at once."""

    def made(**settings: Any) -> RemoteGenerator:
        generator = RemoteGenerator(**{"url": server.url, **PATIENT, **settings})
        generator.bind(SPEC, CLASSES)
        return generator

    return made


def labels(n: int) -> dict[str, Any]:
    return {"label": torch.zeros(n, dtype=torch.int64)}


def ask(generator: RemoteGenerator, n: int, first: int = 0) -> torch.Tensor:
    return generator.generate(labels(n), range(first, first + n))


def missing(samples: torch.Tensor) -> list[int]:
    return [i for i, sample in enumerate(samples) if not sample.isfinite().all()]


def entry(**fields: Any) -> Handle:
    return said({"data": [fields]})


TOO_LARGE = entry(b64_json="A" * 60_000)
BROKEN: dict[str, tuple[Handle, str]] = {
    "error 500": (said({"error": {"code": "oom", "message": "CUDA out of memory"}}, 500), "HTTP 500: oom CUDA out of"),
    "error without JSON": (said(b"<h1>Bad gateway</h1>", 502), "HTTP 502: <h1>Bad gateway"),
    "reset": (images_server.reset, "ConnectionResetError|RemoteDisconnected"),
    "hang": (images_server.hang, r"no whole reply within generator.timeout=0\.3 s.*Raise generator\.timeout"),
    "drip": (images_server.drip, r"no whole reply within generator\.timeout"),
    "drip in the headers": (images_server.drip_headers, r"no whole reply within generator\.timeout"),
    "cut": (images_server.cut, "ended 39990 bytes early"),
    "too large": (TOO_LARGE, r"more than generator\.max_reply_bytes=50000"),
    "endless": (images_server.endless, r"more than generator\.max_reply_bytes=50000"),
    "no JSON": (said(b"picture"), "not JSON"),
    "deep JSON": (said(b"[" * 49_000), "not JSON"),
    "no data": (said({"data": []}), 'without one entry in "data"'),
    "other JSON": (said([1]), 'without one entry in "data"'),
    "link": (entry(url="http://127.0.0.1/picture.png"), r"a link.*generator\.response_format"),
    "no base64": (entry(b64_json="ä!"), "not base64"),
    "no picture": (entry(b64_json="AAAA"), "no picture that can be decoded"),
    "cut picture": (entry(b64_json=encoded(Image.fromarray(pixels("x", 1)))[:400]), "no picture that can be decoded"),
    "another format": (entry(b64_json=encoded(Image.new("RGB", (8, 8)), "TIFF")), "no picture that can be decoded"),
    "16 bits": (picture(Image.new("I;16", (8, 8))), "mode 'I;16'"),
    "many pixels": (entry(b64_json=bomb(2000, 2000)), r"2000x2000 pixels, above generator\.max_pixels=1000000"),
    "a bomb": (entry(b64_json=bomb(40_000, 40_000)), r"far more pixels than generator\.max_pixels=1000000"),
}
LIMITS = {"max_reply_bytes": 50_000, "max_pixels": 1_000_000}
NEVER_WHOLE = ("hang", "drip", "drip in the headers")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_now_and_then_costs_a_retry_and_nothing_else(fault: str, server: Server, make: Make) -> None:
    handle, _ = BROKEN[fault]
    server.first(handle, handle)
    slow = fault in NEVER_WHOLE
    samples = ask(make(**LIMITS, **(IMPATIENT if slow else {}), breaker_failures=100), 6)
    assert missing(samples) == []
    assert len(server.asked) == 8 or (slow and len(server.asked) > 8)  # a good reply too may come late
    server.first()
    assert torch.equal(ask(make(), 6), samples), "a retry has the same seed"


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_that_stays_is_said_with_its_cause_in_bounded_time(fault: str, server: Server, make: Make) -> None:
    handle, text = BROKEN[fault]
    server.always(handle)
    started = time.monotonic()
    with pytest.raises(GeneratorError, match=text) as error:
        ask(make(**LIMITS, **(IMPATIENT if fault in NEVER_WHOLE else {}), breaker_failures=5), 8)
    assert time.monotonic() - started < PATIENT["timeout"]
    assert f"the images server {server.url}" in str(error.value)
    assert "generator." in str(error.value) or "the server's own log" in str(error.value)
    if fault != "hang":  # whose handler does not look
        until(lambda: server.busy == 0, 30)  # nothing is read any more, every connection is closed


@pytest.mark.parametrize(
    ("handle", "text"),
    [
        (said({"error": {"code": "invalid_api_key", "message": "no"}}, 401), r"HTTP 401.*generator\.api_key_env"),
        (said({"detail": "Not Found"}, 404), r"HTTP 404: Not Found.*generator\.url"),
        (
            said({"error": {"message": "unknown field 'seed'"}}, 400),
            r"unknown field 'seed'.*generator\.seed_field=null",
        ),
        (said({"error": "size"}, 422), r"HTTP 422: size.*generator\.size"),
    ],
)
def test_what_no_retry_would_help_is_said_at_once(handle: Handle, text: str, server: Server, make: Make) -> None:
    server.always(handle)
    with pytest.raises(GeneratorError, match=text):
        ask(make(concurrency=1), 8)
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_said_with_what_to_set(make: Make) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(GeneratorError, match=r"ConnectionRefused.*Start the server, or set generator\.url"):
        ask(make(url=url), 3)


def test_a_servers_words_come_on_one_short_line(server: Server, make: Make) -> None:
    server.always(said({"error": {"message": "a\n2026-01-01 CRITICAL forged\x1b[31m" + "x" * 5000}}, 400))
    with pytest.raises(GeneratorError) as error:
        ask(make(), 1)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 800


# Retries, busy servers, and rows without a picture -----------------------------------------------------


def test_pauses_between_tries_grow_up_to_their_bound_and_are_jittered(server: Server, make: Make) -> None:
    server.always(said({}, 500))
    with pytest.raises(GeneratorError, match="none of 8 requests got a usable reply"):
        ask(make(retries=5, backoff=0.1, max_backoff=0.4, breaker_failures=100), 8)
    times = {seed: [asked.at for asked in server.asked if asked.body["seed"] == seed] for seed in range(8)}
    pauses = [[b - a for a, b in pairwise(row)] for row in times.values()]
    full = (0.1, 0.2, 0.4, 0.4, 0.4)
    assert {len(row) for row in pauses} == {len(full)}
    for k, whole in enumerate(full):  # a loaded machine adds to most of them, not to all
        assert whole / 2 <= min(row[k] for row in pauses) < 1.5 * whole
    assert any(row[k] < 0.9 * whole for row in pauses for k, whole in enumerate(full)), "jittered"


def test_a_row_that_fails_on_every_try_is_left_out_and_the_others_come(
    server: Server, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = lambda number, body: said({}, 500) if body["seed"] == 3 else None
    assert missing(ask(make(retries=2), 6)) == [3]
    assert [asked.body["seed"] for asked in server.asked].count(3) == 3
    assert "1 of 6 images were given up: HTTP 500" in caplog.text


def test_a_content_that_the_server_refuses_is_left_out_without_a_retry(
    server: Server, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = said({"error": {"code": "content_policy_violation", "message": "your prompt"}}, 400)
    server.script = lambda number, body: refusal if body["seed"] in (1, 2) else None
    generator = make()
    assert missing(ask(generator, 4)) == [1, 2]
    assert generator.objected.tolist() == [False, True, True, False]
    assert len(server.asked) == 4
    assert "2 of 4 images were refused for their content" in caplog.text
    server.always(refusal)
    assert missing(ask(make(breaker_failures=2), 4)) == [0, 1, 2, 3], "the server works"


@pytest.mark.parametrize(("code", "wanted", "bound", "pause"), [(429, "1", 15.0, 1.0), (503, "3600", 0.4, 0.4)])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks_within_bounds(
    code: int, wanted: str, bound: float, pause: float, server: Server, make: Make
) -> None:
    server.first(said({}, code, Retry_After=wanted))
    generator = make(max_backoff=bound, retries=0, concurrency=1)
    assert missing(ask(generator, 2)) == [], "being busy is no failure"
    assert pause <= server.asked[1].at - server.asked[0].at < pause + 10


def test_pauses_of_a_busy_server_that_names_none_grow(server: Server, make: Make) -> None:
    busy = said({}, 429)
    server.first(*[busy] * 5, None, busy)
    ask(make(concurrency=1, backoff=0.05, max_backoff=10.0), 2)
    times = [asked.at for asked in server.asked]
    pauses = [b - a for a, b in pairwise(times)]
    for k in range(5):
        assert 0.05 * 2**k <= pauses[k]
    assert 0.05 <= pauses[6] < 0.05 * 2**5, "it worked in between"
    server.first(*[busy] * 8)
    ask(make(concurrency=1, backoff=0.05, max_backoff=0.1), 1)
    assert 0.75 <= server.asked[-1].at - server.asked[-9].at < 0.05 * 2**7, "no pause is longer than the bound"


def test_retry_after_may_be_a_date_or_nonsense(server: Server, make: Make) -> None:
    long_ago = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.first(*(said({}, 429, Retry_After=value) for value in (long_ago, "soon", "-5", "99999999999999999999", "")))
    assert missing(ask(make(concurrency=1), 2)) == []


def test_when_one_request_is_told_to_wait_all_do(server: Server, make: Make) -> None:
    server.first(said({}, 429, Retry_After="1"))
    ask(make(concurrency=1, max_backoff=0.4), 5)
    assert server.asked[1].at - server.asked[0].at >= 0.4


def test_a_server_that_is_busy_for_ever_fails_the_pass(server: Server, make: Make) -> None:
    server.always(said({"error": {"message": "insufficient quota"}}, 429))
    started = time.monotonic()
    with pytest.raises(GeneratorError, match=r"no usable reply for 1\.6 s.*insufficient quota.*generator\.concurrency"):
        ask(make(timeout=1.5, hang_timeout=2.0), 3)
    assert 1.5 < time.monotonic() - started < 10, "by itself"


# Circuit breaker ----------------------------------------------------------------------------------------


def test_the_breaker_opens_pauses_twice_as_long_and_closes() -> None:
    breaker = Breaker(3, cooldown=10, longest=35)
    for now in (0, 1):
        breaker.failed(now)
    assert not breaker.is_open
    breaker.succeeded()
    for now in (2, 3, 4):
        assert not breaker.is_open, "in a row"
        breaker.failed(now)
    assert breaker.is_open
    assert (breaker.pause(5), breaker.pause(14), breaker.pause(20)) == (9, 0, 0)
    lengths = []
    for now in (20, 60, 100):
        breaker.failed(now)
        lengths.append(breaker.pause(now))
    assert lengths == [20, 35, 35]
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.pause(100) == 0


def test_after_failures_in_a_row_one_request_probes_the_server(server: Server, make: Make) -> None:
    generator = make(breaker_failures=3, breaker_cooldown=0.5, retries=9, concurrency=2)
    server.always(said({}, 500))
    with pytest.raises(GeneratorError, match=r"too many failures in a row, so it is left alone for 0\.5 s"):
        ask(generator, 8)
    until(lambda: all(thread.name != "images-server" for thread in threading.enumerate()), 30)  # what was under way
    opened = server.asked[2].at
    asked = len(server.asked)
    assert asked <= 4, "three failures, and the one under way"
    with pytest.raises(GeneratorError, match=r"left alone for 1 s"):
        ask(generator, 8)
    assert len(server.asked) == asked + 1
    assert server.asked[-1].at - opened >= 0.45
    server.first()
    server.seconds, server.most_at_once = 0.15, 0
    assert missing(ask(generator, 8)) == []
    assert server.most_at_once == 2, "all of them again once the probe came back"


def test_what_came_before_a_failure_is_not_asked_for_again(server: Server, make: Make) -> None:
    server.script = lambda number, body: said({}, 400) if number >= 5 else None
    generator = make(concurrency=1)
    with pytest.raises(GeneratorError):
        ask(generator, 8)
    server.first()
    ask(generator, 2, first=20)  # another slot, which comes before the next try
    samples = ask(generator, 8)
    assert [asked.body["seed"] for asked in server.asked] == [0, 1, 2, 3, 4, 5, 20, 21, 5, 6, 7]
    assert torch.equal(samples, ask(generator, 8))
    assert len(server.asked) == 11 + 8, "kept for the next try only"


def test_what_is_kept_is_bounded(server: Server, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_KEPT_BYTES", 3 * 4 * 16)
    server.script = lambda number, body: said({}, 400) if number >= 5 else None
    generator = make(concurrency=1)
    with pytest.raises(GeneratorError):
        ask(generator, 8)
    server.first()
    ask(generator, 8)
    assert [asked.body["seed"] for asked in server.asked[6:]] == [0, 1, 5, 6, 7]


# Identical replies --------------------------------------------------------------------------------------


def test_identical_replies_are_rejected_by_the_gates_and_said_once(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server.script = lambda number, body: picture(Image.fromarray(pixels(body["prompt"], 0)), compress_level=number % 9)
    generator = RemoteGenerator(server.url)
    recipe = job_for(generator, tmp_path).recipe(generator)
    shard = fill_slot(0, recipe)
    assert sorted(shard.fields["label"].tolist()) == [0, 1, 2], "one picture a class"
    assert {rejected["reason"] for rejected in shard.rejected} == {"finite"}
    assert fill_slot(1, recipe).n == 0, "the pool has them"
    assert fill_slot(0, recipe).content == shard.content, "a slot made again is the same"
    assert caplog.text.count("the server seems to ignore the field 'seed'. Set generator.seed_field") == 1


def test_the_same_picture_for_the_same_seed_is_no_repetition(make: Make) -> None:
    generator = make()
    samples = generator.generate(labels(3), [4, 4, 5])
    assert missing(samples) == []
    assert torch.equal(samples[0], samples[1])


# Other servers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_to_another_server_is_refused(
    code: int, server: Server, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGES_KEY", "sk-123")
    with serving() as other:
        for target in (other.url, other.url.removeprefix("http:"), other.url.replace("127.0.0.1", "localhost")):
            server.always(said({}, code, Location=f"{target}/images/generations"))
            with pytest.raises(GeneratorError, match=r"redirect to another server.*set generator\.url"):
                ask(make(api_key_env="IMAGES_KEY", retries=0), 1)
        assert other.asked == []


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_on_the_same_server_is_followed_with_the_same_request(code: int, server: Server, make: Make) -> None:
    moved = said({}, code, Location="/v2/images?x=1")
    server.script = lambda number, body: moved if number == 0 else None
    assert missing(ask(make(), 1)) == []
    assert server.asked[1].path == "/v2/images?x=1"
    assert server.asked[1].body == server.asked[0].body


def test_redirects_without_an_end_or_a_target_are_failures(server: Server, make: Make) -> None:
    server.always(said({}, 307, Location="/v1/images/generations"))
    with pytest.raises(GeneratorError, match="more than 3 redirects"):
        ask(make(retries=0), 1)
    for handle in (said({}, 307), said({}, 303, Location="/x"), said({}, 304)):
        server.always(handle)
        with pytest.raises(GeneratorError, match="does not say where to send the same request"):
            ask(make(retries=0), 1)
    for location in ("file:///etc/passwd", "http://[", "https://127.0.0.1/"):
        server.always(said({}, 307, Location=location))
        with pytest.raises(GeneratorError, match="redirect to"):
            ask(make(retries=0), 1)


# How long a pass may take -------------------------------------------------------------------------------


def test_each_usable_reply_is_a_sign_of_life_and_failures_are_none(server: Server, make: Make, tmp_path: Path) -> None:
    generator, beats = make(concurrency=1), [0]
    generator.on_progress = lambda: beats.__setitem__(0, beats[0] + 1)
    server.first(said({}, 500), said({}, 429))
    ask(generator, 4)
    assert beats == [4]
    beats[0] = 0
    recipe = job_for(generator, tmp_path).recipe(generator)
    fill_slot(3, recipe, lambda: beats.__setitem__(0, beats[0] + 1))
    assert beats == [1 + recipe.slot_size], "one before the pass, and one for each picture"


def test_a_pass_that_gets_on_may_take_longer_than_the_patience(server: Server, make: Make) -> None:
    server.seconds = 0.4
    started = time.monotonic()
    assert missing(ask(make(concurrency=1, timeout=1.9, hang_timeout=2.5), 6)) == []
    assert time.monotonic() - started > 2.0


HANG = 4.0
WITHIN_HANG = {**PATIENT, "timeout": 3.0, "hang_timeout": HANG}


@pytest.fixture
def refill(tmp_path: Path) -> Iterator[Callable[..., LocalRefill]]:
    """A refill process that counts as hung after `HANG` seconds."""
    started = []

    def begin(generator: RemoteGenerator) -> LocalRefill:
        settings = RefillSettings(backoff=0.05, max_restarts=0, hang_timeout=HANG)
        started.append(LocalRefill(job_for(generator, tmp_path, ahead=0), generator, settings))
        started[0].need(0, 1)
        return started[0]

    yield begin
    for each in started:
        each.close()


def test_a_slow_server_is_not_taken_for_a_hung_process(
    server: Server, refill: Callable[..., LocalRefill], caplog: pytest.LogCaptureFixture
) -> None:
    server.seconds = 0.55
    started = refill(RemoteGenerator(server.url, **WITHIN_HANG, concurrency=1))
    watched(started, lambda: started.status.slots)
    assert started.status.generator_seconds > 8 * 0.55 > HANG
    assert not caplog.records


def test_a_hanging_server_fails_the_slot_with_its_cause_before_the_process_counts_as_hung(
    server: Server, refill: Callable[..., LocalRefill], caplog: pytest.LogCaptureFixture
) -> None:
    server.always(images_server.hang)
    started = refill(RemoteGenerator(server.url, **WITHIN_HANG))
    watched(started, lambda: len(started.status.failures.get("0", [])) >= 2)
    assert "no usable reply for 3.2 s" in started.status.failure or "no whole reply" in started.status.failure
    assert "generator.timeout" in started.status.failure
    assert "showed no progress" not in caplog.text
    server.first()
    watched(started, lambda: started.status.slots)
    assert started.gave_up == ""


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (None, r"a restart would not help.*generator\.url is not set"),
        ("http://127.0.0.1:{}/v1", r"Start the server, or set generator\.url to where it is"),
    ],
)
def test_without_a_server_the_refill_gives_up_and_says_what_to_set(
    url: str | None, text: str, refill: Callable[..., LocalRefill]
) -> None:
    url = url and url.format(free_port())
    started = refill(RemoteGenerator(url, **{**PATIENT, "breaker_cooldown": 0.05}))
    watched(started, lambda: started.gave_up)
    assert re.search(text, started.gave_up)
