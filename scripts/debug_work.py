"""Work that shows in the curves of a run: CPU load, memory, a file. No network."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
import threading
import time

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

WAVE_SECONDS = 10.0  #: a longer run repeats the wave, so its curves rise and fall more than once
STEP_SECONDS = 0.1
PIECES = 8
MEMORY_PIECE = 32_000_000  # bytes; at this size malloc returns freed memory to the system at once
FILE_PIECE = 16_000_000  # bytes
LARGEST_SHARE = 0.1  # of free memory and free disk space, for all pieces together


def work(seconds: float, console: Console) -> None:
    """Works for that many seconds, with a progress bar on the console."""
    waves = max(round(seconds / WAVE_SECONDS), 1)
    columns = TextColumn("{task.description:<30}"), BarColumn(), TimeRemainingColumn()
    began = time.monotonic()
    with (
        contextlib.closing(Load()) as load,
        Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress,
    ):
        bar = progress.add_task("", total=seconds)
        while (elapsed := time.monotonic() - began) < seconds:
            doing = load.follow(elapsed / seconds * waves % 1)
            progress.update(bar, completed=elapsed, description=doing)
            time.sleep(STEP_SECONDS)


class Load:
    """Uses half of the CPUs available to this process, holds memory, and grows a file."""

    def __init__(self) -> None:
        self._share = 0.0
        self._stop = threading.Event()
        self._memory: list[bytes] = []
        self._memory_piece = _piece(MEMORY_PIECE, psutil.virtual_memory().available)
        self._file = _temporary_file()
        self._file_piece = bytes(_piece(FILE_PIECE, shutil.disk_usage(".").free))
        self._file_pieces = 0
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        for _ in range(max(usable // 2, 1)):
            threading.Thread(target=self._burn, daemon=True).start()

    def follow(self, phase: float) -> str:
        """Sets the load for a phase of the wave, from 0 to 1, and returns a description of it."""
        self._share = _hump(phase, 0.05, 0.6)
        self._hold(round(PIECES * _hump(phase, 0.3, 0.8)))
        self._write(round(PIECES * _hump(phase, 0.5, 0.95)))
        return f"CPU {self._share:4.0%}, {len(self._memory)} blocks, file {self._file_pieces}/{PIECES}"

    def _hold(self, pieces: int) -> None:
        del self._memory[pieces:]
        while len(self._memory) < pieces:
            self._memory.append(b"1" * self._memory_piece)  # pages of zeros would take no memory

    def _write(self, pieces: int) -> None:
        if pieces == self._file_pieces:
            return
        self._file.truncate(pieces * len(self._file_piece))
        self._file.seek(0, os.SEEK_END)
        for _ in range(pieces - self._file_pieces):
            self._file.write(self._file_piece)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file_pieces = pieces

    def _burn(self) -> None:
        block = bytes(1_000_000)  # large enough that hashlib releases the GIL
        while not self._stop.is_set():
            until = time.monotonic() + self._share * STEP_SECONDS
            while time.monotonic() < until:
                hashlib.sha256(block).digest()
            self._stop.wait((1 - self._share) * STEP_SECONDS)

    def close(self) -> None:
        """Stops the threads and releases memory and file."""
        self._stop.set()
        self._memory.clear()
        self._file.close()


def _hump(phase: float, begins: float, ends: float) -> float:
    """Rises from 0 to 1 and falls back to 0 between two phases."""
    return math.sin(math.pi * (phase - begins) / (ends - begins)) if begins < phase < ends else 0.0


def _piece(wanted: int, free: int) -> int:
    return max(min(wanted, int(free * LARGEST_SHARE) // PIECES), 1)


def _temporary_file() -> tempfile._TemporaryFileWrapper[bytes]:
    try:
        return tempfile.TemporaryFile(dir=".")  # the filesystem whose usage is measured
    except OSError:
        return tempfile.TemporaryFile()
