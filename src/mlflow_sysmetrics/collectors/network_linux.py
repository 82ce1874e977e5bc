"""What the host's interfaces move, and what of it goes wrong.

Source:  /proc/net/dev; /sys/class/net/<interface>/ tells which ones to count, when the list of interfaces
         changes and once a minute: an interface may join a bond or a bridge at any time.
Units:   megabytes (1e6 bytes), errors and drops since the collector was built (the daemon counts from each
         run's attach); megabytes per second.
Cost:    one read of /proc/net/dev, of which the lines of counted interfaces are parsed.
Absent:  a kernel without /proc/net/dev. No traffic is 0, not absent.
Check:   cat /proc/net/dev; ip -s link
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.fields import WORD
from mlflow_sysmetrics.collectors.interfaces import counted
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.collectors.traffic import Traffic, TrafficSeries
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host, read_bytes
from mlflow_sysmetrics.samples import Family, Metric, Sample

# Bytes, packets, errs, drop and four more that are received, then the same of what is sent.
_FIELDS = 16
_RECEIVED, _TRANSMITTED = 0, 8
_ERRORS_AND_DROPS = (2, 3, 10, 11)
_LOOK_SECONDS = 60.0


def split_net_dev(text: str) -> dict[str, str]:
    """Returns the counters of every interface, not parsed yet, from the text of /proc/net/dev.

    Raises:
        ValueError: the text is not that table, or not all of it.
    """
    _, headings, *lines = text.split("\n") if text.count("\n") > 1 else ("", "")
    if "|" not in headings or lines.pop():  # every line ends, the last one too
        raise ValueError(f"/proc/net/dev is no table, or only a part of it: {text[-40:]!r}")
    interfaces = {}
    for line in lines:
        name, colon, counters = line.rpartition(":")  # a name may hold a colon itself
        if not colon:
            raise ValueError(f"/proc/net/dev has the line {line!r}")
        interfaces[name.lstrip()] = counters
    return interfaces


def parse_counters(counters: str) -> Traffic:
    """Returns what one interface has counted from its line in /proc/net/dev.

    Raises:
        ValueError: these are not the counters of an interface.
    """
    fields = counters.split()
    if len(fields) < _FIELDS:
        raise ValueError(f"/proc/net/dev has the counters {counters!r}")
    traffic = Traffic(
        int(fields[_RECEIVED]),
        int(fields[_TRANSMITTED]),
        sum(int(fields[index]) for index in _ERRORS_AND_DROPS),
    )
    if min(traffic) < 0 or max(traffic) >= WORD:
        raise ValueError(f"/proc/net/dev has the counters {counters!r}")
    return traffic


class NetworkLinux(Collector):
    """Bytes received and sent by the host, their rates, and errors."""

    family: ClassVar[Family] = Family.NETWORK
    metrics: ClassVar[tuple[Metric, ...]] = TrafficSeries.metrics

    def __init__(self, host: Host) -> None:
        self._host = host
        self._path = str(host.root / "proc/net/dev")
        self._pause = Pause(_LOOK_SECONDS)
        self._counted: dict[str, bool] = {}
        try:
            self._series = TrafficSeries(self._read(look=True))
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the totals since the collector was built, and the rates of the last moment."""
        return self._series.samples(self._read(look=self._pause.renew_if_over(now)), now)

    def _read(self, *, look: bool) -> dict[str, Traffic]:
        interfaces = split_net_dev(os.fsdecode(read_bytes(self._path)))
        if look or interfaces.keys() != self._counted.keys():
            self._counted = counted(self._host, interfaces)
            self.gaps = () if any(self._counted.values()) else ("no interface leads out of this host",)
        return {name: parse_counters(interfaces[name]) for name, counts in self._counted.items() if counts}
