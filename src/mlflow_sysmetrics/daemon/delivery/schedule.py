"""Whose turn it is: the outboxes of one server, each due about one send interval after its last send.

After a failure the server is left alone for a while, by everybody; what processes that died had left is less
urgent than that, and has a rest of its own: its troubles are not those of the runs that live.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.runtime.backoff import Backoff, pause_seconds

_TOLERANCE = 0.05  # share of a send interval by which a send may be early or late


class SendSchedule:
    """Holds the outboxes that are owed something or may be. Only the sender touches it, under its lock.

    Args:
        jitter: returns a factor around 1 for the pauses of the back-off.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._outboxes: dict[RunQueue, None] = {}  # ordered: the first is the next in turn
        self._jitter = jitter
        self._rest = Backoff(jitter)
        self._rest_of_replayed = Backoff(jitter)

    def __iter__(self) -> Iterator[RunQueue]:
        return iter(self._outboxes)

    def __len__(self) -> int:
        return len(self._outboxes)

    def add(self, outbox: RunQueue) -> None:
        """Lets an outbox take part."""
        self._outboxes.setdefault(outbox, None)

    def remove(self, outbox: RunQueue) -> None:
        """Lets go of an outbox."""
        self._outboxes.pop(outbox, None)

    def to_the_end(self, outbox: RunQueue) -> None:
        """Puts an outbox that had its turn behind the others; one that is done for good is let go."""
        self._outboxes.pop(outbox, None)
        if not (outbox.closed and outbox.empty):
            self._outboxes[outbox] = None

    def schedule(self, outbox: RunQueue, now: float) -> float | None:
        """Makes an outbox due about one send interval after its last send.

        A little earlier when a point comes in then, and else a little later: so the point of a window that
        closes just when the send is due travels with it, and not one interval later.

        Returns:
            When it is due, if that is sooner than it was.
        """
        if outbox.sent_at is None:
            outbox.sent_at = now
        early = outbox.sent_at + (1 - _TOLERANCE) * outbox.send_interval
        late = outbox.sent_at + (1 + _TOLERANCE) * outbox.send_interval
        due_at = now if now >= early else late
        if outbox.due_at is not None and outbox.due_at <= due_at:
            return None
        outbox.due_at = due_at
        return due_at

    def hasten(self, outboxes: Iterable[RunQueue], now: float) -> None:
        """Makes outboxes due now, for somebody who waits."""
        for outbox in outboxes:
            outbox.due_at = now
        self._rest.shorten(now)

    def put_off(self, outbox: RunQueue, now: float, error: Exception) -> None:
        """Lets an outbox and the server rest after an attempt that failed; the others come first."""
        # The server rests for everybody; a run that it alone chokes on rests longer and longer by itself.
        if not isinstance(error, JournalUnavailable):  # which is a disk of ours
            (self._rest_of_replayed if outbox.replayed else self._rest).failed(now, error)
        outbox.due_at = now + pause_seconds(outbox.failures, error, self._jitter)
        outbox.failures += 1
        self.to_the_end(outbox)

    def answered(self) -> None:
        """Ends the rest of the server, which has answered."""
        self._rest.reset()
        self._rest_of_replayed.reset()

    def next_due(self, now: float) -> RunQueue | None:
        """Returns the outbox whose turn it is; those of runs that live come before what others left."""
        if now < self._rest.until:
            return None
        replayed = now >= self._rest_of_replayed.until
        left_behind = None
        for outbox in self._outboxes:
            if outbox.due_at is None or outbox.due_at > now:
                continue
            if not outbox.replayed:
                return outbox
            if replayed:
                left_behind = left_behind or outbox
        return left_behind

    def next_due_at(self) -> float:
        """Returns when the next one is due; infinity while none is."""
        due = [
            max(box.due_at, self._rest_of_replayed.until) if box.replayed else box.due_at
            for box in self._outboxes
            if box.due_at is not None
        ]
        return max(min(due), self._rest.until) if due else math.inf

    def next_attempt(self, outboxes: Iterable[RunQueue]) -> float:
        """Returns when one of these may be sent at the earliest."""
        # No time at all means that it is under way.
        due = [-math.inf if box.due_at is None else box.due_at for box in outboxes if not box.empty]
        return max(min(due, default=-math.inf), self._rest.until)
