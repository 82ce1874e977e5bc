"""Values that cannot be true are absent, with a reason; their neighbours stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
from nvidia_machines import collector, hopper, tick
from pytest_mock import MockerFixture
from small_machines import group_v2, tree, values

from fake_nvml import FakeNvml, Process
from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.memory_linux import MemoryLinux, parse_meminfo
from mlflow_sysmetrics.collectors.memory_psutil import MemoryPsutil
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.machine.host import Host

CANNOT = "so it cannot be true"
GIGABYTE_KIB = 976_562


@pytest.mark.parametrize(
    ("changes", "missing", "reason"),
    [
        (
            {"power_milliwatts": 3_689_342_859},
            {"power_usage_watts", "power_usage_percentage"},
            "gpu_0 power, power limit: it is not between 0 and 2500 W",
        ),
        ({"power_limit_milliwatts": 9 * 10**9}, {"power_usage_percentage"}, "gpu_0 power limit: it is not"),
        ({"power_limit_milliwatts": 1}, {"power_usage_percentage"}, "between 0 and 300 %"),
        ({"temperature": 4000}, {"temperature_celsius"}, "gpu_0 temperature: it is not between -50 and 200"),
        (
            {"fields": {82: 65535}},
            {"memory_temperature_celsius"},
            "gpu_0 memory temp",
        ),
        (
            {"utilization": 65535},
            {"utilization_percentage"},
            "gpu_0 utilization: it is not between 0 and 100 %",
        ),
        (
            {"memory_used_bytes": 81_000_000_000},
            {"memory_usage_megabytes", "memory_usage_percentage"},
            "gpu_0 memory usage: more of it is said to be in use than there is",
        ),
        (
            {"memory_bytes": 2**50},
            {"memory_usage_megabytes", "memory_usage_percentage"},
            "gpu_0 memory usage: it is not between 0 and",
        ),
        ({"processes": [Process(1, 2**60)]}, {"process_memory_megabytes"}, ""),  # not ours
    ],
)
def test_what_no_gpu_can_do_is_absent(changes: dict[str, Any], missing: set[str], reason: str) -> None:
    whole, one = collector(FakeNvml(hopper())), collector(FakeNvml(hopper(**changes)))
    for now in (0, 1):
        healthy, found = tick(whole, now), tick(one, now)
    assert {key[2:] for key in healthy.keys() - found.keys()} == missing
    assert not reason or any(reason in gap for gap in one.gaps)


def test_an_impossible_memory_utilization_is_absent() -> None:
    one = collector(FakeNvml(hopper(memory_utilization=101)), NvidiaProfile)
    assert "0_memory_utilization_percentage" not in tick(one)
    assert any("gpu_0 memory utilization: it is not between 0 and 100 %" in gap for gap in one.gaps)


def test_an_impossible_value_is_not_the_end_of_a_reading() -> None:
    nvml = FakeNvml(gpu := hopper(temperature=4000))
    one = collector(nvml)
    assert "0_temperature_celsius" not in tick(one, 0)
    gpu.temperature = 61
    assert tick(one, 1)["0_temperature_celsius"] == 61
    assert not [gap for gap in one.gaps if CANNOT in gap]


def test_the_power_of_another_call_replaces_an_impossible_one() -> None:
    gpu = hopper(power_milliwatts=3_689_342_859, fields={186: 350_000})
    assert tick(collector(FakeNvml(gpu)))["0_power_usage_watts"] == 350


def test_impossible_power_adds_no_energy() -> None:
    nvml = FakeNvml(gpu := hopper(power_milliwatts=360_000))
    nvml.fail("nvmlDeviceGetTotalEnergyConsumption", 3)
    one = collector(nvml)
    tick(one, 0)
    gpu.power_milliwatts = 3_689_342_859
    assert "0_energy_watt_hours" not in tick(one, 1)
    gpu.power_milliwatts = 360_000
    tick(one, 2)
    assert tick(one, 12)["0_energy_watt_hours"] == pytest.approx(1)


def test_impossible_clocks_are_absent() -> None:
    one = collector(FakeNvml(hopper(sm_clock=65535)), NvidiaProfile)
    assert tick(one).keys() == {"0_memory_clock_megahertz", "0_memory_utilization_percentage"}
    assert any("gpu_0 SM clock: it is not between 0 and 20000 MHz" in gap for gap in one.gaps)


@pytest.mark.parametrize(("metric", "value"), [(2, 1e9), (5, 201.0), (20, 1e12), (60, 1e12)])
def test_impossible_activity_is_absent(metric: int, value: float) -> None:
    healthy = hopper().gpm
    assert healthy is not None
    one, other = (
        collector(FakeNvml(hopper(gpm={**healthy, **more})), NvidiaProfile) for more in ({}, {metric: value})
    )
    for now in (0, 1):
        whole, found = tick(one, now), tick(other, now)
    assert len(whole.keys() - found.keys()) == 1


def meminfo(**kibibytes: int) -> bytes:
    return "".join(f"{name}: {size} kB\n" for name, size in kibibytes.items()).encode()


@pytest.mark.parametrize(
    ("lines", "available"),
    [
        ({"MemAvailable": 0, "MemFree": 600, "Cached": 200}, 800),
        (
            {
                "MemAvailable": 0,
                "MemFree": 600,
                "Buffers": 10,
                "Cached": 200,
                "SReclaimable": 30,
                "Shmem": 50,
            },
            790,
        ),
        ({"MemAvailable": 0, "MemFree": 100, "Cached": 50, "Shmem": 90}, 100),
        ({"MemFree": 600, "Cached": 200}, 800),
        ({"MemAvailable": 0, "MemFree": 10, "Cached": 20}, 0),  # really out of memory
        ({"MemAvailable": 0}, 0),
        ({"MemAvailable": 1, "MemFree": 900}, 1),
    ],
)
def test_available_memory_of_0_is_believed_only_if_nothing_refutes_it(
    lines: dict[str, int], available: int
) -> None:
    found = parse_meminfo(meminfo(MemTotal=1000, **lines))
    assert found.available == available * 1024
    assert bool(found.doubt) == (lines.get("MemAvailable") == 0 and available > 0)


def test_an_estimate_of_available_memory_is_said(tmp_path: Path) -> None:
    host = tree(tmp_path, {"proc/meminfo": meminfo(MemTotal=1000, MemFree=700, MemAvailable=0).decode()})
    one = MemoryLinux(host)
    assert values(one, 0)["system_memory_usage_percentage"] == 30
    assert "MemAvailable in /proc/meminfo reads 0" in one.gaps[0]


@pytest.mark.parametrize(
    ("current", "reason"),
    [(0, "shows 0 bytes, although this process is in it"), (2**63, "shows more than the machine has")],
)
def test_impossible_memory_of_the_group_is_absent(tmp_path: Path, current: int, reason: str) -> None:
    files = {
        "proc/meminfo": meminfo(MemTotal=16 * GIGABYTE_KIB, MemAvailable=12 * GIGABYTE_KIB).decode(),
        "sys/fs/cgroup/job/memory.current": f"{current}\n",
        "sys/fs/cgroup/job/memory.stat": "inactive_file 0\n",
        "sys/fs/cgroup/job/memory.max": "2000000000\n",
        **group_v2(),
    }
    one = MemoryLinux(tree(tmp_path, files))
    assert values(one, 0).keys() == {"host_memory_usage_percentage"}
    assert one.gaps == (f"no memory usage of the job: its cgroup {reason}",)


@pytest.mark.parametrize("limit", [0, 2**62, 2**63 - 4096, 9 * 10**18])
def test_impossible_limits_of_memory_are_none(tmp_path: Path, limit: int) -> None:
    files = {
        "proc/meminfo": meminfo(MemTotal=1000, MemAvailable=700).decode(),
        "sys/fs/cgroup/job/memory.current": "1024\n",
        "sys/fs/cgroup/job/memory.stat": "inactive_file 0\n",
        "sys/fs/cgroup/job/memory.max": f"{limit}\n",
        **group_v2(),
    }
    assert values(MemoryLinux(tree(tmp_path, files)), 0)["system_memory_usage_percentage"] == 30


@pytest.mark.parametrize(
    ("used", "available", "swap", "keys"),
    [
        (
            4e9,
            11e9,
            1e9,
            {"system_memory_usage_percentage", "memory_available_megabytes", "swap_usage_megabytes"},
        ),
        (17e9, 11e9, 1e9, {"memory_available_megabytes", "swap_usage_megabytes"}),
        (-1, 11e9, 1e9, {"memory_available_megabytes", "swap_usage_megabytes"}),
        (4e9, 17e9, 1e9, {"system_memory_usage_percentage", "swap_usage_megabytes"}),
        (4e9, 11e9, 3e9, {"system_memory_usage_percentage", "memory_available_megabytes"}),
    ],
)
def test_impossible_memory_of_psutil_is_absent(
    mocker: MockerFixture, used: float, available: float, swap: float, keys: set[str]
) -> None:
    memory = mocker.patch.object(psutil, "virtual_memory").return_value
    memory.used, memory.total, memory.available = used, 16e9, available
    space = mocker.patch.object(psutil, "swap_memory").return_value
    space.total, space.used = 2e9, swap
    one = MemoryPsutil(Host())
    assert values(one, 0).keys() - {"system_memory_usage_megabytes"} == keys
    assert len(one.gaps) == (0 if len(keys) == 3 else 1)


@pytest.mark.parametrize(
    ("speed", "most"),
    [
        ("10000", 5e9),
        ("10", 5e8),
        ("400000", 200e9),
        ("-1", bounds.NETWORK_BYTES),
        ("", bounds.NETWORK_BYTES),
        ("0", 50e9),
    ],
)
def test_an_interface_is_bounded_by_its_speed(speed: str, most: float) -> None:
    assert bounds.network_bytes(speed) == most


@pytest.mark.parametrize(
    ("name", "most"), [("nvme0n1", 32e9), ("sda", 32e9), ("dm-3", 400e9), ("md127", 400e9)]
)
def test_arrays_are_faster_than_disks(name: str, most: float) -> None:
    assert bounds.disk_bytes(name) == most
