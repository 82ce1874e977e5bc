"""How threads of the program wait for delivery: bounded by the flush timeout, whatever the server does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.schedule import SendSchedule
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.native import TIMEOUT_MAX, Condition, Event

# The rest of the flush timeout is for the work around the wait, so that the whole stays below the timeout.
_FIRST_SHARE = 0.9
_LATER_SHARE = 0.5
_LONGEST_WAIT_SECONDS = TIMEOUT_MAX / 2  # its sum with the clock must stay below the maximum

Backlog: TypeAlias = dict[RunQueue, int]  #: how many points each queue had taken when the wait began


class Deadline(NamedTuple):
    """When a wait ends.

    Attributes:
        ends: monotonic time.
        full_timeout: waits until then even if an outage has used up the budget.
    """

    ends: float
    full_timeout: bool = False

    @classmethod
    def after(cls, timeout: float | None, flush_timeout: float, clock: Clock) -> Deadline:
        """Returns the deadline after a timeout in seconds from now; by default after the flush timeout."""
        seconds = max(flush_timeout if timeout is None else timeout, 0.0)
        ends = clock.monotonic() + min(seconds, _LONGEST_WAIT_SECONDS)
        return cls(ends, full_timeout=timeout is not None)


class OutageBudget:
    """Bounds all fruitless waits of one outage by one flush timeout, however many runs end in it.

    The first wait of an outage may take nine tenths of its timeout, each later one half of what is left then.
    Simultaneous waits of several threads count once. Any delivery ends the outage.
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
        """Records a wait, in monotonic seconds, that ended before the delivery."""
        self._spent += max(until - max(since, self._accounted_until), 0.0)
        self._accounted_until = max(until, self._accounted_until)

    def reset(self) -> None:
        """Records a delivery: the next outage has the whole budget."""
        self._spent = 0.0

    def wait_for(self, event: Event, deadline: Deadline, clock: Clock) -> bool:
        """Waits for an event within the budget; returns whether it happened."""
        began = clock.monotonic()
        timeout = max(deadline.ends - began, 0.0)
        happened = event.wait(timeout if deadline.full_timeout else self.seconds(timeout))
        if happened:
            self.reset()
        else:
            self.timed_out(began, clock.monotonic())
        return happened


class Flusher:
    """Makes queues due at once and waits until they are delivered.

    Args:
        changed: the sender's lock; notified at the end of each attempt.
        schedule: the queues.
        clock: the time source.
    """

    def __init__(self, changed: Condition, schedule: SendSchedule, clock: Clock) -> None:
        self._changed = changed
        self._schedule = schedule
        self._clock = clock
        self._budget = OutageBudget()

    def expedite(self, queues: Iterable[RunQueue] | None) -> Backlog:
        """Makes queues due now.

        Args:
            queues: the queues; None for those of all runs of this process.

        Returns:
            What is in them at this moment.
        """
        with self._changed:
            chosen = (queue for queue in self._schedule if not queue.replayed) if queues is None else queues
            backlog = {queue: queue.appended for queue in chosen if not queue.empty}
            if backlog:
                self._schedule.expedite(backlog, self._clock.monotonic())
                self._changed.notify_all()
            return backlog

    def wait(self, backlog: Backlog, deadline: Deadline) -> bool:
        """Waits until a backlog has been delivered or given up for good.

        Args:
            backlog: from `expedite`.
            deadline: when the wait ends at the latest.

        Returns:
            Whether nothing of the backlog is left.
        """
        began = self._clock.monotonic()
        ends = deadline.ends
        if not deadline.full_timeout:
            ends = began + self._budget.seconds(max(ends - began, 0.0))
        while True:
            with self._changed:
                if _is_done(backlog):
                    return True
                now = self._clock.monotonic()
                if now >= ends or self._schedule.next_attempt(backlog) > ends:
                    self._budget.timed_out(began, now)
                    return False
                changed = self._changed.next_change()
            changed.wait(ends - now)  # without the lock: other greenlets of this thread may need it

    def reset(self) -> None:
        """Records a delivery: the next outage has the whole budget. The caller holds the lock."""
        self._budget.reset()


def _is_done(backlog: Backlog) -> bool:
    return all(queue.acknowledged >= count and not queue.tags for queue, count in backlog.items())
