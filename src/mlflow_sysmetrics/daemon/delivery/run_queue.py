"""Where points wait until the server has them.

A queue holds what one run is owed. Its points are numbered from 0 in the order in which it took them. They
wait in memory; where the memory of the process is used up, those that the journal holds wait on disk only and
are read back when their turn comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TypeGuard

from mlflow_sysmetrics.daemon.delivery.points import Batch, Buffered, Point, RunJournal, Spilled

POINTS_DROPPED = "sysmetrics.points_dropped"  #: tag: how many points of the run never reached the server
POINTS_REPLAYED = "sysmetrics.replayed"  #: tag: how many came from the journal of a process that had died


class RunQueue:
    """What one run is owed by the server. Only its sender touches it, under the sender's lock.

    Attributes:
        run_id: the run.
        started_at: milliseconds since 1970 when the run started, from which steps are counted; None until
            the server has been asked.
        send_interval: seconds between two sends.
        backing: its points on disk; None where there is no journal.
        replayed: whether it is what a process that died had owed; nobody waits for it.
        due_at: monotonic time of the next send; None while there is nothing to send.
        sent_at: monotonic time of the last send, at first of the first point.
        closed: no more points will come.
        failures: attempts in a row that the server did not take.
        refused: why the server takes nothing for this run; None while it does.
        set_aside: why its points stay on disk for another process to try; None while this one does.
        last_try: whether it is set aside at its first failure of any kind.
        appended: one more than the index of the newest point.
        settled: all points below this index are delivered or given up.
        dropped: points that were given up.
        foretold: how many of those will be missed on disk, and are counted already.
    """

    def __init__(
        self,
        run_id: str,
        started_at: int | None,
        send_interval: float,
        run_journal: RunJournal | None = None,
        *,
        replayed: bool = False,
    ) -> None:
        self.run_id = run_id
        self.started_at = started_at
        self.send_interval = send_interval
        self.run_journal = run_journal
        self.replayed = replayed
        self.due_at: float | None = None
        self.sent_at: float | None = None
        self.closed = False
        self.refused: str | None = None
        self.set_aside: str | None = None
        self.last_try = False
        self.failures = self.appended = self.acknowledged = self.dropped = self.already_counted = 0
        self.tags: dict[str, str] = {}
        self._stretches: deque[Buffered | Spilled] = deque()
        self._replayed = 0

    @property
    def empty(self) -> bool:
        """Whether the server is owed nothing."""
        return not self._stretches and not self.tags

    @property
    def waiting(self) -> int:
        """How many points wait."""
        return sum(stretch.until - stretch.first for stretch in self._stretches)

    @property
    def buffered(self) -> int:
        """How many of them are in memory."""
        return sum(len(one.points) for one in self._stretches if isinstance(one, Buffered))

    @property
    def unsaved(self) -> int:
        """How many of them are nowhere else."""
        return sum(len(one.points) for one in self._stretches if _is_unsaved(one))

    @property
    def spills(self) -> bool:
        """Whether the newest point is on disk only, and so must be those that the disk takes after it."""
        return bool(self._stretches) and isinstance(self._stretches[-1], Spilled)

    def buffer(self, points: Sequence[Point], place: int | None = None) -> None:
        """Puts points at the end, in memory.

        Args:
            points: the points.
            place: where they are on disk, too; None where they are not.
        """
        last = self._stretches[-1] if self._stretches else None
        if (
            isinstance(last, Buffered)
            and last.until == self.appended
            and _is_unsaved(last) == (place is None)
        ):
            last.points.extend(points)
        elif points:
            self._stretches.append(Buffered(self.appended, place, deque(points)))
        self.appended += len(points)

    def spill(self, count: int, place: int) -> None:
        """Puts points at the end that are on disk only, from a place on."""
        last = self._stretches[-1] if self._stretches else None
        if isinstance(last, Spilled) and last.until == self.appended:
            last.until += count
        else:
            self._stretches.append(Spilled(self.appended, self.appended + count, place))
        self.appended += count

    def first(self, most: int) -> Batch | Spilled:
        """Returns the oldest points without taking them out, or where on disk they are."""
        points: list[Point] = []
        until = self.acknowledged
        for stretch in self._stretches:
            if isinstance(stretch, Spilled):
                if not points:
                    return Spilled(stretch.first, stretch.until, stretch.place)
                break
            if len(points) == most or (points and stretch.first != until):
                break
            taken = list(islice(stretch.points, most - len(points)))
            points += taken
            until = stretch.first + len(taken)
        return Batch(points, until)

    def accept(self, batch: Batch, tags: dict[str, str]) -> None:
        """Takes out what was sent."""
        self._acknowledge_below(batch.until)
        front = self._stretches[0] if self._stretches else None
        if batch.place is not None and isinstance(front, Spilled) and front.first == batch.until:
            front.place = batch.place
        for key, value in tags.items():
            if self.tags.get(key) == value:
                del self.tags[key]

    def give_up(self) -> int:
        """Takes out everything and returns how many points that were."""
        given_up = self.waiting
        self._stretches.clear()
        self.acknowledged = self.appended
        self.tags.clear()
        self.dropped += given_up
        return given_up

    def leave_on_disk(self) -> None:
        """Lets go of all points in memory that are on disk, too."""
        self._stretches = deque(
            Spilled(one.first, one.until, one.place)
            if isinstance(one, Buffered) and one.place is not None
            else one
            for one in self._stretches
        )

    def drop_oldest(self, count: int) -> int:
        """Gives up the oldest points that are in memory only and returns how many."""
        stretch = next(one for one in self._stretches if _is_unsaved(one))
        count = min(count, len(stretch.points))
        for _ in range(count):
            stretch.points.popleft()
        stretch.first += count
        if not stretch.points:
            self._stretches.remove(stretch)
        self.acknowledged = self._stretches[0].first if self._stretches else self.appended
        self.count_dropped(count)
        return count

    def count_dropped(self, count: int) -> None:
        """Counts points that will not reach the server, and has the run say so."""
        already_counted = min(count, self.already_counted)
        self.already_counted -= already_counted
        if count > already_counted:
            self.dropped += count - already_counted
            self.tags[POINTS_DROPPED] = str(self.dropped)

    def count_delivered(self, count: int) -> None:
        """Counts points that the server took; the run says in the end how many were replayed."""
        if self.replayed:
            self._replayed += count
            if count and not self._stretches:
                self.tags[POINTS_REPLAYED] = str(self._replayed)

    def _acknowledge_below(self, index: int) -> None:
        while self._stretches and self._stretches[0].first < index:
            front = self._stretches[0]
            if front.until <= index:
                self._stretches.popleft()
            elif isinstance(front, Spilled):
                front.first = index
            else:
                while front.first < index:
                    front.points.popleft()
                    front.first += 1
        # Points between two stretches were dropped: they are settled with those before them.
        self.acknowledged = self._stretches[0].first if self._stretches else self.appended


def _is_unsaved(stretch: Buffered | Spilled) -> TypeGuard[Buffered]:
    return isinstance(stretch, Buffered) and stretch.place is None
