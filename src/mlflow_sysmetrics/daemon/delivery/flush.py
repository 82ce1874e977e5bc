"""How threads of the user's wait for delivery: no longer than was promised, whatever the server does."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TypeAlias

from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.schedule import SendSchedule
from mlflow_sysmetrics.runtime.clock import Clock

# FOLDED patience: How long a program may be held up by a server that does not answer.

# What is left of the flush timeout goes to the work around the waiting, so that the whole stays below it.
_FIRST_SHARE = 0.9
_LATER_SHARE = 0.5


class OutageBudget:
    """Bounds the waiting in vain of a whole outage by one flush timeout, however many runs end in it.

    The first wait of an outage may take nine tenths of its timeout; each later one half of what is then left.
    Waits in several threads at once count once. Any delivery ends the outage.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._accounted_until = float("-inf")

    def seconds(self, timeout: float) -> float:
        """Returns how long a wait with that timeout may last."""
        if self._spent == 0:
            return timeout * _FIRST_SHARE
        return max(timeout - self._spent, 0.0) * _LATER_SHARE

    def timed_out(self, since: float, until: float) -> None:
        """Takes note of a wait, in monotonic seconds, that ended without the delivery it waited for."""
        self._spent += max(until - max(since, self._accounted_until), 0.0)
        self._accounted_until = max(until, self._accounted_until)

    def reset(self) -> None:
        """Takes note of a delivery."""
        self._spent = 0.0


Backlog: TypeAlias = dict[RunQueue, int]  #: how many points each queue had taken when the debt was counted


class Flusher:
    """Makes what somebody waits for due, and has them wait for it.

    Args:
        changed: the sender's lock; notified whenever an attempt has come to its end.
        turns: the queues.
        clock: tells the time.
    """

    def __init__(self, changed: threading.Condition, schedule: SendSchedule, clock: Clock) -> None:
        self._changed = changed
        self._schedule = schedule
        self._clock = clock
        self._budget = OutageBudget()

    def expedite(self, queues: Iterable[RunQueue] | None) -> Backlog:
        """Makes what the queues hold due now.

        Args:
            queues: what to send; None for those of all runs of this process.

        Returns:
            What is owed at this moment.
        """
        with self._changed:
            chosen = (queue for queue in self._schedule if not queue.replayed) if queues is None else queues
            backlog = {queue: queue.appended for queue in chosen if not queue.empty}
            if backlog:
                self._schedule.expedite(backlog, self._clock.monotonic())
                self._changed.notify_all()
            return backlog

    def wait(self, backlog: Backlog, ends: float, *, full_timeout: bool) -> bool:
        """Waits until a debt is settled: delivered, or given up for good.

        Args:
            debt: what `hasten` returned.
            ends: monotonic time at which the wait ends at the latest.
            patient: waits until then even where an outage has used up the program's patience.

        Returns:
            Whether the debt is settled.
        """
        with self._changed:
            began = self._clock.monotonic()
            if not full_timeout:
                ends = began + self._budget.seconds(max(ends - began, 0.0))
            while not _acknowledged(backlog):
                now = self._clock.monotonic()
                if now >= ends or self._schedule.next_attempt(backlog) > ends:
                    self._budget.timed_out(began, now)
                    return False
                self._changed.wait(ends - now)
            return True

    def reset(self) -> None:
        """Takes note of a delivery: the next outage is waited for anew. Under the lock."""
        self._budget.reset()


def _acknowledged(backlog: Backlog) -> bool:
    return all(queue.acknowledged >= count and not queue.tags for queue, count in backlog.items())
