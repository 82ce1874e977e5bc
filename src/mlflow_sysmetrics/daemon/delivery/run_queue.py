"""The queue of one run: points wait here until the server has them.

Points are numbered from 0 in the order in which they arrive. They wait in memory. When the memory budget of
the process is used up, points that are in the journal wait on disk only and are read back when they are sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mlflow_sysmetrics.daemon.delivery.limits import SendInterval
from mlflow_sysmetrics.daemon.delivery.points import Batch, Buffered, Point, RunJournal, Spilled, is_unsaved
from mlflow_sysmetrics.daemon.journal.scan import JournaledRun

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.delivery.bisection import Bisection
    from mlflow_sysmetrics.daemon.delivery.points import LateTags

POINTS_DROPPED = (
    "sysmetrics.points_dropped"  #: tag: number of points of the run that never reached the server
)
POINTS_REPLAYED = "sysmetrics.replayed"  #: tag: number of points delivered from the journal of a dead process

_MOST_QUESTIONS = 3  # a server that shows no run to this program must not cost a request per send


class RunQueue:
    """Undelivered points and tags of one run. Used by its sender only, under the sender's lock.

    A send is a transaction: `take` returns what to send, and the outcome is one of `accept`, `give_back`,
    `discard` or `resume`. Other modules may read the attributes, but change them only through the methods.

    Attributes:
        run_id: the run.
        started_at: milliseconds since 1970 when the run started, from which steps are counted; None until
            the server has been asked.
        run_journal: the points on disk; None without a journal.
        replayed: the points were left behind by a process that died; no caller waits for them.
        due_at: monotonic time of the next send; None while there is nothing to send, or a send is under way.
        closed: no more points will come.
        failures: number of consecutive failed attempts.
        refused: why the server rejects this run for good; None if it does not.
        set_aside: why the points stay on disk for another process to deliver; None if this process tries.
        last_try: whether the queue is set aside at its next failure, whatever the reason.
        appended: one more than the index of the newest point.
        acknowledged: all points below this index were delivered or given up.
        dropped: number of points given up.
        already_counted: how many of `dropped` will be missing on disk; they are not counted again on
            read-back.
        tags: tags to set on the run.
        bisection: the search for points that the server refuses; None if there is none.
        refusals: number of points that the server refused one by one.
        refusals_in_a_row: how many of these since the server took a point.
        refusal: why it refused the last of them.
        answers_at_failure: how many sends, of all runs, the server had accepted when the last one failed.
        wants_host_tags: whether the server is to be asked if the run lacks host tags.
        late_tags: make tags of what the run has at the moment of the send; None if there are none.
    """

    def __init__(
        self,
        run_id: str,
        started_at: int | None,
        send_interval: float,
        run_journal: RunJournal | None = None,
        *,
        early_interval: float | None = None,
        replayed: bool = False,
    ) -> None:
        self.run_id = run_id
        self.started_at = started_at
        self._pace = SendInterval(send_interval, send_interval if early_interval is None else early_interval)
        self.run_journal = run_journal
        self.replayed = replayed
        self.due_at: float | None = None
        self.closed = self.last_try = False
        self.refused: str | None = None
        self.set_aside: str | None = None
        self.bisection: Bisection | None = None
        self.refusals = self.refusals_in_a_row = self.answers_at_failure = 0
        self.refusal: str | None = None
        self.failures = self.appended = self.acknowledged = self.dropped = self.already_counted = 0
        self.tags: dict[str, str] = {}
        self.wants_host_tags = False
        self.late_tags: LateTags | None = None
        self._questions = self._replayed_points = 0
        self._stretches: deque[Buffered | Spilled] = deque()

    @classmethod
    def left_behind(
        cls, run: JournaledRun, send_interval: float, open_journal: Callable[[RunQueue], RunJournal]
    ) -> RunQueue:
        """Returns the queue of a run of a process that died; its points are on disk only.

        Args:
            run: what the journal of that process says.
            send_interval: seconds between two sends.
            open_journal: returns the points on disk.
        """
        queue = cls(run.run_id, run.started_at, send_interval, replayed=True)
        queue.appended = queue.acknowledged = run.acknowledged
        queue.run_journal = open_journal(queue)
        queue.put_spilled(run.appended - run.acknowledged, 0)
        queue.closed = True
        # Thinned points will be missing on read-back; they must not be counted a second time.
        queue.dropped = queue.already_counted = run.dropped
        if run.dropped:
            queue.tags[POINTS_DROPPED] = str(run.dropped)
        return queue

    @property
    def empty(self) -> bool:
        """Whether neither points nor tags wait."""
        return not (self._stretches or self.tags or self.wants_host_tags or self.late_tags)

    @property
    def waiting(self) -> int:
        """Number of points that wait."""
        return sum(stretch.until - stretch.first for stretch in self._stretches)

    @property
    def buffered(self) -> int:
        """Number of waiting points that are in memory."""
        return sum(len(one.points) for one in self._stretches if isinstance(one, Buffered))

    @property
    def unsaved(self) -> int:
        """Number of waiting points that are in memory only."""
        return sum(len(one.points) for one in self._stretches if is_unsaved(one))

    @property
    def spills(self) -> bool:
        """Whether the newest point is on disk only; later points that reach the disk must then follow it."""
        return bool(self._stretches) and isinstance(self._stretches[-1], Spilled)

    def put(self, points: Sequence[Point], place: int | None = None) -> None:
        """Appends points in memory.

        Args:
            points: the points.
            place: where they are on disk as well; None if they are not.
        """
        last = self._stretches[-1] if self._stretches else None
        if isinstance(last, Buffered) and last.until == self.appended and is_unsaved(last) == (place is None):
            last.points.extend(points)
        elif points:
            self._stretches.append(Buffered(self.appended, place, deque(points)))
        self.appended += len(points)

    def put_spilled(self, count: int, place: int) -> None:
        """Appends points that are on disk only, from a place on."""
        last = self._stretches[-1] if self._stretches else None
        if isinstance(last, Spilled) and last.until == self.appended:
            last.until += count
        else:
            self._stretches.append(Spilled(self.appended, self.appended + count, place))
        self.appended += count

    def put_tags(self, tags: dict[str, str]) -> None:
        """Adds tags to be set on the run."""
        self.tags.update(tags)

    def want_late_tags(self, late_tags: LateTags) -> None:
        """Has tags made at the next send, in the place of those that wait to be made."""
        self.late_tags = late_tags

    def want_host_tags(self) -> None:
        """Has the server asked at the next send whether the run, made elsewhere, lacks host tags."""
        self.wants_host_tags = True

    def settle_host_tags(self, tags: Mapping[str, str] | None) -> dict[str, str]:
        """Adds what follows from the answer of the server, and returns all tags to be set now.

        Args:
            tags: host tags to be set, if the run lacks them; None if the server has not answered.
        """
        self._questions += 1
        self.wants_host_tags = tags is None and self._questions < _MOST_QUESTIONS
        self.tags.update(tags or {})
        return dict(self.tags)

    def plan_send(self, now: float) -> float | None:
        """Makes the queue due about one send interval after its last send; sooner for the first two.

        Returns:
            The monotonic time, if that is sooner than before; else None.
        """
        due_at = self._pace.due_at(now)
        if self.due_at is not None and self.due_at <= due_at:
            return None
        self.due_at = due_at
        return due_at

    def make_due(self, now: float) -> None:
        """Makes the queue due now."""
        self.due_at = now

    def peek(self, most: int, since: int = 0) -> Batch | Spilled:
        """Returns points without removing them, or where they are on disk.

        Args:
            most: how many at most.
            since: index of the oldest; by default that of the oldest in the queue.
        """
        points: list[Point] = []
        until = self.acknowledged
        for stretch in self._stretches:
            if stretch.until <= since:
                continue
            first = max(stretch.first, since)
            if isinstance(stretch, Spilled):
                if not points:
                    return Spilled(first, stretch.until, stretch.place)
                break
            if len(points) == most or (points and first != until):
                break
            skipped = first - stretch.first
            taken = list(islice(stretch.points, skipped, skipped + most - len(points)))
            points += taken
            until = first + len(taken)
        return Batch(points, until)

    def take(self, most: int, now: float) -> tuple[Batch | Spilled, dict[str, str]]:
        """Begins a send: returns the oldest points, or where they are on disk, and the tags.

        Nothing is removed until the outcome is known.
        """
        self.due_at = None  # set again by calls that ask for the next send while this one is under way
        self._pace.sent(now)
        if self.bisection is None:
            return self.peek(most), dict(self.tags)
        front = self._stretches[0].first if self._stretches else self.acknowledged
        points = self.peek(self.most_at_once(most), front + self.bisection.control)
        # Points and tags are tried apart, points first.
        tags = {} if self._stretches else dict(islice(self.tags.items(), self.bisection.most))
        return points, tags

    def most_at_once(self, most: int) -> int:
        """Returns how many points to take, given how many the server takes."""
        if self.bisection is None:
            return most
        return 1 if self.bisection.control else min(self.bisection.most, most)

    def accept(self, batch: Batch, tags: dict[str, str]) -> tuple[int, int]:
        """Removes what the server took.

        Returns:
            How many points left the queue (some may have been dropped since `take`), and how many of these
            were lost.
        """
        self.failures = 0
        if self.bisection is not None:
            self.bisection.accepted(len(batch.points) or len(tags))
        if self.late_tags is not None and self.late_tags.is_over:
            self.late_tags = None
        if batch.points:
            self.refusals_in_a_row = 0
        return self._remove(batch, tags, batch.lost)

    def answered(self) -> None:
        """Ends the failures, because the server took another point of the run."""
        self.failures = 0

    def discard(self, batch: Batch, reason: str) -> tuple[int, int]:
        """Removes points that the server will never take; returns the same numbers as `accept`."""
        self.refusals += len(batch.points)
        self.refusals_in_a_row += len(batch.points)
        self.refusal = reason
        return self._remove(batch, {}, batch.lost + len(batch.points))

    def divide(self, batch: Batch, tags: dict[str, str]) -> None:
        """Makes the next sends smaller: something in this one is refused, or may be."""
        count = len(batch.points) or len(tags)
        if self.bisection is None or batch.until > self.bisection.until:
            from mlflow_sysmetrics.daemon.delivery.bisection import Bisection  # rarely needed

            self.bisection = Bisection(count, batch.until)
        else:
            self.bisection.failed(count)

    def discard_tags(self, tags: dict[str, str]) -> None:
        """Removes tags, unless their values have changed since `take`."""
        for key, value in tags.items():
            if self.tags.get(key) == value:
                del self.tags[key]

    def give_back(self, retry_at: float, answers: int = 0) -> None:
        """Ends a send that failed: all stays in the queue, to be sent again at a monotonic time.

        Args:
            retry_at: that time.
            answers: how many sends of all runs the server has accepted so far.
        """
        self.failures += 1
        self.due_at = retry_at
        self.answers_at_failure = answers

    def resume(self, now: float, *, more: bool) -> None:
        """Plans the send after one that needs no pause.

        Args:
            now: monotonic time.
            more: True if a backlog is left, so that the queue is due at once.
        """
        if self.empty:
            self.due_at = None  # if a caller asked for a send meanwhile, what it waits for has just arrived
        elif more or self.due_at is None:
            self.due_at = now

    def refuse(self, reason: str) -> None:
        """Records that the server rejects this run for good."""
        self.refused = reason

    def put_aside(self, reason: str) -> None:
        """Leaves the points on disk for another process to deliver."""
        self.set_aside = reason

    def limit_to_one_try(self) -> None:
        """Sets the queue aside at its next failure."""
        self.last_try = True

    def close(self) -> None:
        """Records that no more points will come."""
        self.closed = True

    def set_started_at(self, started_at: int) -> None:
        """Records when the run started, in milliseconds since 1970."""
        self.started_at = started_at

    def give_up(self) -> int:
        """Drops everything and returns how many points that were."""
        given_up = self.waiting
        self._stretches.clear()
        self.acknowledged = self.appended
        self.tags.clear()
        self.wants_host_tags, self.late_tags = False, None
        self.dropped += given_up
        return given_up

    def spill(self) -> None:
        """Removes from memory all points that are also on disk."""
        for index, one in enumerate(self._stretches):
            if isinstance(one, Buffered) and one.place is not None:
                self._stretches[index] = Spilled(one.first, one.until, one.place)

    def drop_oldest(self, count: int) -> int:
        """Gives up the oldest points that are in memory only and returns how many."""
        stretch = next(one for one in self._stretches if is_unsaved(one))
        count = min(count, len(stretch.points))
        stretch.drop(count)
        if not stretch.points:
            self._stretches.remove(stretch)
        self.acknowledged = self._stretches[0].first if self._stretches else self.appended
        self.count_dropped(count)
        return count

    def count_dropped(self, count: int) -> None:
        """Counts points that will not reach the server, in a tag of the run as well."""
        already_counted = min(count, self.already_counted)
        self.already_counted -= already_counted
        if count > already_counted:
            self.dropped += count - already_counted
            self.tags[POINTS_DROPPED] = str(self.dropped)

    def _remove(self, batch: Batch, tags: dict[str, str], lost: int) -> tuple[int, int]:
        waited = self.waiting
        self._acknowledge_below(batch.until)
        front = self._stretches[0] if self._stretches else None
        if batch.place is not None and isinstance(front, Spilled) and front.first == batch.until:
            front.place = batch.place
        self.discard_tags(tags)
        if self.bisection is not None and self.acknowledged >= self.bisection.until and not self.tags:
            self.bisection = None
        gone = waited - self.waiting
        lost = min(lost, gone)
        self.count_dropped(lost)
        self._count_replayed(gone - lost)
        return gone, lost

    def _count_replayed(self, count: int) -> None:
        """Counts points that were delivered from a journal; the last batch sets the tag."""
        if self.replayed:
            self._replayed_points += count
            if count and not self._stretches:
                self.tags[POINTS_REPLAYED] = str(self._replayed_points)

    def _acknowledge_below(self, index: int) -> None:
        while self._stretches and self._stretches[0].first < index:
            front = self._stretches[0]
            if front.until <= index:
                self._stretches.popleft()
            elif isinstance(front, Spilled):
                front.first = index
            else:
                front.drop(index - front.first)
        # Points between two stretches were dropped; they are acknowledged with the points before them.
        self.acknowledged = self._stretches[0].first if self._stretches else self.appended
