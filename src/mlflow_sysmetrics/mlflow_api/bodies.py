"""Reads the body of an answer in pieces, within bounds of time and size, whatever the server sends.

A compressed body is decompressed here: a kilobyte of it may stand for a megabyte, and urllib3 before 2.6
decompresses whatever a piece holds.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

_PIECE_BYTES = 65_536
# Where urllib3 decompresses (brotli and zstd, if they are installed).
_SMALL_PIECE_BYTES = 1024
# Without `read1` a piece is read until it is full, each part of it within the read timeout. Pieces must then
# be small, so that a slow answer is noticed soon.
_SLOW_PIECE_BYTES = 64
_ZLIB = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
_BARE_DEFLATE = -zlib.MAX_WBITS


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
