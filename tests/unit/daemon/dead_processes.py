"""Journals left by dead processes, and a process that takes them over. Moved by hand."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from fakes import STARTED_AT, FakeClock, FakeSink
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.recovery import Recovery, Replayed, replay
from mlflow_sysmetrics.daemon.journal.spool import claim
from watching import eventually

URI = "http://server:5000"
MONTH = 31 * 86400


def die(
    directory: Path,
    *,
    runs: int = 1,
    ticks: int = 3,
    uri: str = URI,
    ended: bool = True,
    acknowledged: int = 0,
) -> Path:
    """Leaves the journal of a process that died, with ten points per tick and run."""
    journal = Journal.create(directory, 10**8)
    for run in range(runs):
        number = journal.register(f"run_{run}", uri, STARTED_AT)
        for tick in range(ticks):
            values = {f"system/s{n}": tick + n / 10 for n in range(10)}
            journal.append(number, tick * 10, STARTED_AT + tick * 1000, values)
        if acknowledged:
            journal.acknowledge(number, acknowledged)
        if ended:
            journal.end(number)
    journal.close(delete=False)
    return journal.path


def replayed(path: Path, sink: FakeSink, **options: float) -> Replayed:
    journal = claim(path)
    assert journal is not None
    return replay(journal, lambda _: sink, wait_seconds=options.get("wait_seconds", 0))


def let_a_month_pass(path: Path) -> None:
    """Dates a journal back by a month."""
    os.utime(path, (path.stat().st_mtime - MONTH,) * 2)


class RecoveringProcess:
    """The recovery of one process, with senders that the test moves by hand."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.sinks: dict[str, FakeSink] = {}
        self.senders: dict[str, Sender] = {}
        self.most_claimed = 0
        self.recovery = Recovery(lambda: directory, self.adopt, self.open, list)
        self.thread = threading.Thread(target=self.recovery.run, daemon=True)

    def open(self, uri: str) -> FakeSink:
        return self.sinks.setdefault(uri, FakeSink())

    def adopt(self, uri: str, queue: RunQueue) -> None:
        if uri not in self.senders:
            self.senders[uri] = Sender(uri, self.open, self.clock, jitter=lambda: 1.0)
        self.senders[uri].adopt(queue)

    def recover(self) -> None:
        """Delivers until the recovery thread has ended."""
        self.thread.start()
        self.deliver_until(lambda: not self.thread.is_alive())

    def deliver_until(self, holds: Callable[[], bool]) -> None:
        def delivered() -> bool:
            for sender in list(self.senders.values()):
                while sender.send_next():
                    self.most_claimed = max(self.most_claimed, len(self.recovery._claimed))
            return holds()

        eventually(delivered)
