"""Traffic of the host's network interfaces, and their errors; no byte counts twice.

Source:  /proc/net/dev; /sys/class/net/<interface>/ and the default route in /proc/net/{route,ipv6_route}
         determine which interfaces count. They are looked up when the list of interfaces changes and once a
         minute: an interface may join a bond or a bridge at any time.
Units:   megabytes (1e6 bytes), errors and drops since the collector was built (the daemon counts from each
         run's attach); megabytes per second.
Cost:    one read of /proc/net/dev; only the lines of counted interfaces are parsed.
Absent:  a kernel without /proc/net/dev; at a tick at which a counter is not believed (`counters`): it went
         back, or grew beyond four times the card's speed. No traffic is 0, not absent.
Check:   cat /proc/net/dev; ip -s -details link; ip route
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from operator import itemgetter
from typing import ClassVar

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.kernel_files import WORD, listed, text_of
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.collectors.traffic import Traffic, TrafficSeries
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import Malformed, quoted, why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample

_ARPHRD_LOOPBACK = "772"  # include/uapi/linux/if_arp.h
_NEVER = frozenset({"bridge", "bonding_slave", "tun_flags", "wireguard"})
# A port of a card's switch that stands for a virtual function: its packets pass the function or the card.
# https://docs.kernel.org/networking/representors.html
_REPRESENTOR = re.compile(r"pf\d+[vs]f\d+$")
_UPPER, _LOWER = "upper_", "lower_"
_IPV4_ANY, _IPV6_ANY = "00000000", "0" * 32
_DESTINATION, _MASK = 1, 7


class Role(Enum):
    """How the traffic of an interface relates to the host's."""

    OUTLET = "a card, or a bond of cards"
    VIRTUAL = "no hardware that this namespace sees: one end of a container's veth pair, ifb, dummy"
    REPEATER = "its packets pass another interface too, or never leave the host"


def counted(host: Host, names: Iterable[str]) -> dict[str, bool]:
    """Returns for each interface whether it counts.

    Traffic that leaves the host passes an outlet. A virtual interface counts only if there is no outlet, as
    in a container, or if it has the default route, as in a pod that was given a card beside its own network.
    """
    directory = host.root / "sys/class/net"
    marks = {name: frozenset(listed(f"{directory}/{name}")) for name in names}
    roles = {name: role(name, text_of(f"{directory}/{name}/type"), marks[name]) for name in marks}
    for name in [name for name in roles if roles[name] is Role.OUTLET]:
        if _REPRESENTOR.search(text_of(f"{directory}/{name}/phys_port_name")):
            roles[name] = Role.REPEATER
    if any(marks.values()):  # an interface missing in sysfs, which shows another namespace
        roles |= {name: Role.REPEATER for name in marks if not marks[name]}
    outlets = {name for name in roles if roles[name] is Role.OUTLET}
    # A card whose master is a card too is the fast path of that one, as in Azure's accelerated networking.
    repeated = {name for name in outlets if any(f"{_UPPER}{outlet}" in marks[name] for outlet in outlets)}
    virtual = {name for name in roles if roles[name] is Role.VIRTUAL}
    if virtual and outlets:
        virtual &= set(_default_routes(host))
    # In a rootless container, or a namespace with only a tunnel, the default route is the way out.
    chosen = outlets - repeated | virtual or set(_default_routes(host)) & roles.keys()
    return {name: name in chosen for name in roles}


def role(name: str, kind: str, marks: frozenset[str]) -> Role:
    """Returns the role of an interface.

    Repeaters are loopback, bridges and their virtual members (containers), the members of a bond, interfaces
    stacked on others (VLANs, macvlans), and tunnels, whose packets pass a real interface again.

    Args:
        name: name of the interface; decisive only if sysfs is not mounted.
        kind: its hardware type, from the file `type`.
        marks: the names in its directory in /sys/class/net.
    """
    if name == "lo" or kind == _ARPHRD_LOOPBACK or not marks.isdisjoint(_NEVER):
        return Role.REPEATER
    if not marks or "device" in marks or "bonding" in marks:
        return Role.OUTLET
    # A member of a bridge has brport; a member of Open vSwitch or a VRF only has a master.
    if "brport" in marks or "master" in marks or any(mark.startswith(_LOWER) for mark in marks):
        return Role.REPEATER
    return Role.VIRTUAL


