"""Network: which interfaces count, and what is computed from their counters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from mlflow_sysmetrics.collectors.network_linux import (
    NetworkLinux,
    Role,
    counted,
    parse_counters,
    parse_default_routes,
    role,
    split_net_dev,
)
from mlflow_sysmetrics.collectors.traffic import Traffic, TrafficTotals
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

HEADINGS = """Inter-|   Receive                  |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
"""
RECEIVED, TRANSMITTED = "network_receive_megabytes", "network_transmit_megabytes"
RECEIVE_RATE, TRANSMIT_RATE = f"{RECEIVED}_per_second", f"{TRANSMITTED}_per_second"
ERRORS = "network_errors"
NO_ROUTE = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"


def line(name: str, received: int, transmitted: int, errors: int = 0) -> str:
    return f"{name:>6}:{received} 10 {errors} 0 0 0 0 0 {transmitted} 3 0 0 0 0 0 0\n"


@dataclass
class Machine:
    """A host whose interfaces a test writes."""

    root: Path

    @property
    def host(self) -> Host:
        return Host(root=self.root, environ={})

    def shows(self, *lines: str) -> None:
        self.write("proc/net/dev", HEADINGS + "".join(lines))

    def has(self, name: str, *marks: str, kind: str = "1") -> None:
        """Makes the /sys/class/net directory of an interface."""
        self.write(f"sys/class/net/{name}/type", f"{kind}\n")
        for mark in marks:
            (self.root / "sys/class/net" / name / mark).mkdir()

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def values(collector: NetworkLinux, now: float) -> dict[str, float]:
    return {sample.key: sample.value for sample in collector.collect(now)}


def test_a_name_may_be_followed_by_a_number_without_a_space() -> None:
    found = split_net_dev(HEADINGS + line("lo", 100, 100) + "  eth0:5000000 1\n")
    assert found == {"lo": "100 10 0 0 0 0 0 0 100 3 0 0 0 0 0 0", "eth0": "5000000 1"}


def test_a_name_may_contain_a_colon() -> None:
    assert list(split_net_dev(HEADINGS + "eth0:1: 5\n")) == ["eth0:1"]


def test_a_namespace_without_interfaces_yields_none() -> None:
    assert split_net_dev(HEADINGS) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "garbage",
        "a\nb\neth0 1 2 3\n",
        HEADINGS + "eth0 1 2 3\n",
        HEADINGS + line("eth0", 1, 1)[:-1],
    ],
    ids=["empty", "a line", "no lines", "no headings", "no colon", "cut short"],
)
def test_an_incomplete_table_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="/proc/net/dev"):
        split_net_dev(text)


def test_counters_are_bytes_and_the_sum_of_errors_and_drops() -> None:
    assert parse_counters("5000 10 1 2 9 9 9 9 700 3 4 8 9 9 9 9") == Traffic(5000, 700, errors=15)


@pytest.mark.parametrize(
    "counters",
    [
        "",
        "1 2 3",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
        "a 10 0 0 0 0 0 0 700 3 0 0 0 0 0 0",
        "-1 10 0 0 0 0 0 0 700 3 0 0 0 0 0 0",
        f"{2**64} 10 0 0 0 0 0 0 700 3 0 0 0 0 0 0",
    ],
)
def test_invalid_counters_are_rejected(counters: str) -> None:
    with pytest.raises(ValueError, match=r"/proc/net/dev|invalid literal"):
        parse_counters(counters)


@pytest.mark.parametrize(
    ("name", "kind", "marks", "expected"),
    [
        ("lo", "772", (), Role.REPEATER),
        ("eth0", "1", ("device",), Role.OUTLET),
        ("eth0", "1", ("type",), Role.VIRTUAL),  # container end of a veth pair
        ("docker0", "1", ("bridge",), Role.REPEATER),
        ("veth12ab", "1", ("brport", "master"), Role.REPEATER),
        ("vnet0", "1", ("master",), Role.REPEATER),  # in Open vSwitch
        ("eth1", "1", ("device", "brport"), Role.OUTLET),  # a physical card in a bridge for virtual machines
        ("eth2", "1", ("device", "bonding_slave"), Role.REPEATER),
        ("bond0", "1", ("bonding", "lower_eth2"), Role.OUTLET),
        ("eth0.100", "1", ("lower_eth0",), Role.REPEATER),
        ("tun0", "65534", ("tun_flags",), Role.REPEATER),
        ("wg0", "65534", ("wireguard",), Role.REPEATER),
        ("ib0", "32", ("device",), Role.OUTLET),
    ],
)
def test_determines_the_role_of_an_interface(
    name: str, kind: str, marks: tuple[str, ...], expected: Role
) -> None:
    assert role(name, kind, frozenset(marks)) is expected


def test_without_sysfs_the_role_is_derived_from_the_name(machine: Machine) -> None:
    assert counted(machine.host, ["eth0", "lo"]) == {"eth0": True, "lo": False}


def test_inside_a_container_its_veth_end_counts(machine: Machine) -> None:
    machine.has("lo", kind="772")
    machine.has("eth0")
    assert counted(machine.host, ["lo", "eth0"]) == {"lo": False, "eth0": True}


def test_virtual_interfaces_do_not_count_next_to_a_card(machine: Machine) -> None:
    """Traffic of routed container networks, ifb and dummy interfaces passes the card as well."""
    machine.has("eth0", "device")
    inside = ["cali12ab", "ifb0", "dummy0"]
    for name in inside:
        machine.has(name)
    assert counted(machine.host, ["eth0", *inside]) == {"eth0": True, **dict.fromkeys(inside, False)}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("proc/net/route", NO_ROUTE + "eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n"),
        ("proc/net/ipv6_route", f"{'0' * 32} 00 {'0' * 32} 00 {'f' * 32} 00000400 1 0 1 eth0\n"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_pod_with_a_card_also_counts_its_own_network(machine: Machine, file: str, text: str) -> None:
    machine.has("eth0")
    machine.has("net1", "device")
    machine.write(file, text)
    assert counted(machine.host, ["eth0", "net1"]) == {"eth0": True, "net1": True}


def test_a_virtual_function_is_counted_once_with_its_master(machine: Machine) -> None:
    """With Azure's accelerated networking, the master also counts the packets of the virtual function."""
    machine.has("eth0", "device", "lower_enP1s1")
    machine.has("enP1s1", "device", "master", "upper_eth0")
    assert counted(machine.host, ["eth0", "enP1s1"]) == {"eth0": True, "enP1s1": False}


