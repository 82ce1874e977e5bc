"""What is sent, and where it waits until the server has it.

An outbox holds what one run is owed, in memory and within a bound that all runs of a server share. The
journal on disk is to take this place: it keeps the same promises over the death of the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple


class Point(NamedTuple):
    """One point of one series: full key, value, milliseconds since 1970."""

    key: str
    value: float
    timestamp: int


class Outbox:
    """What one run is owed by the server. Only its sender touches it, under the sender's lock.

    Attributes:
        run_id: the run.
        started_at: milliseconds since 1970 when the run started, from which steps are counted; None until
            the server has been asked.
        send_interval: seconds between two sends.
        due_at: monotonic time of the next send; None while there is nothing to send.
        sent_at: monotonic time of the last send, at first of the first point.
        closed: no more points will come.
        failures: attempts in a row that the server did not take.
        refused: why the server takes nothing for this run; None while it does.
    """

    def __init__(self, run_id: str, started_at: int | None, send_interval: float) -> None:
        self.run_id = run_id
        self.started_at = started_at
        self.send_interval = send_interval
        self.due_at: float | None = None
        self.sent_at: float | None = None
        self.closed = False
        self.refused: str | None = None
        self.failures = 0
        self.appended = 0
        self.settled = 0  # delivered or given up, in the order in which they were appended
        self.points: deque[Point] = deque()
        self.tags: dict[str, str] = {}

    @property
    def empty(self) -> bool:
        """Whether the server is owed nothing."""
        return not self.points and not self.tags

    def append(self, points: Iterable[Point], tags: dict[str, str]) -> int:
        """Puts points and tags at the end and returns how many points there were."""
        before = len(self.points)
        self.points.extend(points)
        self.tags.update(tags)
        added = len(self.points) - before
        self.appended += added
        return added

    def first(self, count: int) -> list[Point]:
        """Returns the oldest points without taking them out."""
        return list(islice(self.points, count))

    def settle(self, points: int, tags: dict[str, str]) -> int:
        """Takes out the oldest points and the tags that were sent; returns how many points those were."""
        points = min(points, len(self.points))
        for _ in range(points):
            self.points.popleft()
        self.settled += points
        for key, value in tags.items():
            if self.tags.get(key) == value:
                del self.tags[key]
        return points
