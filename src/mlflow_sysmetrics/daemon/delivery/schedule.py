"""The order in which the queues of one server are sent.

After a failure the server is left alone by all runs for a while. Points of processes that died are less
urgent and have a separate pause: their failures must not delay the live runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.runtime.backoff import Backoff, pause_seconds


class SendSchedule:
    """The queues that have, or may get, something to send. Used by the sender only, under its lock.

    Args:
        jitter: returns a factor around 1 for the pauses of the back-off.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._queues: dict[RunQueue, None] = {}  # ordered: the first is the next to be sent
        self._jitter = jitter
        self._pause = Backoff(jitter)
        self._pause_of_replayed = Backoff(jitter)
        self._answers = 0

    def __iter__(self) -> Iterator[RunQueue]:
        return iter(self._queues)

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def is_failing(self) -> bool:
        """Whether the server has not taken the last points of the live runs."""
        return self._pause.has_failed

    def add(self, queue: RunQueue) -> None:
        """Adds a queue."""
        self._queues.setdefault(queue, None)

    def remove(self, queue: RunQueue) -> None:
        """Removes a queue."""
        self._queues.pop(queue, None)

    def rotate(self, queue: RunQueue) -> None:
        """Moves a queue behind the others; removes it if it is closed and empty."""
        self._queues.pop(queue, None)
        if not (queue.closed and queue.empty):
            self._queues[queue] = None

    def expedite(self, queues: Iterable[RunQueue], now: float) -> None:
        """Makes queues due now, because a caller waits for them."""
        for queue in queues:
            queue.make_due(now)
        self._pause.shorten(now)

    def back_off(self, queue: RunQueue, now: float, error: Exception) -> None:
        """Delays a queue and its server after a failed attempt; the other queues come first."""
        # The server pauses for all runs; a single failing run backs off on its own.
        has_served_others = queue.failures > 0 and self._answers > queue.answers_at_failure
        if isinstance(error, Fault) and error.concerns_server and not has_served_others:
            (self._pause_of_replayed if queue.replayed else self._pause).failed(now, error)
        queue.give_back(now + pause_seconds(queue.failures, error, self._jitter), self._answers)
        self.rotate(queue)

    def answered(self) -> None:
        """Ends the pauses: the server has answered."""
        self._answers += 1
        self._pause.reset()
        self._pause_of_replayed.reset()

    def next_due(self, now: float) -> RunQueue | None:
        """Returns the queue to send now, live runs before those of dead processes; None if none is due."""
        if now < self._pause.until:
            return None
        replayed = now >= self._pause_of_replayed.until
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
        """Returns the monotonic time of the next send; infinity if none is planned."""
        due = [
            max(queue.due_at, self._pause_of_replayed.until) if queue.replayed else queue.due_at
            for queue in self._queues
            if queue.due_at is not None
        ]
        return max(min(due), self._pause.until) if due else math.inf

    def next_attempt(self, queues: Iterable[RunQueue]) -> float:
        """Returns the earliest monotonic time at which one of these queues may be sent."""
        # A queue that is not empty and has no due time is being sent.
        due = [-math.inf if queue.due_at is None else queue.due_at for queue in queues if not queue.empty]
        return max(min(due, default=-math.inf), self._pause.until)
