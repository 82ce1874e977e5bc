"""How many files a process has open."""

from __future__ import annotations

import os

_LOOKS = 3


class OpenFiles:
    """Counts open file descriptors.

    Since Linux 6.2 the size of /proc/<pid>/fd is their number, which takes 1 us; before, and where that does
    not fit the truth, the directory is listed. Another thread may open a file between two looks,
    so there are a few.

    Args:
        own: directory of the own process in /proc.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._sized = False
        self._sized = any(self._is_size_true() for _ in range(_LOOKS))

    def _is_size_true(self) -> bool:
        listed = self.count(self._own)
        self._sized = True
        sized = self.count(self._own)
        self._sized = False
        return listed is not None and listed == sized

    def count(self, directory: str) -> int | None:
        """Returns how many a process has, by its directory in /proc; None where that may not be read."""
        path = directory + "/fd"
        try:
            if self._sized:
                return os.stat(path).st_size  # noqa: PTH116 - a third of what Path.stat costs
            count = len(os.listdir(path))  # noqa: PTH208 - no open iterator
        except OSError:
            return None
        # The own list contains the descriptor that it is read through.
        return max(count - 1, 0) if directory == self._own else count
