"""Where in a journal the points of each run are, so that reading some back costs what is read.

A thousand runs write by turns, so the points of one are spread over the whole file. Each byte of it is looked
at once, when points are first read back; then only the lines of the run are read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from heapq import merge
from typing import BinaryIO

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.lines import LONGEST_LINE, PointsLine, lines, points_line, understood
from mlflow_sysmetrics.runtime.native import Lock


class LineIndex:
    """The lines of points in one file, as long as they are not moved. Thread-safe.

    Args:
        generation: how often the contents of the file had been moved.

    Attributes:
        is_damaged: whether a line is not understood.
    """

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.is_damaged = False
        self._lock = Lock()  # held over a read: another thread would wait for the same disk
        self._forget()

    def read(
        self, file: BinaryIO, run: int, *, since: int, offset: int, end: int, most: int
    ) -> tuple[list[tuple[int, Point]], int]:
        """Reads points of a run.

        Args:
            file: the journal, open for reading.
            run: number of the run.
            since: index of the first point wanted.
            offset: where to begin at the earliest; a line begins there.
            end: where to stop, the end of a line.
            most: maximum number of points; at least one line is read, however long it is.

        Returns:
            (index, point) pairs in order, and the offset to continue from.

        Raises:
            OSError: it cannot be read.
        """
        with self._lock:
            self._extend(file, end)
            for _ in range(2):
                found = self._read(file, run, since, offset, most)
                if found is not None:
                    return found
                self._forget()  # others have written to the file
                self._extend(file, end)
            return [], offset

    def _forget(self) -> None:
        self._until = 0
        self._firsts: dict[int, array[int]] = {}
        self._offsets: dict[int, array[int]] = {}
        # Lines that may hold points of any run: glued to another one, or of a version without checksums.
        self._others: array[int] = array("Q")

    def _extend(self, file: BinaryIO, end: int) -> None:
        """Looks at the lines that have been appended since."""
        file.seek(self._until)
        for text in lines(file, max(end - self._until, 0)):
            found = points_line(text)
            if found is not None:
                run, first = found
                self._firsts.setdefault(run, array("Q")).append(first)
                self._offsets.setdefault(run, array("Q")).append(self._until)
            else:
                parts = list(understood(text))
                self.is_damaged = self.is_damaged or None in parts
                if any(isinstance(part, PointsLine) for part in parts):
                    self._others.append(self._until)
            self._until += len(text)

    def _read(
        self, file: BinaryIO, run: int, since: int, offset: int, most: int
    ) -> tuple[list[tuple[int, Point]], int] | None:
        """Returns what `read` does; None if a line is not where it was."""
        found: list[tuple[int, Point]] = []
        for at, first in merge(self._lines(run, since), ((at, None) for at in self._others)):
            if at < offset:
                continue
            file.seek(at)
            text = file.readline(LONGEST_LINE)
            if first is not None and points_line(text) != (run, first):
                return None
            more = [pair for pair in _points_of(text, run) if pair[0] >= since]
            if found and len(found) + len(more) > most:
                break
            found += more
            offset = at + len(text)
            since = found[-1][0] + 1 if found else since
            if len(found) >= most:
                break
        return found, offset

    def _lines(self, run: int, since: int) -> Iterator[tuple[int, int | None]]:
        """Yields offset and first index of the lines of a run, from the one that may hold an index on."""
        firsts = self._firsts.get(run, array("Q"))
        for number in range(max(bisect_right(firsts, since) - 1, 0), len(firsts)):
            yield self._offsets[run][number], firsts[number]


def _points_of(text: bytes, run: int) -> Iterator[tuple[int, Point]]:
    """Yields (index, point) for the points of the run in a line."""
    for line in understood(text):
        if isinstance(line, PointsLine) and line.run == run:
            for index, (key, value) in enumerate(line.values.items(), line.first):
                yield index, Point(key, value, line.timestamp, line.step)
