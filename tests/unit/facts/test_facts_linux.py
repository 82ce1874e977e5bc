"""Facts of Linux hosts, on small trees of /proc, /sys and /etc."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
from facts_machines import machine, printed, tools

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import linux
from mlflow_sysmetrics.facts.linux import parse_cpu_model, parse_physical_cores
from mlflow_sysmetrics.facts.values import Cores, Memory

STAT = "cpu  1 2 3 4\ncpu0 1 2 3 4\ncpu1 1 2 3 4\ncpu2 1 2 3 4\ncpu3 1 2 3 4\nintr 5\n"
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\n"
CGROUP_V2 = {
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}


@pytest.mark.parametrize(
    ("recorded", "model"),
    [
        ("epyc_9654_two_cores", "AMD EPYC 9654 96-Core Processor"),
        ("grace_neoverse_v2", "Arm Neoverse-V2"),
        ("gb10_two_kinds", "Arm Cortex-A725 + Arm Cortex-X925"),
        ("power9", "POWER9 (architected), altivec supported"),
        ("z15_two_cpus", "IBM z15"),
        ("z10_old_kernel", "IBM z10"),
        ("arm32_board", "Arm Cortex-A72"),
    ],
)
def test_reads_the_cpu_model_of_recorded_machines(recorded: str, model: str) -> None:
    assert parse_cpu_model(printed(f"cpuinfo/{recorded}.txt")) == model


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("CPU implementer\t: 0x41\nCPU part\t: 0xfff\n", "Arm part 0xfff"),
        ("CPU implementer\t: 0x99\nCPU part\t: 0x001\n", "implementer 0x99 part 0x001"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "Arm Neoverse-N1"),
        ("CPU implementer\t: 0x6d\nCPU part\t: 0xd49\n", "Microsoft Azure-Cobalt-100"),
        ("CPU implementer\t: 0xc0\nCPU part\t: 0xac3\n", "Ampere-1"),
        ("model name\t: ARMv7 Processor rev 3 (v7l)\n", "ARMv7 Processor rev 3 (v7l)"),
        ("vendor_id       : IBM/S390\nprocessor 0: version = FF,  machine = 9999\n", "IBM Z machine 9999"),
        ("vendor_id       : IBM/S390\n", "IBM Z"),
        ("processor : 0\n\nHardware\t: BCM2835\n", "BCM2835"),
    ],
)
def test_the_cpu_model_is_composed_from_available_fields(text: str, model: str) -> None:
    assert parse_cpu_model(text) == model


@pytest.mark.parametrize("text", ["", "\x00\ufffd", "processor : 0\nmodel name :\n"])
def test_a_cpuinfo_without_a_name_gives_no_model(text: str) -> None:
    with pytest.raises(Unavailable, match="names no model"):
        parse_cpu_model(text)


def test_the_host_reads_its_own_cpuinfo(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": printed("cpuinfo/grace_neoverse_v2.txt")}
    assert linux.cpu_model(machine(tmp_path, files), tools()) == "Arm Neoverse-V2"


def test_physical_cores_are_counted_from_threads() -> None:
    assert parse_physical_cores(printed("cpuinfo/epyc_9654_two_cores.txt")) == 2
    assert parse_physical_cores(printed("cpuinfo/z15_two_cpus.txt")) == 2


def test_counts_cores_without_a_cgroup(tmp_path: Path) -> None:
    files = {"proc/stat": STAT, "proc/cpuinfo": printed("cpuinfo/epyc_9654_two_cores.txt")}
    assert linux.cores(machine(tmp_path, files)) == Cores(logical=4, physical=2, effective=4.0)


def test_the_topology_replaces_a_cpuinfo_without_cores(tmp_path: Path) -> None:
    siblings = {
        f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": text
        for cpu, text in enumerate(("0-1\n", "0-1\n", "2-3\n", "2-3\n"))
    }
    files = {"proc/stat": STAT, "proc/cpuinfo": printed("cpuinfo/grace_neoverse_v2.txt"), **siblings}
    assert linux.cores(machine(tmp_path, files)).physical == 2


def test_a_quota_limits_the_effective_cores(tmp_path: Path) -> None:
    files = {"proc/stat": STAT, "proc/cpuinfo": "", **CGROUP_V2, "sys/fs/cgroup/cpu.max": "150000 100000\n"}
    assert linux.cores(machine(tmp_path, files)) == Cores(logical=4, physical=None, effective=1.5)


def test_the_affinity_limits_the_effective_cores(tmp_path: Path) -> None:
    status = "Name:\tpython\nCpus_allowed:\tf\nCpus_allowed_list:\t0-1,3\nMems_allowed_list:\t0\n"
    files = {"proc/stat": STAT, "proc/cpuinfo": "", "proc/self/status": status}
    assert linux.cores(machine(tmp_path, files)).effective == 3.0


def test_reads_memory_and_its_limit(tmp_path: Path) -> None:
    files = {"proc/meminfo": MEMINFO, **CGROUP_V2, "sys/fs/cgroup/memory.max": "8000000000\n"}
    expected = Memory(total_bytes=16_384_000_000, limit_bytes=8_000_000_000)
    assert linux.memory(machine(tmp_path, files)) == expected


def test_a_limit_above_host_memory_is_ignored(tmp_path: Path) -> None:
    files = {"proc/meminfo": MEMINFO, **CGROUP_V2, "sys/fs/cgroup/memory.max": "17000000000\n"}
    assert linux.memory(machine(tmp_path, files)).limit_bytes is None


def test_garbage_in_proc_makes_facts_unavailable(tmp_path: Path) -> None:
    host = machine(tmp_path, {"proc/meminfo": "\x00", "proc/stat": "\x00"})
    with pytest.raises(Unavailable, match="no MemTotal"):
        linux.memory(host)
    with pytest.raises(Unavailable, match="lists no CPU"):
        linux.cores(host)


@pytest.mark.parametrize("path", ["etc/os-release", "usr/lib/os-release"])
@pytest.mark.parametrize("line", ['PRETTY_NAME="Debian GNU/Linux 12"', "PRETTY_NAME='Debian GNU/Linux 12'"])
def test_reads_the_os_name(tmp_path: Path, path: str, line: str) -> None:
    host = machine(tmp_path, {path: f"ID=debian\n{line}\nNAME=Debian\n"})
    assert linux.os_name(host) == "Debian GNU/Linux 12"


def test_an_os_without_a_name_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no PRETTY_NAME"):
        linux.os_name(machine(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="compares with the real answer of a Linux system")
def test_the_platform_name_equals_that_of_the_standard_library() -> None:
    assert linux.platform_name() == platform.platform()


@pytest.mark.parametrize("size", [0, 2**50, 2**64])
def test_memory_that_no_machine_has_is_unknown(tmp_path: Path, size: int) -> None:
    host = machine(tmp_path, {"proc/meminfo": f"MemTotal:       {size} kB\n"})
    with pytest.raises(Unavailable, match="which no machine has"):
        linux.memory(host)
