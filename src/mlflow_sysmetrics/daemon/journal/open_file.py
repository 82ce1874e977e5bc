"""Files that are used by their descriptor: no link is followed, nothing is opened twice by name.

They are open in a foreign process, where any code may close a descriptor. Libraries that daemonize a process
close every descriptor they find (`os.closerange(3, 1000)`), and a program may close a wrong one by mistake.
The next file to be opened gets the number, and our writes would end up in that file. So the identity of a
file is checked at each use. And they are in a directory in which others may be able to write, so what is
opened is checked to be a regular file with a single name.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from mlflow_sysmetrics.daemon.journal.lines import lines

_OWN_EYES_ONLY = 0o600
# Windows has none of these flags and needs none.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO would wait for its other end
_SAFE = _NOFOLLOW | _BINARY | _NONBLOCK
_APPEND = os.O_RDWR | os.O_APPEND | _SAFE
_BUFFER = 1 << 16  # each read checks the identity of the file
_HELD = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})  # by another process


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


class FileLock:
    """A lock of this process, which the kernel releases when it dies.

    Args:
        descriptor: of the lock's file.
        library: the lock of filelock; None if it is an flock, which belongs to the open file.

    Attributes:
        descriptor: as above; None after `disown`.
    """

    def __init__(self, descriptor: int | None, library: Any = None) -> None:
        self.descriptor = descriptor
        self._library = library

    def release(self) -> None:
        """Releases it; raises an OSError if its descriptor was closed by somebody else."""
        descriptor, self.descriptor = self.descriptor, None
        if self._library is not None:
            self._library.release(force=True)
        elif descriptor is not None:
            os.close(descriptor)

    def disown(self) -> None:
        """Forgets the descriptor without closing it: it is another file by now, or a forked child's copy."""
        self.descriptor = None
        context = getattr(self._library, "_context", None)  # filelock has no public name for it
        if context is not None and getattr(context, "lock_file_fd", None) is not None:
            context.lock_file_fd = None


def acquire_lock(path: Path) -> FileLock | None:
    """Takes a lock without waiting; returns None if another process holds it.

    Raises:
        OSError: it cannot be tried, or the filesystem has no locks.
    """
    if os.name == "nt":
        return _lock_of_library(path)
    # Not by filelock, which takes 0.8 MB of memory and 15 ms to import, for these four lines.
    import fcntl

    number = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, _OWN_EYES_ONLY)
    try:
        check_file(os.fstat(number))
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(number)
        if isinstance(error, OSError) and error.errno in _HELD:
            return None
        raise
    return FileLock(number)


def _lock_of_library(path: Path) -> FileLock | None:
    import filelock

    # Any thread may release a lock that another one has taken. A lock that only consists of an existing file
    # would outlive its owner.
    wanted: dict[str, Any] = {"timeout": 0, "thread_local": False, "mode": _OWN_EYES_ONLY}
    if "fallback_to_soft" in inspect.signature(filelock.FileLock.__init__).parameters:  # from 3.21 on
        wanted["fallback_to_soft"] = False
    lock = filelock.FileLock(path, **wanted)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    context = getattr(lock, "_context", None)
    return FileLock(getattr(context, "lock_file_fd", None), lock)


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


class NewFile:
    """A new file, readable by this user only, in place of an older one; used by its descriptor.

    Args:
        path: its name, for whoever renames it.

    Attributes:
        path: its name.
        file: the open file.

    Raises:
        OSError: it cannot be created.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.path = path
        self._given_away = False
        self._open(create=True)

    @property
    def size(self) -> int:
        """Size in bytes."""
        self._writer.flush()
        return os.fstat(self._writer.fileno()).st_size

    def write(self, text: bytes) -> None:
        """Appends to it."""
        self._writer.write(text)

    def copy_lines(self, source: BinaryIO, begin: int, end: int) -> None:
        """Appends the lines between two offsets of another file."""
        source.seek(begin)
        for text in lines(source, end - begin):
            self._writer.write(text)
        self._writer.flush()

    def reader(self) -> BinaryIO:
        """Opens its contents for reading."""
        self._writer.flush()
        return self.file.reader(self.path)

    def move_to(self, path: Path) -> None:
        """Puts it in the place of another file, which must be closed on Windows."""
        self._writer.flush()
        if os.name == "nt":  # where an open file cannot be renamed either
            self.close()
        self.path.replace(path)
        self.path = path
        if os.name == "nt":
            self._open()

    def finish(self) -> OpenFile:
        """Writes what is buffered, and returns the open file, which the caller closes."""
        self._writer.close()
        self._given_away = True
        return self.file

    def close(self) -> None:
        """Closes it, unless `finish` has given the open file away."""
        with contextlib.suppress(OSError):
            self._writer.close()
        if not self._given_away:
            self.file.close()

    def _open(self, *, create: bool = False) -> None:
        self.file = OpenFile.to_append(self.path, create=create)
        self._writer = os.fdopen(os.dup(self.file.number), "ab")
