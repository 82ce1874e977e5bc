"""One run in a journal: of this process, or of one that died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal

# With names of 250 characters, the longest that MLflow allows, each of 12 bytes in JSON, a line stays below
# the longest that is read at once.
_MOST_VALUES = 250


class FileRunJournal:
    """One run in a journal file.

    Args:
        journal: the journal of this process, or of one that died.
        number: the number of the run in it.
    """

    def __init__(self, journal: Journal, number: int) -> None:
        self._journal = journal
        self._number = number

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Writes points to disk; returns where to read them from, None unless all of them were written."""
        places = []
        for moment, values in _by_moment(points):
            places.append(self._journal.append(self._number, index, moment.timestamp, values, moment.step))
            index += len(values)
        return None if None in places else places[0]

    def acknowledge(self, acknowledged: int) -> None:
        """Records that all points below an index were delivered or given up."""
        self._journal.acknowledge(self._number, acknowledged)

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns (index, point) pairs from an index on, and the place to continue from.

        Raises:
            OSError: the disk does not answer.
        """
        return self._journal.read(self._number, since, place, most)

    def end(self) -> None:
        """Records that no more points will come."""
        self._journal.end(self._number)


class ProcessRunJournal:
    """One run in the journal of this process, where it gets a number with its first point.

    Args:
        journal: the journal of this process.
        run_id: the run.
        tracking_uri: its tracking server, without secrets.
        started_at: milliseconds since 1970 when it started, if known.
    """

    def __init__(
        self, journal: ProcessJournal, run_id: str, tracking_uri: str, started_at: int | None
    ) -> None:
        self._own = journal
        self._description = (run_id, tracking_uri, started_at)
        self._run: FileRunJournal | None = None
        self._acknowledged = 0
        self._has_appended = False  # before the first append the journal does not know this run

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Writes points to disk; returns where to read them from, None unless all of them were written."""
        if not self._own.accepts_points:
            return None
        self._has_appended = True
        return self._own.call(partial(self._append, index, points))

    def acknowledge(self, acknowledged: int) -> None:
        """Records that all points below an index were delivered or given up."""
        if acknowledged > self._acknowledged:
            self._acknowledged = (
                acknowledged  # kept for a journal that is created later; these points must not wait in it
            )
            if self._has_appended:
                self._own.submit(("settled", self), partial(self._acknowledge, acknowledged))

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns (index, point) pairs from an index on, and the place to continue from.

        Raises:
            OSError: the disk does not answer.
        """
        self._own.check_disk()
        return ([], place) if self._run is None else self._run.read(since, place, most)

    def end(self) -> None:
        """Records that no more points will come."""
        if self._has_appended:
            self._own.submit(("end", self), self._end)

    def _append(self, index: int, points: Sequence[Point]) -> int | None:
        if self._run is None:
            journal = self._own.available()
            if journal is None:
                return None
            self._run = FileRunJournal(journal, self._own.register(journal, *self._description))
            self._run.acknowledge(self._acknowledged)
        return self._run.append(index, points)

    def _acknowledge(self, acknowledged: int) -> None:
        if self._run is not None:
            self._run.acknowledge(acknowledged)

    def _end(self) -> None:
        if self._run is not None:
            self._run.end()


def _by_moment(points: Sequence[Point]) -> Iterator[tuple[Point, dict[str, float]]]:
    """Yields the contents of each line: consecutive points of one time and step, with distinct keys."""
    first: Point | None = None
    values: dict[str, float] = {}
    for point in points:
        same = first is not None and (point.timestamp, point.step) == (first.timestamp, first.step)
        if first is not None and not (same and point.key not in values and len(values) < _MOST_VALUES):
            yield first, values
            first, values = None, {}
        first = first or point
        values[point.key] = point.value
    if first is not None:
        yield first, values
