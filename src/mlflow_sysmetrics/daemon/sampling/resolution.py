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

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
_make = tuple.__new__  # a third of the cost of calling the class
_MOST_WINDOWS = 20  # more than a wide window has, with those that a flush cuts short


class _WindowEnd(NamedTuple):
    """A window of 10 s.

    Attributes:
        at: its end, in milliseconds since 1970.
        seconds: its length.
    """

    at: int
    seconds: float


class Resolution:
    """Chooses the points of one run that are sent. Called by the sampler only.

    Points come in windows of 10 s, those of one window with one timestamp.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._windows: list[_WindowEnd] = []
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
        self._begin_window(timestamp, passed)
        for kind, point in points:
            if kind is Kind.EVENTS:  # has points only when something happened
                ready.append(point)
                continue
            line = self._lines.get(point.key)
            if line is None:
                line = self._lines[point.key] = _Line(point.key, self._windows, is_total=kind in TOTALS)
            line.add(point.value, ready, length=length, closes=closes)
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

    def _begin_window(self, timestamp: int, passed: float) -> None:
        if not self._windows or self._windows[-1].at != timestamp:
            self._windows.append(_WindowEnd(timestamp, passed))
            del self._windows[:-_MOST_WINDOWS]

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
    """One series. There are many in a program with many runs, so they keep numbers, not points.

    Args:
        key: full metric key.
        is_total: whether its values are readings of a total, not means.
        windows: times of the last windows of the run; the pending values are those of the last ones.

    Attributes:
        at: timestamp of the last point.
    """

    __slots__ = (
        *("_held_at", "_high", "_is_total", "_key", "_length", "_low", "_margin", "_pending", "_sent_at"),
        *("_sent_value", "_windows", "at"),
    )

    def __init__(self, key: str, windows: Sequence[_WindowEnd], *, is_total: bool) -> None:
        self.at: int | None = None
        self._key = key
        self._windows = windows
        self._is_total = is_total
        self._length = _WINDOW_SECONDS
        self._low = float("inf")
        self._high = float("-inf")
        self._margin = 0.0
        self._pending: list[float] = []  # values in the wide window
        self._sent_at: int | None = None
        self._sent_value = 0.0
        self._held_at: int | None = None  # of a point with the same value as the last one sent

    def add(self, value: float, ready: list[Point], *, length: int, closes: bool) -> None:
        """Adds the value of a window.

        Args:
            value: the value.
            ready: points to be sent are appended here.
            length: seconds until the next wide window closes.
            closes: whether the wide window closes with it.
        """
        at = self._windows[-1].at
        if at == self.at:  # again, because something else failed
            return
        self.at = at
        self._length = length
        if length == _WINDOW_SECONDS and not self._pending:  # the same as below, in half the time
            self._extend_range(value, value)
            self._offer(value, at, ready)
            return
        self._pending.append(value)
        is_due = (closes and not self._waits()) or not self._can_follow(at, _WINDOW_SECONDS)
        if is_due or self._sent_at is None or self._leaves_range(value):
            self._close(ready)

    def release(self, ready: list[Point]) -> None:
        """Appends the points that were held back."""
        self._close(ready)
        if self._held_at is not None:
            self._send(self._sent_value, self._held_at, ready)

    def end(self, ready: list[Point]) -> None:
        """Ends the line at its last point; the next point begins another one. Safe to call again."""
        self.release(ready)
        self._sent_at = None

    def _leaves_range(self, value: float) -> bool:
        """Returns whether the value lies outside what the series had so far: that is not held back.

        So a kill for lack of memory does not take the last minute of the rise with it.
        """
        return not (self._is_total or self._low - self._margin <= value <= self._high + self._margin)

    def _waits(self) -> bool:
        """Returns whether to wait for another window: two points of a minute, not of half a minute."""
        if self._is_total or len(self._pending) == 1:
            return False
        varies = max(self._pending) - min(self._pending) > self._margin
        return varies and self._can_follow(self._windows[-1].at, self._length)

    def _can_follow(self, at: int, seconds: int) -> bool:
        """Returns whether a point that many seconds after a time is within a minute of the last one sent."""
        since = 0.0 if self._sent_at is None else (at - self._sent_at) / _MILLISECONDS
        return since + seconds < LINE_SECONDS + _EARLY_SECONDS

    def _extend_range(self, low: float, high: float) -> None:
        if low < self._low or high > self._high:
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._margin = TOLERANCE * (self._high - self._low)

    def _close(self, ready: list[Point]) -> None:
        """Reduces the wide window to one or two points."""
        if not self._pending:
            return
        self._extend_range(min(self._pending), max(self._pending))
        for value, at in self._reduced():
            self._offer(value, at, ready)
        self._pending.clear()

    def _reduced(self) -> list[tuple[float, int]]:
        """Returns values and times of the points of the wide window."""
        values = self._pending
        times = [window.at for window in self._pending_windows()]
        first, last = (values[0], times[0]), (values[-1], times[-1])
        if len(values) == 1:
            return [last]
        if self._is_total:
            return [*self._bend(times), last]
        low, high = min(values), max(values)
        if high - low <= self._margin:
            is_near = high - self._margin <= self._sent_value <= low + self._margin
            jumped = self._sent_at is not None and not is_near  # between this window and the one before
            return [*([first] if jumped else []), (self._mean(), times[-1])]
        # Each stands where the series was last near it, and the later of the two at the end of the window.
        near = self._margin / 2
        last_low = max(place for place, value in enumerate(values) if value <= low + near)
        last_high = max(place for place, value in enumerate(values) if value >= high - near)
        earlier, later = (low, high) if last_low < last_high else (high, low)
        return [(earlier, times[min(last_low, last_high)]), (later, times[-1])]

    def _pending_windows(self) -> Sequence[_WindowEnd]:
        until = len(self._windows)
        while self._windows[until - 1].at != self.at:  # the newest one does not have this series
            until -= 1
        return self._windows[until - len(self._pending) : until]

    def _mean(self) -> float:
        values = self._pending
        if min(values) == max(values):
            return values[0]
        seconds = [window.seconds for window in self._pending_windows()]
        weighted = sum(value * length for value, length in zip(values, seconds, strict=True))
        return round(weighted / sum(seconds), DECIMALS)

    def _bend(self, times: Sequence[int]) -> list[tuple[float, int]]:
        """Returns the value of a total that is farthest from the straight line to the last one, if far."""
        first_at = self._held_at or self._sent_at
        if first_at is None:
            return []
        slope = (self._pending[-1] - self._sent_value) / (times[-1] - first_at)
        found = [
            (abs(value - self._sent_value - slope * (at - first_at)), value, at)
            for value, at in zip(self._pending, times, strict=True)
        ]
        distance, value, at = max(found)
        return [(value, at)] if distance > self._margin else []

    def _offer(self, value: float, at: int, ready: list[Point]) -> None:
        """Sends a point, or holds it back while the line lasts."""
        if self._sent_at is not None and value == self._sent_value:
            if self._can_follow(at, self._length):
                self._held_at = at
                return
        elif self._held_at is not None:
            ready.append(Point(self._key, self._sent_value, self._held_at))
        self._send(value, at, ready)

    def _send(self, value: float, at: int, ready: list[Point]) -> None:
        ready.append(_make(Point, (self._key, value, at, None)))
        self._sent_value, self._sent_at, self._held_at = value, at, None
