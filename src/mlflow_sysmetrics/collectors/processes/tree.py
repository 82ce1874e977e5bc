"""The processes below this one on Linux: their CPU time and what they hold."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from mlflow_sysmetrics.collectors.processes.births import Birth, Births
from mlflow_sysmetrics.collectors.processes.ledger import Account, CpuLedger
from mlflow_sysmetrics.collectors.processes.member import NOTHING, Holding, Member, OpenFiles, Parting
from mlflow_sysmetrics.collectors.processes.stat import (
    CSTIME,
    CUTIME,
    FIELDS,
    PAGE_BYTES,
    RSS,
    THREADS,
    ProcessStat,
    parsed_stat,
    read_process_stat,
)
from mlflow_sysmetrics.collectors.rhythm import SLOW_SECONDS, Pause
from mlflow_sysmetrics.machine.host import Host

# The CPU clock of each child is read at every tick (0.3 us), its stat and files in turn (8 us).
_READ_PER_TICK = 25
_SECONDS_PER_TICK = 250e-6  # fewer are read if their files must be listed
# The stat and the CPU clock report the same time, except for two ticks of rounding.
_CLOCK_AGREES_SECONDS = 0.1
_make = tuple.__new__  # a third of the cost of calling the class


class ProcessTree:
    """Follows this process and all its descendants, or those processes of a job that `Host.job` has.

    Args:
        host: the machine to look at.

    Attributes:
        own: this process; the root, unless the job has others.

    Raises:
        OSError: this process cannot be read.
        ValueError: its stat is invalid.
    """

    def __init__(self, host: Host) -> None:
        self._proc = str(host.root / "proc")
        directory = self._proc + "/self"
        stat = read_process_stat(directory)
        self._clock = _trusted(host.process_seconds, stat.pid, directory)
        self._files = OpenFiles(directory)
        self._alone: _Alone | None = None
        self._rest = Pause(SLOW_SECONDS, read=False)  # of this process's open files
        self._stat = host.files.keep(directory + "/stat")
        self._sizes = host.files.keep(directory + "/statm")
        self._ledger = CpuLedger()
        self.own = Member(stat, directory, self._ledger.open(None, self._used(stat), stat.ended, born=False))
        self._members = {stat.pid: self.own}
        self._queue: deque[Member] = deque()
        self._births = Births(host, stat.pid)
        self._job = host.job
        self._version = 0 if host.job.roots else host.job.version  # of the job that is this process
        self._roots = {stat.pid}
        self._own_counts = True
        self._admit(self._births.first(self._members))

    def members(self) -> list[Member]:
        """Returns all processes, this one first if it is one of the job's."""
        return [one for one in self._members.values() if self._own_counts or one is not self.own]

    @property
    def roots(self) -> int:
        """Number of living processes that belong to the tree by themselves, not by their parent."""
        if len(self._roots) == 1:
            return 1
        return sum(1 for pid in self._roots if pid in self._members)

    def resident_alone(self, now: float) -> int | None:
        """Returns the resident bytes of this process if it is alone, and nothing else is due; else None."""
        if self._alone is None or now >= self._rest.over_at or self._job.version != self._version:
            return None
        try:
            return int(self._sizes.read().split(None, 2)[1]) * PAGE_BYTES
        except (OSError, ValueError, IndexError):  # the stat has it, too
            return None

    def look_at_own(self, now: float) -> float | None:
        """Does the same as `look` for this process, if it is alone, as most are; else returns None.

        Its open files are counted every 5 s.
        """
        alone, clock, own = self._alone, self._clock, self.own
        if alone is None or clock is None or now >= self._rest.over_at or self._job.version != self._version:
            return None
        if not self._births.is_impossible():
            return None
        found = alone.parse(self._stat.read())
        if found is None:
            return None
        try:
            seconds = self._ledger.only(own.account, now, clock(own.pid), alone.ended)
        except OSError:  # `look` does without the clock
            return None
        if seconds is not None:
            rss, threads = found
            own.holding = _make(Holding, (1, rss, threads, own.holding[3]))
        return seconds

    def look(self, now: float) -> float:
        """Reads the tree again and returns the CPU seconds that it has used since the last reading.

        Args:
            now: seconds of a clock that never goes back.

        Raises:
            OSError: this process cannot be read.
            ValueError: its stat is invalid.
        """
        # Order matters: the time of a parent's ended children first, then which children are alive
        # (`CpuLedger`).
        self._alone = None
        text = self._stat.read()
        stat = parsed_stat(self._stat.path, text)
        used = self._used(stat)
        self._rest.renew_if_over(now)
        self.own.look(stat, self._files)
        if self._job.version != self._version:
            self._take_roots()
        if (
            len(self._members) == 1 and self._own_counts and not self._queue and self._births.is_impossible()
        ):  # as most processes
            self._alone = _Alone(text, stat.ended)
            seconds = self._ledger.only(self.own.account, now, used, stat.ended)
            if seconds is not None:
                return seconds
        self._ledger.begin(now)
        births = self._births.since(now, self._members)
        ended = []
        if self._own_counts:
            self._ledger.spend(self.own.account, used)
            ended.append((self.own.account, stat.ended))
        self._admit(births)
        parted = self._read_in_turn(ended, _READ_PER_TICK - len(births))
        if self._clock is not None:
            parted += self._read_clocks(self._clock)
        self._dismiss(parted)
        for account, seconds in ended:
            if not account.closed:
                self._ledger.settle(account, seconds)
        return self._ledger.take()

    def _take_roots(self) -> None:
        """Follows the processes that the job has now; those that it has no more leave when they are read."""
        self._version = self._job.version
        self._roots = set(self._job.roots) or {self.own.pid}
        for pid in self._roots - self._members.keys():
            directory = f"{self._proc}/{pid}"
            try:
                stat = read_process_stat(directory)
            except (OSError, ValueError):  # it has ended, or is not visible to us
                continue
            account = self._ledger.open(None, self._used(stat), stat.ended, born=False)
            self._members[pid] = member = Member(stat, directory, account)
            member.look(stat, self._files)
            self._queue.append(member)
        self._own_counts = self.own.pid in self._roots or self.own.parent in self._members
        self._births.look_at_all()

    def _used(self, stat: ProcessStat) -> float:
        """Returns a process's own CPU time, exact if the kernel has the clock."""
        if self._clock is not None:
            try:
                return self._clock(stat.pid)
            except OSError:  # it has ended since its stat was read
                pass
        return stat.own

    def _read_in_turn(self, ended: list[tuple[Account, float]], most: int) -> list[Parting]:
        """Reads the stat of some members, of all if there is no clock; returns those that have left."""
        parted: list[Parting] = []
        began = time.thread_time()
        for turn in range(len(self._queue)):
            if self._clock is not None and (
                turn >= most or (turn and time.thread_time() - began > _SECONDS_PER_TICK)
            ):
                break
            member = self._queue.popleft()
            if self._members.get(member.pid) is not member:
                continue
            self._queue.append(member)
            stat = self._reread(member, parted)
            if stat is not None:
                ended.append((member.account, stat.ended))
                if self._clock is None:
                    self._ledger.spend(member.account, stat.own)
        return parted

    def _read_clocks(self, clock: Callable[[int], float]) -> list[Parting]:
        """Reads the CPU time of every member; returns those that have ended."""
        parted: list[Parting] = []
        for pid, member in self._members.items():
            if member is self.own:
                continue
            try:
                seconds = clock(pid)
            except OSError:
                parted.append(Parting(member, vanished=True))
                continue
            if seconds > member.account.own:
                self._ledger.spend(member.account, seconds)
            elif seconds < member.account.own:  # the id was assigned to another process
                self._births.again(pid)
                parted.append(Parting(member, vanished=True))
        return parted

    def _reread(self, member: Member, parted: list[Parting]) -> ProcessStat | None:
        """Reads what a member holds, and checks that it is the same process and still in the tree."""
        try:
            stat = read_process_stat(member.directory)
        except (OSError, ValueError) as error:
            member.holding = NOTHING
            # With a clock, the clock decides: /proc may hide a process that changed its user.
            if self._clock is None and isinstance(error, FileNotFoundError | ProcessLookupError):
                parted.append(Parting(member, vanished=True))
            return None
        if stat.start != member.start:
            self._births.again(member.pid)
            parted.append(Parting(member, vanished=True))
            return None
        parent = self._members.get(stat.parent)
        if parent is not None:
            member.parent, member.account.parent = parent.pid, parent.account
        elif member.pid not in self._roots:
            parted.append(Parting(member, vanished=False))
            return None
        member.look(stat, self._files)
        return stat

    def _admit(self, births: list[Birth]) -> None:
        for stat, watched in births:
            if stat.pid in self._members:  # it has become a root meanwhile
                continue
            parent = self._members[stat.parent]
            account = self._ledger.open(parent.account, self._used(stat), stat.ended, born=watched)
            member = Member(stat, f"{self._proc}/{stat.pid}", account)
            member.look(stat, self._files)
            self._members[stat.pid] = member
            self._queue.append(member)

    def _dismiss(self, parted: list[Parting]) -> None:
        """Removes members, and those of their children that have left the tree with them."""
        while parted:
            gone = set()
            for member, vanished in parted:
                if self._members.get(member.pid) is member:
                    del self._members[member.pid]
                    gone.add(member.pid)
                    (self._ledger.close if vanished else self._ledger.release)(member.account)
            parted = []
            for orphan in [member for member in self._members.values() if member.parent in gone]:
                self._reread(orphan, parted)


