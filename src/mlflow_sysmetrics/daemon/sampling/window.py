"""The ticks between two points of a series.

Runs whose windows cover the same ticks share one window, so a tick costs the same for one run as for a
thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mlflow_sysmetrics.samples import TOTALS, Kind, Sample

DECIMALS = 3  #: values are rounded to this; no watt or percent is measured more precisely

_make = tuple.__new__  # a third of the cost of calling the class
# Ticks that are added up together: most of a tick's time would be spent on getting to the statistics.
_MOST_PENDING = 32


class Value(NamedTuple):
    """The value of one series over a window: the mean for gauges and rates, the last value for totals."""

    key: str
    kind: Kind
    value: float


class Statistics:
    """Streaming statistics of one series: time-weighted sum, and the last value."""

    __slots__ = ("kind", "last", "total", "weight")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.weight = 0.0
        self.total = 0.0
        self.last = 0.0

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
                weight = seconds if span is None else span
                series.weight += weight
                series.total += value * weight
                series.last = value

    def values(self) -> list[Value]:
        """Returns one value for each series that had a sample."""
        self._add_up()
        return [
            _make(Value, (key, series.kind, series.last if series.kind in TOTALS else series.mean))
            for key, series in self._statistics.items()
        ]


def levels(samples: Sequence[Sample]) -> list[Value]:
    """Returns the values of one moment; no rates, since they cover time before the run existed."""
    return [Value(key, kind, value) for key, kind, value, _ in samples if kind is not Kind.RATE]
