"""Answers within bounds of time and size, whatever the server sends.

A timeout of a socket starts again with each byte that arrives, and requests reads headers, and the bodies of
redirections, to their end. So a session from here gives each read of a socket only the time that is left for
the whole answer, and counts what arrives.

A compressed body is decompressed here: a kilobyte of it may stand for a megabyte, and urllib3 before 2.6
decompresses whatever a piece holds.
"""

from __future__ import annotations

import io
import math
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.secrets import is_open_header

_PIECE_BYTES = 65_536
# Where urllib3 decompresses (brotli and zstd, if they are installed).
_SMALL_PIECE_BYTES = 1024
# Without `read1` a piece is read until it is full, each part of it within the read timeout. Pieces must then
# be small, so that a slow answer is noticed soon.
_SLOW_PIECE_BYTES = 64
# Of headers, redirections and the last body: more than the longest body of a success that is read.
_MOST_RECEIVED = 80_000_000
_LONGEST_REDIRECTION = 64_000
# What requests makes for the server, or the proxy, that a redirection leads to.
_MADE_FOR_THE_TARGET = frozenset({"authorization", "cookie", "proxy-authorization"})
_ZLIB = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
_BARE_DEFLATE = -zlib.MAX_WBITS
_TAG_NAME = re.compile(r"/?\w+")
_NOT_SHOWN = frozenset({"script", "style", "head"})


def words_of(page: str) -> str:
    """Returns the words of an HTML page, without its markup, scripts, styles and head.

    Takes time in proportion to the page, however many tags it opens and never closes.
    """
    words, hidden = [], ""
    # Each piece but the first is what follows a "<": a tag, and the text behind it.
    before, *pieces = page.split("<")
    words.append(before)
    for piece in pieces:
        tag, closed, text = piece.partition(">")
        name = (_TAG_NAME.match(tag) or [""])[0].lower()
        if hidden:
            hidden = "" if name == f"/{hidden}" else hidden
        elif name in _NOT_SHOWN:
            hidden = name
        if not hidden:
            words.append(text if closed else piece)
    return " ".join(" ".join(words).split())


def read_body(response: Any, *, began: float, seconds: float, longest: int) -> bytes:
    """Returns the body of an answer, cut to the longest.

    Args:
        response: of requests, with `stream`, or of http.client.
        began: monotonic time when the request was sent.
        seconds: how much time it may take since then, checked between two pieces.
        longest: number of bytes after which the rest is not read.

    Raises:
        Fault: it was not complete in time, or cannot be decompressed.
    """
    received = bytearray()
    taken = 0
    for piece, count in _pieces(response):
        received += piece
        taken += count
        if time.monotonic() - began > seconds:
            response.close()
            raise Fault(f"the answer arrives too slowly: not complete after {seconds:g} s", Cause.DOWN)
        if len(received) > longest or taken > longest:
            response.close()
            break
    return bytes(received[:longest])


def _pieces(response: Any) -> Iterator[tuple[bytes, int]]:
    """Yields the parts of a body as they arrive, each with the number of bytes that were received for it."""
    encoding = str((getattr(response, "headers", None) or {}).get("Content-Encoding") or "").strip().lower()
    raw: Any = getattr(response, "raw", None)
    read1 = getattr(raw, "read1", None) or getattr(response, "read1", None)
    if read1 is None and hasattr(raw, "release_conn"):  # urllib3 before 2.1
        read1 = getattr(getattr(raw, "_fp", None), "read1", None)
    if read1 is None:  # the Databricks SDK's error, which has its body already
        yield from ((piece, len(piece)) for piece in response.iter_content(_SLOW_PIECE_BYTES))
    elif encoding in {"", "identity"}:
        yield from ((piece, len(piece)) for piece in _received(read1))
    elif encoding in _ZLIB:
        yield from _decompressed(response, read1)
    elif "," not in encoding and getattr(raw, "read1", None) is not None:
        decoded = _received(lambda _: raw.read1(_SMALL_PIECE_BYTES, decode_content=True))
        yield from ((piece, len(piece)) for piece in decoded)
    else:
        response.close()
        raise Fault(f"the answer is compressed as {encoding[:40]!r}, which is not understood", Cause.DOWN)
    if hasattr(
        raw, "release_conn"
    ):  # of a urllib3 that does not notice the end of what it has not read itself
        raw.release_conn()


