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
    told less than before, as some drivers do for a moment, and counts on from there.

    Attributes:
        complete: whether every counter went forward at the last update: else some traffic is not known.
    """

    def __init__(self) -> None:
        self.complete = True
        self._last: Mapping[str, Traffic] = {}
        self._totals = Traffic(0, 0)

    def update(self, interfaces: Mapping[str, Traffic]) -> Traffic:
        """Takes the counters of all interfaces and returns the totals so far."""
        self.complete = True
        received, transmitted, errors = self._totals
        for name, now in interfaces.items():
            before = self._last.get(name)
            if before is not None:
                received += self._growth(before.received, now.received)
                transmitted += self._growth(before.transmitted, now.transmitted)
                errors += self._growth(before.errors, now.errors)
        self._last = interfaces
        self._totals = Traffic(received, transmitted, errors)
        return self._totals

    def _growth(self, before: int, now: int) -> int:
        if now >= before:
            return now - before
        self.complete = False
        return now if now < before // 2 else 0


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
