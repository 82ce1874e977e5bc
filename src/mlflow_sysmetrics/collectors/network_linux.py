"""Bytes that the host's interfaces moved.

Source:  /proc/net/dev; /sys/class/net/<interface>/ tells, once per interface, which ones to count.
Units:   megabytes (1e6 bytes) since the collector was built; the daemon counts from each run's attach.
Cost:    one read of /proc/net/dev.
Absent:  a kernel without /proc/net/dev. No traffic is 0, not absent.
Check:   cat /proc/net/dev; ip -s link
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, Collector
from mlflow_sysmetrics.collectors.traffic import Traffic, TrafficTotals
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host, read_bytes
from mlflow_sysmetrics.samples import Family, Metric, Sample

_HEADER_LINES = 2
_RECEIVED, _TRANSMITTED = 0, 8
_ARPHRD_LOOPBACK = "772"  # include/uapi/linux/if_arp.h


def parse_net_dev(text: str) -> dict[str, Traffic]:
    """Returns the byte counters of every interface from the text of /proc/net/dev.

    Raises:
        ValueError: a line is not of that table.
    """
    interfaces = {}
    for line in text.splitlines()[_HEADER_LINES:]:
        name, colon, counters = line.partition(":")
        fields = counters.split()
        if not colon or len(fields) <= _TRANSMITTED:
            raise ValueError(f"/proc/net/dev has the line {line!r}")
        interfaces[name.strip()] = Traffic(int(fields[_RECEIVED]), int(fields[_TRANSMITTED]))
    return interfaces


def counts(interface: Path) -> bool:
    """Tells whether an interface carries traffic that no other one of this host counts too.

    Left out are loopback, bridges and their virtual members (containers), the members of a bond, what is
    stacked on another interface (VLANs, macvlans) and tunnels, whose packets pass a real interface again.

    Args:
        interface: directory of the interface below /sys/class/net; where there is none, its name decides.
    """
    if not interface.is_dir():
        return interface.name != "lo"
    try:
        if (interface / "type").read_text().strip() == _ARPHRD_LOOPBACK:
            return False
    except OSError:
        return interface.name != "lo"
    if any((interface / mark).exists() for mark in ("bridge", "bonding_slave", "tun_flags", "wireguard")):
        return False
    physical = (interface / "device").exists()
    if (interface / "brport").exists() and not physical:
        return False
    stacked = any(interface.glob("lower_*"))
    return physical or not stacked or (interface / "bonding").exists()


class NetworkLinux(Collector):
    """Bytes received and sent by the host."""

    family: ClassVar[Family] = Family.NETWORK
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.NETWORK_RECEIVE, catalogue.NETWORK_TRANSMIT)

    def __init__(self, host: Host) -> None:
        self._path = str(host.root / "proc/net/dev")
        self._class = host.root / "sys/class/net"
        self._counted: dict[str, bool] = {}
        self._totals = TrafficTotals()
        try:
            self._totals.update(self._read())
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error

    def collect(self, now: float) -> Iterator[Sample]:  # noqa: ARG002 - a total needs no clock
        """Yields the totals since the collector was built."""
        received, transmitted = self._totals.update(self._read())
        yield catalogue.NETWORK_RECEIVE.sample(received / MEGABYTE)
        yield catalogue.NETWORK_TRANSMIT.sample(transmitted / MEGABYTE)

    def _read(self) -> dict[str, Traffic]:
        interfaces = parse_net_dev(read_bytes(self._path).decode())
        if interfaces.keys() != self._counted.keys():
            self._counted = {name: counts(self._class / name) for name in interfaces}
        return {name: traffic for name, traffic in interfaces.items() if self._counted[name]}
