"""The GPU of Apple silicon.

Source:  the I/O registry: PerformanceStatistics of the IOAccelerator entries whose class is AGX..., "Device
         Utilization %" and "In use system memory". Apple documents neither; nvtop reads the same entry.
Units:   percent, 0 to 100; megabytes (1e6 bytes) of the memory that the GPU shares with the CPU, so there is
         no percentage of its own memory.
Cost:    one run of ioreg every 5 s, in a background thread and at most 1 % of the time; a tick only looks at
         the last answer. An answer is used once, at the first tick after it arrived.
Absent:  on Macs with an Intel processor and virtual ones; in the first tick; if the environment says that the
         job uses no GPU.
Check:   ioreg -r -d 1 -w 0 -c IOAccelerator | grep PerformanceStatistics
Unconfirmed: constructed property lists
"""

from __future__ import annotations

import plistlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple
from xml.parsers.expat import ExpatError

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.presence import NOT_MACOS
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.environment import hides_every_gpu
from mlflow_sysmetrics.machine.visible_gpus.selection import (
    GpuId,
    Selection,
    follows_environment,
    select_listed,
)
from mlflow_sysmetrics.runtime.background_reading import BackgroundReading
from mlflow_sysmetrics.samples import Family, Metric, Sample

# Absolute, since PATH may contain another ioreg. -r -c: entries of the class and its subclasses; -d 1:
# without their children; -w 0: lines of any length; -a: as a property list.
_IOREG = ("/usr/sbin/ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator", "-a")
_REST_SECONDS = 5.0


class Accelerator(NamedTuple):
    """Readings of one GPU; None for a missing one."""

    utilization: int | None
    memory_bytes: int | None


def parse_ioreg(text: str) -> tuple[Accelerator, ...]:
    """Returns Apple's GPUs in a property list that ioreg printed.

    Raises:
        Unavailable: there is none, or the text is not a property list.
    """
    try:
        entries = plistlib.loads(text.encode()) if text.strip() else []
    # plistlib raises the last two for invalid dates and encodings.
    except (ValueError, ExpatError, AttributeError, LookupError) as error:
        raise Unavailable("ioreg did not print a property list") from error
    entries = entries if isinstance(entries, list) else [entries]
    accelerators = tuple(_accelerator(entry) for entry in entries if _is_apples(entry))
    if not accelerators:
        raise Unavailable("ioreg lists no Apple GPU")
    return accelerators


def _is_apples(entry: Any) -> bool:
    # Intel Macs have IntelAccelerator and AMDRadeonX...; virtual Macs have AppleParavirtGPU, without
    # statistics.
    return isinstance(entry, dict) and str(entry.get("IOClass", "")).startswith("AGX")


def _accelerator(entry: Mapping[str, Any]) -> Accelerator:
    found = entry.get("PerformanceStatistics")
    statistics = found if isinstance(found, dict) else {}
    return Accelerator(
        _count(statistics.get("Device Utilization %"), PERCENT),
        # Not "Alloc system memory", which counts mapped memory: several times the memory in use.
        _count(statistics.get("In use system memory"), bounds.HOST_BYTES.most),
    )


def _count(value: object, most: float) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None


class AppleGpu(Collector):
    """Utilization and memory of the GPU of a Mac with Apple silicon."""

    family: ClassVar[Family] = Family.GPU
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.GPU_UTILIZATION, catalogue.GPU_MEMORY_USAGE)

    def __init__(self, host: Host) -> None:
        if host.platform != "darwin":
            raise Unavailable(NOT_MACOS)
        if hides_every_gpu(host.environ, host.gpus):
            raise Unavailable("no GPU that this job may see")
        self._host = host
        self._ioreg = BackgroundReading(
            "ioreg", lambda: parse_ioreg(host.run(_IOREG)), rest_seconds=_REST_SECONDS
        )
        self._taken_at: float | None = None
        self.gaps = ("ioreg has not responded yet",)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the readings that ioreg has printed since the last tick.

        Raises:
            Unavailable: ioreg failed, or lists no Apple GPU; a new collector tries again.
        """
        reading = self._ioreg.latest()
        if reading is None or reading.ended_at == self._taken_at:
            return
        self._taken_at = reading.ended_at
        selection = _select(self._host.gpus, len(reading.value))
        gaps = list(selection.gaps)
        first = self._host.gpu_ordinals.first("apple", len(reading.value))
        for one in selection.chosen:
            yield from _samples(first + one.ordinal, reading.value[one.index], gaps)
        self.gaps = tuple(gaps)


def _select(wanted: str, count: int) -> Selection:
    """Returns the GPUs of a Mac to watch, by `Settings.gpus`; no variable hides a GPU from Metal."""
    visible = follows_environment(wanted)
    devices = [GpuId(index, uuid="") for index in range(count)]
    selection = select_listed("all" if visible else wanted, devices, "Apple")
    if wanted.strip().lower() == "process":
        return selection._replace(doubt="macOS does not report which GPU the job uses: all are shown")
    return selection


def _samples(ordinal: int, device: Accelerator, gaps: list[str]) -> Iterator[Sample]:
    utilization, memory = catalogue.GPU_UTILIZATION, catalogue.GPU_MEMORY_USAGE
    if device.utilization is None:
        gaps.append(f"gpu_{ordinal} utilization: not supported by this device")
    else:
        yield Sample(utilization.key(i=ordinal), utilization.kind, device.utilization)
    if device.memory_bytes is None:
        gaps.append(f"gpu_{ordinal} memory usage: not supported by this device")
    else:
        yield Sample(memory.key(i=ordinal), memory.kind, device.memory_bytes / MEGABYTE)
