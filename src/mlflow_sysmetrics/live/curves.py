"""Curves of one line: the points of a series, in columns of time, as characters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

Point = tuple[int, float]  #: milliseconds since 1970, and the value

# A value counts for the time since the point before, unless that is a gap: as in report.histories.
_GAP_MILLISECONDS = 75_000
_USUAL_DISTANCES = 3
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=+*%#"
_ABSENT = " "


def columns(points: Sequence[Point], begin: float, end: float, count: int) -> list[float | None]:
    """Returns the mean value in each of some columns of time; None where nothing was measured.

    Args:
        points: oldest first.
        begin: milliseconds since 1970, of the first column.
        end: of the last one.
        count: how many there are.
    """
    first = max(bisect_left(points, (int(begin),)) - 1, 0)
    shown = points[first:]
    if not shown or count < 1 or end <= begin:
        return [None] * max(count, 0)
    distances = [later[0] - earlier[0] for earlier, later in pairwise(shown)]
    usual = median(distances) if distances else 10_000
    gap = max(_GAP_MILLISECONDS, _USUAL_DISTANCES * usual)
    chart = _Columns(begin, (end - begin) / count, count)
    last = shown[0][0] - (0 if first else usual)
    for at, value in shown:
        chart.add(value, last if at - last <= gap else at - usual, at)
        last = at
    at, value = shown[-1]
    if end - at <= gap:  # what has not changed since has no point yet
        chart.add(value, at, end)
    return chart.means()


class _Columns:
    """Means over columns of time.

    Args:
        begin: of the first one.
        width: of each.
        count: how many there are.
    """

    def __init__(self, begin: float, width: float, count: int) -> None:
        self._begin = begin
        self._width = width
        self._totals = [0.0] * count
        self._weights = [0.0] * count

    def add(self, value: float, began: float, ended: float) -> None:
        """Adds a value to the columns that its time covers."""
        began = max(began, self._begin)
        index = int((began - self._begin) / self._width)
        while began < ended and index < len(self._totals):
            until = min(ended, self._begin + (index + 1) * self._width)
            self._totals[index] += value * (until - began)
            self._weights[index] += until - began
            began = until
            index += 1

    def means(self) -> list[float | None]:
        """Returns the mean of each column; None where nothing was added."""
        pairs = zip(self._totals, self._weights, strict=True)
        return [total / weight if weight > 0 else None for total, weight in pairs]


def drawn(values: Sequence[float | None], *, percent: bool, ascii_only: bool) -> str:
    """Returns one character per column.

    Args:
        values: as from `columns`.
        percent: the scale is 0 to 100; else from 0 to the highest value.
        ascii_only: uses no block characters.
    """
    glyphs = _ASCII if ascii_only else _BLOCKS
    known = [value for value in values if value is not None]
    top = max([100.0] if percent else known, default=0.0)
    top = max(top, max(known, default=0.0))
    return "".join(_ABSENT if value is None else glyphs[_level(value, top, len(glyphs))] for value in values)


def _level(value: float, top: float, levels: int) -> int:
    if top <= 0:
        return 0
    return min(max(int(value / top * levels), 0), levels - 1)
