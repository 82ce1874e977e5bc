"""Which points of a run are sent: fewer as it ages, and two for a straight line.

A database keeps every point for years, and a chart has some hundred pixels. So two reductions are made that
a chart does not show:

- From an hour on, several windows together give one point, or two if the values differ: the lowest and the
  highest.
- A series that does not change is a straight line. Its points are held back while the line lasts, and the
  last of them is sent with the change.

What is held back is in memory only. It is sent at a flush and at the end of the run; a series that goes
missing is sent up to there, so no line is drawn further than the series was measured.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.sampling.window import DECIMALS
from mlflow_sysmetrics.samples import TOTALS, Kind

_MILLISECONDS = 1000
_HOUR = 3600

#: Age of a run in seconds, and the seconds of a wide window from then on. Before, each window is sent.
WIDE_WINDOWS = ((6 * _HOUR, 60), (_HOUR, 30))
#: Whatever its age, each window of the first seconds after an attach is sent: a resumed run shows that it
#: lives.
FRESH_SECONDS = 60
#: While a line lasts, it has a point this often: a curve in the UI is at most so old.
LINE_SECONDS = 60
#: Share of a series' range so far that is not visible: some five pixels of MLflow's charts.
TOLERANCE = 0.02

_WINDOW_SECONDS = 10  # of which all the others are multiples
_EARLY_SECONDS = 5  # ticks are not exact
# Two windows further apart have a gap between them: the machine slept, the clock was set, or nothing ran.
_GAP_SECONDS = 25


class Resolution:
    """Chooses the points of one run that are sent. Called by the sampler only.

    Points come in windows of 10 s, those of one window with one timestamp.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._at: int | None = None
        self._closed_at = 0
        self._age = self._attached = 0.0  # seconds
        self._is_start_known = False

    def add(
        self, points: Iterable[tuple[Kind, Point]], timestamp: int, started_at: int | None, ready: list[Point]
    ) -> None:
        """Adds the points of a window. Safe to call again if it fails.

        Args:
            points: one per series.
            timestamp: the time of all of them, in milliseconds since 1970.
            started_at: when the run started, in milliseconds since 1970; None if that is not known yet.
            ready: points to be sent are appended here.
        """
        passed = 0.0 if self._at is None else (timestamp - self._at) / _MILLISECONDS
        if not 0 <= passed <= _GAP_SECONDS:
            self._end_missing(timestamp, ready)
        length = self._length(passed)
        closed = (timestamp - self._closed_at) / _MILLISECONDS
        closes = length == _WINDOW_SECONDS or not 0 <= closed < length - _EARLY_SECONDS
        for kind, point in points:
            if kind is Kind.EVENTS:  # has points only when something happened
                ready.append(point)
                continue
            line = self._lines.get(point.key)
            if line is None:
                line = self._lines[point.key] = _Line(is_total=kind in TOTALS)
            line.add(point, passed, ready, length=length, closes=closes)
        self._end_missing(timestamp, ready)
        self._grow_older(timestamp, passed, started_at)
        if closes:
            self._closed_at = timestamp
        self._at = timestamp

    def release(self, ready: list[Point]) -> None:
        """Appends all points that were held back."""
        for line in self._lines.values():
            line.release(ready)
        if self._at is not None:
            self._closed_at = self._at

    def _length(self, passed: float) -> int:
        """Returns how many seconds a wide window has now; those of one window if every one is sent."""
        age = 0.0 if self._attached < FRESH_SECONDS else self._age + passed
        return next((seconds for since, seconds in WIDE_WINDOWS if age > since), _WINDOW_SECONDS)

    def _end_missing(self, timestamp: int, ready: list[Point]) -> None:
        """Ends the lines of series that have no point of that time."""
        for line in self._lines.values():
            if line.at != timestamp:
                line.end(ready)

    def _grow_older(self, timestamp: int, passed: float, started_at: int | None) -> None:
        """Counts the age window by window, so that setting the clock does not make a run older."""
        counted = min(max(passed, 0.0), FRESH_SECONDS)
        self._age += counted
        self._attached += counted
        if not self._is_start_known and started_at is not None:
            self._is_start_known = True
            self._age = max(self._age, (timestamp - started_at) / _MILLISECONDS)


