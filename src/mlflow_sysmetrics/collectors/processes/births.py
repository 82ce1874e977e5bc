"""Finds processes that have joined a tree, without reading every process of the host at every tick.

/proc/loadavg ends with the last assigned process id: while it does not change, no process was started. If it
does, the names in /proc are listed, and the stat of new ones is read. Children that start and end between two
listings are not lost: their time arrives through their parent.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection
from typing import NamedTuple

from mlflow_sysmetrics.collectors.processes.stat import ProcessStat, read_process_stat
from mlflow_sysmetrics.collectors.rhythm import Ration
from mlflow_sysmetrics.machine.host import Host

# LXCFS updates its own /proc/loadavg only every 5 s, so an unchanged id is not trusted for longer than this.
_LONGEST_REST_SECONDS = 60.0
_REST = 1000.0  # a host with thousands of processes takes milliseconds to list
_STATS_PER_SECOND = 200  # 10 us each, and another 10 us for one in the tree
_STATS_AT_FIRST = 1000  # once, so that all workers of a run that is attached late are found at once
_PID_LIMIT = 2**22  # PID_MAX_LIMIT of include/linux/threads.h


class Birth(NamedTuple):
    """A process that has joined the tree.

    Attributes:
        stat: its stat.
        watched: True if it was started while the tree was watched.
    """

    stat: ProcessStat
    watched: bool


class Births:
    """Remembers which processes it has looked at.

    Args:
        host: the machine to look at.
        own: id of the tree's root; ids assigned after it come first, since its children are among them.
    """

    def __init__(self, host: Host, own: int) -> None:
        self._host = host
        self._proc = str(host.root / "proc")
        self._loadavg = host.files.keep(str(host.root / "proc/loadavg"))
        self._own = own
        self._ration = Ration(_REST)
        self._listed_at = self._looked_at = math.inf
        self._last_id: bytes | None = None
        self._names: set[str] = set()
        self._pending: set[int] = set()
        self._waited: set[int] = set()
        self._before: set[int] = set()

    def first(self, tree: Collection[int]) -> list[Birth]:
        """Returns the processes that are already in the tree, parents before children."""
        self._last_id = self._read_last_id()
        self._list()
        self._before = set(self._pending)
        return self._look(tree, _STATS_AT_FIRST)

    def look_at_all(self) -> None:
        """Has every process looked at once more, because the tree has another root."""
        self._names = set()
        self._before = set()
        self._listed_at = -math.inf

    def is_impossible(self) -> bool:
        """True if this process has no children, so that nothing can have joined a tree of it alone."""
        return not self._pending and not self._host.may_have_children()

    def since(self, now: float, tree: Collection[int]) -> list[Birth]:
        """Returns the processes that have joined since the last call, parents before children.

        Args:
            now: seconds of a clock that never goes back.
            tree: ids of the processes in the tree.
        """
        due = self._due(now, tree)
        if not due and not self._pending:
            return []
        began = time.thread_time()
        if due:
            self._ration.begin(now)
            self._listed_at = now
            self._list()
        births = self._look(tree, self._most(now))
        self._ration.charge(time.thread_time() - began)
        return births

    def _most(self, now: float) -> int:
        """Returns how many processes may be read, by the time since the last look."""
        passed, self._looked_at = now - self._looked_at, now
        return int(min(max(passed, 1.0) * _STATS_PER_SECOND, _STATS_AT_FIRST))

    def again(self, pid: int) -> None:
        """Reads an id once more, because it was assigned to another process."""
        self._pending.add(pid)

    def _due(self, now: float, tree: Collection[int]) -> bool:
        if not self._ration.over(now):
            return False
        last_id = self._read_last_id()
        rested = now - self._listed_at
        if rested < 0:  # also at the first call: the first listing had no clock
            self._listed_at = now
        if last_id is not None and last_id == self._last_id and rested < _LONGEST_REST_SECONDS:
            return False
        self._last_id = last_id  # read before the listing, so that a process started meanwhile is not missed
        # On a host where others start processes all the time, most have no children.
        return len(tree) > 1 or self._host.may_have_children()

    def _read_last_id(self) -> bytes | None:
        """Returns the last assigned id; None if the file does not have it: gVisor always writes 0."""
        try:
            text = self._loadavg.read()
        except OSError:
            return None
        last_id = text[text.rfind(b" ") + 1 :].strip()
        return last_id if last_id.isdigit() and last_id != b"0" else None

    def _list(self) -> None:
        try:
            names = set(os.listdir(self._proc))
        except OSError:
            return
        self._pending.update(int(name) for name in names - self._names if name.isdecimal())
        self._pending.discard(self._own)
        self._names = names

    def _look(self, tree: Collection[int], most: int) -> list[Birth]:
        """Reads the stat of pending processes and returns those in the tree.

        A process whose parent was not read yet stays pending, but only once: a parent may be invisible.
        """
        chosen = sorted(self._pending, key=lambda pid: (pid - self._own) % _PID_LIMIT)[:most]
        self._pending.difference_update(chosen)
        stats = {}
        for pid in chosen:
            try:
                stats[pid] = read_process_stat(f"{self._proc}/{pid}")
            except (OSError, ValueError):
                self._before.discard(pid)  # it has ended, or is not visible to us
        joined: dict[int, ProcessStat] = {}
        while new := {
            pid: stat
            for pid, stat in stats.items()
            if pid not in joined and (stat.parent in tree or stat.parent in joined)
        }:
            joined.update(new)
        self._postpone({pid: stat.parent for pid, stat in stats.items() if pid not in joined})
        births = [Birth(stat, pid not in self._before) for pid, stat in joined.items()]
        self._before.intersection_update(self._pending)
        return births

    def _postpone(self, parents: dict[int, int]) -> None:
        waiting = {
            pid
            for pid, parent in parents.items()
            if parent in self._pending or (parent and str(parent) not in self._names)
        }
        self._pending |= waiting - self._waited
        self._waited = waiting
