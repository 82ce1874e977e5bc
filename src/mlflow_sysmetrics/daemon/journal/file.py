"""A file that only grows by whole lines, on a disk that may fail.

It is open in a foreign process, where any code may close its descriptor. Libraries that daemonize a process
close every descriptor they find (`os.closerange(3, 1000)`), and a program may close a wrong one by mistake.
The next file to be opened gets the number, and our writes would end up in that file. So the identity of the
file is checked at each use.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mlflow_sysmetrics.daemon.journal.lines import TORN

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.journal.compaction import FreshFile

_OWN_EYES_ONLY = 0o600
# Windows has neither flag and needs none.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO would wait for its other end
_SAFE = _NOFOLLOW | _BINARY | _NONBLOCK
_APPEND = os.O_RDWR | os.O_APPEND | _SAFE
_BUFFER = 1 << 16  # each read checks the identity of the file
_RETRY_SECONDS = 60.0  # a full disk is rarely emptied sooner, and each try costs a few system calls


def open_to_read(path: Path) -> BinaryIO:
    """Opens a journal for reading, from its beginning.

    Raises:
        OSError: it cannot be opened, or is a link or anything else than a file of its own.
    """
    number = os.open(path, os.O_RDONLY | _SAFE)
    try:
        check_file(os.fstat(number))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def check_file(status: os.stat_result) -> None:
    """Checks that something is a regular file with one name, in a directory in which others may write.

    Raises:
        OSError: it is something else, or another file's second name.
    """
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if status.st_nlink > 1:
        raise OSError(errno.EMLINK, "it is a hard link to another file")


class OpenFile:
    """A descriptor that knows its file: checked before each use, and closed only while it is still that file.

    A file that is opened in the microsecond between check and use goes unnoticed.

    Args:
        number: the descriptor.

    Attributes:
        number: the descriptor.
        identity: device and inode of the file.
    """

    def __init__(self, number: int) -> None:
        status = os.fstat(number)
        self.number = number
        self.identity = (status.st_dev, status.st_ino)

    @classmethod
    def to_append(cls, path: Path, *, create: bool = False) -> OpenFile:
        """Opens a file for reading and appending.

        Args:
            path: the file; a link, or anything else than a regular file, is refused.
            create: creates it, readable by this user only.

        Raises:
            OSError: it cannot be opened, or exists although it was to be created.
        """
        number = os.open(path, _APPEND | (os.O_CREAT | os.O_EXCL if create else 0), _OWN_EYES_ONLY)
        try:
            check_file(os.fstat(number))
            return cls(number)
        except BaseException:
            os.close(number)
            raise

    def status(self) -> os.stat_result | None:
        """Returns the stat of the file; None if the descriptor is no longer this file."""
        try:
            found = os.fstat(self.number)
        except OSError:
            return None
        return found if (found.st_dev, found.st_ino) == self.identity else None

    def reader(self, path: Path) -> BinaryIO:
        """Opens the same file for reading, from its beginning, even if it was moved or deleted.

        Args:
            path: the file, for Windows, which can neither move an open file nor read without moving the
                position that copies of a descriptor share.

        Raises:
            OSError: it cannot be opened.
        """
        if not hasattr(os, "pread"):
            return path.open("rb")
        return io.BufferedReader(_Reader(OpenFile(os.dup(self.number))), _BUFFER)

    def last_byte(self) -> bytes:
        """Returns the last byte; empty for an empty file."""
        if os.lseek(self.number, 0, os.SEEK_END) == 0:
            return b""
        os.lseek(self.number, -1, os.SEEK_END)  # appended text goes to the end regardless
        return os.read(self.number, 1)

    def close(self) -> None:
        """Closes the descriptor if it is still this file."""
        if self.status() is not None:
            with contextlib.suppress(OSError):
                os.close(self.number)


class _Reader(io.RawIOBase):
    """Reads a file with its own position."""

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
        data = os.pread(self._file.number, len(buffer), self._at)
        # Checked after the read: a descriptor that is ours now was ours when it was read.
        if self._file.status() is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()


class LineFile:
    """Appends lines, one system call each, and records why a write failed.

    After a crash of the process everything written is there: the kernel has it. A crash of the machine may
    lose the last seconds, since nothing is synced: that would cost milliseconds per line, and keep a disk
    from sleeping.

    Not thread-safe: the caller holds a lock.

    Args:
        path: the file.
        monotonic: clock for retries after a disk failure.
        before_again: called before a deleted file is created again; may raise an OSError.
        write: the system call.

    Attributes:
        path: the file.
        size: its size in bytes.
        failed: why the disk is not in use; it is tried again after a minute.
        losses: how often others were found to have replaced or truncated the file: its contents may be gone,
            and earlier offsets are invalid.
        gains: how often others were found to have appended to the file.
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
        self._identity: tuple[int, int] | None = None  # of the file that the descriptor is, or was, open on
        self._torn = False

    def create(self) -> None:
        """Creates the file.

        Raises:
            OSError: it exists, or cannot be created.
        """
        self._take(OpenFile.to_append(self.path, create=True))

    def open(self) -> None:
        """Opens the file, which must exist.

        Raises:
            OSError: it does not exist, or cannot be written.
        """
        self._take(OpenFile.to_append(self.path))

    def ready(self) -> bool:
        """Makes sure that the next line goes to the end of this very file; returns whether it can."""
        if self.failed is not None and self.monotonic() < self._retry_at:
            return False
        try:
            self._look()
        except OSError as error:
            self._fail(error)
            return False
        return True

    def append(self, text: bytes) -> int | None:
        """Appends lines. The caller has just called `ready`, which returned True.

        Returns:
            The offset of the first line, or of the mark before it; None if not all of the text was written.
        """
        assert self._file is not None  # `ready` was called
        begin = self.size
        # The remains of a torn line become a line by themselves, marked as such.
        whole = TORN + b"\n" + text if self._torn else text
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
        """Empties the file, also on a full disk; returns whether it could."""
        try:
            self._look()
            assert self._file is not None
            os.ftruncate(self._file.number, 0)
        except OSError as error:
            self._fail(error)
            return False
        self.size, self._torn = 0, False
        return True

    def has_gained(self) -> bool:
        """Returns whether others have appended to the file since it was opened."""
        status = self.status()
        return self.gains > 0 or (status is not None and status.st_size > self.size)

    def reader(self) -> BinaryIO:
        """Opens the contents for reading, even if the file was moved.

        Raises:
            OSError: it cannot be read.
        """
        if self._file is None or self._file.status() is None:
            self._open_again()
        assert self._file is not None
        return self._file.reader(self.path)

    def replace_by(self, other: FreshFile) -> bool:
        """Puts another, complete file in this one's place; returns whether it could.

        Raises:
            OSError: the other one could not be written to disk.
        """
        size = other.size
        if os.name == "nt":  # where an open file cannot be replaced
            self.close()
        try:
            other.move_to(self.path)
        except OSError:
            return False
        self.close()
        self._file = other.finish()
        self._identity = self._file.identity
        self.size, self._torn = size, False
        return True

    def touch(self, seconds: float | None = None) -> None:
        """Sets the modification time, in seconds since 1970; by default to now."""
        if self._file is not None and self.status() is not None:
            with contextlib.suppress(OSError):
                target = self._file.number if os.utime in os.supports_fd else self.path
                os.utime(target, None if seconds is None else (seconds, seconds))

    def status(self) -> os.stat_result | None:
        """Returns the stat of the open file; None if it is not open."""
        return None if self._file is None else self._file.status()

    def close(self) -> None:
        """Closes the descriptor, also a forked child's copy."""
        # Dropped before closing: if the process forks in between, the child must not close a reused number.
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _look(self) -> None:
        """Checks what has become of the file since the last line.

        Raises:
            OSError: it cannot be written.
        """
        status = self.status()
        if status is None:
            self._open_again(create=True)
            return
        assert self._file is not None
        if status.st_nlink == 0:  # deleted: no process could read it later
            deleted, self._file = self._file, self._copy(self._file)
            self._identity = self._file.identity
            deleted.close()
        if status.st_size != self.size:
            self._measure(status.st_size)

    def _open_again(self, *, create: bool = False) -> None:
        """Opens the file again, after it could not be opened or others closed the descriptor."""
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
        self.losses += lost and size >= self.size  # `_measure` counts a smaller one
        self._measure(size)

    def _take(self, file: OpenFile) -> None:
        self._file, self._identity = file, file.identity
        self.size = 0
        self._measure(os.fstat(file.number).st_size)
        self.gains = 0

    def _measure(self, size: int) -> None:
        """Records a size other than the expected one."""
        assert self._file is not None
        if size != self.size:
            # The process that wrote it may have died within a line.
            self._torn = self._file.last_byte() not in {b"", b"\n"}
        self.losses += size < self.size
        self.gains += size > self.size
        self.size = size

    def _copy(self, deleted: OpenFile) -> OpenFile:
        """Creates a deleted file again with its whole contents, so that offsets stay valid."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._before_again()
        copy = OpenFile.to_append(self.path, create=True)
        try:
            with deleted.reader(self.path) as old, os.fdopen(os.dup(copy.number), "wb") as new:
                shutil.copyfileobj(old, new)
        except OSError:
            copy.close()
            self.path.unlink(missing_ok=True)
            raise
        return copy

    def _fail(self, error: OSError) -> None:
        self.failed = error.strerror or str(error)
        self._retry_at = self.monotonic() + _RETRY_SECONDS
