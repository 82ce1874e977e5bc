"""A counter of every source that once reads wrong: no series shows what the counter has counted all its life."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from drm_machine import card, machine, opens
from nvidia_machines import ampere, hopper
from nvidia_machines import host as nvidia_host
from small_machines import group_v2, tree, values

from fake_nvml import FakeGpu, FakeNvml
from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.amd_linux import AmdLinux
from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.collectors.disk_io_linux import DiskIoLinux
from mlflow_sysmetrics.collectors.energy_linux import EnergyLinux
from mlflow_sysmetrics.collectors.infiniband_linux import InfinibandLinux
from mlflow_sysmetrics.collectors.intel_gpu_linux import IntelLinux
from mlflow_sysmetrics.collectors.network_linux import NetworkLinux
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.collectors.oom_linux import OomLinux
from mlflow_sysmetrics.collectors.pressure_linux import PressureLinux
from mlflow_sysmetrics.collectors.throttling_linux import ThrottlingLinux
from mlflow_sysmetrics.machine.host import DiskUsage, Host

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(os.name == "nt", reason="the paths are those of Linux, with colons in names"),
]

SLOT = "0000:03:00.0"
CARD = "sys/class/drm/card0/device"
JOB = "sys/fs/cgroup/job"


class Source(NamedTuple):
    """A counter in files.

    Attributes:
        collector: reads it.
        files: returns its files for a value of the counter.
        life: what it has counted before the first tick.
        growth: what it counts in a tick.
        seconds: length of a tick.
        others: files that do not change.
    """

    collector: Callable[[Host], Collector]
    files: Callable[[int], dict[str, str]]
    life: int
    growth: int
    seconds: float = 1
    others: dict[str, str] = {}  # noqa: RUF012 - never changed


def net_dev(count: int) -> dict[str, str]:
    return {"proc/net/dev": f"Inter-|\n face |\n  eth0: {count} 1 0 0 0 0 0 0 {count} 1 0 0 0 0 0 0\n"}


def disk(count: int) -> dict[str, str]:
    return {"sys/class/block/sda/stat": f"1 2 {count} 4 5 6 {count} 8 0 7 11\n"}


def port(count: int) -> dict[str, str]:
    counters = "sys/class/infiniband/mlx5_0/ports/1/counters"
    return {f"{counters}/port_{way}_data": f"{count}\n" for way in ("rcv", "xmit")}


def fdinfo(engine: str) -> Callable[[int], dict[str, str]]:
    return lambda count: {
        "proc/self/fdinfo/9": f"drm-driver:\txe\ndrm-pdev:\t{SLOT}\ndrm-client-id:\t7\n"
        + engine.format(count, 10 * count)
    }


def stat(count: int) -> dict[str, str]:
    """Returns /proc/stat of four CPUs that were busy all their life, and are idle to three quarters now."""
    life = SOURCES["/proc/stat"].life
    busy = count if count < life else life + (count - life) // 4
    line = f"{busy} 0 0 {count - busy} 0"
    return {"proc/stat": f"cpu  {line}\n" + "".join(f"cpu{n} {line}\n" for n in range(4))}


RAPL = "sys/class/powercap/intel-rapl:0"
PRESSURE = "some avg10=0.00 total={}\nfull avg10=0.00 total=7\n"
SOURCES = {
    "network": Source(NetworkLinux, net_dev, 118_366_253_415, 100_000),
    "disk": Source(
        DiskIoLinux,
        disk,
        46_750_000,
        2000,
        others={
            "proc/self/mountinfo": "20 1 8:0 / / rw - ext4 /dev/sda rw\n",
            "sys/dev/block/8:0/uevent": "DEVNAME=sda\n",
        },
    ),
    "infiniband": Source(InfinibandLinux, port, 10**14, 10**6),
    "RAPL": Source(
        EnergyLinux,
        lambda count: {f"{RAPL}/energy_uj": f"{count}\n"},
        30_000_000_000,
        50_000_000,
        others={f"{RAPL}/name": "package-0\n", f"{RAPL}/max_energy_range_uj": "65532610987\n"},
    ),
    "/proc/stat": Source(CpuLinux, stat, 40_000_000, 400),
    "cgroup CPU time": Source(
        CpuLinux,
        lambda count: {f"{JOB}/cpu.stat": f"usage_usec {count}\n"},
        20_000_000,
        100_000,
        others={
            **group_v2(),
            f"{JOB}/cpu.max": "50000 100000\n",
            "proc/stat": "cpu  9 0 0 9 0\ncpu0 9 0 0 9 0\n",
        },
    ),
    "quota": Source(
        ThrottlingLinux,
        lambda count: {f"{JOB}/cpu.stat": f"nr_periods {count}\nnr_throttled {max(count - 9, 0)}\n"},
        9,
        0,
        others={**group_v2(), f"{JOB}/cpu.max": "50000 100000\n"},
    ),
    "pressure": Source(
        PressureLinux,
        lambda count: {"proc/pressure/cpu": PRESSURE.format(count)},
        12_000_000,
        100_000,
    ),
    "OOM kills": Source(
        OomLinux,
        lambda count: {f"{JOB}/memory.events": f"oom 9\noom_kill {count}\n"},
        700,
        1,
        others=group_v2(),
    ),
    "AMD ECC": Source(
        AmdLinux,
        lambda count: {f"{CARD}/ras/umc_err_count": f"ue: 0\nce: {count}\n"},
        5000,
        1,
        seconds=60,
        others={**card(SLOT, "0x1002\n", "amdgpu"), f"{CARD}/hwmon/hwmon3/temp1_input": "40000\n"},
    ),
    "Intel energy": Source(
        IntelLinux,
        lambda count: {f"{CARD}/hwmon/hwmon4/energy1_input": f"{count}\n"},
        900_000_000_000,
        50_000_000,
        others={**card(SLOT, "0x8086\n", "i915"), f"{CARD}/hwmon/hwmon4/name": "i915\n"},
    ),
    "i915 engines": Source(
        IntelLinux,
        fdinfo("drm-engine-render:\t{} ns\n"),
        400_000_000_000,
        1_000_000_000,
        seconds=6,
        others=card(SLOT, "0x8086\n", "i915"),
    ),
    "xe engines": Source(
        IntelLinux,
        fdinfo("drm-cycles-ccs:\t{}\ndrm-total-cycles-ccs:\t{}\n"),
        40_000_000_000,
        1_000_000_000,
        seconds=6,
        others=card(SLOT, "0x8086\n", "xe"),
    ),
}


def series(root: Path, source: Source, readings: list[int]) -> Iterator[dict[str, float]]:
    """Yields the samples of each tick while the counter shows these values."""
    host = machine(root, source.others, source.files(readings[0]))
    host = Host(
        root=root,
        environ={},
        working_directory=lambda: "/",
        disk_usage=lambda _: DiskUsage(9, 4, 5),
        process_seconds=host.process_seconds,
    )
    opens(root, 9, "/dev/dri/renderD128")
    tree(root, source.files(readings[0]))
    collector = source.collector(host)
    for tick, reading in enumerate(readings):
        tree(root, source.files(reading))
        yield values(collector, tick * source.seconds)


def largest(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: max(one.get(key, 0.0) for one in found) for key in {key for one in found for key in one}}


def bad_readings(true: list[int]) -> dict[str, list[int]]:
    first, second, third, *rest = true
    return {
        "0 once": [first, second, 0, *rest],
        "0 at first": [0, second, third, *rest],
        "0 twice": [first, 0, 0, *rest],
        "all bits once": [first, second, 2**64 - 1, *rest],
        "32 bits once": [first, second, 2**32 - 1, *rest],
        "a leap once": [first, second, third + 10**15, *rest],
    }


BAD = sorted(bad_readings([1, 2, 3]))


@pytest.fixture(scope="module")
def healthy_series(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, float]]]:
    """Reads each source once without a bad reading."""
    return functools.cache(
        lambda name: list(series(tmp_path_factory.mktemp("healthy"), SOURCES[name], true_readings(name)))
    )


def true_readings(name: str) -> list[int]:
    source = SOURCES[name]
    return [source.life + tick * source.growth for tick in range(6)]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", SOURCES)
def test_a_bad_reading_adds_nothing_to_any_series(
    tmp_path: Path, healthy_series: Callable[[str], list[dict[str, float]]], name: str, bad: str
) -> None:
    healthy = healthy_series(name)
    spoilt = list(series(tmp_path, SOURCES[name], bad_readings(true_readings(name))[bad]))
    assert any(healthy), "the source is read"
    found, limit = largest(spoilt), largest(healthy)
    assert {key: value for key, value in found.items() if value > 1.01 * limit.get(key, 0.0)} == {}
    assert min((value for one in spoilt for value in one.values()), default=0) >= 0
    assert spoilt[-1].keys() == healthy[-1].keys(), "all series are back"


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - {"quota", "/proc/stat"}))
def test_a_real_restart_is_believed(
    tmp_path: Path, healthy_series: Callable[[str], list[dict[str, float]]], name: str
) -> None:
    healthy = healthy_series(name)[-1]
    more = [n * SOURCES[name].growth for n in (1, 2, 3)]
    again = list(series(tmp_path, SOURCES[name], true_readings(name)[:3] + more))[-1]
    assert again.keys() == healthy.keys()
    assert all(0 <= value <= 1.01 * healthy[key] for key, value in again.items())


class NvmlCounter(NamedTuple):
    """A counter of NVML: the collector, and the attribute or field of the fake with its life and growth."""

    collector: type[Collector]
    gpu: Callable[[], FakeGpu]
    place: str | int
    life: int
    growth: int
    seconds: float = 1


NVML = {
    "energy": NvmlCounter(Nvidia, hopper, "energy_millijoules", 10**12, 300_000),
    "ECC": NvmlCounter(Nvidia, hopper, "ecc_corrected", 5000, 1, 10),
    "remapped rows": NvmlCounter(Nvidia, hopper, "remapped_rows", 400, 1, 10),
    "throttling": NvmlCounter(Nvidia, hopper, 74, 10**15, 10**8),
    "NVLink": NvmlCounter(NvidiaProfile, ampere, 138, 10**13, 10**5),
    "PCIe": NvmlCounter(NvidiaProfile, ampere, 197, 10**15, 10**8),
}


def nvml_series(counter: NvmlCounter, readings: list[int]) -> Iterator[dict[str, float]]:
    gpu = counter.gpu()
    collector = counter.collector(nvidia_host(FakeNvml(gpu)))
    for tick, reading in enumerate(readings):
        if isinstance(counter.place, str):
            setattr(gpu, counter.place, reading)
        else:
            gpu.fields |= {counter.place: reading}
        yield values(collector, tick * counter.seconds)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", NVML)
def test_a_bad_reading_of_nvml_adds_nothing_to_any_series(name: str, bad: str) -> None:
    counter = NVML[name]
    true = [counter.life + tick * counter.growth for tick in range(6)]
    healthy = list(nvml_series(counter, true))
    spoilt = list(nvml_series(counter, bad_readings(true)[bad]))
    found, limit = largest(spoilt), largest(healthy)
    assert {key: value for key, value in found.items() if value > 1.01 * limit.get(key, 0.0)} == {}
    assert spoilt[-1].keys() == healthy[-1].keys(), "all series are back"
