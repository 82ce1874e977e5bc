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

# Linux reports utime, stime, cutime and cstime in ticks of 10 ms, rounded down, so two ticks of a debt may
# remain for that reason alone. That much is kept until it is settled, or each rounding error would count
# twice.
_ROUNDING_SECONDS = 0.02


class Account:
    """What is known about one process.

    Attributes:
        parent: account of the process that will wait for it; None for the root of the tree.
        own: its own seconds, as last counted.
        ended: seconds of its children that have ended, as last counted.
        fresh_debt: counted seconds of children that have vanished since `ended` was settled.
        stale_debt: such seconds that remained after one settlement.
        closed: True if the process has left the tree.
    """

    __slots__ = ("closed", "ended", "fresh_debt", "own", "parent", "stale_debt")

    def __init__(self, parent: Account | None, own: float, ended: float) -> None:
        self.parent = parent
        self.own = own
        self.ended = ended
        self.fresh_debt = self.stale_debt = 0.0
        self.closed = False


class CpuLedger:
    """Adds up the CPU time of the processes of a tree.

    In each round the caller reads `ended` of parents before `own` of their children, and settles it after
    closing the accounts of processes that have vanished.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

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
        """Counts the growth of a process's own time; a counter that goes back counts nothing."""
        if own > account.own:
            self._seconds += own - account.own
            account.own = own

    def settle(self, account: Account, ended: float) -> None:
        """Counts the growth of the time of a process's ended children, minus its debt."""
        growth = max(ended - account.ended, 0.0)
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
