"""CPU, memory and network of a host that is not Linux.

Source:  psutil: GetSystemTimes and GlobalMemoryStatusEx on Windows, Mach host statistics on macOS.
Units:   as in `cpu_linux`, `memory_linux` and `network_linux`.
Cost:    one call each; the network's lists all interfaces.
Absent:  what psutil cannot read on that system.
Check:   python -c "import psutil; print(psutil.cpu_times(), psutil.virtual_memory())"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import psutil

from mlflow_sysmetrics.collectors import catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, SHORTEST_RATE_SECONDS
from mlflow_sysmetrics.collectors.traffic import Traffic, TrafficTotals
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample

# Loopback, and macOS's tunnels, bridges and peer-to-peer links, whose bytes a real interface counts again.
_NOT_COUNTED = ("lo", "Loopback", "utun", "bridge", "awdl", "llw", "gif", "stf", "anpi", "ap")


class CpuPsutil:
    """Share of time that the CPUs of the host worked."""

    family: ClassVar[Family] = Family.CPU
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.CPU_UTILIZATION,)

    def __init__(self, host: Host) -> None:  # noqa: ARG002 - psutil knows one host, the real one
        self._read_at = float("-inf")
        self._busy, self._total = self._read()

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the share since the last reading that was old enough."""
        if self._read_at == float("-inf"):
            self._read_at = now
        span = now - self._read_at
        if span < SHORTEST_RATE_SECONDS:
            return
        busy, total, self._read_at = self._busy, self._total, now
        # Not psutil.cpu_percent: it keeps its last reading per thread, so priming elsewhere gives noise.
        self._busy, self._total = self._read()
        if self._total > total and self._busy - busy <= self._total - total:
            share = max(self._busy - busy, 0.0) / (self._total - total)
            yield catalogue.CPU_UTILIZATION.sample(PERCENT * share, span)

    @staticmethod
    def _read() -> tuple[float, float]:
        try:
            times = psutil.cpu_times()
        except (psutil.Error, OSError) as error:
            raise Unavailable(f"psutil.cpu_times: {error}") from error
        total = sum(times)
        return total - times.idle, total


class MemoryPsutil:
    """Memory of the host that is in use."""

    family: ClassVar[Family] = Family.MEMORY
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.MEMORY_USAGE, catalogue.MEMORY_USAGE_PERCENTAGE)

    def __init__(self, host: Host) -> None:  # noqa: ARG002 - psutil knows one host, the real one
        try:
            psutil.virtual_memory()
        except (psutil.Error, OSError) as error:
            raise Unavailable(f"psutil.virtual_memory: {error}") from error

    def collect(self, now: float) -> Iterator[Sample]:  # noqa: ARG002 - a level needs no clock
        """Yields used memory, absolute and as a share, from `used` as MLflow's monitor does."""
        memory = psutil.virtual_memory()
        yield catalogue.MEMORY_USAGE.sample(memory.used / MEGABYTE)
        if memory.total:
            yield catalogue.MEMORY_USAGE_PERCENTAGE.sample(PERCENT * memory.used / memory.total)


class NetworkPsutil:
    """Bytes received and sent by the host."""

    family: ClassVar[Family] = Family.NETWORK
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.NETWORK_RECEIVE, catalogue.NETWORK_TRANSMIT)

    def __init__(self, host: Host) -> None:  # noqa: ARG002 - psutil knows one host, the real one
        self._totals = TrafficTotals()
        try:
            self._totals.update(self._read())
        except (psutil.Error, OSError) as error:
            raise Unavailable(f"psutil.net_io_counters: {error}") from error

    def collect(self, now: float) -> Iterator[Sample]:  # noqa: ARG002 - a total needs no clock
        """Yields the totals since the collector was built."""
        received, transmitted = self._totals.update(self._read())
        yield catalogue.NETWORK_RECEIVE.sample(received / MEGABYTE)
        yield catalogue.NETWORK_TRANSMIT.sample(transmitted / MEGABYTE)

    @staticmethod
    def _read() -> dict[str, Traffic]:
        return {
            name: Traffic(counters.bytes_recv, counters.bytes_sent)
            for name, counters in psutil.net_io_counters(pernic=True).items()
            if not name.startswith(_NOT_COUNTED)
        }
