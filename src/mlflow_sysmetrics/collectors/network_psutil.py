"""Network traffic of a host that is not Linux.

Source:  psutil.net_io_counters: GetIfEntry2 on Windows, the routing table's if_data64 on macOS.
Units:   megabytes (1e6 bytes), errors and drops since the collector was built (the daemon counts from each
         run's attach); megabytes per second.
Cost:    one call that lists all interfaces.
Absent:  counters that psutil cannot read on that system.
Check:   python -c "import psutil; print(psutil.net_io_counters(pernic=True))"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import psutil

from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.traffic import Traffic, TrafficSeries
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import why_refused
from mlflow_sysmetrics.samples import Family, Metric, Sample

# Loopback, and macOS's and BSD's tunnels, bridges, bonds, VLANs and peer-to-peer links, whose bytes a real
# interface counts too.
_NOT_COUNTED = (
    *("lo", "Loopback", "utun", "bridge", "awdl", "llw", "gif", "stf", "anpi", "ap"),
    *("bond", "lagg", "vlan", "vmnet", "vmenet", "feth", "ipsec", "ppp", "tun", "tap", "wg", "epair"),
)
# The host's ports of virtual switches and tunnels on Windows: their packets pass a card, where there is one.
_VIRTUAL = ("vEthernet", "VMware", "VirtualBox", "TAP-", "Tailscale", "WireGuard", "ZeroTier", "Wintun")


class NetworkPsutil(Collector):
    """Bytes received and sent by the host, their rates, and errors."""

    cumulative = True
    family: ClassVar[Family] = Family.NETWORK
    metrics: ClassVar[tuple[Metric, ...]] = TrafficSeries.metrics

    def __init__(self, host: Host) -> None:
        try:
            self._series = TrafficSeries(_read())
        except (psutil.Error, OSError) as error:
            raise Unavailable(why_refused("net_io_counters", error)) from error

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns the totals since the collector was built, and the rates since the last lap."""
        samples = self._series.samples(_read(), now)
        self.gaps = self._series.gaps
        return samples


def _read() -> dict[str, Traffic]:
    # Without nowrap, which keeps a history of every interface: the totals handle counters that restart.
    traffic = {
        name: Traffic(
            counters.bytes_recv,
            counters.bytes_sent,
            counters.errin + counters.errout + counters.dropin + counters.dropout,
        )
        for name, counters in psutil.net_io_counters(pernic=True, nowrap=False).items()
        if not name.startswith(_NOT_COUNTED)
    }
    return {name: one for name, one in traffic.items() if not name.startswith(_VIRTUAL)} or traffic