def test_a_card_under_a_vlan_counts(machine: Machine) -> None:
    machine.has("eth0", "device", "upper_eth0.100")
    machine.has("eth0.100", "lower_eth0")
    assert counted(machine.host, ["eth0", "eth0.100"]) == {"eth0": True, "eth0.100": False}


@pytest.mark.parametrize("mark", ["tun_flags", "wireguard"])
def test_a_tunnel_counts_if_it_is_the_only_default_route(machine: Machine, mark: str) -> None:
    """Rootless containers have only this: slirp4netns and pasta create a tap device."""
    machine.has("lo", kind="772")
    machine.has("tap0", mark)
    machine.write("proc/net/route", NO_ROUTE + "tap0 00000000 0202000A 0003 0 0 0 00000000 0 0 0\n")
    assert counted(machine.host, ["lo", "tap0"]) == {"lo": False, "tap0": True}


def test_a_sysfs_of_another_namespace_is_ignored(machine: Machine) -> None:
    machine.has("lo", kind="772")
    machine.has("eno1", "device")
    names = ["lo", "br0", "veth0"]
    assert not any(counted(machine.host, names).values())
    machine.write("proc/net/route", NO_ROUTE + "veth0 00000000 0202000A 0003 0 0 0 00000000 0 0 0\n")
    assert counted(machine.host, names) == {"lo": False, "br0": False, "veth0": True}


def test_a_host_without_external_interfaces_is_reported(machine: Machine) -> None:
    machine.has("lo", kind="772")
    machine.shows(line("lo", 1, 1))
    assert NetworkLinux(machine.host).gaps == ("no interface leads out of this host",)


def test_only_routes_to_every_address_are_default_routes() -> None:
    ipv4 = (
        NO_ROUTE + "eth0 00000000 0 0 0 0 0 0000FFFF 0 0 0\neth1 0000A8C0 0 0 0 0 0 0000FFFF 0\n\ngarbage\n"
    )
    assert list(parse_default_routes(ipv4, "fe80 40 0 00 0 0 0 0 0 eth0\ngarbage\n")) == []