def _received(read1: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read1(_PIECE_BYTES):
        yield piece


def _decompressed(response: Any, read1: Callable[[int], bytes]) -> Iterator[tuple[bytes, int]]:
    """Yields a compressed body, at most a piece at a time however well it is compressed."""
    decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
    first = True
    for compressed in _received(read1):
        count, waiting = len(compressed), compressed
        while waiting:
            try:
                piece = decompressor.decompress(waiting, _PIECE_BYTES)
            except zlib.error as error:
                if not first:
                    response.close()
                    raise Fault("the answer cannot be decompressed", Cause.DOWN) from error
                decompressor, first = zlib.decompressobj(_BARE_DEFLATE), False
                continue
            first = False
            yield piece, count
            if decompressor.eof:
                return
            count, waiting = 0, decompressor.unconsumed_tail


class _Bounds(threading.local):
    """What is left for the answer that this thread waits for."""

    ends_at = math.inf
    bytes_left = math.inf


_bounds = _Bounds()


def begin_answer(seconds: float) -> None:
    """Bounds what this thread receives through a bounded session, until it is called again.

    Args:
        seconds: time for the whole answer, with all redirections, from now on.
    """
    _bounds.ends_at = time.monotonic() + seconds
    _bounds.bytes_left = _MOST_RECEIVED


def bounded_session() -> Any:
    """Returns a session of requests whose answers end at the bounds that `begin_answer` sets.

    If it is redirected to another server, that one gets none of the headers that may be credentials.
    """
    session, adapter = _session_class()(), _adapter_class()()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class _BoundedStream(io.RawIOBase):
    """Reads from a socket while time and bytes are left."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._stream = socket.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = _bounds.ends_at - time.monotonic()
        if left <= 0 or _bounds.bytes_left <= 0:
            raise TimeoutError("the answer is too slow or too large")
        timeout = self._socket.gettimeout()
        if timeout is None or timeout > left:
            self._socket.settimeout(left)
        count: int | None = self._stream.readinto(buffer)
        _bounds.bytes_left -= count or 0
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.close()


class _BoundedSocket:
    """A socket, plain or with TLS, whose `makefile` is a bounded stream."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_BoundedStream(self._socket))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class _BoundedConnection:
    """Replaces the socket of a connection by a bounded one; also before a proxy has answered."""

    _bounded: _BoundedSocket | None = None

    @property
    def sock(self) -> Any:
        return self._bounded

    @sock.setter
    def sock(self, socket: Any) -> None:
        is_new = socket is not None and not isinstance(socket, _BoundedSocket)
        self._bounded = _BoundedSocket(socket) if is_new else socket


@cache
def _adapter_class() -> Any:
    """Returns the class of the adapters: made late, because it needs requests."""
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

    def bounded(pool: Any) -> Any:
        connection = type("BoundedConnection", (_BoundedConnection, pool.ConnectionCls), {})
        return type(f"Bounded{pool.__name__}", (pool,), {"ConnectionCls": connection})

    pools = {"http": bounded(HTTPConnectionPool), "https": bounded(HTTPSConnectionPool)}

    class BoundedAdapter(HTTPAdapter):  # type: ignore[misc]
        """Opens bounded connections."""

        def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
            super().init_poolmanager(*arguments, **named)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **named)
            if not proxy.lower().startswith("socks"):
                manager.pool_classes_by_scheme = pools
            return manager

        def send(self, *arguments: Any, **named: Any) -> Any:
            response = super().send(*arguments, **named)
            if response.is_redirect:  # requests would read the body to its end, and decompress it
                began = time.monotonic()
                read_body(
                    response, began=began, seconds=_bounds.ends_at - began, longest=_LONGEST_REDIRECTION
                )
            return response

    return BoundedAdapter


@cache
def _session_class() -> Any:
    """Returns the class of the sessions: made late, because it needs requests."""
    from requests import Session

    class BoundedSession(Session):  # type: ignore[misc]
        """Strips the headers of plugins as requests strips Authorization."""

        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            super().rebuild_auth(prepared_request, response)
            if self.should_strip_auth(response.request.url, prepared_request.url):
                headers = prepared_request.headers
                for name in list(headers):
                    if not is_open_header(name) and name.lower() not in _MADE_FOR_THE_TARGET:
                        del headers[name]

    return BoundedSession
