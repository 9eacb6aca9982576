"""Many requests at once: who waits, who is tried again, and when to stop asking. One thread decides all of it."""

from __future__ import annotations

import heapq
import queue
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators.remote_http import BadReplyError, Exchange, Reply
from lightning_diffaug.generators.remote_image import error_text

_BUSY = (429, 503, 529)
_TRANSIENT = (408, 409, 425)
_REFUSED_CONTENT = ("content_policy", "content_filter", "moderation", "safety")
_REFUSED = (
    "Look at generator.model, generator.size and generator.extra; fields that it does not know are left out by "
    "generator.seed_field=null and generator.response_format=null."
)
_NO_ROUTE = "Set generator.url to its base, such as http://127.0.0.1:8000/v1, and generator.model to a model of it."
_NO_KEY = "Set generator.api_key_env to the name of the environment variable that holds its key."
_BY_STATUS = {
    401: _NO_KEY,
    403: _NO_KEY,
    404: _NO_ROUTE,
    405: _NO_ROUTE,
    429: "Lower generator.concurrency, or look at the account's limits.",
}
_LONGEST_TEXT = 300
_LONGEST_READ = 4000


@dataclass(frozen=True)
class Limits:
    """Bounds of a pass, in numbers and seconds.

    Attributes:
        concurrency: Requests under way at once.
        timeout: A request's, from its start to the last byte.
        retries: How often a request is made again after a failure.
        backoff: Before the first retry; doubled at each further one.
        max_backoff: Longest pause between two tries, whatever the server asks for.
        patience: Longest time without a usable reply.
    """

    concurrency: int
    timeout: float
    retries: int
    backoff: float
    max_backoff: float
    patience: float