def parse_default_routes(ipv4: str, ipv6: str) -> Iterator[str]:
    """Yields the interfaces with a default route in the texts of /proc/net/route and /proc/net/ipv6_route."""
    for route in ipv4.splitlines():
        fields = route.split()
        if fields[_DESTINATION : _MASK + 1 : _MASK - _DESTINATION] == [_IPV4_ANY, _IPV4_ANY]:
            yield fields[0]
    for route in ipv6.splitlines():
        if route.startswith(_IPV6_ANY + " 00 "):
            yield route.split()[-1]


def _default_routes(host: Host) -> Iterator[str]:
    ipv4, ipv6 = text_of(str(host.root / "proc/net/route")), text_of(str(host.root / "proc/net/ipv6_route"))
    return parse_default_routes(ipv4, ipv6)


# Bytes, packets, errs, drop and four more that are received, then the same of what is sent.
_FIELDS = 16
# Bytes received and sent, then the errors and drops of both.
_used = itemgetter(0, 8, 2, 3, 10, 11)
_make = tuple.__new__
_LOOK_SECONDS = 60.0


def split_net_dev(text: str) -> dict[str, str]:
    """Returns the unparsed counters of every interface, from the text of /proc/net/dev.

    Raises:
        Malformed: the text is not that table, or not all of it.
    """
    _, headings, *lines = text.split("\n") if text.count("\n") > 1 else ("", "")
    if "|" not in headings or lines.pop():  # every line has a newline, the last one too
        raise Malformed(f"/proc/net/dev is not a table, or only part of one: {quoted(text[-40:])}")
    interfaces = {}
    for line in lines:
        name, colon, counters = line.rpartition(":")  # a name may contain a colon
        if not colon:
            raise Malformed(f"/proc/net/dev has the line {quoted(line)}")
        interfaces[name.lstrip()] = counters
    return interfaces


def parse_counters(counters: bytes | str) -> Traffic:
    """Returns the traffic of one interface from its line in /proc/net/dev.

    Raises:
        Malformed: these are not the counters of an interface.
    """
    fields = counters.split()
    try:
        received, transmitted, *failed = map(int, _used(fields))
    except (IndexError, ValueError) as error:
        raise Malformed(f"/proc/net/dev has the counters {quoted(counters)}") from error
    traffic = _make(Traffic, (received, transmitted, sum(failed)))
    if len(fields) < _FIELDS or min(traffic) < 0 or max(traffic) >= WORD:
        raise Malformed(f"/proc/net/dev has the counters {quoted(counters)}")
    return traffic


