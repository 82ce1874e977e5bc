"""The series of one attached run: turns windows into points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.points import LateTags, Point
from mlflow_sysmetrics.daemon.sampling.resolution import Resolution
from mlflow_sysmetrics.daemon.sampling.window import DECIMALS, Value, Window
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.native import Event
from mlflow_sysmetrics.samples import TOTALS, Kind
from mlflow_sysmetrics.settings import ARTIFACT, METRICS_TAG, Settings
from mlflow_sysmetrics.summary.announcer import Announcement, Announcer

_logger = Log()
_make = tuple.__new__  # a third of the cost of calling the class
_MILLISECONDS = 1000
_SHORTEST_SECONDS = 1.0  # shorter windows have several points in one second, as their user wants
_SET_BACK_MILLISECONDS = 60_000  # a clock that was set back by more is believed
_MOST_KEPT = 64  # placed windows: more than are held back at a time


class Steps:
    """The steps of a run's sampled points: whole seconds since it started, and none of them twice.

    A window may end in the second of the one before: at the end of the run, at a flush, or if a run is
    resumed at once. It then has the next step, at its true time. While the start of the run is not known, its
    time is moved instead, to a second after the window before. Either way a point stays the same when sent
    again.

    Attributes:
        moved: called with the milliseconds by which steps are ahead of the clock, when these change.
    """

    __slots__ = ("_ahead", "_asked", "_given", "_placed", "_reached", "moved")

    def __init__(self) -> None:
        self.moved: Callable[[int], object] = lambda _: None
        self._asked = self._given = 0
        self._reached: int | None = None  # milliseconds since 1970: the newest step is not after its second
        self._ahead = 0
        self._placed: dict[int, int] = {}  # timestamp -> step, where that is not the second of the timestamp

    def continue_from(self, reached: int, ahead: int) -> None:
        """Makes all steps later than that of a time: another process has used those until then.

        Args:
            reached: milliseconds since 1970.
            ahead: what `moved` was told last.
        """
        self._reached = max(reached + ahead, self._reached or 0)
        self._ahead = ahead

    def place(self, timestamp: int, started_at: int | None) -> int:
        """Chooses the step of a window, and returns its timestamp. Safe to call again for the newest one.

        Args:
            timestamp: when it ends, in milliseconds since 1970.
            started_at: when the run started; None if that is not known yet.
        """
        if timestamp == self._asked:
            return self._given
        if timestamp < self._asked - _SET_BACK_MILLISECONDS:
            self._reached = None
        given, reached = timestamp, self._reached
        if started_at is None:
            given = timestamp if reached is None else max(timestamp, reached + _MILLISECONDS)
            self._reached = given
        else:
            step = _seconds(timestamp, started_at)
            if reached is not None and step <= _seconds(reached, started_at):
                step = _seconds(reached, started_at) + 1
                self._placed[timestamp] = step
                for old in list(self._placed)[:-_MOST_KEPT]:
                    del self._placed[old]
                self._reached = started_at + step * _MILLISECONDS
            else:
                self._reached = timestamp
        self._asked, self._given = timestamp, given
        ahead = max(self._reached - timestamp, 0)
        if ahead > self._ahead or (self._ahead and not ahead):
            self._ahead = ahead
            self.moved(ahead)
        return given

    def put_on(self, points: list[Point]) -> list[Point]:
        """Returns the points with those steps that their timestamps do not tell."""
        if not self._placed:
            return points
        return [_make(Point, (*point[:3], self._placed.get(point.timestamp))) for point in points]


def _seconds(timestamp: int, started_at: int) -> int:
    return max(timestamp - started_at, 0) // _MILLISECONDS


class RunSeries:
    """The sampled series of one attached run.

    Attributes:
        key: tracking URI and run id; attaching is idempotent per key.
        settings: those that were current when the run was attached.
        channel: takes the points.
        window: the ticks since the last point. Used by the sampler only.
        ended: set once the last point is in the queue.
        holders: who holds the run attached.
        failed: whether the last attempt to give it points failed. Used by the sampler only.
        told: the value of the tag `METRICS_TAG` that the run has, or will have; None if none.
        steps: those of the run, also of a series before this one.
        announcer: says what the summary of the run is; None for a run without one.
    """

    def __init__(
        self,
        key: tuple[str, str],
        settings: Settings,
        channel: Channel,
        told: str | None = None,
        announcer: Announcer | None = None,
    ) -> None:
        self.key = key
        self.settings = settings
        self.channel = channel
        self.window: Window | None = None
        self.ended = Event()
        self.holders: set[object] = set()
        self.failed = False
        self.told = told
        self.steps = Steps()
        self.announcer = announcer
        self._is_reported = False
        self._at = 0  # milliseconds since 1970 of the last points
        self._prefix = f"system/{settings.node_id}/" if settings.node_id else "system/"
        self._names: dict[str, str] = {}
        self._totals: dict[str, _Total] = {}
        self._resolution = Resolution() if settings.adaptive else None
        self._ready: list[Point] = []  # to be queued; not empty if that has failed

    @property
    def is_to_be_reported(self) -> bool:
        """Whether the run is over and gets a report; only once."""
        wanted = self.settings.report == ARTIFACT and self.ended.is_set() and not self._is_reported
        self._is_reported = self._is_reported or wanted
        return wanted and (self.announcer is None or self.announcer.speaks)

    def emit(self, values: Sequence[Value], timestamp: int) -> None:
        """Queues the points of a window, one per value; totals count from the run's first point.

        With an adaptive resolution some are held back.
        """
        self._add(values, timestamp)
        self._announce(ends=False)
        self._put()

    def emit_all(self, values: Sequence[Value], timestamp: int) -> None:
        """Queues the points of a window, and those that were held back."""
        self._add(values, timestamp)
        self._release()
        self._put()

    def begin(self, levels: Sequence[Value], timestamp: int, state: str) -> None:
        """Queues the first points, and with them the tag that says so. Safe to call again if it fails."""
        if levels:
            self.put_state(state)
        if self.announcer is not None:
            self.announcer.begin()
        self.emit(levels, timestamp)

    def put_state(self, state: str, *, at_once: bool = False) -> None:
        """Sets the tag that says whether the run is measured, and what is missing, unless it says so already.

        Args:
            state: value of the tag.
            at_once: sends it now, not with the next points.
        """
        if state == self.told:
            return
        if self.settings.tags and self.channel.queue.refused is None:
            self.channel.put_tags({METRICS_TAG: state}, at_once=at_once)
        self.told = state

    def end(self) -> None:
        """Ends the series after the last point. Called by the sampler."""
        try:
            self._release()
            self._announce(ends=True)
            self._put()
            self.channel.end()
        finally:
            self.ended.set()

    def _announce(self, *, ends: bool) -> None:
        """Adds what the run is to be told about itself, if there is something new."""
        announcer = self.announcer
        if announcer is None:
            return
        try:
            said = (
                announcer.end(self._at) if ends else announcer.refresh(self._at, coalesces=bool(self._ready))
            )
            if said is not None and self.channel.queue.refused is None:
                self._say(said)
        except Exception as error:  # noqa: BLE001 - a fault in the statistics must not cost the points
            announcer.give_up()
            _logger.warning(
                "mlflow-sysmetrics: Run %s gets no summary: %s: %s.", self.key[1], type(error).__name__, error
            )

    def _say(self, said: Announcement) -> None:
        if said.tags:
            self.channel.put_tags(dict(said.tags), at_once=False)
        if said.late_tags is not None:
            self.channel.sender.append(self.channel.queue, late_tags=LateTags(said.late_tags))
        self._ready += [_make(Point, (key, value, self._at, None)) for key, value in said.metrics.items()]

    def _add(self, values: Sequence[Value], timestamp: int) -> None:
        self._at = timestamp
        queue = self.channel.queue
        if queue.refused is not None:
            return
        if values and self.settings.window_seconds >= _SHORTEST_SECONDS:
            timestamp = self._at = self.steps.place(timestamp, queue.started_at)
        points = self._points(values, timestamp)
        if self._resolution is None:
            self._ready = [point for _, point in points]
        else:
            self._resolution.add(points, timestamp, queue.started_at, self._ready)

    def _release(self) -> None:
        if self._resolution is not None and self.channel.queue.refused is None:
            self._resolution.release(self._ready)

    def _points(self, values: Sequence[Value], timestamp: int) -> list[tuple[Kind, Point]]:
        points = []
        for key, kind, value in values:
            if kind in TOTALS:
                total = self._totals.get(key)
                if total is None:
                    total = self._totals[key] = _Total(value)
                grown = total.grow(value)
                if kind is Kind.EVENTS and not grown:
                    continue
                value = total.value  # noqa: PLW2901 - the same quantity, counted from the run's first point
            name = self._names.get(key)
            if name is None:  # all points of a series share one string: it is most of a point's memory
                name = self._names[key] = self._prefix + key
            points.append((kind, _make(Point, (name, round(value, DECIMALS), timestamp, None))))
        return points

    def _put(self) -> None:
        if self._ready:
            self.channel.put(self.steps.put_on(self._ready))
            self._ready = []


class _Total:
    """The growth of a total since the run's first point.

    A total that decreases was restarted, because its collector was rebuilt; it then continues from where it
    was.
    """

    __slots__ = ("_last", "value")

    def __init__(self, first: float) -> None:
        self._last = first
        self.value = 0.0

    def grow(self, value: float) -> bool:
        """Adds the next value and returns whether the total has grown."""
        growth = value - self._last if value >= self._last else value
        self._last = value
        self.value += growth
        return growth > 0
