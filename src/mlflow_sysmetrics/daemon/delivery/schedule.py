"""Whose turn it is: the queues of one server, each due about one send interval after its last send.

After a failure the server is left alone for a while, by everybody; what processes that died had left is less
urgent than that, and has a rest of its own: its troubles are not those of the runs that live.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.runtime.backoff import Rest, pause_seconds

_TOLERANCE = 0.05  # share of a send interval by which a send may be early or late


class SendSchedule:
    """Holds the queues that are owed something or may be. Only the sender touches it, under its lock.

    Args:
        jitter: returns a factor around 1 for the pauses of the back-off.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._queues: dict[RunQueue, None] = {}  # ordered: the first is the next in turn
        self._jitter = jitter
        self._rest = Rest(jitter)
        self._rest_of_replayed = Rest(jitter)

    def __iter__(self) -> Iterator[RunQueue]:
        return iter(self._queues)

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, queue: RunQueue) -> None:
        """Lets a queue take part."""
        self._queues.setdefault(queue, None)

    def remove(self, queue: RunQueue) -> None:
        """Lets go of a queue."""
        self._queues.pop(queue, None)

    def rotate(self, queue: RunQueue) -> None:
        """Puts a queue that had its turn behind the others; one that is done for good is let go."""
        self._queues.pop(queue, None)
        if not (queue.closed and queue.empty):
            self._queues[queue] = None

    def plan(self, queue: RunQueue, now: float) -> float | None:
        """Makes a queue due about one send interval after its last send.

        A little earlier when a point comes in then, and else a little later: so the point of a window that
        closes just when the send is due travels with it, and not one interval later.

        Returns:
            When it is due, if that is sooner than it was.
        """
        if queue.sent_at is None:
            queue.sent_at = now
        early = queue.sent_at + (1 - _TOLERANCE) * queue.send_interval
        late = queue.sent_at + (1 + _TOLERANCE) * queue.send_interval
        due_at = now if now >= early else late
        if queue.due_at is not None and queue.due_at <= due_at:
            return None
        queue.due_at = due_at
        return due_at

    def expedite(self, queues: Iterable[RunQueue], now: float) -> None:
        """Makes queues due now, for somebody who waits."""
        for queue in queues:
            queue.due_at = now
        self._rest.shorten(now)

    def back_off(self, queue: RunQueue, now: float, error: Exception) -> None:
        """Lets a queue and the server rest after an attempt that failed; the others come first."""
        # The server rests for everybody; a run that it alone chokes on rests longer and longer by itself.
        if not isinstance(error, JournalUnavailable):  # which is a disk of ours
            (self._rest_of_replayed if queue.replayed else self._rest).failed(now, error)
        queue.due_at = now + pause_seconds(queue.failures, error, self._jitter)
        queue.failures += 1
        self.rotate(queue)

    def answered(self) -> None:
        """Ends the rest of the server, which has answered."""
        self._rest.end()
        self._rest_of_replayed.end()

    def next_due(self, now: float) -> RunQueue | None:
        """Returns the queue whose turn it is; those of runs that live come before what others left."""
        if now < self._rest.until:
            return None
        replayed = now >= self._rest_of_replayed.until
        left_behind = None
        for queue in self._queues:
            if queue.due_at is None or queue.due_at > now:
                continue
            if not queue.replayed:
                return queue
            if replayed:
                left_behind = left_behind or queue
        return left_behind

    def next_due_at(self) -> float:
        """Returns when the next one is due; infinity while none is."""
        due = [
            max(queue.due_at, self._rest_of_replayed.until) if queue.replayed else queue.due_at
            for queue in self._queues
            if queue.due_at is not None
        ]
        return max(min(due), self._rest.until) if due else math.inf

    def next_attempt(self, queues: Iterable[RunQueue]) -> float:
        """Returns when one of these may be sent at the earliest."""
        # No time at all means that it is under way.
        due = [-math.inf if queue.due_at is None else queue.due_at for queue in queues if not queue.empty]
        return max(min(due, default=-math.inf), self._rest.until)
