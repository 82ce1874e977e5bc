"""Traffic of interfaces that come, go and start again: their totals, and the series made of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlflow_sysmetrics.collectors.catalogue import network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.samples import Metric, Sample


class Traffic(NamedTuple):
    """What an interface has counted since it came up.

    Attributes:
        received: bytes.
        transmitted: bytes.
        errors: packets with errors and packets dropped, both ways.
    """

    received: int
    transmitted: int
    errors: int = 0


class TrafficTotals:
    """Adds up what interfaces count, from the first sight of each.

    An interface that appears later brings its traffic from then on; one that goes away leaves what it had;
    one whose counter fell to less than half has started again from zero. A counter that went back by less has
    told less than before, as some drivers do for a moment, and counts on once it has passed what it told.

    Attributes:
        complete: whether every counter went forward at the last update: else some traffic is not known.
    """

    def __init__(self) -> None:
        self.complete = True
        self._last: dict[str, Traffic] = {}
        self._totals = Traffic(0, 0)

    def update(self, interfaces: Mapping[str, Traffic]) -> Traffic:
        """Takes the counters of all interfaces and returns the totals so far."""
        self.complete = True
        received, transmitted, errors = self._totals
        last = {}
        for name, now in interfaces.items():
            before = self._last.get(name)
            last[name] = now
            if before is not None and before != now:
                steps = [self._step(*both) for both in zip(before, now, strict=True)]
                last[name] = Traffic(*(reached for _, reached in steps))
                received += steps[0][0]
                transmitted += steps[1][0]
                errors += steps[2][0]
        self._last = last
        self._totals = Traffic(received, transmitted, errors)
        return self._totals

    def _step(self, before: int, now: int) -> tuple[int, int]:
        """Returns by how much a counter has grown, and what it has reached."""
        if now >= before:
            return now - before, now
        self.complete = False
        return (now, now) if now < before // 2 else (0, before)


class TrafficSeries:
    """Makes the series of a host's network out of what its interfaces count.

    Args:
        interfaces: the counters of the first reading, from which the totals count.
    """

    metrics: tuple[Metric, ...] = (
        catalogue.NETWORK_RECEIVE,
        catalogue.NETWORK_TRANSMIT,
        catalogue.NETWORK_RECEIVE_RATE,
        catalogue.NETWORK_TRANSMIT_RATE,
        catalogue.NETWORK_ERRORS,
    )

    def __init__(self, interfaces: Mapping[str, Traffic]) -> None:
        self._totals = TrafficTotals()
        self._lap = Lap()
        self._at_lap = self._totals.update(interfaces)
        self._complete = True

    def samples(self, interfaces: Mapping[str, Traffic], now: float) -> Iterator[Sample]:
        """Yields the totals, and their growth per second over the time since the last rate.

        There is no rate over a time in which a counter went back.
        """
        totals = self._totals.update(interfaces)
        yield catalogue.NETWORK_RECEIVE.sample(totals.received / MEGABYTE)
        yield catalogue.NETWORK_TRANSMIT.sample(totals.transmitted / MEGABYTE)
        yield catalogue.NETWORK_ERRORS.sample(totals.errors)
        self._complete = self._complete and self._totals.complete
        span = self._lap.seconds(now)
        if span is None:
            return
        complete, self._complete = self._complete, True
        before, self._at_lap = self._at_lap, totals
        if complete:
            received = (totals.received - before.received) / MEGABYTE / span
            transmitted = (totals.transmitted - before.transmitted) / MEGABYTE / span
            yield catalogue.NETWORK_RECEIVE_RATE.sample(received, span)
            yield catalogue.NETWORK_TRANSMIT_RATE.sample(transmitted, span)
