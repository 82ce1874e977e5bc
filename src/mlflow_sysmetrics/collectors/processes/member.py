"""One process of a tree on Linux: its identity, its CPU time, its memory, threads and open files."""

from __future__ import annotations

import os
from typing import NamedTuple

from mlflow_sysmetrics.collectors.processes.ledger import Account
from mlflow_sysmetrics.collectors.processes.stat import ProcessStat

_LOOKS = 3


class OpenFiles:
    """Counts open file descriptors.

    Since Linux 6.2 the size of /proc/<pid>/fd is their number, which takes 1 us to read. On older kernels, or
    if that number is wrong, the directory is listed. The check is repeated, since another thread may open a
    file in between.

    Args:
        own: directory of this process in /proc.
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
        """Returns the number for the process with this directory in /proc; None if it may not be read."""
        path = directory + "/fd"
        try:
            if self._sized:
                return os.stat(path).st_size
            count = len(os.listdir(path))
        except OSError:
            return None
        # This process's list contains the descriptor through which it is read.
        return max(count - 1, 0) if directory == self._own else count


class Holding(NamedTuple):
    """What a process holds: 1 if it is alive, resident bytes, threads, and open files if countable."""

    alive: int
    rss: int
    threads: int
    files: int | None


_make = tuple.__new__  # a third of the cost of calling the class
NOTHING = Holding(0, 0, 0, None)


class Member:
    """A process, identified by its id and start time.

    Attributes:
        pid: its id.
        start: its start time, in ticks since boot.
        parent: id of its parent.
        directory: its directory in /proc.
        account: its CPU time.
        holding: what it held when it was last read; nothing if it cannot be read.
    """

    __slots__ = ("account", "directory", "holding", "parent", "pid", "start")

    def __init__(self, stat: ProcessStat, directory: str, account: Account) -> None:
        self.pid = stat.pid
        self.start = stat.start
        self.parent = stat.parent
        self.directory = directory
        self.account = account
        self.holding = NOTHING

    def look(self, stat: ProcessStat, files: OpenFiles) -> None:
        """Records what it holds now. A zombie holds nothing."""
        if stat.alive:
            self.holding = _make(Holding, (1, stat.rss, stat.threads, files.count(self.directory)))
        else:
            self.holding = NOTHING


class Parting(NamedTuple):
    """A process that has left the tree.

    Attributes:
        member: the process.
        vanished: True if it has ended; False if it lives on, adopted by a process outside the tree.
    """

    member: Member
    vanished: bool