class _Alone:
    """Finds what changes in the stat of a process that has no children.

    Args:
        text: one of its stats.
        ended: CPU time of its children that have ended, in seconds, in that stat.
    """

    __slots__ = ("_at", "_command", "_ended", "ended")

    def __init__(self, text: bytes, ended: float) -> None:
        self.ended = ended
        self._command = text[: text.rfind(b")") + 2]
        self._at = len(self._command.split())  # the command may have spaces
        self._ended = text.split()[self._at + CUTIME : self._at + CSTIME + 1]

    def parse(self, text: bytes) -> tuple[int, int] | None:
        """Returns resident bytes and the number of threads; None if anything else is new, or wrong."""
        at = self._at
        fields = text.split(None, at + FIELDS - 1)
        if not text.startswith(self._command) or len(fields) < at + FIELDS:
            return None
        if fields[at + CUTIME : at + CSTIME + 1] != self._ended:
            return None
        try:
            rss, threads = int(fields[at + RSS]) * PAGE_BYTES, int(fields[at + THREADS])
        except ValueError:
            return None
        return (rss, threads) if rss >= 0 < threads else None


def _trusted(clock: Callable[[int], float], pid: int, directory: str) -> Callable[[int], float] | None:
    """Returns the CPU clock if it works here and agrees with /proc, else None."""
    try:
        before, own, after = clock(pid), read_process_stat(directory).own, clock(pid)
    except OSError:
        return None
    agrees = before - _CLOCK_AGREES_SECONDS < own < after + _CLOCK_AGREES_SECONDS
    return clock if agrees else None
