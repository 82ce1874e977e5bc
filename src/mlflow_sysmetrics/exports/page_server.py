"""A server of one page in one thread, for a reader that comes every few seconds.

Everything is bounded: one connection at a time, a few seconds and kilobytes for each, so a reader that hangs
delays the next one and nothing else. If the port is in use, that is one warning, and it is tried again: the
process that has it may end.

The sockets are those of the operating system: where gevent or eventlet has replaced `socket`, this thread is
still a thread.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event

THREAD_NAME = "sysmetrics-prometheus"

_WAITING = 8  # connections that wait for the one that is served
_REQUEST_SECONDS, _ANSWER_SECONDS = 2.0, 5.0
_LONGEST_REQUEST = 8192
_RETRY_SECONDS = 15.0
_PAUSE_SECONDS = 1.0  # after a failed accept, as when no descriptor is left

_logger = Log()


class Answer(NamedTuple):
    """A page: what it is, and its bytes."""

    content_type: str
    body: bytes


class PageServer:
    """Serves a page.

    Args:
        address: host and port.
        answer: returns the page for a path and what the request accepts; None if there is no such page.
        variable: the setting that has named the address, for messages.

    Attributes:
        port: the port that is served; None while none is.
    """

    def __init__(self, address: str, answer: Callable[[str, str], Answer | None], *, variable: str) -> None:
        self.port: int | None = None
        self._host, _, port = address.rpartition(":")
        self._wanted = int(port)
        self._address = address
        self._answer_of = answer
        self._variable = variable
        self._socket: _socket.socket | None = None
        self._warned = False
        self._never = Event()
        self._loop = Loop(self._step, THREAD_NAME)

    def start(self) -> None:
        """Starts the thread, which ends with the process.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        self._loop.start()

    def forget_after_fork(self) -> None:
        """Closes the port in a forked child, which would keep it open after the end of its parent."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _step(self) -> bool:
        if self._socket is None and not self._open():
            self._never.wait(_RETRY_SECONDS)
            return True
        listening = self._socket
        if listening is None:
            return False  # forgotten
        try:
            number, _ = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - as socket.accept
            connection = _socket.socket(fileno=number)
        except OSError:
            self._never.wait(_PAUSE_SECONDS)
            return True
        with contextlib.closing(connection), contextlib.suppress(OSError):
            self._serve(connection)
        return True

    def _open(self) -> bool:
        host = self._host.strip("[]")
        try:
            opened = _listening(host, self._wanted)
        except OSError as error:
            if not self._warned:
                self._warned = True
                _logger.warning(
                    "mlflow-sysmetrics: %s=%s cannot be served: %s. It is tried again every %g s; of several "
                    "processes with one port, one is served.",
                    self._variable,
                    self._address,
                    error.strerror or error,
                    _RETRY_SECONDS,
                )
            return False
        self._socket = opened
        self.port = opened.getsockname()[1]
        _logger.info("mlflow-sysmetrics: The last tick is at http://%s:%d/metrics.", self._host, self.port)
        return True

    def _serve(self, connection: _socket.socket) -> None:
        request = _read(connection)
        line, _, rest = request.partition(b"\r\n")
        method, _, target = line.decode("latin-1").partition(" ")
        if method not in {"GET", "HEAD"}:
            _send(connection, "405 Method Not Allowed", Answer("text/plain", b"GET only\n"))
            return
        answer = self._answer_of(urlsplit(target.partition(" ")[0]).path, _accepts(rest))
        if answer is None:
            _send(connection, "404 Not Found", Answer("text/plain", b"see /metrics\n"))
            return
        _send(connection, "200 OK", answer, with_body=method == "GET")


def _listening(host: str, port: int) -> _socket.socket:
    """Returns a socket that listens.

    Raises:
        OSError: the address is in use, or not one of this machine.
    """
    opened = _socket.socket(_socket.AF_INET6 if ":" in host else _socket.AF_INET, _socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two processes have one port
            opened.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(_WAITING)
    except OSError:
        opened.close()
        raise
    return opened


def _read(connection: _socket.socket) -> bytes:
    """Returns what a request begins with, up to its blank line.

    Raises:
        TimeoutError: it did not come in time, an OSError.
    """
    ends = time.monotonic() + _REQUEST_SECONDS
    found = b""
    while b"\r\n\r\n" not in found and len(found) < _LONGEST_REQUEST:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        more = connection.recv(4096)
        if not more:
            break
        found += more
    return found


def _accepts(headers: bytes) -> str:
    """Returns the header Accept of a request."""
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"accept":
            return value.strip().decode("latin-1")
    return ""


def _send(connection: _socket.socket, status: str, answer: Answer, *, with_body: bool = True) -> None:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
    )
    connection.settimeout(_ANSWER_SECONDS)
    connection.sendall(head.encode("latin-1") + (answer.body if with_body else b""))
