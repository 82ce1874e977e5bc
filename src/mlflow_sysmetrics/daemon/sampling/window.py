"""The ticks between two points of a series.

Runs whose windows cover the same ticks share one window, so a tick costs the same for one run as for a
thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mlflow_sysmetrics.samples import TOTALS, Kind, Sample

DECIMALS = 3  #: values are rounded to this; no watt or percent is measured more precisely

# Ticks that are added up together: most of a tick's time would be spent on getting to the statistics.
_MOST_PENDING = 32


class Value(NamedTuple):
    """The value of one series over a window: the mean for gauges and rates, the last value for totals."""

    key: str
    kind: Kind
    value: float


class Statistics:
    """Streaming statistics of one series: count, time-weighted mean, minimum, maximum, last."""

    __slots__ = ("count", "kind", "last", "maximum", "minimum", "total", "weight")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.count = 0
        self.weight = 0.0
        self.total = 0.0
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.last = 0.0

    def add(self, value: float, weight: float) -> None:
        """Adds one value that holds for `weight` seconds."""
        self.count += 1
        self.weight += weight
        self.total += value * weight
        self.last = value
        # Not min() and max(): this runs for every sample, and a comparison costs a third of a call.
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value

    @property
    def mean(self) -> float:
        """The time-weighted mean; the last value if all weights are 0."""
        return self.total / self.weight if self.weight > 0 else self.last


class Window:
    """Statistics of every series over some ticks.

    Args:
        closes_at: monotonic time from which the next tick closes the window.
    """

    __slots__ = ("_pending", "_statistics", "closes_at")

    def __init__(self, closes_at: float) -> None:
        self.closes_at = closes_at
        self._statistics: dict[str, Statistics] = {}
        self._pending: list[tuple[Sequence[Sample], float]] = []

    def add(self, samples: Sequence[Sample], seconds: float) -> None:
        """Adds one tick.

        Args:
            samples: the samples of the tick, which must not change any more.
            seconds: time since the previous tick; the weight of samples that have no span.
        """
        self._pending.append((samples, seconds))
        if len(self._pending) >= _MOST_PENDING:
            self._add_up()

    def _add_up(self) -> None:
        statistics = self._statistics
        while self._pending:
            samples, seconds = self._pending.pop(0)  # first: what fails is not counted twice
            for key, kind, value, span in samples:
                series = statistics.get(key)
                if series is None:
                    series = statistics[key] = Statistics(kind)
                series.add(value, seconds if span is None else span)

    def values(self) -> list[Value]:
        """Returns one value for each series that had a sample."""
        self._add_up()
        return [
            Value(key, series.kind, series.last if series.kind in TOTALS else series.mean)
            for key, series in self._statistics.items()
        ]


def levels(samples: Sequence[Sample]) -> list[Value]:
    """Returns the values of one moment; no rates, since they cover time before the run existed."""
    return [Value(key, kind, value) for key, kind, value, _ in samples if kind is not Kind.RATE]
