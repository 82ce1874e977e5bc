"""CPU time of a process tree: every second counts once, however short-lived its process.

There are two counters. A living process has its own time. A process that has been waited for has moved its
whole time, including its children's, to its parent's "time of children that have ended" (cutime and cstime of
times(2)). The growth of both counts, but time that was counted while the child lived is subtracted from the
second one.

A child may disappear a moment before its parent's counter grows, so its counted time stays as a debt for two
readings of that counter. A debt that is not settled by then never will be: the child was adopted by another
process, or its parent ignores SIGCHLD, and no counter receives its time.
"""

from __future__ import annotations

import math
import os

# Linux reports utime, stime, cutime and cstime in ticks of 10 ms, rounded down, so two ticks of a debt may
# remain for that reason alone. That much is kept until it is settled, or each rounding error would count
# twice.
_ROUNDING_SECONDS = 0.02
# A reading beyond what the CPUs can deliver is garbage, and far beyond: processes may be read late.
_SLACK_SECONDS = 60.0
_CPUS = os.cpu_count() or 8192
_MOST_SECONDS = 1e12  # of children, which may have run for a machine's whole life


class Account:
    """What is known about one process.

    Attributes:
        parent: account of the process that will wait for it; None for the root of the tree.
        own: its own seconds, as last counted.
        ended: seconds of its children that have ended, as last counted.
        fresh_debt: counted seconds of children that have vanished since `ended` was settled.
        stale_debt: such seconds that remained after one settlement.
        closed: True if the process has left the tree.
        doubted: its own seconds at a reading that is not believed yet; None if there is none.
    """

    __slots__ = ("closed", "doubted", "ended", "fresh_debt", "own", "parent", "stale_debt")

    def __init__(self, parent: Account | None, own: float, ended: float) -> None:
        self.parent = parent
        self.own = own
        self.ended = ended
        self.fresh_debt = self.stale_debt = 0.0
        self.closed = False
        self.doubted: float | None = None


class CpuLedger:
    """Adds up the CPU time of the processes of a tree.

    In each round the caller reads `ended` of parents before `own` of their children, and settles it after
    closing the accounts of processes that have vanished.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._began = math.inf
        self._most = math.inf

    def begin(self, now: float) -> None:
        """Begins a round, and limits what a process can have used since the one before.

        Args:
            now: seconds of a clock that never goes back.
        """
        passed, self._began = max(now - self._began, 0.0), now
        self._most = (passed + _SLACK_SECONDS) * _CPUS

    def only(self, account: Account, now: float, own: float, ended: float) -> float | None:
        """Does a whole round for a tree of one process, of which nothing is owed or doubted.

        Args:
            account: of that process.
            now: seconds of a clock that never goes back.
            own: its own seconds.
            ended: seconds of its children that have ended.

        Returns:
            The seconds used since the last call of `take` or of this; None, and nothing is done, if the round
            has to be done step by step.
        """
        growth = own - account.own
        passed = now - self._began
        if ended != account.ended or account.fresh_debt or account.stale_debt or account.doubted is not None:
            return None
        if self._seconds or not 0 <= growth <= _SLACK_SECONDS or passed < 0:
            return None
        self._began = now
        account.own = own
        return growth

    def take(self) -> float:
        """Returns the seconds used since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def open(self, parent: Account | None, own: float, ended: float, *, born: bool) -> Account:
        """Starts to count a process.

        Args:
            parent: account of its parent.
            own: its own seconds.
            ended: seconds of its children that have ended.
            born: True if it was started while its tree was watched, so that all its time counts.
        """
        if born:
            self._seconds += own + ended
        return Account(parent, own, ended)

    def spend(self, account: Account, own: float) -> None:
        """Counts the growth of a process's own time.

        A counter that goes back counts nothing; one that leaps beyond what the machine can deliver counts
        from there, if the next reading confirms it.
        """
        growth = own - account.own
        if 0 < growth <= self._most:
            self._seconds += growth
            account.own = own
            account.doubted = None
        elif growth > 0:
            before, account.doubted = account.doubted, own
            if before is not None and 0 <= own - before <= self._most:
                self._seconds += own - before
                account.own = own
                account.doubted = None

    def settle(self, account: Account, ended: float) -> None:
        """Counts the growth of the time of a process's ended children, minus its debt."""
        growth = max(ended - account.ended, 0.0)
        if growth > _MOST_SECONDS:
            return
        account.ended += growth
        debt = account.stale_debt + account.fresh_debt
        unpaid = max(debt - growth, 0.0)
        self._seconds += growth - (debt - unpaid)
        fresh = min(unpaid, account.fresh_debt)  # growth settles the oldest debt first
        account.stale_debt = fresh + min(unpaid - fresh, _ROUNDING_SECONDS)
        account.fresh_debt = 0.0

    def close(self, account: Account) -> None:
        """Closes the account of a process that has vanished: its parent's counter receives its time."""
        self.release(account)
        heir = account.parent
        while heir is not None and heir.closed:
            heir = heir.parent
        if heir is not None:
            heir.fresh_debt += account.own + account.ended + account.stale_debt + account.fresh_debt

    def release(self, account: Account) -> None:
        """Closes the account of a process that lives on outside the tree: no account receives its time."""
        account.closed = True
