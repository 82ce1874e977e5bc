"""Short kernel files whose change is noticed at every tick: limits of the job's cgroup, and the group itself.

A file stays open and is read again from its start, which costs a tenth of opening it by its path. Its change
time would not do: the kernel sets it only if the writer truncates, and runc and systemd write without.

What is read is only compared with what was there before, and never believed. A program that closes all
descriptors it does not know may have given the number to a file of its own: after any difference the file is
read by its path, and a descriptor is closed only if it still is the file that was opened.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable

_READ_BYTES = 8192  # /proc/self/cgroup with a dozen hierarchies, deep in nested groups, needs 4 KB
_MOST_FILES = 64  # a job seven groups deep has 30; what lies above is looked up from time to time only
_BY_PATH = -1


class LiveFile:
    """One file, and what it contained when this was made; a file that is missing may appear.

    Args:
        path: the file.
    """

    __slots__ = ("_descriptor", "_identity", "_path", "_text")

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = _BY_PATH
        self._identity: tuple[int, int] | None = None
        with contextlib.suppress(OSError):
            self._open()
        self._text = self._read()

    def has_changed(self) -> bool:
        """Returns whether the file contains something else now, has appeared, or is gone."""
        return self._read() != self._text

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        status = os.fstat(descriptor)
        if status.st_size or not hasattr(os, "pread"):
            # Not the kernel's, whose short files have no size: another may take its place.
            os.close(descriptor)
        else:
            self._descriptor, self._identity = descriptor, (status.st_dev, status.st_ino)

    def _read(self) -> bytes | None:
        try:
            if self._descriptor != _BY_PATH:
                return os.pread(self._descriptor, _READ_BYTES, 0)
            with open(self._path, "rb", buffering=0) as file:
                return file.read(_READ_BYTES)
        except OSError:
            return None

    # The functions are arguments, since the names of a module are gone when the interpreter ends.
    def __del__(
        self, fstat: Callable[[int], os.stat_result] = os.fstat, close: Callable[[int], None] = os.close
    ) -> None:
        if self._identity is None:
            return
        try:  # a program may have closed it, and given its number to a file of its own
            status = fstat(self._descriptor)
            if (status.st_dev, status.st_ino) == self._identity:
                close(self._descriptor)
        except OSError:
            pass


class LiveFiles:
    """Notices changes of files; the collectors of a daemon share it, so that each file is read once a tick.

    After a change no file is watched any more: every collector looks up what applies now, and watches that.
    Several threads may call this; a change that one of them misses shows at the next tick.

    Attributes:
        version: a number that grows when a file has changed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._files: dict[str, LiveFile] = {}
        self._checked_at = math.nan
        self._checking = False

    def watch(self, paths: Iterable[str]) -> None:
        """Adds files, which may be missing.

        To miss no change, call this before reading what the files contain.
        """
        for path in paths:
            if path not in self._files and len(self._files) < _MOST_FILES:
                self._files[path] = LiveFile(path)

    def check(self, now: float) -> int:
        """Reads the files, once for each value of `now`, and returns the version.

        Args:
            now: seconds of a clock that never goes back.
        """
        # While a file does not answer, in another thread, nobody else waits for it.
        if now != self._checked_at and not self._checking:
            self._checked_at = now
            self._checking = True
            try:
                self._check()
            finally:
                self._checking = False
        return self.version

    def _check(self) -> None:
        for file in tuple(self._files.values()):
            if file.has_changed():
                self._files = {}
                self.version += 1
                return
