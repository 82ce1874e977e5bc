"""Varying load of one kind, as a separate program.

    python benchmarks/load.py cpu|memory|disk|network SECONDS

Files are written to the working directory. Datagrams go to loopback and, with a time to live of one hop, to a
multicast group without listeners: they leave the interface, and no router forwards them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_MEBIBYTE = 1 << 20
_DATAGRAM = bytes(1200)  # fits into a packet everywhere
_LOOPBACK = ("127.0.0.1", 9)  # the discard port
_GROUP = ("239.255.77.77", 9)  # local scope, RFC 2365


def cpu() -> Iterator[float]:
    """Computes and rests alternately; yields how long to rest."""
    for work, rest in itertools.cycle(((2.5, 1.5), (0.4, 0.6), (4.0, 3.0))):
        end = time.monotonic() + work
        while time.monotonic() < end:
            sum(range(10_000))
        yield rest


def memory() -> Iterator[float]:
    """Allocates memory step by step, holds it, frees it."""
    for blocks in itertools.cycle((8, 4, 12)):
        held = []
        for _ in range(blocks):
            held.append(b"x" * (64 * _MEBIBYTE))
            yield 0.25
        yield 2.0
        del held
        yield 2.0


def disk() -> Iterator[float]:
    """Writes a file to the disk, reads it from there, deletes it."""
    path = Path("load.bin")
    for blocks, rest in itertools.cycle(((64, 0.5), (16, 0.1), (160, 1.5))):
        with path.open("wb") as file:
            for _ in range(blocks):
                file.write(os.urandom(_MEBIBYTE))
            file.flush()
            os.fsync(file.fileno())
            # Drop the page cache, so that the file must be read from the disk.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield rest
        path.read_bytes()
        yield rest
        path.unlink()
        yield rest


def network() -> Iterator[float]:
    """Sends datagrams in bursts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        for burst in itertools.cycle((50, 10, 200)):
            for _ in range(burst):
                for target in (_LOOPBACK, _GROUP):
                    with contextlib.suppress(OSError):  # no listener, or no route
                        sender.sendto(_DATAGRAM, target)
            yield 0.4


KINDS: Mapping[str, Callable[[], Iterator[float]]] = {
    "cpu": cpu,
    "memory": memory,
    "disk": disk,
    "network": network,
}


@contextmanager
def under_load(directory: str, seconds: float) -> Iterator[None]:
    """Runs every kind for the duration of a ``with`` block, at most for some seconds."""
    programs = [
        subprocess.Popen([sys.executable, __file__, kind, str(seconds)], cwd=directory) for kind in KINDS
    ]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def main() -> None:
    """Generates load until the time is over."""
    kind, seconds = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    for rest in KINDS[kind]():
        if time.monotonic() >= end:
            break
        time.sleep(rest)


if __name__ == "__main__":
    main()
