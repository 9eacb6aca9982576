"""One HTTP exchange with an images server: bounded in time and in bytes, and with one host only."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from urllib.parse import urljoin, urlsplit

from lightning_diffaug.errors import ConfigurationError

_ROUTE = "/images/generations"
_REDIRECTS = 3
_SAME_REQUEST = (301, 302, 307, 308)
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}


class BadReplyError(Exception):
    """The server's reply cannot be used; the text says why."""


@dataclass(frozen=True)
class Endpoint:
    """Where images are asked for.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: Name or address.
        port: Port.
        path: Path of the route.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """The endpoint under a base URL such as ``http://127.0.0.1:8000/v1`` (the route itself will do as well).

        Raises:
            ConfigurationError: It is no http(s) URL, or holds what would be written down with it: a user name, a
                password, a query.
        """
        how = "Set generator.url to the server's base, such as http://127.0.0.1:8000/v1."
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"generator.url cannot be read as a URL. {how}") from None
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigurationError(
                "generator.url holds a user name, a password, a query or a fragment, which would be written to configs "
                f"and logs. A key belongs in an environment variable that generator.api_key_env names. {how}"
            )
        if parts.scheme not in _PORTS or not parts.hostname or not re.fullmatch(r"[!-~]+", url):
            raise ConfigurationError(f"generator.url={url!r} is no http or https URL. {how}")
        path = parts.path.rstrip("/")
        path = path if path.endswith(_ROUTE) else path + _ROUTE
        return cls(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port, path)

    def redirected(self, location: str) -> Endpoint:
        """Where a redirect leads.

        Raises:
            BadReplyError: To another server. Its operator is not the one that was trusted with prompts and key.
        """
        try:
            parts = urlsplit(urljoin(str(self), location))
            port = parts.port
        except ValueError:
            raise BadReplyError("a redirect to what is no URL") from None
        default = _PORTS.get(parts.scheme)
        target = (parts.scheme, parts.hostname, default if port is None else port)
        if target != (self.scheme, self.host, self.port):
            raise BadReplyError(
                f"a redirect to another server ({parts.scheme}://{parts.hostname}), which is not followed; if that is "
                "the one you mean, set generator.url to it"
            )
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return Endpoint(self.scheme, self.host, self.port, path)

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Checks certificates against the system's authorities."""
        return ssl.create_default_context()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass(frozen=True)
class Reply:
    """What a server said.

    Attributes:
        status: HTTP status.
        body: Content.
        retry_after: Seconds after which the server wants to be asked again, or None.
    """

    status: int
    body: bytes
    retry_after: float | None = None


class Exchange:
    """A request in a thread of its own, which nobody has to wait for.

    Args:
        endpoint: Where to.
        body: JSON.
        key: API key, or None.
        timeout: Seconds for a connection, and for each silence of the server. The whole is bounded by who calls
            `abort`: a server may send a byte now and then for ever.
        max_bytes: Largest reply.
        done: Called in that thread with the exchange when it has an `outcome`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        body: bytes,
        key: str | None,
        timeout: float,
        max_bytes: int,
        done: Callable[[Exchange], None],
    ) -> None:
        self.outcome: Reply | Exception = BadReplyError("no reply")
        self._endpoint = endpoint
        self._body = body
        self._headers = {
            "Accept": "application/json",
            "Connection": "close",
            "Content-Type": "application/json",
            "User-Agent": "lightning-diffaug",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._done = done
        self._socket: socket.socket | None = None
        self._aborted = False
        threading.Thread(target=self._run, name="images-server", daemon=True).start()

    def abort(self) -> None:
        """Ends the exchange, whatever it waits for."""
        self._aborted = True
        if (open_socket := self._socket) is not None:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which then closes it

    def _run(self) -> None:
        try:
            self.outcome = self._exchange()
        except Exception as error:
            self.outcome = error
        self._done(self)

    def _exchange(self) -> Reply:
        endpoint = self._endpoint
        for _ in range(_REDIRECTS + 1):
            status, location, reply = self._post(endpoint)
            if reply is not None:
                return reply
            if status not in _SAME_REQUEST or not location:
                raise BadReplyError(f"HTTP {status}, a redirect that does not say where to send the same request")
            endpoint = endpoint.redirected(location)
        raise BadReplyError(f"more than {_REDIRECTS} redirects")

    def _post(self, endpoint: Endpoint) -> tuple[int, str | None, Reply | None]:
        connection: http.client.HTTPConnection
        if endpoint.scheme == "https":
            connection = http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=self._timeout, context=self._endpoint.tls
            )
        else:
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=self._timeout)
        try:
            connection.connect()
            self._socket = connection.sock
            if self._aborted:
                raise ConnectionAbortedError("given up")
            connection.request("POST", endpoint.path, self._body, self._headers)
            with connection.getresponse() as response:
                if 300 <= response.status < 400:
                    return response.status, response.getheader("Location"), None
                body = self._read(response)
                wait = _retry_after(response.getheader("Retry-After"))
                return response.status, None, Reply(response.status, body, wait)
        finally:
            self._socket = None
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """The content; stops as soon as it is known to be too large."""
        parts, size = [], response.length or 0
        if size <= self._max_bytes:
            size = 0
            while part := response.read1(_CHUNK):
                parts.append(part)
                size += len(part)
                if size > self._max_bytes:
                    break
        if size > self._max_bytes:
            raise BadReplyError(f"a reply of more than generator.max_reply_bytes={self._max_bytes}")
        if response.length:
            raise BadReplyError(f"a reply that ended {response.length} bytes early")
        return b"".join(parts)


def _retry_after(value: str | None) -> float | None:
    """Seconds that the header asks for: a number, or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
