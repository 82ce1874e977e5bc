"""Which network interfaces count, so that no byte counts twice.

Source:  /sys/class/net/<interface>/, and the default route in /proc/net/route and /proc/net/ipv6_route.
Check:   ip -details link; ip route
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

from mlflow_sysmetrics.collectors.sysfs import listed, text_of
from mlflow_sysmetrics.machine.host import Host

_ARPHRD_LOOPBACK = "772"  # include/uapi/linux/if_arp.h
_NEVER = frozenset({"bridge", "bonding_slave", "tun_flags", "wireguard"})
_UPPER, _LOWER = "upper_", "lower_"
_IPV4_ANY, _IPV6_ANY = "00000000", "0" * 32
_DESTINATION, _MASK = 1, 7


class Role(Enum):
    """What an interface is to the host."""

    OUTLET = "a card, or a bond of cards"
    VIRTUAL = "has no hardware that this namespace sees: one end of a container's veth pair, ifb, dummy"
    REPEATER = "its packets pass another interface, or never leave the host"


def counted(host: Host, names: Iterable[str]) -> dict[str, bool]:
    """Tells for each interface whether it counts.

    What leaves the host passes an outlet. A virtual interface counts only where there is none, as in a
    container, or where it has the default route, as in a pod that was given a card beside its own network.
    """
    directory = host.root / "sys/class/net"
    marks = {name: frozenset(listed(f"{directory}/{name}")) for name in names}
    roles = {name: role(name, text_of(f"{directory}/{name}/type"), marks[name]) for name in marks}
    if any(marks.values()):  # what is missing in sysfs is out of its sight: it shows another namespace
        roles |= {name: Role.REPEATER for name in marks if not marks[name]}
    outlets = {name for name in roles if roles[name] is Role.OUTLET}
    # A card whose master is a card too is that one's fast path, as in Azure's accelerated networking.
    repeated = {name for name in outlets if any(f"{_UPPER}{outlet}" in marks[name] for outlet in outlets)}
    virtual = {name for name in roles if roles[name] is Role.VIRTUAL}
    if virtual and outlets:
        virtual &= set(_default_routes(host))
    # In a rootless container, or a namespace with a tunnel only, that is the way out.
    chosen = outlets - repeated | virtual or set(_default_routes(host)) & roles.keys()
    return {name: name in chosen for name in roles}


def role(name: str, kind: str, marks: frozenset[str]) -> Role:
    """Returns what an interface is to the host.

    Repeaters are loopback, bridges and their virtual members (containers), the members of a bond, what is
    stacked on another interface (VLANs, macvlans), and tunnels, whose packets pass a real interface again.

    Args:
        name: of the interface; all there is to go by where sysfs is not mounted.
        kind: its hardware type, from the file `type`.
        marks: the names in its directory in /sys/class/net.
    """
    if name == "lo" or kind == _ARPHRD_LOOPBACK or not marks.isdisjoint(_NEVER):
        return Role.REPEATER
    if not marks or "device" in marks or "bonding" in marks:
        return Role.OUTLET
    # A member of a bridge has brport, one of Open vSwitch or of a VRF only its master.
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
