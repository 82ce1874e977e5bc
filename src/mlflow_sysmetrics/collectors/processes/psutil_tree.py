"""The processes below this one, as psutil shows them: their CPU time and what they hold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psutil

from mlflow_sysmetrics.collectors.processes.ledger import Account, CpuLedger
from mlflow_sysmetrics.collectors.processes.member import NOTHING, Holding
from mlflow_sysmetrics.collectors.rhythm import Pause, Ration
from mlflow_sysmetrics.machine.host import JOB_SCOPE, JobScope

_LISTING_SECONDS = 3.0
_LISTING_REST = 1000.0  # psutil looks up the parent of every process of the host: at most 0.1 % of a core


class Child:
    """A descendant, identified by its id and start time.

    Attributes:
        process: psutil's object; kept, since `psutil.Process.children` makes new ones at each call.
        account: its CPU time.
        holding: what it holds; nothing if it may not be read.
    """

    __slots__ = ("account", "holding", "process")

    def __init__(self, process: psutil.Process, account: Account) -> None:
        self.process = process
        self.account = account
        self.holding = NOTHING


class PsutilTree:
    """Follows this process and all its descendants, and the other processes of its job with theirs.

    Args:
        job: which processes these are.

    Raises:
        psutil.Error: this process cannot be read.
        OSError: the same.
    """

    def __init__(self, job: JobScope = JOB_SCOPE) -> None:
        self._job = job
        self._pause = Pause(_LISTING_SECONDS)
        self._ration = Ration(_LISTING_REST)
        self._ledger = CpuLedger()
        self._own = psutil.Process()
        self._account = self._ledger.open(None, *_times(self._own), born=False)
        self._holding = _hold(self._own)
        self._children: dict[tuple[int, float], Child] = {}
        self._list(born=False)

    def processes(self) -> list[psutil.Process]:
        """Returns all processes, this one first."""
        return [self._own, *(child.process for child in self._children.values())]

    def holdings(self) -> list[Holding]:
        """Returns what each process holds, this one first."""
        return [self._holding, *(child.holding for child in self._children.values())]

    def look(self, now: float) -> float:
        """Reads the tree again and returns the CPU seconds that it has used since the last reading.

        Args:
            now: seconds of a clock that never goes back.

        Raises:
            psutil.Error: this process cannot be read.
            OSError: the same.
        """
        self._ledger.begin(now)
        # Order matters: the time of a parent's ended children first, then which children are alive
        # (`CpuLedger`).
        own, ended = _times(self._own)
        self._ledger.spend(self._account, own)
        self._holding = _hold(self._own)
        if self._ration.over(now) and self._pause.renew_if_over(now):
            self._ration.begin(now)
            began = time.thread_time()
            self._list(born=True)
            self._ration.charge(time.thread_time() - began)
        settlements = [(self._account, ended)]
        for identity, child in list(self._children.items()):
            child.holding = NOTHING
            try:
                own, ended = _times(child.process)
                self._ledger.spend(child.account, own)
                settlements.append((child.account, ended))
                child.holding = _hold(child.process)
            except (psutil.ZombieProcess, psutil.AccessDenied, OSError):
                pass  # a zombie, or not visible to us
            except psutil.NoSuchProcess:
                self._ledger.close(self._children.pop(identity).account)
        for account, seconds in settlements:
            if not account.closed:
                self._ledger.settle(account, seconds)
        return self._ledger.take()

    def _list(self, *, born: bool) -> None:
        """Adds new children, parents before their children, and drops those that have left.

        Args:
            born: True if new children were started since the last listing.
        """
        try:
            children = {(one.pid, one.create_time()): one for one in self._others()}
        except (psutil.Error, OSError):
            return
        for identity in self._children.keys() - children.keys():
            child = self._children.pop(identity)
            # A child that is still running was adopted by a process outside the tree.
            (self._ledger.release if child.process.is_running() else self._ledger.close)(child.account)
        accounts = {self._own.pid: self._account}
        accounts.update((pid, child.account) for (pid, _), child in self._children.items())
        for identity, process in children.items():
            if identity not in self._children:
                self._take_in(identity, process, accounts, born=born)

    def _others(self) -> Iterator[psutil.Process]:
        yield from self._own.children(recursive=True)
        for pid in self._job.roots:
            if pid != self._own.pid:
                with contextlib.suppress(psutil.NoSuchProcess):
                    root = psutil.Process(pid)
                    yield from (root, *root.children(recursive=True))

    def _take_in(
        self,
        identity: tuple[int, float],
        process: psutil.Process,
        accounts: dict[int, Account],
        *,
        born: bool,
    ) -> None:
        try:
            parent = accounts.get(process.ppid(), self._account)
            account = self._ledger.open(parent, *_times(process), born=born)
        except (psutil.Error, OSError):
            return
        self._children[identity] = Child(process, account)
        accounts[process.pid] = account


def _times(process: psutil.Process) -> tuple[float, float]:
    """Returns a process's own CPU time and that of its ended children, which only Linux provides."""
    times = process.cpu_times()
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return times.user + times.system, ended


def _hold(process: psutil.Process) -> Holding:
    with process.oneshot():
        if process.status() == psutil.STATUS_ZOMBIE:
            return NOTHING
        files = (
            process.num_fds() if hasattr(process, "num_fds") else None
        )  # Windows counts handles, not files
        return Holding(1, process.memory_info().rss, process.num_threads(), files)