class NetworkLinux(Collector):
    """Bytes received and sent by the host, their rates, and errors."""

    cumulative = True
    family: ClassVar[Family] = Family.NETWORK
    metrics: ClassVar[tuple[Metric, ...]] = TrafficSeries.metrics

    def __init__(self, host: Host) -> None:
        self._host = host
        self._file = host.files.keep(str(host.root / "proc/net/dev"), pieces=True)
        self._pause = Pause(_LOOK_SECONDS, first=0.65)
        self._counted: dict[str, bool] = {}
        self._lines: list[tuple[bytes, str]] = []
        self._only = -1  # which of the lines counts, if only one does
        self._lasting_gaps: tuple[str, ...] = ()
        self._garbled: tuple[str, ...] = ()
        try:
            self._series = TrafficSeries(self._read(self._file.read()), self._most_bytes)
        except (OSError, ValueError) as error:
            raise Unavailable(why_unread(error)) from error

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns the totals since the collector was built, and the rates since the last lap."""
        text = self._file.read()
        if now < self._pause.over_at < math.inf:  # infinity: the pause has not begun
            samples = self._ordinary(text, now)
            if samples is not None:
                return samples
        return self._collect(text, now)

    def _collect(self, text: bytes, now: float) -> Sequence[Sample]:
        traffic = None if self._pause.renew_if_over(now) else self._same(text)
        if traffic is None:
            traffic = self._read(text)
        samples = self._series.samples(traffic, now) if traffic or not self._garbled else ()
        if self._garbled or self._series.gaps or self.gaps is not self._lasting_gaps:
            self.gaps = self._lasting_gaps + self._garbled + self._series.gaps or self._lasting_gaps
        return samples

    def _most_bytes(self, name: str) -> float:
        """Returns the most bytes per second of an interface; that of a virtual one says nothing."""
        directory = f"{self._host.root}/sys/class/net/{name}"
        return bounds.network_bytes(
            text_of(f"{directory}/speed") if os.path.exists(f"{directory}/device") else ""
        )

    def _ordinary(self, text: bytes, now: float) -> Sequence[Sample] | None:
        """Returns the samples if one interface counts, all are the same as before, and nothing is wrong."""
        lines = text.split(b"\n")
        if self._only < 0 or len(lines) != len(self._lines) + 3 or lines[-1]:
            return None
        at = 2
        for start, _ in self._lines:
            if not lines[at].startswith(start):
                return None
            at += 1
        start, _ = self._lines[self._only]
        fields = lines[self._only + 2][len(start) :].split()
        if len(fields) < _FIELDS:
            return None
        try:
            received, transmitted, one, two, three, four = map(int, _used(fields))
        except ValueError:
            return None
        return self._series.ordinary(received, transmitted, one + two + three + four, now)

    def _same(self, text: bytes) -> dict[str, Traffic] | None:
        """Returns the traffic if the table has the same interfaces as before and nothing is wrong with it."""
        lines = text.split(b"\n")
        if len(lines) != len(self._lines) + 3 or lines[-1]:  # two of headings, and every line has a newline
            return None
        traffic = {}
        at = 2
        for start, name in self._lines:
            line = lines[at]
            at += 1
            if not line.startswith(start):
                return None
            if name:
                fields = line[len(start) :].split()
                if len(fields) < _FIELDS or not b"".join(fields).isdigit():
                    return None
                received, transmitted, one, two, three, four = map(int, _used(fields))
                if received >= WORD or transmitted >= WORD:
                    return None
                traffic[name] = _make(Traffic, (received, transmitted, one + two + three + four))
        self._garbled = ()
        return traffic

    def _read(self, text: bytes) -> dict[str, Traffic]:
        """Looks up which interfaces count, and returns their traffic."""
        interfaces = split_net_dev(os.fsdecode(text))
        self._counted = counted(self._host, interfaces)
        known = any(self._counted.values())
        self.gaps = self._lasting_gaps = () if known else ("no interface leads out of this host",)
        chosen = [name for name, counts in self._counted.items() if counts]
        self._lines = [
            (line[: line.rfind(b":") + 1], name if self._counted[name] else "")
            for line, name in zip(text.split(b"\n")[2:-1], interfaces, strict=True)
        ]
        self._only = [name for _, name in self._lines].index(chosen[0]) if len(chosen) == 1 else -1
        self._garbled = ()
        return dict(self._readable(interfaces, chosen))

    def _readable(
        self, interfaces: Mapping[str, str], chosen: Iterable[str]
    ) -> Iterator[tuple[str, Traffic]]:
        """Yields the traffic of the interfaces whose lines hold counters; the others are taken for absent."""
        for name in chosen:
            try:
                yield name, parse_counters(interfaces[name])
            except ValueError:
                self._garbled += (f"the traffic of {name} is unknown: its line in /proc/net/dev is garbled",)
