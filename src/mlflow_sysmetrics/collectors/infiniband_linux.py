"""Traffic of InfiniBand and RoCE ports, RDMA included, which the network counters do not see.

Source:  /sys/class/infiniband/<device>/ports/<port>/counters/port_{rcv,xmit}_data, in words of 4 bytes;
         https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-class-infiniband
Units:   megabytes (1e6 bytes) per second over all ports.
Cost:    two reads per port and tick, which the adapter's firmware serves; the ports are looked up again twice
         a minute.
Absent:  no adapter; a port that counts nothing ("N/A (no PMA)"), or whose counters do not respond or have
         stopped at the end of their 32 bits; at a tick at which a counter is not believed (`counters`).
Check:   perfquery -x; cat /sys/class/infiniband/*/ports/*/counters/port_rcv_data
Unconfirmed: constructed files
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import disk_and_network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters, CounterSet
from mlflow_sysmetrics.collectors.kernel_files import WORD, count, listed
from mlflow_sysmetrics.collectors.presence import INFINIBAND, NO_INFINIBAND
from mlflow_sysmetrics.collectors.rhythm import Lap, Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.machine.reasons import Malformed, words_for
from mlflow_sysmetrics.samples import Family, Metric, Sample

_WORD_BYTES = 4
# Adapters without extended counters have 32 bits, which stop at their maximum instead of wrapping: 16 GB.
_SATURATED = 2**32 - 1
_WRAPS_AT = 2**64 * _WORD_BYTES
_LOOK_SECONDS = 30.0


class PortBytes(NamedTuple):
    """Bytes that a port has moved since its counters were reset."""

    received: int
    transmitted: int


def parse_words(text: bytes) -> int:
    """Returns the bytes in a counter of words.

    Raises:
        Malformed: the text is not a count, or the counter has stopped.
    """
    if text.startswith(b"N/A"):
        raise Malformed("the adapter does not count its traffic")
    words = count(text)
    if words == WORD - 1:
        raise Malformed("the counter has all bits set: it is not available")
    if words == _SATURATED:
        raise Malformed("the 32-bit counter is full: reset it with perfquery -R")
    return words * _WORD_BYTES


class InfinibandLinux(Collector):
    """Bytes per second that the host's InfiniBand and RoCE ports receive and send."""

    family: ClassVar[Family] = Family.FABRIC
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.INFINIBAND_RECEIVE, catalogue.INFINIBAND_TRANSMIT)

    def __init__(self, host: Host) -> None:
        self._directory = str(host.root / INFINIBAND)
        self._lap = Lap()
        self._pause = Pause(_LOOK_SECONDS)
        self._ports = self._look()
        self._answered: Collection[str] = ()
        self._counters = CounterSet(
            lambda _: Counters(*[bounds.INFINIBAND_BYTES] * 2, wraps_at=_WRAPS_AT, from_zero=bounds.FROM_ZERO)
        )
        first = self._read()
        if not first:
            raise Unavailable("; ".join(self.gaps) or NO_INFINIBAND)
        self._counters.follow(first, NO_CLOCK)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the rates since the last reading that was old enough, for ports that were there before."""
        span = self._lap.seconds(now)
        if self._pause.renew_if_over(now):
            self._ports = self._look()
        if span is None:
            self._counters.begin(now)
            return
        self._counters.follow(self._read(), now)
        rates = self._counters.rates()
        if rates is not None:
            received, transmitted = rates
            yield catalogue.INFINIBAND_RECEIVE.sample(received / MEGABYTE, span)
            yield catalogue.INFINIBAND_TRANSMIT.sample(transmitted / MEGABYTE, span)

    def _read(self) -> dict[str, PortBytes]:
        """Returns the counters of the ports that respond; the others are skipped until the next lookup."""
        found = {}
        for port in tuple(self._ports):
            counters = f"{self._directory}/{port}/counters"
            try:
                found[port] = PortBytes(
                    parse_words(read_short(f"{counters}/port_rcv_data")),
                    parse_words(read_short(f"{counters}/port_xmit_data")),
                )
            except (OSError, ValueError) as error:
                self._ports.remove(port)
                if port in self._answered:  # perhaps for once
                    self._pause = Pause(_LOOK_SECONDS, read=False)
                self.gaps = (*self.gaps, f"the counters of {port}: {words_for(error)}")
        self._answered = found.keys()
        return found

    def _look(self) -> list[str]:
        """Returns the ports that have these counters; a software adapter (rxe, siw) has none."""
        self.gaps: Sequence[str] = ()
        ports = [
            f"{device}/ports/{port}"
            for device in listed(self._directory)
            for port in listed(f"{self._directory}/{device}/ports")
        ]
        return [port for port in ports if "port_rcv_data" in listed(f"{self._directory}/{port}/counters")]
