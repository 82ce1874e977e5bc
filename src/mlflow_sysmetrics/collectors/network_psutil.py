"""Bytes that the interfaces of a host that is not Linux moved.

Source:  psutil.net_io_counters: GetIfEntry2 on Windows, the routing table's if_data64 on macOS.
Units:   megabytes (1e6 bytes) since the collector was built; the daemon counts from each run's attach.
Cost:    one call that lists all interfaces.
Absent:  what psutil cannot read on that system.
Check:   python -c "import psutil; print(psutil.net_io_counters(pernic=True))"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import psutil

from mlflow_sysmetrics.collectors.catalogue import network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, Collector
from mlflow_sysmetrics.collectors.traffic import Traffic, TrafficTotals
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample

# Loopback, and macOS's tunnels, bridges and peer-to-peer links, whose bytes a real interface counts again.
_NOT_COUNTED = ("lo", "Loopback", "utun", "bridge", "awdl", "llw", "gif", "stf", "anpi", "ap")


class NetworkPsutil(Collector):
    """Bytes received and sent by the host."""

    family: ClassVar[Family] = Family.NETWORK
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.NETWORK_RECEIVE, catalogue.NETWORK_TRANSMIT)

    def __init__(self, host: Host) -> None:  # noqa: ARG002 - psutil knows one host, the real one
        self._totals = TrafficTotals()
        try:
            self._totals.update(self._read())
        except (psutil.Error, OSError) as error:
            raise Unavailable(f"psutil.net_io_counters: {error}") from error

    def collect(self, now: float) -> Iterator[Sample]:  # noqa: ARG002 - a total needs no clock
        """Yields the totals since the collector was built."""
        received, transmitted = self._totals.update(self._read())
        yield catalogue.NETWORK_RECEIVE.sample(received / MEGABYTE)
        yield catalogue.NETWORK_TRANSMIT.sample(transmitted / MEGABYTE)

    @staticmethod
    def _read() -> dict[str, Traffic]:
        return {
            name: Traffic(counters.bytes_recv, counters.bytes_sent)
            for name, counters in psutil.net_io_counters(pernic=True).items()
            if not name.startswith(_NOT_COUNTED)
        }