class _Line:
    """One series.

    Args:
        is_total: whether its values are readings of a total, not means.

    Attributes:
        at: timestamp of the last point.
    """

    __slots__ = ("_held", "_high", "_is_total", "_length", "_low", "_margin", "_pending", "_sent", "at")

    def __init__(self, *, is_total: bool) -> None:
        self.at: int | None = None
        self._is_total = is_total
        self._length = 0
        self._low = float("inf")
        self._high = float("-inf")
        self._margin = 0.0
        self._pending: list[tuple[Point, float]] = []  # of the wide window, with seconds
        self._sent: Point | None = None
        self._held: Point | None = None

    def add(self, point: Point, seconds: float, ready: list[Point], *, length: int, closes: bool) -> None:
        """Adds the point of a window.

        Args:
            point: the point.
            seconds: length of its window.
            ready: points to be sent are appended here.
            length: seconds until the next wide window closes.
            closes: whether the wide window closes with it.
        """
        if point.timestamp == self.at:  # again, because something else failed
            return
        self.at = point.timestamp
        self._length = length
        if length == _WINDOW_SECONDS and not self._pending:  # the same as below, in half the time
            self._extend_range(point.value, point.value)
            self._offer(point, ready)
            return
        self._pending.append((point, seconds))
        is_due = (closes and not self._waits()) or not self._can_follow(point, _WINDOW_SECONDS)
        if is_due or self._sent is None or self._leaves_range(point.value):
            self._close(ready)

    def release(self, ready: list[Point]) -> None:
        """Appends the points that were held back."""
        self._close(ready)
        if self._held is not None:
            self._send(self._held, ready)

    def end(self, ready: list[Point]) -> None:
        """Ends the line at its last point; the next point begins another one. Safe to call again."""
        self.release(ready)
        self._sent = None

    def _leaves_range(self, value: float) -> bool:
        """Returns whether the value lies outside what the series had so far: that is not held back.

        So a kill for lack of memory does not take the last minute of the rise with it.
        """
        return not (self._is_total or self._low - self._margin <= value <= self._high + self._margin)

    def _waits(self) -> bool:
        """Returns whether to wait for another window: two points of a minute, not of half a minute."""
        if self._sent is None or self._is_total or len(self._pending) == 1:
            return False
        values = [point.value for point, _ in self._pending]
        return max(values) - min(values) > self._margin and self._can_follow(
            self._pending[-1][0], self._length
        )

    def _can_follow(self, point: Point, seconds: int) -> bool:
        """Returns whether a point that many seconds later is within a minute of the last one sent."""
        since = 0.0 if self._sent is None else (point.timestamp - self._sent.timestamp) / _MILLISECONDS
        return since + seconds < LINE_SECONDS + _EARLY_SECONDS

    def _extend_range(self, low: float, high: float) -> None:
        if low < self._low or high > self._high:
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._margin = TOLERANCE * (self._high - self._low)

    def _close(self, ready: list[Point]) -> None:
        """Reduces the wide window to one or two points."""
        if not self._pending:
            return
        values = [point.value for point, _ in self._pending]
        self._extend_range(min(values), max(values))
        for point in self._reduced(values):
            self._offer(point, ready)
        self._pending.clear()

    def _reduced(self, values: list[float]) -> list[Point]:
        last = self._pending[-1][0]
        if self._is_total:
            bend = self._bend(last)
            return [last] if bend is None else [bend, last]
        low, high = min(values), max(values)
        if high - low <= self._margin:
            edge = self._edge(low, high)
            return [*edge, last if low == high else last._replace(value=self._mean())]
        # Each stands where the series was last near it, and the later of the two at the end of the window.
        near = self._margin / 2
        last_low = max(place for place, value in enumerate(values) if value <= low + near)
        last_high = max(place for place, value in enumerate(values) if value >= high - near)
        earlier, later = (low, high) if last_low < last_high else (high, low)
        at = self._pending[min(last_low, last_high)][0]
        return [at._replace(value=earlier), last._replace(value=later)]

    def _mean(self) -> float:
        seconds = sum(seconds for _, seconds in self._pending)
        return round(sum(point.value * seconds for point, seconds in self._pending) / seconds, DECIMALS)

    def _edge(self, low: float, high: float) -> list[Point]:
        """Returns the first point of the window if the series has jumped before it."""
        before = self._held or self._sent
        if before is None or len(self._pending) == 1:
            return []
        is_near = high - self._margin <= before.value <= low + self._margin
        return [] if is_near else [self._pending[0][0]]

    def _bend(self, last: Point) -> Point | None:
        """Returns the point of a total that is farthest from the straight line to the last one, if far."""
        first = self._held or self._sent
        if first is None or len(self._pending) == 1:
            return None
        slope = (last.value - first.value) / (last.timestamp - first.timestamp)

        def distance(point: Point) -> float:
            return abs(point.value - first.value - slope * (point.timestamp - first.timestamp))

        farthest = max((point for point, _ in self._pending), key=distance)
        return farthest if distance(farthest) > self._margin else None

    def _offer(self, point: Point, ready: list[Point]) -> None:
        """Sends a point, or holds it back while the line lasts."""
        sent = self._sent
        if sent is not None and point.value == sent.value:
            if self._can_follow(point, self._length):
                self._held = point
                return
        elif self._held is not None:
            ready.append(self._held)
        self._send(point, ready)

    def _send(self, point: Point, ready: list[Point]) -> None:
        ready.append(point)
        self._sent, self._held = point, None
