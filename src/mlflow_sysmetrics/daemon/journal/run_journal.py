"""One run in a journal: of this process, or of one that died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal


class FileRunJournal:
    """One run in a journal.

    Args:
        journal: of this process, or of one that died.
        number: of the run there.
    """

    def __init__(self, journal: Journal, number: int) -> None:
        self._journal = journal
        self._number = number

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Puts points on disk; returns the place to read them from, None where not all of them are there."""
        places = []
        for moment, values in _by_moment(points):
            places.append(self._journal.append(self._number, index, moment.timestamp, values, moment.step))
            index += len(values)
        return None if None in places else places[0]

    def acknowledge(self, acknowledged: int) -> None:
        """Says that all points below an index are delivered or given up."""
        self._journal.acknowledge(self._number, acknowledged)

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns points from an index on, with their indices, and the place to go on from.

        Raises:
            OSError: the disk does not answer.
        """
        return self._journal.read(self._number, since, place, most)

    def end(self) -> None:
        """Says that no more points will come."""
        self._journal.end(self._number)


class ProcessRunJournal:
    """One run of this process in its journal. It gets a number there with its first point.

    Args:
        journal: of this process.
        run_id: the run.
        tracking_uri: its server, without secrets.
        started_at: milliseconds since 1970 when it started, if known.
    """

    def __init__(
        self, journal: ProcessJournal, run_id: str, tracking_uri: str, started_at: int | None
    ) -> None:
        self._own = journal
        self._description = (run_id, tracking_uri, started_at)
        self._run: FileRunJournal | None = None
        self._acknowledged = 0
        self._asked = False  # else the journal knows nothing of this run, and need not hear of its end

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Puts points on disk; returns the place to read them from, None where not all of them are there."""
        if not self._own.accepts_points:
            return None
        self._asked = True
        return self._own.call(partial(self._append, index, points))

    def acknowledge(self, acknowledged: int) -> None:
        """Says that all points below an index are delivered or given up."""
        if acknowledged > self._acknowledged:
            self._acknowledged = (
                acknowledged  # also for a journal that is made later, which must not wait for these
            )
            if self._asked:
                self._own.submit(("settled", self), partial(self._acknowledge, acknowledged))

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns points from an index on, with their indices, and the place to go on from.

        Raises:
            OSError: the disk does not answer.
        """
        self._own.check_disk()
        return ([], place) if self._run is None else self._run.read(since, place, most)

    def end(self) -> None:
        """Says that no more points will come."""
        if self._asked:
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
    """Yields what stands in one line each: consecutive points of one time and step, each key once."""
    first: Point | None = None
    values: dict[str, float] = {}
    for point in points:
        same = first is not None and (point.timestamp, point.step) == (first.timestamp, first.step)
        if first is not None and not (same and point.key not in values):
            yield first, values
            first, values = None, {}
        first = first or point
        values[point.key] = point.value
    if first is not None:
        yield first, values
