"""A file that only grows by whole lines, on a disk that may fail."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# FOLDED open_file: An open file in somebody else's process, where anybody may close its number and open another file with it.
# FOLDED
# FOLDED  Libraries that make a daemon of a process close every descriptor that they find (`os.closerange(3, 1000)`),
# FOLDED  and a program may close a wrong one by mistake. Whoever opens a file next gets the number, and what we write
# FOLDED  to it then is in that file.

_OWN_EYES_ONLY = 0o600
# Windows knows neither; there the flags mean nothing.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_APPEND = os.O_RDWR | os.O_APPEND | _NOFOLLOW | _BINARY
_BUFFER = 1 << 16  # each part that is read costs a look at whose file it was


class OpenFile:
    """A descriptor that knows its file: it is checked before each use, and closed only while it is ours.

    A file that is opened between the check and the use is not seen; that is a microsecond.

    Args:
        number: of the descriptor.

    Attributes:
        number: as above.
        identity: device and inode of the file.
    """

    def __init__(self, number: int) -> None:
        found = os.fstat(number)
        self.number = number
        self.identity = (found.st_dev, found.st_ino)

    @classmethod
    def to_append(cls, path: Path, *, create: bool = False) -> OpenFile:
        """Opens a file for reading and appending.

        Args:
            path: where it lies; a symbolic link is refused.
            make: makes it, for this user's eyes only.

        Raises:
            OSError: it cannot be opened; it exists although it was to be made.
        """
        return cls(os.open(path, _APPEND | (os.O_CREAT | os.O_EXCL if create else 0), _OWN_EYES_ONLY))

    def status(self) -> os.stat_result | None:
        """Returns what the system says of the file; None where the number is not ours any more."""
        try:
            found = os.fstat(self.number)
        except OSError:
            return None
        return found if (found.st_dev, found.st_ino) == self.identity else None

    def reader(self, path: Path) -> BinaryIO:
        """Opens the same file for reading, from its beginning; also one that was moved or deleted.

        Args:
            path: where it lies, for Windows, which can neither move an open file nor read without moving
                the position that copies of a descriptor share.

        Raises:
            OSError: it cannot be opened.
        """
        if not hasattr(os, "pread"):
            return path.open("rb")
        return io.BufferedReader(_Reader(OpenFile(os.dup(self.number))), _BUFFER)

    def last_byte(self) -> bytes:
        """Returns the last byte; nothing of an empty file."""
        if os.lseek(self.number, 0, os.SEEK_END) == 0:
            return b""
        os.lseek(self.number, -1, os.SEEK_END)  # what is appended goes to the end nevertheless
        return os.read(self.number, 1)

    def close(self) -> None:
        """Closes the descriptor, if it is still ours."""
        if self.status() is not None:
            with contextlib.suppress(OSError):
                os.close(self.number)


class _Reader(io.RawIOBase):
    """Reads a file from a position of its own."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("a journal is read from a place in it")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed: any buffer
        found = os.pread(self._file.number, len(buffer), self._at)
        # Looked at afterwards: what was ours until now was ours when it was read.
        if self._file.status() is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()


