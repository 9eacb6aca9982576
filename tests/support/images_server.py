"""A real HTTP server on loopback that speaks /v1/images/generations, and misbehaves on request."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

ROUTE = "/v1/images/generations"
SIDE = 32


@dataclass
class Asked:
    """One request as the server got it."""

    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    at: float


def pixels(prompt: str, seed: int, side: int = SIDE) -> np.ndarray[Any, Any]:
    """The server's picture: a colour that the prompt says, and noise that the seed says; uint8 (side, side, 3)."""
    colour = np.frombuffer(zlib.crc32(prompt.encode()).to_bytes(4, "big")[:3], np.uint8).astype(int)
    noise = np.random.Generator(np.random.Philox(seed)).integers(-40, 40, (side, side, 3))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> str:
    """A picture in base64."""
    data = io.BytesIO()
    picture.save(data, form, **options)
    return base64.b64encode(data.getvalue()).decode()


def bomb(width: int, height: int) -> str:
    """A PNG whose header promises many pixels and whose data are few."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


Handle = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `script` says for the request's number, else well."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: Any) -> None:
        """Nothing on the console."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            number = len(server.asked)
            server.asked.append(Asked(body, dict(self.headers), self.path, time.monotonic()))
            server.busy += 1
        try:
            (server.script(number, body) or good)(self, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had enough
        finally:
            with server.lock:
                server.busy -= 1
            self.close_connection = True

    def reply(self, said: Any, status: int = 200, **headers: str) -> None:
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


# What it can do with a request --------------------------------------------------------------------------


def good(handler: Handler, body: dict[str, Any]) -> None:
    """A picture by prompt and seed."""
    server = handler.server
    with server.lock:
        server.working += 1
        server.most_at_once = max(server.most_at_once, server.working)
    time.sleep(server.seconds)
    with server.lock:
        server.working -= 1  # before the client can have the reply
    picture(Image.fromarray(pixels(body["prompt"], body.get("seed", 0), server.side)))(handler, body)


def picture(image: Image.Image, form: str = "PNG", **options: Any) -> Handle:
    """This picture, whatever was asked for."""
    return said({"data": [{"b64_json": encoded(image, form, **options)}]})


def said(what: Any, status: int = 200, **headers: str) -> Handle:
    """This reply."""
    return lambda handler, body: handler.reply(what, status, **headers)


def hang(handler: Handler, body: dict[str, Any]) -> None:
    """No reply until the server is closed."""
    handler.server.closing.wait(60)


def drip(handler: Handler, body: dict[str, Any]) -> None:
    """A byte now and then, so that no silence is long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "40000")
    handler.end_headers()
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b" ")


def drip_headers(handler: Handler, body: dict[str, Any]) -> None:
    """The same, in the headers."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def cut(handler: Handler, body: dict[str, Any]) -> None:
    """A reply that ends early."""
    handler.send_response(200)
    handler.send_header("Content-Length", "40000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')


def endless(handler: Handler, body: dict[str, Any]) -> None:
    """A reply without a length that does not end."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    data = b" " * 10_000
    while not handler.server.closing.is_set():
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def reset(handler: Handler, body: dict[str, Any]) -> None:
    """The connection is cut without a word."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def echo_key(handler: Handler, body: dict[str, Any]) -> None:
    """An error that repeats the key."""
    key = handler.headers["Authorization"].removeprefix("Bearer ")
    handler.reply({"error": {"code": "bad", "message": f"Incorrect key: {key}, {key.upper()}\nsee the log"}}, 500)


class Server(ThreadingHTTPServer):
    """The server; `script` says what it does with a request by its number and body (None: a picture)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.asked: list[Asked] = []
        self.script: Callable[[int, dict[str, Any]], Handle | None] = lambda number, body: None
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.seconds = 0.0
        self.side = SIDE
        self.busy = self.working = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def always(self, handle: Handle) -> None:
        """Does the same with every request."""
        self.script = lambda number, body: handle

    def first(self, *handles: Handle | None) -> None:
        """Does these with the next requests (None: what is right), and then what is right."""
        start = len(self.asked)
        self.script = lambda number, body: handles[number - start] if number - start < len(handles) else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes is no error here."""


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """Runs the server in a thread."""
    server = Server(port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
