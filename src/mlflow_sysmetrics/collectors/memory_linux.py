"""Memory of the host.

Source:  /proc/meminfo, MemTotal and MemAvailable in KiB; on kernels before 3.14 free + buffers + cached.
Units:   megabytes (1e6 bytes) and percent of MemTotal. Used is what is not available, as in psutil 7.
Cost:    one read of /proc/meminfo, of which two lines are parsed.
Absent:  never on Linux.
Check:   free -m; grep Mem /proc/meminfo
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors.catalogue import memory as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host, read_bytes
from mlflow_sysmetrics.samples import Family, Metric, Sample

_KIBIBYTE = 1024


class Memory(NamedTuple):
    """Memory of the host, in bytes."""

    total: int
    available: int


def _field(text: bytes, name: bytes) -> int | None:
    """Returns one field in bytes. Slicing it out costs a tenth of splitting all fifty lines."""
    start = text.find(b"\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 2
    return int(text[start : text.index(b"kB", start)]) * _KIBIBYTE


def parse_meminfo(text: bytes) -> Memory:
    """Returns total and available memory from the text of /proc/meminfo.

    Raises:
        ValueError: the text has no total, or nothing that tells what is available.
    """
    text = b"\n" + text
    total = _field(text, b"MemTotal")
    available = _field(text, b"MemAvailable")
    if available is None:
        parts = [_field(text, name) for name in (b"MemFree", b"Buffers", b"Cached")]
        known = [part for part in parts if part is not None]
        available = sum(known) if known else None
    if not total or available is None:
        raise ValueError("/proc/meminfo has no MemTotal or nothing that tells what is available")
    return Memory(total, min(available, total))


class MemoryLinux(Collector):
    """Memory of the host that is in use."""

    family: ClassVar[Family] = Family.MEMORY
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.MEMORY_USAGE, catalogue.MEMORY_USAGE_PERCENTAGE)

    def __init__(self, host: Host) -> None:
        self._path = str(host.root / "proc/meminfo")
        try:
            parse_meminfo(read_bytes(self._path))
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error

    def collect(self, now: float) -> Iterator[Sample]:  # noqa: ARG002 - a level needs no clock
        """Yields used memory, absolute and as a share."""
        total, available = parse_meminfo(read_bytes(self._path))
        used = total - available
        yield catalogue.MEMORY_USAGE.sample(used / MEGABYTE)
        yield catalogue.MEMORY_USAGE_PERCENTAGE.sample(PERCENT * used / total)
