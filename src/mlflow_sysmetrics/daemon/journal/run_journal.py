"""One run in a journal: of this process, or of one that died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import TypeAlias

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.lines import NewPoints, dump_values, sealed_points
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal

# With names of 250 characters, the longest that MLflow allows, each of 12 bytes in JSON, a line stays below
# the longest that is read at once.
_MOST_VALUES = 250
_PAIR = itemgetter(0, 1)  # of a point: its key and value

Written: TypeAlias = tuple[str, float]  #: key and value of a point


class FileRunJournal:
    """One run in a journal file.

    Args:
        journal: the journal of this process, or of one that died.
        number: the number of the run in it.

    Attributes:
        number: as above.
    """

    def __init__(self, journal: Journal, number: int) -> None:
        self.number = number
        self._journal = journal

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Writes points to disk; returns where to read them from, None unless all of them were written."""
        places = [self._journal.append_lines([line]) for line in self.lines(index, points)]
        return None if None in places else places[0][0]  # type: ignore[index]

    def lines(
        self, index: int, points: Sequence[Point], written: dict[Written, str] | None = None
    ) -> list[NewPoints]:
        """Returns the lines for points, of which the first has an index.

        Args:
            index: that index.
            points: the points.
            written: how values are written; runs that share a window have most of them in common.
        """
        lines = []
        for stretch in _by_moment(points):
            timestamp, step = stretch[0][2:]
            if written is None:
                values = dump_values({point.key: point.value for point in stretch})
            else:
                values = _values(stretch, written)
            text = sealed_points(self.number, index, timestamp, step, values)
            lines.append(NewPoints(self.number, index, len(stretch), timestamp, text))
            index += len(stretch)
        return lines

    def acknowledge(self, acknowledged: int) -> None:
        """Records that all points below an index were delivered or given up."""
        self._journal.acknowledge(self.number, acknowledged)

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns (index, point) pairs from an index on, and the place to continue from.

        Raises:
            OSError: the disk does not answer.
        """
        return self._journal.read(self.number, since, place, most)

    def end(self) -> None:
        """Records that no more points will come."""
        self._journal.end(self.number)


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
        self.own = journal
        self._description = (run_id, tracking_uri, started_at)
        self._run: FileRunJournal | None = None
        self._acknowledged = 0
        self._has_appended = False  # before the first append the journal does not know this run

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Writes points to disk; returns where to read them from, None unless all of them were written."""
        return append_together([(self, index, points)])[0]

    def acknowledge(self, acknowledged: int) -> None:
        """Records that all points below an index were delivered or given up."""
        if acknowledged > self._acknowledged:
            self._acknowledged = (
                acknowledged  # kept for a journal that is created later; these points must not wait in it
            )
            if self._has_appended:
                self.own.settle(self, acknowledged)

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns (index, point) pairs from an index on, and the place to continue from.

        Raises:
            OSError: the disk does not answer.
        """
        self.own.check_disk()
        return ([], place) if self._run is None else self._run.read(since, place, most)

    def end(self) -> None:
        """Records that no more points will come."""
        if self._has_appended:
            self.own.submit(("end", self), self._end)

    def expect_points(self) -> None:
        """Has acknowledgements written from now on: points are about to be."""
        self._has_appended = True

    def lines(
        self, index: int, points: Sequence[Point], written: dict[Written, str] | None
    ) -> list[NewPoints] | None:
        """Returns the lines for points; None before the first ones, when this run has no number yet."""
        return None if self._run is None else self._run.lines(index, points, written)

    def opened(self) -> tuple[Journal, FileRunJournal] | None:
        """Returns the journal and this run in it, made now if necessary; None if there is no journal.

        Called in the journal's thread.
        """
        journal = self.own.available()
        if journal is None:
            return None
        if self._run is None:
            self._run = FileRunJournal(journal, self.own.register(journal, *self._description))
            self._run.acknowledge(self._acknowledged)
        return journal, self._run

    @property
    def number(self) -> int | None:
        """The number of this run in the journal; None before the first points."""
        return None if self._run is None else self._run.number

    def _end(self) -> None:
        if self._run is not None:
            self._run.end()


Append: TypeAlias = tuple[ProcessRunJournal, int, Sequence[Point]]  #: a run, and its next points' first index


def append_together(appends: Sequence[Append]) -> list[int | None]:
    """Writes points of several runs to the journal of this process, with one request to its thread.

    Returns:
        Where to read those of each from; None for those of which not all were written.
    """
    own = appends[0][0].own
    if not own.accepts_points:
        return [None] * len(appends)
    for run_journal, _, _ in appends:
        run_journal.expect_points()
    # Lines are made here: how long the job takes must say how slow the disk is, not how busy the machine.
    written: dict[Written, str] | None = None if len(appends) == 1 else {}
    lines = [run_journal.lines(index, points, written) for run_journal, index, points in appends]
    return own.call(partial(_append_together, appends, lines)) or [None] * len(appends)


def _append_together(
    appends: Sequence[Append], lines: Sequence[list[NewPoints] | None]
) -> list[int | None] | None:
    """Does so, in the journal's thread; returns None if nothing was written."""
    complete: list[NewPoints] = []
    firsts = []
    for (run_journal, index, points), of_run in zip(appends, lines, strict=True):
        opened = run_journal.opened()
        if opened is None:
            return None
        journal, run = opened
        firsts.append(len(complete))
        complete += run.lines(index, points) if of_run is None else of_run
    places = journal.append_lines(complete)
    if places is not None:
        return [places[first] for first in firsts]
    if len(appends) == 1:
        return None
    # What there is room for.
    found = [_append_together([one], [of_run]) for one, of_run in zip(appends, lines, strict=True)]
    return None if not any(found) else [None if one is None else one[0] for one in found]


def _values(points: Sequence[Point], written: dict[Written, str]) -> str:
    """Returns the values of a line; adds those that were not written before."""
    pairs = list(map(_PAIR, points))
    texts = list(map(written.get, pairs))
    if None in texts:
        for number, (key, value) in enumerate(pairs):
            if texts[number] is None:
                texts[number] = written[key, value] = dump_values({key: value})
    return ",".join(texts)  # type: ignore[arg-type]


def _by_moment(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    """Yields the points of each line: consecutive ones of one time and step, with distinct keys."""
    if not points:
        return
    count = len(points)
    keys_of_all, _, timestamps, steps = zip(*points, strict=True)
    is_of_one_moment = timestamps.count(timestamps[0]) == steps.count(steps[0]) == count
    if is_of_one_moment and len(set(keys_of_all)) == count <= _MOST_VALUES:
        yield points  # nearly always
        return
    stretch: list[Point] = []
    keys: set[str] = set()
    for point in points:
        same = bool(stretch) and point[2:] == stretch[0][2:]
        if stretch and not (same and point.key not in keys and len(stretch) < _MOST_VALUES):
            yield stretch
            stretch, keys = [], set()
        stretch.append(point)
        keys.add(point.key)
    if stretch:
        yield stretch
