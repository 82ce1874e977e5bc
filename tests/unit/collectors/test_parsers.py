"""Parsers: text in, numbers out, no host."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.collectors.cpu_linux import parse_stat
from mlflow_sysmetrics.collectors.cpu_times import CpuTimes
from mlflow_sysmetrics.collectors.memory_linux import Memory, parse_meminfo
from mlflow_sysmetrics.collectors.network_linux import counts, parse_net_dev
from mlflow_sysmetrics.collectors.traffic import Traffic, TrafficTotals


def test_cpu_time_counts_waiting_for_disk_as_idle_and_guests_once() -> None:
    text = b"cpu  100 10 50 800 40 5 5 10 60 3\ncpu0 1 2 3\n"
    assert parse_stat(text) == CpuTimes(busy=180, total=1020)


def test_cpu_time_of_an_old_kernel_without_iowait() -> None:
    assert parse_stat(b"cpu 10 0 20 70\n") == CpuTimes(busy=30, total=100)


@pytest.mark.parametrize("text", [b"", b"cpu\n", b"cpu0 1 2 3 4 5\n", b"cpu a b c d e\n", b"\xff\xfe\n"])
def test_a_stat_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"/proc/stat|invalid literal"):
        parse_stat(text)


def test_memory_in_use_is_what_is_not_available() -> None:
    text = b"MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    600 kB\n"
    assert parse_meminfo(text) == Memory(total=1000 * 1024, available=600 * 1024)


def test_memory_of_a_kernel_that_does_not_tell_what_is_available() -> None:
    text = b"MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 250 kB\n"
    assert parse_meminfo(text).available == 400 * 1024


def test_available_is_never_more_than_there_is() -> None:
    """LXC shows a total of its own beside what is available on the host."""
    assert parse_meminfo(b"MemTotal: 100 kB\nMemAvailable: 900 kB\n") == Memory(100 * 1024, 100 * 1024)


@pytest.mark.parametrize("text", [b"", b"MemTotal: 100 kB\n", b"MemTotal: 0 kB\nMemAvailable: 0 kB\n"])
def test_a_meminfo_that_tells_nothing_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="/proc/meminfo"):
        parse_meminfo(text)


NET_DEV = """Inter-|   Receive                  |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:    100     1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:5000000    10    0    0    0     0          0         0     2000       3    0    0    0     0       0          0
"""


def test_interfaces_are_read_even_where_the_name_touches_the_number() -> None:
    assert parse_net_dev(NET_DEV) == {"lo": Traffic(100, 100), "eth0": Traffic(5_000_000, 2000)}


def test_a_net_dev_with_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match="/proc/net/dev"):
        parse_net_dev("a\nb\neth0 1 2 3\n")


def interface(root: Path, name: str, kind: str, *marks: str) -> Path:
    """Makes a directory as /sys/class/net has one for each interface."""
    directory = root / name
    directory.mkdir()
    (directory / "type").write_text(f"{kind}\n")
    for mark in marks:
        (directory / mark).mkdir()
    return directory


@pytest.mark.parametrize(
    ("name", "kind", "marks", "counted"),
    [
        ("lo", "772", (), False),
        ("eth0", "1", ("device",), True),
        ("eth0", "1", (), True),  # the container's end of a veth pair
        ("docker0", "1", ("bridge",), False),
        ("veth12ab", "1", ("brport",), False),
        ("eth1", "1", ("device", "brport"), True),  # a real card in a bridge for virtual machines
        ("eth2", "1", ("device", "bonding_slave"), False),
        ("bond0", "1", ("bonding", "lower_eth2"), True),
        ("eth0.100", "1", ("lower_eth0",), False),
        ("tun0", "65534", ("tun_flags",), False),
        ("wg0", "65534", ("wireguard",), False),
        ("ib0", "32", ("device",), True),
    ],
)
def test_which_interfaces_count(
    tmp_path: Path, name: str, kind: str, marks: tuple[str, ...], counted: bool
) -> None:
    assert counts(interface(tmp_path, name, kind, *marks)) is counted


def test_without_sysfs_only_the_name_can_tell(tmp_path: Path) -> None:
    assert counts(tmp_path / "eth0")
    assert not counts(tmp_path / "lo")


def test_totals_survive_interfaces_that_come_go_and_start_again() -> None:
    totals = TrafficTotals()
    assert totals.update({"eth0": Traffic(1000, 100)}) == Traffic(0, 0)
    assert totals.update({"eth0": Traffic(1500, 150)}) == Traffic(500, 50)
    assert totals.update({"eth0": Traffic(1600, 160), "eth1": Traffic(9000, 900)}) == Traffic(600, 60)
    assert totals.update({"eth1": Traffic(9010, 901)}) == Traffic(610, 61)
    assert totals.update({"eth1": Traffic(5, 3)}) == Traffic(615, 64)
