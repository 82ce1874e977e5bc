"""A file that only grows by whole lines, on a disk that may fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

_OWN_EYES_ONLY = 0o600
_RETRY_SECONDS = 60.0  # a full disk is seldom emptied sooner, and each try costs a system call or a few
# Windows knows neither; there the flags mean nothing.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_APPEND = os.O_RDWR | os.O_APPEND | _NOFOLLOW | _BINARY


class LineFile:
    """Appends lines, one system call each, and remembers why the disk took none.

    What a crash of the process leaves is what was written: the kernel has it. A crash of the machine may take
    the last seconds, since nothing is synced: that would cost milliseconds per line, and a disk its sleep.

    Not locked: its owner is.

    Args:
        path: where it lies.
        monotonic: tells when a disk that failed is tried again.
        before_again: called before a file that somebody has deleted is made again; may raise an OSError.
        write: the system call.

    Attributes:
        path: where it lies.
        size: its bytes.
        failed: why the disk is not used any more; tried again after a minute.
    """

    def __init__(
        self,
        path: Path,
        monotonic: Callable[[], float] = time.monotonic,
        before_again: Callable[[], None] = lambda: None,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        self.path = path
        self.failed: str | None = None
        self.monotonic = monotonic
        self._before_again = before_again
        self._system_write = write
        self._retry_at = 0.0
        self._descriptor: int | None = None
        self.size = 0
        self._torn = False

    def create(self) -> None:
        """Makes the file.

        Raises:
            OSError: it exists, or cannot be made.
        """
        self._descriptor = os.open(self.path, _APPEND | os.O_CREAT | os.O_EXCL, _OWN_EYES_ONLY)
        self.size, self._torn = 0, False

    def open(self) -> None:
        """Opens the file, which exists.

        Raises:
            OSError: it does not, or cannot be written.
        """
        self._descriptor = os.open(self.path, _APPEND)
        self.size = os.fstat(self._descriptor).st_size
        # Whoever wrote it may have died within a line.
        self._torn = self.size > 0 and _last_byte(self.path) != b"\n"

    def append(self, text: bytes) -> int | None:
        """Appends lines.

        Returns:
            Where they begin, or a byte before; None where the disk did not take all of them.
        """
        if not self._usable():
            return None
        begin = self.size
        # What is left of a torn line becomes a line of its own, which no reader understands.
        whole = b"\n" + text if self._torn else text
        try:
            written = self._write(whole)
        except OSError as error:
            self._fail(error)
            return None
        self.size += written
        if written < len(whole):
            self._torn = self._torn or written > 0
            self._fail(OSError(None, "the disk is full"))
            return None
        self._torn, self.failed = False, None
        return begin

    def truncate(self) -> bool:
        """Empties the file; returns whether it could."""
        if self._descriptor is None:
            return False
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError as error:
            self._fail(error)
            return False
        self.size, self._torn = 0, False
        return True

    def replace_by(self, other: Path) -> bool:
        """Puts another file in this one's place; returns whether it could.

        The other one is written completely. Both are closed first: Windows replaces no open file.
        """
        self.close()
        try:
            os.replace(other, self.path)  # noqa: PTH105 - the same call, by the name that says it
            replaced = True
        except OSError:
            replaced = False
        with contextlib.suppress(OSError):  # else the next line opens it, or says why it cannot
            self.open()
        return replaced

    def close(self) -> None:
        """Closes the descriptor, also a forked child's copy."""
        # Forgotten before it is closed: a fork in between must not close whatever gets its number.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _write(self, text: bytes) -> int:
        if self._descriptor is None:
            self.open()
        assert self._descriptor is not None  # noqa: S101 - for mypy
        if os.fstat(self._descriptor).st_nlink == 0:  # somebody has deleted it: nobody could read it later
            deleted, self._descriptor = self._descriptor, self._make_again(self._descriptor)
            os.close(deleted)
        return self._system_write(self._descriptor, text)

    def _make_again(self, deleted: int) -> int:
        """Makes the file again, with all that it held, so that offsets stay true; returns its descriptor."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._before_again()
        made = os.open(self.path, _APPEND | os.O_CREAT | os.O_EXCL, _OWN_EYES_ONLY)
        try:
            with os.fdopen(os.dup(deleted), "rb") as old, os.fdopen(os.dup(made), "wb") as new:
                old.seek(0)
                shutil.copyfileobj(old, new)
        except OSError:
            os.close(made)
            self.path.unlink(missing_ok=True)
            raise
        return made

    def _usable(self) -> bool:
        return self.failed is None or self.monotonic() >= self._retry_at

    def _fail(self, error: OSError) -> None:
        self.failed = error.strerror or str(error)
        self._retry_at = self.monotonic() + _RETRY_SECONDS


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
