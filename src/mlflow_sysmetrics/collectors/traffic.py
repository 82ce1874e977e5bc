"""Traffic of interfaces that appear, disappear and restart: totals, and the series made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlflow_sysmetrics.collectors.catalogue import network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.samples import Metric, Sample


class Traffic(NamedTuple):
    """Counters of an interface since it came up.

    Attributes:
        received: bytes.
        transmitted: bytes.
        errors: packets with errors and dropped packets, in both directions.
    """

    received: int
    transmitted: int
    errors: int = 0


class TrafficTotals:
    """Adds up the counters of interfaces, from the first reading of each.

    An interface that appears later adds its traffic from then on; an interface that disappears leaves its
    traffic in the total. A counter that fell to less than half has restarted from zero. A counter that went
    back by less reported too little, as some drivers briefly do, and counts on once it has passed its
    previous value.

    Attributes:
        complete: False if a counter went back at the last update, so that some traffic is unknown.
    """

    def __init__(self) -> None:
        self.complete = True
        self._last: dict[str, Traffic] = {}
        self._totals = Traffic(0, 0)

    def update(self, interfaces: Mapping[str, Traffic]) -> Traffic:
        """Adds the counters of all interfaces and returns the totals so far."""
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
        """Returns the growth of a counter, and the value that it has reached."""
        if now >= before:
            return now - before, now
        self.complete = False
        return (now, now) if now < before // 2 else (0, before)


class TrafficSeries:
    """Makes the series of a host's network from the counters of its interfaces.

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
        """Yields the totals, and their growth per second since the last rate.

        There is no rate over a span in which a counter went back.
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
