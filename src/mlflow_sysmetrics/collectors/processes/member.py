"""One process of a tree on Linux: its identity, its CPU time, and what it holds."""

from __future__ import annotations

from typing import NamedTuple

from mlflow_sysmetrics.collectors.processes.ledger import Account
from mlflow_sysmetrics.collectors.processes.open_files import OpenFiles
from mlflow_sysmetrics.collectors.processes.stat import ProcessStat


class Holding(NamedTuple):
    """What a process holds: itself, resident bytes, threads, and open files where they can be counted."""

    alive: int
    rss: int
    threads: int
    files: int | None


NOTHING = Holding(0, 0, 0, None)


class Member:
    """A process, known by its id and the moment of its birth.

    Attributes:
        pid: its id.
        start: ticks since boot at which it was born.
        parent: id of its parent.
        directory: where it lies in /proc.
        account: its CPU time.
        holding: what it held when it was last looked at; nothing where it cannot be read.
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
        """Notes what it holds now. One that has ended and waits to be waited for holds nothing."""
        if stat.alive:
            self.holding = Holding(1, stat.rss, stat.threads, files.count(self.directory))
        else:
            self.holding = NOTHING


class Parting(NamedTuple):
    """A process that is in the tree no more.

    Attributes:
        member: which one.
        vanished: it has ended; else it lives on, adopted by a process outside the tree.
    """

    member: Member
    vanished: bool
