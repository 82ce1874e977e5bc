"""What the kernel itself counts for a container, read on the host, independent of the code under test."""

from __future__ import annotations

import bisect
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_PAUSE_SECONDS = 0.05


class Reading(NamedTuple):
    """The accounting of one control group at one moment; what it does not count is 0.

    Attributes:
        at: seconds since 1970.
        cpu: seconds of CPU time.
        periods: enforcement periods of the quota.
        throttled: periods in which the group was stopped.
        working_set: bytes in use, without what the kernel drops before it kills.
        oom_kills: processes killed because memory ran out.
        sent: bytes that left through the network interfaces of the group.
        received: bytes that came in.
    """

    at: float
    cpu: float
    periods: float
    throttled: float
    working_set: float
    oom_kills: float
    sent: float
    received: float


class Group:
    """The control groups of a process, one per controller in v1.

    Args:
        pid: the process, as the host sees it.
        above: how many levels above its own group; 0 for its own.
    """

    def __init__(self, pid: int, *, above: int = 0) -> None:
        self._pid = pid
        self._above = above
        groups = re.findall(r"^\d+:([^:]*):(.*)$", Path(f"/proc/{pid}/cgroup").read_text(), re.MULTILINE)
        self._group = {name: group for names, group in groups for name in names.split(",")}
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        self._v1 = {
            option: Path(point)
            for _, point, kind, options, *_ in mounts
            if kind == "cgroup"
            for option in options.split(",")
        }
        self._v2 = next((Path(point) for _, point, kind, *_ in mounts if kind == "cgroup2"), None)

    def directory(self, controller: str) -> Path:
        """Returns where the files of a controller are."""
        if controller in self._group:
            own = self._v1[controller] / self._group[controller].lstrip("/")
            return [own, *own.parents][self._above]
        assert self._v2 is not None, f"no cgroup has the controller {controller}"
        own = self._v2 / self._group[""].lstrip("/")
        return [own, *own.parents][self._above]

    def version(self, controller: str) -> int:
        """Returns 1 or 2."""
        return 1 if controller in self._group else 2

    def read(self) -> Reading:
        """Returns the accounting of this moment."""
        cpu = _numbers(self.directory("cpu") / "cpu.stat")
        memory = self.directory("memory")
        stat = _numbers(memory / "memory.stat")
        if self.version("cpu") == 1:
            seconds = int((self.directory("cpuacct") / "cpuacct.usage").read_text()) / 1e9
        else:
            seconds = cpu["usage_usec"] / 1e6
        if self.version("memory") == 1:
            used = int((memory / "memory.usage_in_bytes").read_text()) - stat["total_inactive_file"]
            kills = _numbers(memory / "memory.oom_control").get("oom_kill", 0)
        else:
            used = int((memory / "memory.current").read_text()) - stat["inactive_file"]
            kills = _numbers(memory / "memory.events").get("oom_kill", 0)
        periods, throttled = cpu.get("nr_periods", 0), cpu.get("nr_throttled", 0)
        sent, received = self._traffic()
        return Reading(time.time(), seconds, periods, throttled, used, kills, sent, received)

    def _traffic(self) -> tuple[int, int]:
        """Returns bytes sent and received, in the network of the host by its cards only."""
        hosts = os.readlink(f"/proc/{self._pid}/ns/net") == os.readlink("/proc/self/ns/net")
        lines = Path(f"/proc/{self._pid}/net/dev").read_text().splitlines()[2:]
        parts = {name.strip(): rest.split() for name, _, rest in (line.partition(":") for line in lines)}
        counted = [
            numbers
            for name, numbers in parts.items()
            if (Path(f"/sys/class/net/{name}/device").exists() if hosts else name != "lo")
        ]
        return sum(int(one[8]) for one in counted), sum(int(one[0]) for one in counted)


class Witness:
    """Reads the accounting of a group twenty times a second until it is closed or the group is gone."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._readings = [group.read()]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the reading."""
        self._closed.set()
        self._thread.join()

    def last(self) -> Reading:
        """Returns the newest reading."""
        return self._readings[-1]

    def rate(self, counter: Callable[[Reading], float], begin: float, end: float) -> float:
        """Returns by how much a counter grew per second between two moments, in seconds since 1970."""
        return (self.level(counter, end) - self.level(counter, begin)) / (end - begin)

    def level(self, value: Callable[[Reading], float], at: float) -> float:
        """Returns a value at a moment, between the two readings around it."""
        readings = self._readings
        after = bisect.bisect_left([reading.at for reading in readings], at)
        assert 0 < after < len(readings), "the witness did not read at that time"
        before, behind = readings[after - 1], readings[after]
        share = (at - before.at) / (behind.at - before.at)
        return value(before) + share * (value(behind) - value(before))

    def between(self, value: Callable[[Reading], float], begin: float, end: float) -> Sequence[float]:
        """Returns the readings of a span of time."""
        return [value(reading) for reading in self._readings if begin <= reading.at <= end]

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # the container has ended
            while not self._closed.wait(_PAUSE_SECONDS):
                self._readings.append(self._group.read())


def _numbers(path: Path) -> dict[str, int]:
    return dict(_pairs(path.read_text()))


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if number.isdecimal():
            yield name, int(number)
