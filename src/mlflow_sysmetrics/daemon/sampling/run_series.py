"""One attached run, as the sampler sees it: its keys, its counters' zero, its window, its lane."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.sampling.window import DECIMALS, Value, Window
from mlflow_sysmetrics.samples import TOTALS, Kind
from mlflow_sysmetrics.settings import Settings


class _Total:
    """How much a total has grown since the run's first point.

    One that went back has started again, because its collector was built anew: it goes on from where it was.
    """

    __slots__ = ("_last", "value")

    def __init__(self, first: float) -> None:
        self._last = first
        self.value = 0.0

    def grow(self, value: float) -> bool:
        """Takes the total's next value and returns whether it has grown."""
        growth = value - self._last if value >= self._last else value
        self._last = value
        self.value += growth
        return growth > 0


class RunSeries:
    """Turns windows into points of one run.

    Attributes:
        key: tracking URI and run id, by which attaching is idempotent.
        settings: those in force when the run was attached.
        lane: takes its points.
        window: the ticks since its last point; the sampler's alone.
        ended: set once its last point is in the queue.
        holders: how many attachments hold it.
    """

    def __init__(self, key: tuple[str, str], settings: Settings, channel: Channel) -> None:
        self.key = key
        self.settings = settings
        self.channel = channel
        self.window: Window | None = None
        self.ended = threading.Event()
        self.holders = 0
        self._prefix = f"system/{settings.node_id}/" if settings.node_id else "system/"
        self._names: dict[str, str] = {}
        self._totals: dict[str, _Total] = {}

    def emit(self, values: Iterable[Value], timestamp: int) -> None:
        """Puts one point per value into the queue; totals count from the run's first point."""
        if self.channel.queue.refused is not None:
            return
        points = []
        for key, kind, value in values:
            if kind in TOTALS:
                total = self._totals.get(key)
                if total is None:
                    total = self._totals[key] = _Total(value)
                grown = total.grow(value)
                if kind is Kind.EVENTS and not grown:
                    continue
                value = total.value  # noqa: PLW2901 - the same quantity from another zero
            name = self._names.get(key)
            if name is None:  # one string for all points of the series: it is most of what a point weighs
                name = self._names[key] = self._prefix + key
            points.append(Point(name, round(value, DECIMALS), timestamp))
        self.channel.put(points)

    def end(self) -> None:
        """Ends the feed after its last point. For the sampler."""
        self.channel.end()
        self.ended.set()
