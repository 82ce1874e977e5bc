"""Points, the batches they travel in, and the interface to their copies on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeGuard

from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.runs import RunState

_MOST_TRIES = 3  # a server that refuses such a tag must not be asked for ever
_MOST_OUTAGES = 10  # nor one that takes points and never says what a run has; that many take some minutes


class Point(NamedTuple):
    """One point of one series.

    Attributes:
        key: full metric key.
        value: finite for sampled points; the program's own points may also be NaN or infinite.
        timestamp: milliseconds since 1970.
        step: position on the step axis; None means whole seconds since the run started.
    """

    key: str
    value: float
    timestamp: int
    step: int | None = None


class RunJournal(Protocol):
    """The points of one run on disk. The sampler appends and ends; the sender reads and acknowledges."""

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Writes points to disk; returns where to read them from, None unless all of them were written."""

    def acknowledge(self, acknowledged: int) -> None:
        """Records that all points below an index were delivered or given up."""

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns (index, point) pairs from an index on, and the place to continue from.

        Raises:
            OSError: the disk does not answer.
        """

    def end(self) -> None:
        """Records that no more points will come."""


@dataclass(slots=True)
class Buffered:
    """Consecutive points in memory.

    Attributes:
        first: index of the oldest.
        place: where to read them from on disk, at the first point or before it; None if they are not on disk.
        points: the points.
    """

    first: int
    place: int | None
    points: deque[Point]

    @property
    def until(self) -> int:
        """One more than the index of the newest."""
        return self.first + len(self.points)

    def drop(self, count: int) -> None:
        """Removes the oldest."""
        for _ in range(count):
            self.points.popleft()
        self.first += count


@dataclass(slots=True)
class Spilled:
    """Consecutive points that are on disk only.

    Attributes:
        first: index of the oldest.
        until: one more than the index of the newest.
        place: where to read them from.
    """

    first: int
    until: int
    place: int


def is_unsaved(stretch: Buffered | Spilled) -> TypeGuard[Buffered]:
    """Returns whether points are in memory only."""
    return isinstance(stretch, Buffered) and stretch.place is None


class Batch(NamedTuple):
    """The points of one request.

    Attributes:
        points: the points.
        until: one more than the highest index that is acknowledged once the batch is delivered.
        indices: the indices of the points, if they are not consecutive.
        place: where the points after the batch begin on disk; None for points from memory.
        lost: number of points in the batch's range that are no longer on disk.
    """

    points: list[Point]
    until: int
    indices: list[int] | None = None
    place: int | None = None
    lost: int = 0

    def shortened(self, count: int) -> Batch:
        """Returns the batch cut to its oldest `count` points."""
        if count >= len(self.points):
            return self
        if self.indices is None:
            return self._replace(points=self.points[:count], until=self.until - len(self.points) + count)
        until = self.indices[count]
        lost = self.lost - (self.until - until - (len(self.points) - count))
        # Without a place the queue keeps the old one; the next read skips what is acknowledged.
        return Batch(self.points[:count], until, self.indices[:count], None, max(lost, 0))


def read_back(run_journal: RunJournal, spilled: Spilled, most: int) -> Batch:
    """Returns the oldest of the points that are on disk only.

    Raises:
        OSError: the disk does not answer.
    """
    found, place = run_journal.read(spilled.first, spilled.place, most)
    inside = [(index, point) for index, point in found if index < spilled.until]
    # Indices that are missing were thinned out. If no point is left, the whole range was.
    until = inside[-1][0] + 1 if inside else spilled.until
    points = [point for _, point in inside]
    next_place = place if len(inside) == len(found) else None  # points after these were read, too
    lost = until - spilled.first - len(points)
    return Batch(points, until, [index for index, _ in inside], next_place, lost).shortened(most)


class LateTags:
    """Makes tags of the state of a run, again at each attempt to send them.

    Args:
        make: returns the tags; called by the sender.

    Attributes:
        is_over: whether they are sent if this attempt is accepted, or were given up.
    """

    def __init__(self, make: Callable[[RunState], dict[str, str]]) -> None:
        self.is_over = False
        self._make = make
        self._tries = self._outages = 0

    def made_for(self, state: Callable[[], RunState]) -> dict[str, str]:
        """Returns the tags; none if the server does not say what the run has, or has refused them before.

        Args:
            state: asks the server.

        Raises:
            Fault: the server does not answer at present, so that nothing can be sent either.
        """
        self.is_over = True
        if self._tries >= _MOST_TRIES or self._outages >= _MOST_OUTAGES:
            return {}
        try:
            found = state()
        except Fault as fault:
            if not fault.may_pass:
                return {}
            self._outages += 1
            self.is_over = False
            raise
        self._tries += 1
        return self._make(found)