class Breaker:
    """A circuit breaker: after several failures in a row the server is left alone for a while, then probed.

    Args:
        failures: Failures in a row that open it.
        cooldown: Seconds for which it stays open; doubled each time that the probe fails too.
        longest: Bound of that.
    """

    def __init__(self, failures: int, cooldown: float, longest: float) -> None:
        self._failures = failures
        self._first_cooldown = min(cooldown, longest)
        self._longest = longest
        self._cooldown = self._first_cooldown
        self._in_a_row = 0
        self._opened_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server is left alone, or to be probed by one request (half-open)."""
        return self._opened_at is not None

    def pause(self, now: float) -> float:
        """Seconds until a probe may be made; 0 where nothing stands against asking."""
        return 0.0 if self._opened_at is None else max(0.0, self._opened_at + self._cooldown - now)

    def succeeded(self) -> None:
        """Notes a usable reply."""
        self._in_a_row, self._opened_at, self._cooldown = 0, None, self._first_cooldown

    def failed(self, now: float) -> None:
        """Notes a failure."""
        self._in_a_row += 1
        if self.is_open or self._in_a_row >= self._failures:
            self.trip(now)

    def trip(self, now: float) -> None:
        """Opens it, whatever failed before."""
        if self.is_open:
            self._cooldown = min(2 * self._cooldown, self._longest)
        self._opened_at = now


class Pass:
    """Asks for every row of a pass, and says for each whether it came.

    Args:
        send: Starts the exchange of a row; the function given to it is told when that is over.
        accept: Takes a row's reply; raises `BadReplyError` where it is not usable.
        limits: Bounds.
        breaker: The server's, over passes.
        beat: Called at each usable reply.
        where: The server, for error messages.
        hide: Takes secrets out of a text of the server's.
    """

    def __init__(
        self,
        send: Callable[[int, Callable[[Exchange], None]], Exchange],
        accept: Callable[[int, bytes], None],
        limits: Limits,
        breaker: Breaker,
        beat: Callable[[], None],
        where: str,
        hide: Callable[[str], str],
    ) -> None:
        self._send = send
        self._accept = accept
        self._limits = limits
        self._breaker = breaker
        self._beat = beat
        self._where = where
        self._hide = hide
        self._done: queue.SimpleQueue[Exchange] = queue.SimpleQueue()
        self._waiting: list[tuple[float, int, int]] = []  # due, row, failures so far
        self._flying: dict[Exchange, tuple[int, int, float]] = {}  # row, failures so far, deadline
        self._held_until = 0.0
        self._busy = 0  # how often in a row the server was
        self._progress = 0.0
        self._last, self._remedy = "nothing", "Raise generator.timeout (and refill.hang_timeout with it)."
        self._jitter = random.Random()  # never the global one
        self.given_up: dict[int, str] = {}
        self.refused: dict[int, str] = {}

    def run(self, rows: Sequence[int]) -> None:
        """Asks for the rows; those that did not come are in `given_up` (failures) and `refused` (their content).

        Raises:
            GeneratorError: The server does not work, or not with these settings.
        """
        self._progress = time.monotonic()
        self._held_until = self._progress + self._breaker.pause(self._progress)
        self._waiting = [(0.0, row, 0) for row in rows]
        try:
            while self._waiting or self._flying:
                self._start_due()
                self._step()
        finally:
            for exchange in self._flying:
                exchange.abort()
        if self.given_up and len(self.given_up) == len(rows):
            raise self._error(f"none of {len(rows)} requests got a usable reply")

    def _start_due(self) -> None:
        now = time.monotonic()
        while self._waiting and len(self._flying) < self._room and max(self._waiting[0][0], self._held_until) <= now:
            _, row, failures = heapq.heappop(self._waiting)
            self._flying[self._send(row, self._done.put)] = (row, failures, now + self._limits.timeout)

    @property
    def _room(self) -> int:
        return 1 if self._breaker.is_open else self._limits.concurrency

    def _step(self) -> None:
        """Waits for the next thing to happen, and deals with it."""
        limits, now = self._limits, time.monotonic()
        give_up_at = self._progress + limits.patience
        if now >= give_up_at:
            self._breaker.trip(now)
            raise self._error(f"no usable reply for {limits.patience:.3g} s")
        events = [give_up_at, *(deadline for *_, deadline in self._flying.values())]
        if self._waiting and len(self._flying) < self._room:
            events.append(max(self._waiting[0][0], self._held_until))
        try:
            exchange = self._done.get(timeout=max(0.0, min(events) - now))
        except queue.Empty:
            self._end_late()
            return
        if exchange in self._flying:  # else it was aborted
            row, failures, _ = self._flying.pop(exchange)
            self._settle(row, failures, exchange.outcome)

    def _end_late(self) -> None:
        """Ends the exchanges whose time is over; their threads end by themselves."""
        now = time.monotonic()
        for exchange in [e for e, (*_, deadline) in self._flying.items() if deadline <= now]:
            exchange.abort()
            row, failures, _ = self._flying.pop(exchange)
            late = TimeoutError(f"no whole reply within generator.timeout={self._limits.timeout:g} s")
            self._failed(row, failures, str(late), late)

    def _settle(self, row: int, failures: int, outcome: Reply | Exception) -> None:
        if isinstance(outcome, Exception):
            said = str(outcome) if isinstance(outcome, BadReplyError) else f"{type(outcome).__name__}: {outcome}"
            self._failed(row, failures, said, outcome)
            return
        if outcome.status == 200:
            bad = self._unusable(row, outcome.body)
            if bad is None:
                self._works()
            else:
                self._failed(row, failures, str(bad), bad)
            return
        code, message = error_text(outcome.body)
        said = f"HTTP {outcome.status}: {code} {message}"
        if outcome.status == 429 or (outcome.status in _BUSY and outcome.retry_after is not None):
            self._last, self._remedy = said, _BY_STATUS[429]
            self._hold(row, failures, outcome.retry_after)
        elif outcome.status >= 500 or outcome.status in _TRANSIENT:
            self._failed(row, failures, said, outcome)
        elif outcome.status in (400, 403, 422) and any(word in code.lower() for word in _REFUSED_CONTENT):
            self.refused[row] = self._clean(said)
            self._works()
        else:
            self._last, self._remedy = said, _remedy(outcome)
            raise self._error("the server refuses the request")

    def _unusable(self, row: int, body: bytes) -> BadReplyError | None:
        try:
            self._accept(row, body)
        except BadReplyError as error:
            return error
        return None

    def _works(self) -> None:
        self._breaker.succeeded()
        self._busy = 0
        self._progress = time.monotonic()
        self._beat()

    def _hold(self, row: int, failures: int, retry_after: float | None) -> None:
        """A busy server is no failing one: all requests pause, and this one is made again."""
        now = time.monotonic()
        if now >= self._held_until:  # not one of several that were told so together
            self._busy += 1
        pause = self._limits.backoff * 2.0 ** (self._busy - 1) if retry_after is None else retry_after
        self._held_until = max(self._held_until, now + min(pause, self._limits.max_backoff))
        heapq.heappush(self._waiting, (self._held_until + self._jittered(self._limits.backoff), row, failures))

    def _failed(self, row: int, failures: int, said: str, outcome: Reply | Exception) -> None:
        self._last, self._remedy = said, _remedy(outcome)
        now = time.monotonic()
        self._breaker.failed(now)
        if self._breaker.is_open:
            raise self._error(f"too many failures in a row, so it is left alone for {self._breaker.pause(now):.3g} s")
        if failures >= self._limits.retries:
            self.given_up[row] = self._clean(said)
            return
        pause = min(self._limits.backoff * 2.0**failures, self._limits.max_backoff)
        heapq.heappush(self._waiting, (now + self._jittered(pause), row, failures + 1))

    def _jittered(self, pause: float) -> float:
        """Between half of the pause and the whole: those that failed together do not come back together."""
        return pause * self._jitter.uniform(0.5, 1.0)

    def _clean(self, said: str) -> str:
        """A text of the server's, on one line, short and without secrets."""
        text = " ".join("".join(c if c.isprintable() else " " for c in self._hide(said)[:_LONGEST_READ]).split())
        return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"

    def _error(self, what: str) -> GeneratorError:
        return GeneratorError(
            f"the images server {self._where}: {what}. Last it gave: {self._clean(self._last)}. {self._remedy}"
        )


def _remedy(outcome: Reply | Exception) -> str:
    """The keys to look at."""
    if isinstance(outcome, Reply):
        return _BY_STATUS.get(outcome.status, _REFUSED if outcome.status < 500 else "Look at the server's own log.")
    if isinstance(outcome, TimeoutError):
        return "Raise generator.timeout (and refill.hang_timeout with it), or lower generator.concurrency."
    if isinstance(outcome, BadReplyError):
        return "Look at the server's own log, and at generator.url."
    return "Start the server, or set generator.url to where it is."
