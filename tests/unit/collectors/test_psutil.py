"""The collectors of macOS and Windows, which run on every system that psutil supports."""

from __future__ import annotations

from collections import namedtuple

import psutil
import pytest
from pytest_mock import MockerFixture

from mlflow_sysmetrics.collectors.cpu_psutil import CpuPsutil
from mlflow_sysmetrics.collectors.memory_psutil import MemoryPsutil
from mlflow_sysmetrics.collectors.network_psutil import NetworkPsutil
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family
from recorded import PORTABLE

Times = namedtuple("Times", ["user", "system", "idle"])
Counters = namedtuple(
    "Counters", ["bytes_sent", "bytes_recv", "errin", "errout", "dropin", "dropout"], defaults=[0] * 4
)


def test_every_portable_collector_reads_this_host() -> None:
    for collector in PORTABLE:
        if collector.family not in (Family.GPU, Family.GPU_PROFILE):  # optional in psutil
            one = collector(Host())
            list(one.collect(0))
            assert list(one.collect(1)) or collector is CpuPsutil


def test_cpu_utilization_covers_the_time_since_the_previous_reading(mocker: MockerFixture) -> None:
    mocker.patch.object(
        psutil, "cpu_times", side_effect=[Times(10, 10, 80), Times(10, 10, 80), Times(40, 20, 100)]
    )
    mocker.patch.object(psutil, "cpu_count", return_value=30)
    one = CpuPsutil(Host())
    assert list(one.collect(0)) == []
    ((_, _, value, span),) = one.collect(2)
    assert value == pytest.approx(100 * 40 / 60)
    assert span == 2


def test_unchanged_cpu_counters_yield_nothing(mocker: MockerFixture) -> None:
    mocker.patch.object(psutil, "cpu_times", return_value=Times(10, 10, 80))
    one = CpuPsutil(Host())
    list(one.collect(0))
    assert list(one.collect(1)) == []


def test_memory_usage_is_that_of_psutil(mocker: MockerFixture) -> None:
    memory = mocker.patch.object(psutil, "virtual_memory").return_value
    memory.used, memory.total, memory.available = 4e9, 16e9, 11e9
    swap = mocker.patch.object(psutil, "swap_memory").return_value
    swap.total, swap.used = 2e9, 1e9
    assert [sample.value for sample in MemoryPsutil(Host()).collect(0)] == [4000, 25, 11000, 1000]


def test_a_host_without_swap_space_has_no_swap(mocker: MockerFixture) -> None:
    mocker.patch.object(psutil, "swap_memory").return_value.total = 0
    assert "swap_usage_megabytes" not in {sample.key for sample in MemoryPsutil(Host()).collect(0)}


def test_unreadable_swap_does_not_affect_memory(mocker: MockerFixture) -> None:
    mocker.patch.object(psutil, "swap_memory", side_effect=OSError("no /proc/vmstat"))
    one = MemoryPsutil(Host())
    assert len(list(one.collect(0))) == 3
    assert one.gaps == ("no swap usage: no /proc/vmstat",)


def test_loopback_and_tunnels_do_not_count(mocker: MockerFixture) -> None:
    def counters(scale: int) -> dict[str, Counters]:
        return {
            "lo0": Counters(9 * scale, 9 * scale),
            "utun3": Counters(5 * scale, 5 * scale),
            "Loopback Pseudo-Interface 1": Counters(7 * scale, 7 * scale),
            "en0": Counters(scale, 2 * scale),
        }

    mocker.patch.object(psutil, "net_io_counters", side_effect=[counters(1_000_000), counters(3_000_000)])
    assert [sample.value for sample in NetworkPsutil(Host()).collect(0)] == [4, 2, 0]


def test_network_rates_and_errors(mocker: MockerFixture) -> None:
    before, now = Counters(0, 0, 1, 1, 1, 1), Counters(3_000_000, 6_000_000, 2, 2, 2, 3)
    mocker.patch.object(
        psutil, "net_io_counters", side_effect=[{"en0": before}, {"en0": before}, {"en0": now}]
    )
    one = NetworkPsutil(Host())
    list(one.collect(0))
    assert {sample.key: sample.value for sample in one.collect(2)} == {
        "network_receive_megabytes": 6,
        "network_transmit_megabytes": 3,
        "network_errors": 5,
        "network_receive_megabytes_per_second": 3,
        "network_transmit_megabytes_per_second": 1.5,
    }


@pytest.mark.parametrize(
    ("collector", "function"),
    [(CpuPsutil, "cpu_times"), (MemoryPsutil, "virtual_memory"), (NetworkPsutil, "net_io_counters")],
)
def test_an_error_of_psutil_makes_it_unavailable(
    mocker: MockerFixture, collector: type[CpuPsutil], function: str
) -> None:
    mocker.patch.object(psutil, function, side_effect=OSError("not here"))
    with pytest.raises(Unavailable, match=f"psutil.{function}: not here"):
        collector(Host())


@pytest.mark.parametrize(
    ("names", "received"),
    [
        (["Ethernet", "vEthernet (WSL)", "VMware Network Adapter VMnet8"], 1),
        (["vEthernet (Ethernet)"], 1),  # in a container of Windows
        (["en0", "bond0", "vlan7", "vmenet1"], 1),
    ],
)
def test_what_passes_a_card_counts_once(mocker: MockerFixture, names: list[str], received: float) -> None:
    def counters(scale: int) -> dict[str, Counters]:
        return {name: Counters(scale, scale) for name in names}

    mocker.patch.object(psutil, "net_io_counters", side_effect=[counters(1_000_000), counters(2_000_000)])
    assert next(iter(NetworkPsutil(Host()).collect(0))).value == received
