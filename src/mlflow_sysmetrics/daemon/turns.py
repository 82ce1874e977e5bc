"""Whose turn it is: the outboxes of one server, each due about one send interval after its last send."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mlflow_sysmetrics.daemon.outbox import Outbox

_TOLERANCE = 0.05  # share of a send interval by which a send may be early or late


class Turns:
    """Holds the outboxes that are owed something or may be. Only the sender touches it, under its lock."""

    def __init__(self) -> None:
        self._outboxes: dict[Outbox, None] = {}  # ordered: the first is the next in turn

    def __iter__(self) -> Iterator[Outbox]:
        return iter(self._outboxes)

    def __len__(self) -> int:
        return len(self._outboxes)

    def add(self, outbox: Outbox) -> None:
        """Lets an outbox take part."""
        self._outboxes.setdefault(outbox, None)

    def remove(self, outbox: Outbox) -> None:
        """Lets go of an outbox."""
        self._outboxes.pop(outbox, None)

    def to_the_end(self, outbox: Outbox) -> None:
        """Puts an outbox that had its turn behind the others; one that is done for good is let go."""
        self._outboxes.pop(outbox, None)
        if not (outbox.closed and outbox.empty):
            self._outboxes[outbox] = None

    def schedule(self, outbox: Outbox, now: float) -> float | None:
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

    def next_due(self, now: float) -> Outbox | None:
        """Returns the outbox whose turn it is; those of runs that live come before what others left."""
        due = (box for box in self._outboxes if box.due_at is not None and box.due_at <= now)
        left_behind = None
        for outbox in due:
            if not outbox.replayed:
                return outbox
            left_behind = left_behind or outbox
        return left_behind

    def next_due_at(self) -> float:
        """Returns when the next one is due; infinity while none is."""
        return min((box.due_at for box in self._outboxes if box.due_at is not None), default=math.inf)