def test_totals_survive_interfaces_that_appear_vanish_and_restart() -> None:
    totals = TrafficTotals()
    both = {"eth0": Traffic(1600, 160, 9), "eth1": Traffic(9000, 900)}
    assert totals.update({"eth0": Traffic(1000, 100, 7)}, 0) == Traffic(0, 0, 0)
    assert totals.update({"eth0": Traffic(1500, 150, 9)}, 1) == Traffic(500, 50, 2)
    assert totals.update(both, 2) == Traffic(600, 60, 2)
    assert totals.update({"eth1": Traffic(9010, 901)}, 3) == Traffic(610, 61, 2)
    assert not totals.bytes.doubted
    assert totals.update({"eth1": Traffic(5, 3, 1)}, 4) == Traffic(610, 61, 3)
    assert totals.bytes.doubted
    assert totals.update({"eth1": Traffic(9, 4, 1)}, 5) == Traffic(614, 62, 3)
    assert not totals.bytes.doubted


def test_a_small_decrease_is_not_a_restart() -> None:
    totals = TrafficTotals()
    totals.update({"eth0": Traffic(1000, 0)}, 0)
    assert totals.update({"eth0": Traffic(990, 0)}, 1) == Traffic(0, 0)
    assert totals.bytes.doubted
    assert totals.update({"eth0": Traffic(1010, 0)}, 2) == Traffic(10, 0)
    assert not totals.bytes.doubted


def test_totals_count_from_the_first_reading(machine: Machine) -> None:
    machine.shows(line("eth0", 7_000_000, 2_000_000, 3))
    collector = NetworkLinux(machine.host)
    assert values(collector, 0) == {RECEIVED: 0, TRANSMITTED: 0, ERRORS: 0}
    machine.shows(line("eth0", 9_000_000, 2_500_000, 5))
    found = values(collector, 0.1)
    assert found == {RECEIVED: 2, TRANSMITTED: 0.5, ERRORS: 2}


def test_rates_are_the_growth_of_the_totals_per_second(machine: Machine) -> None:
    machine.shows(line("eth0", 0, 0))
    collector = NetworkLinux(machine.host)
    values(collector, 10)
    machine.shows(line("eth0", 3_000_000, 1_000_000))
    values(collector, 10.1)  # too short for a rate: merged into the next reading
    machine.shows(line("eth0", 8_000_000, 1_000_000))
    samples = {sample.key: sample for sample in collector.collect(12)}
    assert samples[RECEIVE_RATE].value == pytest.approx(4)
    assert samples[TRANSMIT_RATE].value == pytest.approx(0.5)
    assert samples[RECEIVE_RATE].span == pytest.approx(2)


def test_a_counter_that_restarts_is_believed_at_the_second_reading(machine: Machine) -> None:
    machine.shows(line("eth0", 5_000_000, 0))
    collector = NetworkLinux(machine.host)
    values(collector, 0)
    machine.shows(line("eth0", 1_000_000, 0))
    assert values(collector, 1) == {ERRORS: 0}
    machine.shows(line("eth0", 3_000_000, 0))
    found = values(collector, 2)
    assert (found[RECEIVED], found[RECEIVE_RATE]) == (2, 2)


def test_a_restart_within_a_short_tick_shortens_the_span_of_the_rate(machine: Machine) -> None:
    machine.shows(line("eth0", 5_000_000, 0))
    collector = NetworkLinux(machine.host)
    values(collector, 0)
    machine.shows(line("eth0", 1_000_000, 0))
    values(collector, 0.1)
    machine.shows(line("eth0", 3_000_000, 0))
    assert values(collector, 1)[RECEIVE_RATE] == pytest.approx(2 / 0.9)


def test_loopback_does_not_count(machine: Machine) -> None:
    machine.has("lo", kind="772")
    machine.has("eth0", "device")
    machine.shows(line("lo", 0, 0), line("eth0", 0, 0))
    collector = NetworkLinux(machine.host)
    machine.shows(line("lo", 9_000_000, 9_000_000), line("eth0", 1_000_000, 0))
    assert values(collector, 0)[RECEIVED] == 1


def test_an_interface_that_joins_a_bond_is_noticed_within_a_minute(machine: Machine) -> None:
    machine.has("eth0", "device")
    machine.has("eth1", "device")
    machine.shows(line("eth0", 0, 0), line("eth1", 0, 0))
    collector = NetworkLinux(machine.host)
    values(collector, 0)
    (machine.root / "sys/class/net/eth1/bonding_slave").mkdir()
    values(collector, 61)
    machine.shows(line("eth0", 1_000_000, 0), line("eth1", 1_000_000, 0))
    assert values(collector, 62)[RECEIVED] == 1


