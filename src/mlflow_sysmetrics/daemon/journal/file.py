"""A file that only grows by whole lines, on a disk that may fail.

It is open in a foreign process, where any code may close its descriptor, or truncate, move or delete it. So
what has become of it is checked at each use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mlflow_sysmetrics.daemon.journal.lines import TORN
from mlflow_sysmetrics.daemon.journal.open_file import NewFile, OpenFile
from mlflow_sysmetrics.daemon.journal.ownership import remove_leftovers

_RETRY_SECONDS = 60.0  # a full disk is rarely emptied sooner, and each try costs a few system calls


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
        self._user = 0  # the owner, on systems that have one

    def create(self) -> None:
        """Creates the file.

        Raises:
            OSError: it exists, or cannot be created.
        """
        self._take(self._create())

    def open(self) -> None:
        """Opens the file, which must exist.

        Raises:
            OSError: it does not exist, or cannot be written.
        """
        file = OpenFile.to_append(self.path)
        self._user = os.fstat(file.number).st_uid
        self._take(file)

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

    def replace_by(self, other: NewFile) -> bool:
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
        self._user = os.fstat(self._file.number).st_uid
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
            file = self._create()
        status = os.fstat(file.number)
        if status.st_uid != self._user:  # others may be able to write in the directory
            file.close()
            raise OSError(None, f"the journal was replaced by a file of user {status.st_uid}")
        lost = self._identity not in {None, file.identity}
        size = status.st_size
        self._file, self._identity = file, file.identity
        self.losses += lost and size >= self.size  # `_measure` counts a smaller one
        self._measure(size)

    def _create(self) -> OpenFile:
        file = OpenFile.to_append(self.path, create=True)
        self._user = os.fstat(file.number).st_uid
        return file

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
        copy = self._create()
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


def delete_journal(journal: Path, *, set_aside: bool) -> Path | None:
    """Deletes a journal, or sets it aside instead and returns where."""
    remove_leftovers(journal)
    with contextlib.suppress(OSError):
        if set_aside:
            from mlflow_sysmetrics.daemon.journal.set_aside import rename  # rarely needed

            return rename(journal)
        journal.unlink(missing_ok=True)
    return None
