"""Files of the kernel that are read at every tick: opened once, then read again from their start.

This costs a third of opening a file by its path, for short ones a tenth. What is behind the path is looked up
again when a read fails, and once a minute: a device or a cgroup may be gone, the process may have moved to
another network namespace, something may be mounted over the file.

Only the kernel's own files are kept open. Others, as those of a recorded machine, are read by their path,
since a new file may take their place.

A program that closes all descriptors it does not know may give their numbers to files of its own. Ours are
beyond the numbers that a program gets for its files, so a closed one stays free, and the next read notices.
A descriptor is closed only if it still is the file that was opened. A forked child closes those that it
inherits: /proc/self would be its parent.
"""

from __future__ import annotations

import math
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import TypeAlias

if sys.platform == "linux":
    import fcntl

MOST_KEPT = 64  #: descriptors that are kept open per process; what exceeds them is read by its path

_READ_BYTES = 65_536  # more than /proc/stat of a host with 256 CPUs needs
_READ_ONLY = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)  # Windows has no such flag and does not need it
# The kernel shows its files as empty (proc, cgroups) or as long as a page (sysfs), and without blocks.
_KERNEL_SIZES = frozenset({0, 4096, 16_384, 65_536})
# The first of our descriptors. A program gets the lowest free number, and the usual limit is 1024.
_FIRST_DESCRIPTOR = 512
_FIRST_BYTES = 4096
# A table comes in pieces of a page or more, each of whole records, and no record is half as long.
_SURELY_WHOLE = 2048
CLOSED = -1  #: instead of a descriptor
_LOOK_UP_SECONDS = 60.0
_MOST_WATCHED = 40  # a job seven groups deep has 30; what lies above is looked up from time to time only
# A tick takes less, and ticks are at least twice as far apart.
SAME_TICK_SECONDS = 0.05
# Watched files are read at every other tick; if there are more than these, by halves: on a processor that was
# asleep each takes 10 us, as much as some sources.
_READ_TOGETHER = 3
_TICKS_UNTIL_ALL_ARE_READ = 4

_Content: TypeAlias = tuple[int, int, bytes]
"""Of an open file: its descriptor, a number of bytes of which only something else has more, the content."""

_kept: dict[int, weakref.ref[KeptFile]] = {}  # by descriptor; each operation on it is atomic


def read_bytes(path: str) -> bytes:
    """Returns the content of a file, at half the cost of `Path.read_bytes`.

    Raises:
        OSError: the file is missing or may not be read.
    """
    descriptor = os.open(path, _READ_ONLY)
    try:
        # The kernel returns long tables in pieces; only an empty piece marks the end.
        parts = []
        while part := os.read(descriptor, _READ_BYTES):
            parts.append(part)
    except OSError as error:
        error.filename = path  # for the message
        raise
    finally:
        os.close(descriptor)
    return b"".join(parts)


def read_short(path: str) -> bytes:
    """Returns the content of a kernel file that is written at once: one value or one record, up to 64 KB.

    This saves the second read with which `read_bytes` finds the end.

    Raises:
        OSError: the file is missing or may not be read.
    """
    descriptor = os.open(path, _READ_ONLY)
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError as error:
        error.filename = path  # for the message
        raise
    finally:
        os.close(descriptor)


