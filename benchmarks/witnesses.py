"""What psutil, /proc, free and df report about this machine, read without our package.

A statement is a number under one of the names below. Totals count since boot; their growth gives rates.
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

_SECTOR = 512  # in /proc/diskstats, whatever the sector size of the device
_KIBIBYTE = 1024
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CPUS = os.cpu_count() or 1

Statements = dict[str, float]


class Machine:
    """The device and the interfaces to read.

    Args:
        directory: a directory on the filesystem to read.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        device = Path(directory).stat().st_dev
        self.device = _device_name(os.major(device), os.minor(device))
        interfaces = Path("/sys/class/net")
        # If no interface is hardware (in some containers), all but loopback.
        self.interfaces = {one.name for one in interfaces.iterdir() if (one / "device").exists()} or {
            one.name for one in interfaces.iterdir() if one.name != "lo"
        }


def _device_name(major: int, minor: int) -> str | None:
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == (major, minor):
            return fields[2]
    return None


def read_psutil(machine: Machine) -> Statements:
    """Reads psutil."""
    cpu = psutil.cpu_times()
    total = sum(cpu) - cpu.guest - cpu.guest_nice  # included in user and nice
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


def read_proc(machine: Machine) -> Statements:
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


def read_free(_machine: Machine) -> Statements:
    """Runs `free -b`."""
    for line in _output("free", "-b").splitlines():
        if line.startswith("Mem:"):
            total, *_, available = (int(field) for field in line.split()[1:])
            return {
                MEMORY_TOTAL: total,
                MEMORY_USED: total - available,  # "used" has a different meaning in each version of free
                MEMORY_AVAILABLE: available,
            }
    return {}


def read_df(machine: Machine) -> Statements:
    """Runs `df -B1`."""
    used, free = _output("df", "-B1", "--output=used,avail", machine.directory).splitlines()[1].split()
    return {DISK_USED: int(used), DISK_FREE: int(free)}


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# Slow ones first; after ours they are read in reverse order, so that the quick ones are closest to ours.
WITNESSES: dict[str, Callable[[Machine], Statements]] = {
    "df -B1": read_df,
    "free -b": read_free,
    "psutil": read_psutil,
    "/proc": read_proc,
}


def read_witnesses(machine: Machine, *, mirrored: bool = False) -> dict[str, Statements]:
    """Returns the current statements of each witness."""
    names: Iterator[str] = reversed(WITNESSES) if mirrored else iter(WITNESSES)
    return {name: WITNESSES[name](machine) for name in names}
