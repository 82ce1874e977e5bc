"""Traffic of interfaces that appear, disappear and restart: totals, and the series made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import disk_and_network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE
from mlflow_sysmetrics.collectors.counters import ALL_ONES, NO_CLOCK, Counters, CounterSet
from mlflow_sysmetrics.collectors.rhythm import SHORTEST_RATE_SECONDS, Lap
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


_make = tuple.__new__  # a third of the cost of calling the class


class TrafficTotals:
    """Adds up the counters of interfaces, from the first reading of each.

    An interface that appears later adds its traffic from then on; an interface that disappears leaves its
    traffic in the total. Which readings are believed is described in `counters`.

    Args:
        most_bytes: returns the most bytes per second of an interface.

    Attributes:
        bytes: the bytes received and sent by each interface.
        errors: the errors of each; apart, since in some drivers they go back alone.
        totals: what was added up.
        failed: the errors of each interface at the last reading.
    """

    def __init__(self, most_bytes: Callable[[str], float] = lambda _: bounds.NETWORK_BYTES) -> None:
        self.bytes = CounterSet(
            lambda name: Counters(most_bytes(name), most_bytes(name), from_zero=bounds.FROM_ZERO)
        )
        self.errors = CounterSet(lambda _: Counters(bounds.NETWORK_ERRORS))
        self.totals = Traffic(0, 0)
        self.failed: dict[str, int] = {}

    def update(self, interfaces: Mapping[str, Traffic], now: float) -> Traffic:
        """Adds the counters of all interfaces and returns the totals so far.

        Args:
            interfaces: the counters of each.
            now: seconds of a clock that never goes back.
        """
        received, transmitted, errors = self.totals
        moved, failed = {}, {}
        for name, one in interfaces.items():
            moved[name], failed[name] = one[:2], one[2]
        for (more_received, more_transmitted), _, _ in self.bytes.follow(moved, now).values():
            received += more_received
            transmitted += more_transmitted
        if failed != self.failed or self.errors.doubted:
            self.failed = failed
            for step in self.errors.follow({name: (count,) for name, count in failed.items()}, now).values():
                errors += step.grown[0]
        self.totals = _make(Traffic, (received, transmitted, errors))
        return self.totals


class TrafficSeries:
    """Makes the series of a host's network from the counters of its interfaces.

    Args:
        interfaces: the counters of the first reading, from which the totals count.
        most_bytes: returns the most bytes per second of an interface.

    Attributes:
        gaps: interfaces that do not count.
    """

    metrics: tuple[Metric, ...] = (
        catalogue.NETWORK_RECEIVE,
        catalogue.NETWORK_TRANSMIT,
        catalogue.NETWORK_RECEIVE_RATE,
        catalogue.NETWORK_TRANSMIT_RATE,
        catalogue.NETWORK_ERRORS,
    )

    def __init__(
        self,
        interfaces: Mapping[str, Traffic],
        most_bytes: Callable[[str], float] = lambda _: bounds.NETWORK_BYTES,
    ) -> None:
        self._totals = TrafficTotals(most_bytes)
        self._lap = Lap()
        self._totals.update(interfaces, NO_CLOCK)
        self.gaps: tuple[str, ...] = ()

    def samples(self, interfaces: Mapping[str, Traffic], now: float) -> list[Sample]:
        """Returns the totals, and their growth per second since the last rate.

        There are none of what is not believed yet.
        """
        return self._ordinary(interfaces, now) or self._samples(interfaces, now)

    def _ordinary(self, interfaces: Mapping[str, Traffic], now: float) -> list[Sample] | None:
        """Returns the samples of an ordinary tick with one interface, see `Counters`; None at any other."""
        totals, lap = self._totals, self._lap
        span = now - lap.began
        counter = totals.bytes.only() if span >= SHORTEST_RATE_SECONDS else None
        if counter is None or self.gaps or len(interfaces) != 1:
            return None
        ((name, (received, transmitted, failed)),) = interfaces.items()
        if totals.failed.get(name) != failed or totals.errors.doubted:
            return None
        before = counter.counts
        grown = more_received, more_transmitted = received - before[0], transmitted - before[1]
        most = counter.surely
        if not (0 <= more_received <= most and 0 <= more_transmitted <= most):
            return None
        if received in ALL_ONES or transmitted in ALL_ONES:
            return None
        seconds = now - counter.read_at
        counter.counts, counter.pace = (received, transmitted), grown
        lap.began = counter.read_at = now
        received, transmitted, errors = totals.totals
        received, transmitted = received + more_received, transmitted + more_transmitted
        totals.totals = _make(Traffic, (received, transmitted, errors))
        return [
            catalogue.NETWORK_RECEIVE.sample(received / MEGABYTE),
            catalogue.NETWORK_TRANSMIT.sample(transmitted / MEGABYTE),
            catalogue.NETWORK_ERRORS.sample(errors),
            catalogue.NETWORK_RECEIVE_RATE.sample(more_received / seconds / MEGABYTE, span),
            catalogue.NETWORK_TRANSMIT_RATE.sample(more_transmitted / seconds / MEGABYTE, span),
        ]

    def _samples(self, interfaces: Mapping[str, Traffic], now: float) -> list[Sample]:
        received, transmitted, errors = self._totals.update(interfaces, now)
        moved = self._totals.bytes
        if moved.unusable or self.gaps:
            self.gaps = tuple(
                f"the traffic of {name} is unknown: its counters do not go on from where they were"
                for name in moved.unusable
            )
        found = []
        if not moved.doubted:
            found.append(catalogue.NETWORK_RECEIVE.sample(received / MEGABYTE))
            found.append(catalogue.NETWORK_TRANSMIT.sample(transmitted / MEGABYTE))
        if not self._totals.errors.doubted:
            found.append(catalogue.NETWORK_ERRORS.sample(errors))
        span = self._lap.seconds(now)
        rates = None if span is None else moved.rates() if interfaces else [0.0, 0.0]
        if rates is not None:
            found.append(catalogue.NETWORK_RECEIVE_RATE.sample(rates[0] / MEGABYTE, span))
            found.append(catalogue.NETWORK_TRANSMIT_RATE.sample(rates[1] / MEGABYTE, span))
        return found