class KeptFile:
    """One file, which stays open after the first read if it is the kernel's.

    Args:
        path: the file.
        pieces: for a table of many records, which the kernel returns in pieces; others it writes at once.
    """

    __slots__ = ("__weakref__", "_bytes", "_enough", "_pieces", "descriptor", "identity", "path")

    def __init__(self, path: str, *, pieces: bool = False) -> None:
        self.path = path
        self.descriptor = CLOSED
        self.identity: tuple[int, int] | None = None
        self._pieces = pieces
        self._bytes = _FIRST_BYTES
        self._enough = _SURELY_WHOLE if pieces else _FIRST_BYTES

    def read(self) -> bytes:
        """Returns the content.

        Raises:
            OSError: the file is missing or may not be read.
        """
        if self.descriptor >= 0:
            try:
                text = os.pread(self.descriptor, self._bytes, 0)
                return text if 0 < len(text) < self._enough else self._rest(text)
            except OSError:  # a device or group that is gone, or a descriptor that was closed
                self.close()
        if len(_kept) >= MOST_KEPT or not self._keep():
            return read_bytes(self.path) if self._pieces else read_short(self.path)
        try:
            text = self._rest(os.pread(self.descriptor, self._bytes, 0))
        except OSError as error:
            error.filename = self.path  # for the message
            self.close()
            raise
        if not text:  # an empty file that is not the kernel's
            self.close()
        return text

    def look_up(self) -> None:
        """Closes the descriptor if something else is behind the path now; the next read opens that."""
        if self.descriptor < 0:
            return
        try:
            found = [os.fstat(self.descriptor), os.stat(self.path)]
        except OSError:
            found = []
        if [(status.st_dev, status.st_ino) for status in found] != [self.identity] * 2:
            self.close()

    # The functions are arguments, since the names of a module are gone when the interpreter ends.
    def close(
        self,
        fstat: Callable[[int], os.stat_result] = os.fstat,
        close: Callable[[int], None] = os.close,
        kept: dict[int, weakref.ref[KeptFile]] = _kept,
    ) -> None:
        """Closes the descriptor, if it still is the file that was opened."""
        descriptor, self.descriptor = self.descriptor, CLOSED
        if descriptor < 0 or kept.pop(descriptor, None) is None:
            return
        try:
            status = fstat(descriptor)
            if (status.st_dev, status.st_ino) == self.identity:
                close(descriptor)
        except OSError:
            pass

    def __del__(self) -> None:
        self.close()

    def _rest(self, text: bytes) -> bytes:
        """Returns the content, of which the first part was read."""
        if self._pieces:
            parts, length = [], 0
            while text:
                parts.append(text)
                length += len(text)
                text = os.pread(self.descriptor, _READ_BYTES, length)
            return b"".join(parts)
        while len(text) == self._bytes:
            self._bytes = self._enough = 4 * self._bytes
            text = os.pread(self.descriptor, self._bytes, 0)
        return text

    def _keep(self) -> bool:
        """Opens the file if it is one to be kept open; returns whether it is.

        Raises:
            OSError: the file is missing or may not be read.
        """
        if sys.platform != "linux":
            return False
        low = os.open(self.path, _READ_ONLY)
        try:
            status = os.fstat(low)
            is_kernel = not status.st_blocks and status.st_size in _KERNEL_SIZES
            descriptor = _moved(low) if is_kernel else CLOSED
        finally:
            os.close(low)
        if descriptor < 0:
            return False
        self.identity = status.st_dev, status.st_ino
        self.descriptor = descriptor
        _kept[descriptor] = weakref.ref(self)
        return True


def _moved(descriptor: int) -> int:
    """Returns a duplicate beyond the numbers that programs use; negative if there can be none."""
    if sys.platform != "linux":
        return CLOSED
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
    except OSError:  # the process may not have so many
        return CLOSED


def _close_inherited() -> None:
    for reference in list(_kept.values()):
        file = reference()
        if file is not None:
            file.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_inherited)


