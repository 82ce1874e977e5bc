"""An open file in somebody else's process, where anybody may close its number and open another file with it.

Libraries that make a daemon of a process close every descriptor that they find (`os.closerange(3, 1000)`),
and a program may close a wrong one by mistake. Whoever opens a file next gets the number, and what we write
to it then is in that file.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from pathlib import Path
from typing import BinaryIO

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
    def to_append(cls, path: Path, *, make: bool = False) -> OpenFile:
        """Opens a file for reading and appending.

        Args:
            path: where it lies; a symbolic link is refused.
            make: makes it, for this user's eyes only.

        Raises:
            OSError: it cannot be opened; it exists although it was to be made.
        """
        return cls(os.open(path, _APPEND | (os.O_CREAT | os.O_EXCL if make else 0), _OWN_EYES_ONLY))

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