def test_a_hot_plugged_interface_counts_from_its_first_reading(machine: Machine) -> None:
    machine.shows(line("eth0", 0, 0))
    collector = NetworkLinux(machine.host)
    machine.shows(line("eth0", 0, 0), line("eth1", 4_000_000, 0))
    values(collector, 0)
    machine.shows(line("eth0", 0, 0), line("eth1", 5_000_000, 0))
    assert values(collector, 1)[RECEIVED] == 1


def test_a_failed_reading_loses_no_traffic(machine: Machine) -> None:
    machine.shows(line("eth0", 0, 0))
    collector = NetworkLinux(machine.host)
    values(collector, 0)
    machine.write("proc/net/dev", HEADINGS + "  eth0: 50")
    with pytest.raises(ValueError, match="only part of one"):
        values(collector, 1)
    machine.shows(line("eth0", 4_000_000, 0))
    found = values(collector, 2)
    assert (found[RECEIVED], found[RECEIVE_RATE]) == (4, 2)


def test_a_clock_that_goes_backwards_gives_no_rate(machine: Machine) -> None:
    machine.shows(line("eth0", 0, 0))
    collector = NetworkLinux(machine.host)
    values(collector, 100)
    assert RECEIVE_RATE not in values(collector, 50)


def test_a_host_without_the_table_is_unavailable(machine: Machine) -> None:
    with pytest.raises(Unavailable, match="net/dev"):
        NetworkLinux(machine.host)


def test_a_host_with_a_garbage_table_is_unavailable(machine: Machine) -> None:
    machine.write("proc/net/dev", "garbage")
    with pytest.raises(Unavailable, match="/proc/net/dev is not a table"):
        NetworkLinux(machine.host)


def test_a_port_of_a_switch_in_the_card_repeats_what_passes_the_card(machine: Machine) -> None:
    for name, port in (("p0", "p0"), ("pf0vf0", "pf0vf0"), ("pf0sf3", "c1pf0sf3")):
        machine.has(name, "device")
        machine.write(f"sys/class/net/{name}/phys_port_name", f"{port}\n")
    assert counted(machine.host, ["p0", "pf0vf0", "pf0sf3"]) == {"p0": True, "pf0vf0": False, "pf0sf3": False}


def test_an_interface_whose_counters_are_garbage_does_not_hide_the_others(machine: Machine) -> None:
    machine.shows(line("eth0", 10, 10), line("eth1", 2**64 - 1, 7))
    collector = NetworkLinux(machine.host)
    for now in range(4):
        machine.shows(line("eth0", 10 + now * 1_000_000, 10), line("eth1", 2**64 - 1, 7))
        found = values(collector, now)
    assert found[RECEIVED] == 3
    assert collector.gaps == (
        "the traffic of eth1 is unknown: its counters do not go on from where they were",
    )


def test_an_interface_is_bounded_by_its_own_speed(machine: Machine) -> None:
    machine.has("eth0", "device")
    machine.write("sys/class/net/eth0/speed", "1000\n")
    machine.shows(line("eth0", 10, 10))
    collector = NetworkLinux(machine.host)
    values(collector, 0)
    machine.shows(line("eth0", 900_000_000, 10))  # 7 Gb/s
    assert values(collector, 1) == {ERRORS: 0}
    machine.shows(line("eth0", 11, 10))
    assert values(collector, 2)[RECEIVED] == pytest.approx(1e-6)


@pytest.mark.parametrize("garbage", [-1, 2**64, 10**30])
def test_a_garbled_line_is_the_absence_of_one_interface(machine: Machine, garbage: int) -> None:
    machine.shows(line("eth0", 10, 10), line("eth1", 10, 10))
    collector = NetworkLinux(machine.host)
    values(collector, 0)
    machine.shows(line("eth0", 1_000_010, 10), line("eth1", garbage, 10))
    assert values(collector, 1)[RECEIVED] == 1
    assert collector.gaps == ("the traffic of eth1 is unknown: its line in /proc/net/dev is garbled",)
    machine.shows(line("eth0", 1_000_010, 10), line("eth1", 2_000_010, 10))
    assert values(collector, 2)[RECEIVED] == 3
    machine.shows(line("eth0", garbage, 10), line("eth1", garbage, 10))
    assert values(collector, 3) == {}
    assert len(collector.gaps) == 2


def test_another_interface_counts_its_own_errors(machine: Machine) -> None:
    machine.shows(line("eth0", 10, 10, 3))
    collector = NetworkLinux(machine.host)
    values(collector, 0)
    machine.shows(line("eth1", 10, 10, 3))
    values(collector, 1)
    machine.shows(line("eth1", 10, 10, 5))
    assert values(collector, 2)[ERRORS] == 2
