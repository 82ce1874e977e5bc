"""What others say of this machine: psutil, /proc, free, df, each read in its own way, without our package.

A statement is a number under one of the names below. Totals are since boot, so what they grew tells a rate.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

CPU_BUSY, CPU_TOTAL = "CPU seconds busy", "CPU seconds"
MEMORY_USED, MEMORY_AVAILABLE, MEMORY_TOTAL = "memory used", "memory available", "memory"
DISK_USED, DISK_FREE = "disk used", "disk free"
DISK_READ, DISK_WRITTEN = "bytes read", "bytes written"
RECEIVED, SENT = "bytes received", "bytes sent"
SECONDS = "seconds"

_SECTOR = 512  # of /proc/diskstats, whatever the device's own is
_KIBIBYTE = 1024
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CPUS = os.cpu_count() or 1

Statements = dict[str, float]


class Machine:
    """Which device and which interfaces are looked at.

    Args:
        directory: whose filesystem is looked at.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        device = os.stat(directory).st_dev  # noqa: PTH116 - one look
        self.device = _device_name(os.major(device), os.minor(device))
        interfaces = Path("/sys/class/net")
        # Where no interface is a piece of hardware (some containers), all but loopback.
        self.interfaces = {one.name for one in interfaces.iterdir() if (one / "device").exists()} or {
            one.name for one in interfaces.iterdir() if one.name != "lo"
        }


def _device_name(major: int, minor: int) -> str | None:
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == (major, minor):
            return fields[2]
    return None


def ask_psutil(machine: Machine) -> Statements:
    """Asks psutil."""
    cpu = psutil.cpu_times()
    total = sum(cpu) - cpu.guest - cpu.guest_nice  # in user and nice already
    memory = psutil.virtual_memory()
    space = psutil.disk_usage(machine.directory)
    network = psutil.net_io_counters(pernic=True, nowrap=False)
    said = {
        CPU_BUSY: total - cpu.idle - cpu.iowait,
        CPU_TOTAL: total,
        MEMORY_TOTAL: memory.total,
        MEMORY_USED: memory.total - memory.available,
        MEMORY_AVAILABLE: memory.available,
        DISK_USED: space.used,
        DISK_FREE: space.free,
        RECEIVED: sum(network[name].bytes_recv for name in machine.interfaces),
        SENT: sum(network[name].bytes_sent for name in machine.interfaces),
    }
    if machine.device is not None:
        device = psutil.disk_io_counters(perdisk=True, nowrap=False)[machine.device]
        said |= {DISK_READ: device.read_bytes, DISK_WRITTEN: device.write_bytes}
    return {SECONDS: time.monotonic(), **said}


def ask_proc(machine: Machine) -> Statements:
    """Reads the files of /proc."""
    user, nice, system, idle, iowait, irq, softirq, steal, *_ = (
        int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    busy = user + nice + system + irq + softirq + steal
    memory = {
        line.partition(":")[0]: int(line.split()[1]) * _KIBIBYTE
        for line in Path("/proc/meminfo").read_text().splitlines()
    }
    said: Statements = {
        CPU_BUSY: busy / TICKS_PER_SECOND,
        CPU_TOTAL: (busy + idle + iowait) / TICKS_PER_SECOND,
        MEMORY_TOTAL: memory["MemTotal"],
        MEMORY_USED: memory["MemTotal"] - memory["MemAvailable"],
        MEMORY_AVAILABLE: memory["MemAvailable"],
        RECEIVED: 0,
        SENT: 0,
    }
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, counters = line.partition(":")
        if name.strip() in machine.interfaces:
            said[RECEIVED] += int(counters.split()[0])
            said[SENT] += int(counters.split()[8])
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[2] == machine.device:
            said |= {DISK_READ: int(fields[5]) * _SECTOR, DISK_WRITTEN: int(fields[9]) * _SECTOR}
    return {SECONDS: time.monotonic(), **said}


def ask_free(machine: Machine) -> Statements:  # noqa: ARG001 - all are asked alike
    """Runs `free -b`."""
    for line in _output("free", "-b").splitlines():
        if line.startswith("Mem:"):
            total, *_, available = (int(field) for field in line.split()[1:])
            return {
                MEMORY_TOTAL: total,
                MEMORY_USED: total - available,  # "used" is something else in each version of free
                MEMORY_AVAILABLE: available,
            }
    return {}


def ask_df(machine: Machine) -> Statements:
    """Runs `df -B1`."""
    used, free = _output("df", "-B1", "--output=used,avail", machine.directory).splitlines()[1].split()
    return {DISK_USED: int(used), DISK_FREE: int(free)}


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# The slow ones first; after ours they are asked the other way round: the quick ones stand closest to ours.
WITNESSES: dict[str, Callable[[Machine], Statements]] = {
    "df -B1": ask_df,
    "free -b": ask_free,
    "psutil": ask_psutil,
    "/proc": ask_proc,
}


def hear(machine: Machine, *, mirrored: bool = False) -> dict[str, Statements]:
    """Returns what each says now."""
    names: Iterator[str] = reversed(WITNESSES) if mirrored else iter(WITNESSES)
    return {name: WITNESSES[name](machine) for name in names}
