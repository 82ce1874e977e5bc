"""What follows from an attempt to deliver: what is settled, tried again, given up, and said."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mlflow_sysmetrics.daemon.delivery.limits import BatchSize, MemoryBudget
from mlflow_sysmetrics.daemon.delivery.points import Batch
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.schedule import SendSchedule
from mlflow_sysmetrics.daemon.delivery.sink import Connection
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

# FOLDED account: What one server has taken, and what it still is owed.


@dataclass(frozen=True, slots=True)
class Delivery:
    """Counts of one sender, since it began.

    Attributes:
        delivered: points that the server took.
        pending: points that wait.
        unsaved: how many of them are in memory only.
        dropped: points that were given up: refused by the server, or too many for memory or disk.
        last_error: why the last attempt failed, None when it did not.
    """

    delivered: int
    pending: int
    unsaved: int
    dropped: int
    last_error: str | None


@dataclass(slots=True)
class Account:
    """Counts of one sender, while they grow.

    Attributes:
        delivered: as in `Delivery`.
        pending: as there.
        dropped: as there.
        last_error: as there.
    """

    delivered: int = 0
    pending: int = 0
    dropped: int = 0
    last_error: str | None = None

    def settle(self, gone: int, lost: int) -> None:
        """Takes note of points that wait no more, and how many of them will not reach the server."""
        self.delivered += gone - lost
        self.dropped += lost
        self.pending -= gone

    def freeze(self, unsaved: int) -> Delivery:
        """Returns the counts so far."""
        return Delivery(self.delivered, self.pending, unsaved, self.dropped, self.last_error)


_REMEDY = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


class DeliveryPolicy:
    """Keeps outboxes, turns and counts of one server true. Only the sender calls it, under its lock.

    Args:
        server: where the attempts go.
        turns: the outboxes.
        allowance: of the memory of the process.

    Attributes:
        own: counts of the runs of this process.
        replayed: counts of what processes that died had left.
        size: how many points the server takes at once.
    """

    def __init__(self, server: Connection, turns: SendSchedule, allowance: MemoryBudget) -> None:
        self.own = Account()
        self.replayed = Account()
        self.size = BatchSize()
        self._server = server
        self._turns = turns
        self._allowance = allowance
        self._news: list[tuple[int, str]] = []

    def news(self) -> list[tuple[int, str]]:
        """Returns what is to be logged, with its level, each once; the thread does so without the lock."""
        news, self._news = self._news, []
        return news

    def account(self, outbox: RunQueue) -> Account:
        """Returns the counts that an outbox belongs to."""
        return self.replayed if outbox.replayed else self.own

    @property
    def has_news(self) -> bool:
        """Whether something is to be logged."""
        return bool(self._news)

    def delivered(self, outbox: RunQueue, batch: Batch, tags: dict[str, str], now: float) -> None:
        """Takes note of what the server took."""
        self.size.taken(len(batch.points))
        self._settle(outbox, batch, tags)
        if outbox.failures:
            self._say(outbox, logging.INFO, f"{self._server} takes points of run {outbox.run_id} again.")
        outbox.failures = 0
        self._turns.answered()
        self.account(outbox).last_error = None
        self._go_on(outbox, now, more=len(batch.points) >= self.size.most)

    def failed(
        self, outbox: RunQueue, batch: Batch, tags: dict[str, str], error: Exception, now: float
    ) -> None:
        """Decides what becomes of what the server did not take."""
        reason = self._server.reason(error)
        fault = error if isinstance(error, Fault) else None
        if fault is not None and fault.cause is Cause.TOO_LARGE:
            self._halve(outbox, batch, tags, reason)
            self._go_on(outbox, now, more=True)
        elif fault is not None and fault.refuses_run:
            outbox.refused = reason
            # Another store at the same address, or a mistake of its owner, must not cost what lies on disk.
            if outbox.replayed and not fault.run_is_deleted:
                self._set_aside(outbox, reason)
            else:
                self._give_up(outbox, reason)
        elif outbox.replayed and (outbox.last_try or (fault is not None and fault.refuses_credentials)):
            self._set_aside(outbox, reason)
        else:
            self._back_off(outbox, error, reason, now)

    def keep_within_bound(self) -> None:
        """Lets go of points while memory holds too many: first of those that are on disk, too."""
        if self._allowance.excess:
            for outbox in self._turns:
                held = outbox.held
                outbox.leave_on_disk()
                self._allowance.add(outbox.held - held)
        while self._allowance.excess:
            fullest = max(self._turns, key=lambda box: box.unsaved)
            if not fullest.unsaved:  # it is another server's points that fill the memory
                return
            dropped = fullest.drop_oldest(self._allowance.excess)
            if self.own.dropped == 0:
                message = f"{self._server} has been away for too long: dropping the oldest system metrics."
                self._say(fullest, logging.WARNING, message)
            self._allowance.add(-dropped)
            self.own.settle(dropped, dropped)

    def _settle(self, outbox: RunQueue, batch: Batch, tags: dict[str, str], *, given_up: int = 0) -> None:
        """Takes out what was sent.

        It is counted by what has gone, since the bound may have dropped some of it meanwhile.
        """
        waited, held = outbox.waiting, outbox.held
        outbox.settle(batch, tags)
        gone = waited - outbox.waiting
        lost = min(batch.lost + given_up, gone)
        outbox.count_dropped(lost)
        outbox.count_delivered(gone - lost)
        self._allowance.add(outbox.held - held)
        self.account(outbox).settle(gone, lost)

    def _go_on(self, outbox: RunQueue, now: float, *, more: bool) -> None:
        if outbox.empty:
            outbox.due_at = None  # whatever was hastened meanwhile is what has just arrived
        elif more or outbox.due_at is None:
            outbox.due_at = now  # the rest of a backlog
        self._turns.to_the_end(outbox)

    def _halve(self, outbox: RunQueue, batch: Batch, tags: dict[str, str], reason: str) -> None:
        """Has fewer points sent at once; what is too large by itself is given up."""
        if len(batch.points) > 1:
            self.size.refused(len(batch.points))
        elif tags:
            outbox.settle(Batch([], outbox.settled), tags)
            message = f"Run {outbox.run_id} does not take the tags {sorted(tags)}: {reason}."
            self._say(outbox, logging.WARNING, message)
        else:
            self.size.reset()
            self._settle(outbox, batch, {}, given_up=len(batch.points))
            if outbox.dropped == len(batch.points):
                key = batch.points[0].key
                self._say(outbox, logging.WARNING, f"Run {outbox.run_id} does not take {key}: {reason}.")

    def _back_off(self, outbox: RunQueue, error: Exception, reason: str, now: float) -> None:
        account = self.account(outbox)
        if account.last_error is None and not outbox.failures:
            remedy = f"; {_REMEDY}" if isinstance(error, Fault) and error.refuses_credentials else ""
            message = f"{self._server} does not take system metrics ({reason}); keeping them and trying again"
            if isinstance(error, JournalUnavailable):
                message = f"System metrics of run {outbox.run_id} wait on disk, and {reason}; trying again"
            self._say(outbox, logging.WARNING, f"{message}{remedy}.")
        account.last_error = reason
        self._turns.put_off(outbox, now, error)

    def _set_aside(self, outbox: RunQueue, reason: str) -> None:
        """Leaves what a process that died had owed where it lies, for another process to try."""
        outbox.set_aside = reason
        self.replayed.last_error = reason
        self.replayed.pending -= outbox.waiting
        self._turns.remove(outbox)
        if not outbox.failures:  # else it is said already
            message = f"{self._server} does not take what run {outbox.run_id} is owed ({reason}); keeping it."
            self._say(outbox, logging.INFO, message)

    def _give_up(self, outbox: RunQueue, reason: str) -> None:
        held, lost = outbox.held, outbox.give_up()
        self._allowance.add(-held)
        self.account(outbox).settle(lost, lost)
        self._turns.remove(outbox)
        message = f"Run {outbox.run_id} takes no system metrics any more: {reason}."
        self._say(outbox, logging.WARNING, message)

    def _say(self, outbox: RunQueue, level: int, message: str) -> None:
        """Has something logged; what processes that died had left is no trouble of this program."""
        level = min(level, logging.INFO) if outbox.replayed else level
        self._news.append((level, f"mlflow-sysmetrics: {message}"))
