"""A loopback proxy that injects the faults of networks and servers.

It is a plain TCP server with just enough HTTP to find the end of a request. Each fault is a function in the
table `TROUBLES`; `Proxy.trouble` selects the current one. Connections held by a fault are reset as soon as
another fault, or none, is selected.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from chaos_server import HOST

from watching import eventually

# A defect of ours must not hang the suite; no request of a test takes this long.
_SOCKET_SECONDS = 60.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with timeout 0: close() sends RST instead of FIN
_LONGEST_HEAD = 65536
LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"


@dataclass(frozen=True)
class Request:
    """A request, its arrival in monotonic seconds, and the fault applied to it."""

    path: str
    head: bytes
    body: bytes
    arrived_at: float
    trouble: str = "none"


class _Mode(NamedTuple):
    """The current fault; replaced as a whole, since every connection has its own thread."""

    trouble: str
    only: str
    over: threading.Event  # set when another fault is selected


class Proxy:
    """Forwards requests to a server, one connection each, and applies the selected fault.

    Attributes:
        url: the address of the proxy.
        requests: all requests received completely, oldest first, whatever happened to them.
    """

    def __init__(self, upstream_port: int) -> None:
        self.requests: list[Request] = []
        self._upstream = (HOST, upstream_port)
        self._mode = _Mode("none", "", threading.Event())
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"

    def trouble(self, name: str, *, only: str = "") -> None:
        """Selects a fault for subsequent requests, and resets connections held by the previous one.

        Args:
            name: one of `TROUBLES` or `EARLY_TROUBLES`; "refuse" closes the port.
            only: prefix of the paths to which one of `TROUBLES` applies; all by default.
        """
        before, self._mode = self._mode, _Mode(name, only, threading.Event())
        before.over.set()
        if name == "refuse":
            # close() alone leaves the port open while a thread is inside accept().
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        elif self._listener.fileno() < 0:
            self._listener = self._listen(self.port)

    @contextmanager
    def troubled(self, name: str, *, only: str = "") -> Iterator[None]:
        """Applies a fault during a ``with`` block."""
        self.trouble(name, only=only)
        try:
            yield
        finally:
            self.trouble("none")

    def await_requests(self, count: int, *, path: str = LOG_BATCH, seconds: float = 60) -> list[Request]:
        """Waits for `count` requests of a path under the current fault, and returns them."""
        before, trouble = len(self.requests), self._mode.trouble

        def found() -> list[Request]:
            # A request on a connection older than the fault may still arrive.
            return [one for one in self.requests[before:] if (one.path, one.trouble) == (path, trouble)]

        eventually(lambda: len(found()) >= count, seconds)
        return found()[:count]

    def close(self) -> None:
        """Stops listening and releases all connections."""
        self.trouble("refuse")

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server((HOST, port), backlog=256)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.settimeout(_SOCKET_SECONDS)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        mode = self._mode
        with closing(client), suppress(OSError, EOFError):
            if mode.trouble in EARLY_TROUBLES:
                EARLY_TROUBLES[mode.trouble](client, mode.over)
                return
            request = read_request(client)
            chosen = mode.trouble if request.path.startswith(mode.only) else "none"
            self.requests.append(replace(request, trouble=chosen))
            TROUBLES[chosen](Spoiled(client, request, mode.over, self._upstream))


@dataclass(frozen=True)
class Spoiled:
    """The context of a fault: client, request, end of the fault, and upstream server."""

    client: socket.socket
    request: Request
    over: threading.Event
    upstream: tuple[str, int]

    def forward(self) -> bytes:
        """Forwards the request and returns the whole response."""
        with closing(socket.create_connection(self.upstream, timeout=_SOCKET_SECONDS)) as server:
            server.sendall(self.request.head + self.request.body)
            return b"".join(iter(lambda: server.recv(65536), b""))

    def answer(self, status: str, body: str, *headers: str) -> None:
        """Responds in place of the server."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        self.client.sendall("\r\n".join([*lines, "", body]).encode())


def reset(client: socket.socket) -> None:
    """Closes a connection with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    client.close()


def read_request(client: socket.socket) -> Request:
    """Reads one request and changes its head to ``Connection: close``."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(client)
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length:\s*(\d+)", head)
    while len(body) < (int(length[1]) if length else 0):
        body += _receive(client)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    path = lines[0].split(b" ")[1].partition(b"?")[0].decode()
    head = b"\r\n".join([*lines, b"Connection: close", b"", b""])
    return Request(path, head, body, time.monotonic())


def _receive(client: socket.socket, most: int = 65536) -> bytes:
    received = client.recv(most)
    if not received:
        raise EOFError
    return received


def _half_open(client: socket.socket, over: threading.Event) -> None:
    """The other end neither reads nor closes."""
    over.wait(_SOCKET_SECONDS)
    reset(client)


def _reset_mid_body(client: socket.socket, over: threading.Event) -> None:
    del over
    received = b""
    while b"\r\n\r\n" not in received:  # the body follows immediately: part of it is read along with the head
        received += _receive(client, 64)  # a client that is killed sends no more
    reset(client)


EARLY_TROUBLES: Mapping[str, Callable[[socket.socket, threading.Event], None]] = MappingProxyType(
    {"half-open": _half_open, "reset-mid-body": _reset_mid_body}
)  #: faults before a request is complete; they apply to every path


def _pass_on(spoiled: Spoiled) -> None:
    spoiled.client.sendall(spoiled.forward())


def _hang(spoiled: Spoiled) -> None:
    spoiled.over.wait(_SOCKET_SECONDS)
    reset(spoiled.client)


def _reset(spoiled: Spoiled) -> None:
    reset(spoiled.client)


def _lose_answer(spoiled: Spoiled) -> None:
    """The server has committed what the client must assume to be lost."""
    spoiled.forward()
    reset(spoiled.client)


def _cut_answer(spoiled: Spoiled) -> None:
    answer = spoiled.forward()
    spoiled.client.sendall(answer[: len(answer) // 2])
    reset(spoiled.client)


def _drip(spoiled: Spoiled) -> None:
    """A byte a second: no single read ever times out."""
    for byte in spoiled.forward():
        spoiled.client.sendall(bytes([byte]))
        if spoiled.over.wait(1):
            break
    reset(spoiled.client)


def _refusal(status: str, body: str, *headers: str) -> Callable[[Spoiled], None]:
    return lambda spoiled: spoiled.answer(status, body, *headers)


RETRY_AFTER_SECONDS = 2
_LATER = f"Retry-After: {RETRY_AFTER_SECONDS}"
TROUBLES: Mapping[str, Callable[[Spoiled], None]] = MappingProxyType(
    {
        "none": _pass_on,
        "reset": _reset,
        "hang": _hang,
        "lose-answer": _lose_answer,
        "cut-answer": _cut_answer,
        "drip": _drip,
        "500": _refusal("500 Internal Server Error", '{"error_code": "INTERNAL_ERROR", "message": "no"}'),
        "502": _refusal("502 Bad Gateway", "<html>\n<h1>Bad Gateway</h1></html>", "Content-Type: text/html"),
        "503": _refusal("503 Service Unavailable", "", _LATER),
        "429": _refusal(
            "429 Too Many Requests", '{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "no"}', _LATER
        ),
        "401": _refusal("401 Unauthorized", '{"error_code": "UNAUTHENTICATED", "message": "no"}'),
        "refuse": _reset,  # connections still in the backlog
    }
)