class KeptFiles:
    """The files that the collectors of a daemon keep, and those whose changes they want to know of.

    A change of the latter is noticed by their content, within four ticks. Their change time would not do: the
    kernel sets it only if the writer truncates, and runc and systemd write without. After a change no file is
    watched any more: every collector looks up what applies now, and watches that. Several threads may call
    this; a change that one of them misses shows at the next tick.

    Attributes:
        version: a number that grows when a watched file has changed, has appeared or is gone.
        checked_at: time of the last call of `check` that has read files.
    """

    def __init__(self) -> None:
        self.version = 0
        self._watched: dict[str, _Watched] = {}
        # Those that are open: what is read at this tick, and at the next.
        self._open: tuple[list[_Content], list[_Content]] | None = None  # None: to be made
        self._by_path: list[_Watched] = []
        self._kept: weakref.WeakSet[KeptFile] = weakref.WeakSet()
        self._to_look_up: list[weakref.ref[KeptFile]] = []  # weak: it must not keep them open
        self.checked_at = self._looked_up_at = -math.inf
        self._checking = self._reads = False

    def keep(self, path: str, *, pieces: bool = False) -> KeptFile:
        """Returns a file that is looked up again once a minute; see `KeptFile`."""
        file = KeptFile(path, pieces=pieces)
        self._kept.add(file)
        return file

    def watch(self, paths: Iterable[str]) -> None:
        """Adds files, which may be missing.

        To miss no change, call this before reading what the files contain.

        Args:
            paths: the files.
        """
        for path in paths:
            if path not in self._watched and len(self._watched) < _MOST_WATCHED:
                self._watched[path] = _Watched(path)
                self._open = None

    def check(self, now: float) -> int:
        """Reads the watched files, unless that was done at this tick, and returns the version.

        Args:
            now: seconds of a clock that never goes back.
        """
        # While a file does not answer, in another thread, nobody else waits for it.
        if 0 <= now - self.checked_at < SAME_TICK_SECONDS or self._checking:
            return self.version
        self.checked_at = now
        self._reads = not self._reads
        if self._reads or self._open is None or self._by_path:
            self._check_contents()
        if not 0 <= now - self._looked_up_at < _LOOK_UP_SECONDS or self._to_look_up:
            self._look_up(now)
        return self.version

    def _check_contents(self) -> None:
        self._checking = True
        try:
            part, other = self._open or self._open_all()
            self._open = other, part
            for descriptor, length, text in part:
                if os.pread(descriptor, length, 0) != text:
                    self._forget()
                    break
            if self._by_path and any(file.has_changed() for file in self._by_path):
                self._forget()
        except OSError:  # a group is gone, or the program has closed the descriptor
            self._open = None
            if any(file.has_changed() for file in tuple(self._watched.values())):
                self._forget()
        finally:
            self._checking = False

    def check_all(self, now: float) -> int:
        """Does the same with all watched files, for who asks only now and then."""
        if 0 <= now - self.checked_at < SAME_TICK_SECONDS:
            return self.version
        for _ in range(_TICKS_UNTIL_ALL_ARE_READ):
            self.checked_at = -math.inf
            self.check(now)
        return self.version

    def _open_all(self) -> tuple[list[_Content], list[_Content]]:
        watched = list(self._watched.values())
        self._by_path = [file for file in watched if file.descriptor < 0]
        found = [file for file in watched if file.descriptor >= 0]
        if len(found) <= _READ_TOGETHER:
            both = [file.as_open for file in found]
            return both, both
        contents = [file.as_open for file in found]
        return contents[::2], contents[1::2]

    def _forget(self) -> None:
        self._watched, self._open, self._by_path = {}, None, []
        self.version += 1

    def _look_up(self, now: float) -> None:
        if not 0 <= now - self._looked_up_at < _LOOK_UP_SECONDS:
            self._looked_up_at = now
            self._to_look_up = [weakref.ref(file) for file in self._kept]
        elif self._to_look_up:  # one per tick
            file = self._to_look_up.pop()()
            if file is not None:
                file.look_up()


class _Watched(KeptFile):
    """A file, and what it contained when this was made; one that is missing may appear."""

    __slots__ = ("_text",)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._text = self._read()

    @property
    def as_open(self) -> _Content:
        """What `KeptFiles.check` needs to read it."""
        text = self._text or b""
        return self.descriptor, len(text) + 1, text

    def has_changed(self) -> bool:
        """Returns whether the file contains something else now, has appeared, or is gone."""
        return self._read() != self._text

    def _read(self) -> bytes | None:
        try:
            return self.read()
        except OSError:
            return None
