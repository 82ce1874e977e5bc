"""What is sent: points, in memory or on disk, and the batches they travel in."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Point(NamedTuple):
    """One point of one series.

    Attributes:
        key: full key.
        value: what a program says of itself may be no number, or infinite; what is sampled is finite.
        timestamp: milliseconds since 1970.
        step: where on its axis it belongs; None for whole seconds since the run started.
    """

    key: str
    value: float
    timestamp: int
    step: int | None = None


class RunJournal(Protocol):
    """Where the points of one run lie on disk. The sampler appends, the sender does the rest."""

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Puts points on disk; returns the place to read them from, None where not all of them are there."""

    def acknowledge(self, acknowledged: int) -> None:
        """Says that all points below an index are delivered or given up."""

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns points from an index on, with their indices, and the place to go on from.

        Raises:
            OSError: the disk does not answer.
        """

    def end(self) -> None:
        """Says that no more points will come."""


@dataclass(slots=True)
class Buffered:
    """Consecutive points in memory.

    Attributes:
        first: index of the oldest.
        place: where to read them from on disk, at the first or before it; None where they are not there.
        points: the points.
    """

    first: int
    place: int | None
    points: deque[Point]

    @property
    def until(self) -> int:
        """One more than the index of the newest."""
        return self.first + len(self.points)


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


class Batch(NamedTuple):
    """What is sent at once.

    Attributes:
        points: the points.
        settles: one more than the highest index that is settled with them.
        indices: those of the points, where they are not consecutive.
        place: where on disk those after them begin; None for points from memory.
        lost: how many points between them are not on disk any more.
    """

    points: list[Point]
    until: int
    indices: list[int] | None = None
    place: int | None = None
    lost: int = 0

    def shortened(self, count: int) -> Batch:
        """Returns the oldest points of it only."""
        if count >= len(self.points):
            return self
        if self.indices is None:
            return self._replace(points=self.points[:count], until=self.until - len(self.points) + count)
        until = self.indices[count]
        lost = self.lost - (self.until - until - (len(self.points) - count))
        # The place stays where it was read from: the next read skips what is settled.
        return Batch(self.points[:count], until, self.indices[:count], None, max(lost, 0))


def read_back(run_journal: RunJournal, spilled: Spilled, most: int) -> Batch:
    """Returns the oldest points of a stretch that is on disk only.

    Raises:
        OSError: the disk does not answer.
    """
    found, place = run_journal.read(spilled.first, spilled.place, most)
    inside = [(index, point) for index, point in found if index < spilled.until]
    # What is missing was thinned: between the points, or all that is left.
    until = inside[-1][0] + 1 if inside else spilled.until
    points = [point for _, point in inside]
    lost = until - spilled.first - len(points)
    return Batch(points, until, [index for index, _ in inside], place, lost).shortened(most)