_RETRY_SECONDS = 60.0  # a full disk is seldom emptied sooner, and each try costs a system call or a few


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
        losses: how often it was found to be another file, or cut off, by somebody else: what it held may be
            gone, and offsets from before mean nothing.
        gains: how often somebody else was found to have appended to it.
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
        self.size = self.losses = self.gains = 0
        self._before_again = before_again
        self._system_write = write
        self._retry_at = 0.0
        self._file: OpenFile | None = None
        self._identity: tuple[int, int] | None = None  # of the file that the descriptor is, or was, for
        self._torn = False

    def create(self) -> None:
        """Makes the file.

        Raises:
            OSError: it exists, or cannot be made.
        """
        self._take(OpenFile.to_append(self.path, create=True))

    def open(self) -> None:
        """Opens the file, which exists.

        Raises:
            OSError: it does not, or cannot be written.
        """
        self._take(OpenFile.to_append(self.path))

    def ready(self) -> bool:
        """Makes sure that the next line goes to the end of this file and no other; returns whether it can."""
        if self.failed is not None and self.monotonic() < self._retry_at:
            return False
        try:
            self._look()
        except OSError as error:
            self._fail(error)
            return False
        return True

    def append(self, text: bytes) -> int | None:
        """Appends lines; `ready` was called just before, and said so.

        Returns:
            Where they begin, or a byte before; None where the disk did not take all of them.
        """
        assert self._file is not None  # noqa: S101 - it is ready
        begin = self.size
        # What is left of a torn line becomes a line of its own, which no reader understands.
        whole = b"\n" + text if self._torn else text
        try:
            written = self._system_write(self._file.number, whole)
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
        """Empties the file, also on a disk that takes no lines; returns whether it could."""
        try:
            self._look()
            assert self._file is not None  # noqa: S101 - for mypy
            os.ftruncate(self._file.number, 0)
        except OSError as error:
            self._fail(error)
            return False
        self.size, self._torn = 0, False
        return True

    def has_gained(self) -> bool:
        """Tells whether somebody else has appended to it since it was opened."""
        found = None if self._file is None else self._file.status()
        return self.gains > 0 or (found is not None and found.st_size > self.size)

    def reader(self) -> BinaryIO:
        """Opens what it holds for reading, wherever somebody has moved it.

        Raises:
            OSError: it cannot be read.
        """
        if self._file is None or self._file.status() is None:
            self._open_again()
        assert self._file is not None  # noqa: S101 - for mypy
        return self._file.reader(self.path)

    def replace_by(self, other: Path) -> bool:
        """Puts another file in this one's place; returns whether it could.

        The other one is written completely. Both are closed first: Windows replaces no open file.

        Raises:
            OSError: the other one is not there.
        """
        size = other.stat().st_size
        self.close()
        try:
            os.replace(other, self.path)  # noqa: PTH105 - the same call, by the name that says it
        except OSError:
            return False  # the next line opens what lies there, or says why it cannot be opened
        # Known even where it cannot be opened now, as in a program that has too many files open.
        self.size, self._torn, self._identity = size, False, None
        with contextlib.suppress(OSError):
            self._open_again()
        return True

    def close(self) -> None:
        """Closes the descriptor, also a forked child's copy."""
        # Forgotten before it is closed: a fork in between must not close whatever gets its number.
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _look(self) -> None:
        """Sees what has become of the file since the last line.

        Raises:
            OSError: it cannot be written.
        """
        found = None if self._file is None else self._file.status()
        if found is None:
            self._open_again(create=True)
            return
        assert self._file is not None  # noqa: S101 - for mypy
        if found.st_nlink == 0:  # somebody has deleted it: nobody could read it later
            deleted, self._file = self._file, self._copy(self._file)
            self._identity = self._file.identity
            deleted.close()
        if found.st_size != self.size:
            self._measure(found.st_size)

    def _open_again(self, *, create: bool = False) -> None:
        """Opens the file again, which could not be opened or was closed by somebody else."""
        self._file = None
        try:
            file = OpenFile.to_append(self.path)
        except FileNotFoundError:
            if not create:
                raise
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._before_again()
            file = OpenFile.to_append(self.path, create=True)
        lost = self._identity not in {None, file.identity}
        size = os.fstat(file.number).st_size
        self._file, self._identity = file, file.identity
        self.losses += lost and size >= self.size  # a smaller one is counted there
        self._measure(size)

    def _take(self, file: OpenFile) -> None:
        self._file, self._identity = file, file.identity
        self.size = 0
        self._measure(os.fstat(file.number).st_size)
        self.gains = 0

    def _measure(self, size: int) -> None:
        """Takes note of a size that is not the one that we know."""
        assert self._file is not None  # noqa: S101 - for mypy
        if size != self.size:
            # Whoever wrote it may have died within a line.
            self._torn = self._file.last_byte() not in {b"", b"\n"}
        self.losses += size < self.size
        self.gains += size > self.size
        self.size = size

    def _copy(self, deleted: OpenFile) -> OpenFile:
        """Makes the file again, with all that it held, so that offsets stay true."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._before_again()
        made = OpenFile.to_append(self.path, create=True)
        try:
            with deleted.reader(self.path) as old, os.fdopen(os.dup(made.number), "wb") as new:
                shutil.copyfileobj(old, new)
        except OSError:
            made.close()
            self.path.unlink(missing_ok=True)
            raise
        return made

    def _fail(self, error: OSError) -> None:
        self.failed = error.strerror or str(error)
        self._retry_at = self.monotonic() + _RETRY_SECONDS
