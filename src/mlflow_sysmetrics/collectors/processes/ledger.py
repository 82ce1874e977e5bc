"""What a tree of processes has used of the CPU: every second once, however short its process lived.

Two counters tell it. A living process has the time of its own. A process that has been waited for has moved
its whole time, and what its own children had moved to it, into its parent's "time of children that have
ended" (cutime and cstime of times(2)). So what has grown is counted on both sides, and of the second what
was counted before, while the child lived, is owed back.

A child may vanish from sight a moment before its parent's counter is seen to have grown, so its debt stands
for two readings of that counter. What is unpaid then never will be paid: the child was adopted by another
process, or its parent ignores SIGCHLD, and then no counter gets its time.
"""

from __future__ import annotations

# Linux shows utime, stime, cutime and cstime in ticks of 10 ms, rounded down: a debt can stay unpaid by two
# ticks for no other reason. So much stands until it is paid, or each round-down would count twice.
_ROUNDING_SECONDS = 0.02


class Account:
    """What is known of one process.

    Attributes:
        parent: account of the process that will wait for it; None for the root of the tree.
        own: seconds of its own, as last counted.
        ended: seconds of its children that have ended, as last counted.
        fresh_debt: seconds counted of children that have vanished since `ended` was settled.
        stale_debt: such seconds that one settlement has not found paid.
        closed: the process is not in the tree any more.
    """

    __slots__ = ("closed", "ended", "fresh_debt", "own", "parent", "stale_debt")

    def __init__(self, parent: Account | None, own: float, ended: float) -> None:
        self.parent = parent
        self.own = own
        self.ended = ended
        self.fresh_debt = self.stale_debt = 0.0
        self.closed = False


class CpuLedger:
    """Adds up what the processes of a tree use.

    In each round the caller reads `ended` of parents before `own` of their children, and settles it after it
    has closed the accounts of those that have vanished.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

    def take(self) -> float:
        """Returns the seconds used since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def open(self, parent: Account | None, own: float, ended: float, *, born: bool) -> Account:
        """Begins to count a process.

        Args:
            parent: account of its parent.
            own: seconds of its own.
            ended: seconds of its children that have ended.
            born: it was born while its tree was watched, so that all it has used counts.
        """
        if born:
            self._seconds += own + ended
        return Account(parent, own, ended)

    def spend(self, account: Account, own: float) -> None:
        """Counts by what a process's own time has grown; a counter that goes back counts nothing."""
        if own > account.own:
            self._seconds += own - account.own
            account.own = own

    def settle(self, account: Account, ended: float) -> None:
        """Counts by what the time of a process's ended children has grown, less what is owed."""
        growth = max(ended - account.ended, 0.0)
        account.ended += growth
        debt = account.stale_debt + account.fresh_debt
        unpaid = max(debt - growth, 0.0)
        self._seconds += growth - (debt - unpaid)
        fresh = min(unpaid, account.fresh_debt)  # growth pays the oldest first
        account.stale_debt = fresh + min(unpaid - fresh, _ROUNDING_SECONDS)
        account.fresh_debt = 0.0

    def close(self, account: Account) -> None:
        """Ends the account of a process that has vanished: its parent's counter will get all its time."""
        self.release(account)
        heir = account.parent
        while heir is not None and heir.closed:
            heir = heir.parent
        if heir is not None:
            heir.fresh_debt += account.own + account.ended + account.stale_debt + account.fresh_debt

    def release(self, account: Account) -> None:
        """Ends the account of a process that lives on outside the tree: nobody here will get its time."""
        account.closed = True
