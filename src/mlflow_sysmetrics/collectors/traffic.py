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
_RECEIVED, _TRANSMITTED = catalogue.NETWORK_RECEIVE.name, catalogue.NETWORK_TRANSMIT.name
_RECEIVE_RATE, _TRANSMIT_RATE = catalogue.NETWORK_RECEIVE_RATE.name, catalogue.NETWORK_TRANSMIT_RATE.name
_COUNTER, _RATE = catalogue.NETWORK_RECEIVE.kind, catalogue.NETWORK_RECEIVE_RATE.kind
_ERRORS, _ERRORS_KIND = catalogue.NETWORK_ERRORS.name, catalogue.NETWORK_ERRORS.kind


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
        self._only: Counters | None = None
        self._failed = -1

    def samples(self, interfaces: Mapping[str, Traffic], now: float) -> list[Sample]:
        """Returns the totals, and their growth per second since the last rate.

        There are none of what is not believed yet.
        """
        samples = self._samples(interfaces, now)
        self._find_only()
        return samples

    def ordinary(self, received: int, transmitted: int, failed: int, now: float) -> list[Sample] | None:
        """Returns the same for an ordinary tick with one interface, see `Counters`; None at any other."""
        totals, lap, counter = self._totals, self._lap, self._only
        span = now - lap.began
        if counter is None or failed != self._failed or span < SHORTEST_RATE_SECONDS:
            return None
        before_received, before_transmitted = counter.counts
        more_received, more_transmitted = received - before_received, transmitted - before_transmitted
        most = counter.surely
        if not (0 <= more_received <= most and 0 <= more_transmitted <= most):
            return None
        if received in ALL_ONES or transmitted in ALL_ONES:
            return None
        seconds = now - counter.read_at
        counter.counts, counter.pace = (received, transmitted), (more_received, more_transmitted)
        lap.began = counter.read_at = now
        received, transmitted, errors = totals.totals
        received, transmitted = received + more_received, transmitted + more_transmitted
        totals.totals = _make(Traffic, (received, transmitted, errors))
        return [
            _make(Sample, (_RECEIVED, _COUNTER, received / MEGABYTE, None)),
            _make(Sample, (_TRANSMITTED, _COUNTER, transmitted / MEGABYTE, None)),
            _make(Sample, (_ERRORS, _ERRORS_KIND, errors, None)),
            _make(Sample, (_RECEIVE_RATE, _RATE, more_received / seconds / MEGABYTE, span)),
            _make(Sample, (_TRANSMIT_RATE, _RATE, more_transmitted / seconds / MEGABYTE, span)),
        ]

    def _find_only(self) -> None:
        """Finds out whether the next tick may be an ordinary one; `_samples` alone changes that."""
        totals = self._totals
        is_plain = len(totals.failed) == 1 and not totals.errors.doubted and not self.gaps
        self._only = totals.bytes.only() if is_plain else None
        if self._only is not None:
            (self._failed,) = totals.failed.values()

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
