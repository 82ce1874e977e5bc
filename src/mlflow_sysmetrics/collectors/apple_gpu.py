"""The GPU of Apple silicon.

Source:  the I/O registry: PerformanceStatistics of the IOAccelerator entries whose class is AGX..., "Device
         Utilization %" and "In use system memory". Apple documents neither; nvtop reads the same entry.
Units:   percent, 0 to 100; megabytes (1e6 bytes) of the memory that the GPU shares with the CPU, so there is
         no percentage of a memory of its own.
Cost:    a run of ioreg every 5 s, in a thread of its own and at most 1 % of the time; no more than a look at
         its last answer in a tick. An answer counts at the first tick after it came, and not again.
Absent:  on Macs with an Intel processor and on virtual ones; in the first tick; where the environment says
         that the job uses no GPU.
Check:   ioreg -r -d 1 -w 0 -c IOAccelerator | grep PerformanceStatistics
"""

from __future__ import annotations

import plistlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple
from xml.parsers.expat import ExpatError

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.kernel_files import WORD
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

# Absolute, since a directory in PATH may hold another. -r -c: entries of the class and its subclasses; -d 1:
# without what lies below them; -w 0: lines of any length; -a: as a property list.
_IOREG = ("/usr/sbin/ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator", "-a")
_REST_SECONDS = 5.0


class Accelerator(NamedTuple):
    """What one GPU says of itself; None for what it does not tell."""

    utilization: int | None
    memory_bytes: int | None


def parse_ioreg(text: str) -> tuple[Accelerator, ...]:
    """Returns Apple's GPUs in a property list that ioreg printed.

    Raises:
        Unavailable: there is none, or the text is no property list.
    """
    try:
        entries = plistlib.loads(text.encode()) if text.strip() else []
    # The last two are what plistlib trips over in dates and encodings.
    except (ValueError, ExpatError, AttributeError, LookupError) as error:
        raise Unavailable("ioreg printed no property list") from error
    entries = entries if isinstance(entries, list) else [entries]
    found = tuple(_accelerator(entry) for entry in entries if _is_apples(entry))
    if not found:
        raise Unavailable("ioreg lists no GPU of Apple's")
    return found


def _is_apples(entry: Any) -> bool:
    # An Intel Mac has IntelAccelerator and AMDRadeonX...; a virtual one AppleParavirtGPU, without statistics.
    return isinstance(entry, dict) and str(entry.get("IOClass", "")).startswith("AGX")


def _accelerator(entry: Mapping[str, Any]) -> Accelerator:
    said = entry.get("PerformanceStatistics")
    statistics = said if isinstance(said, dict) else {}
    return Accelerator(
        _count(statistics.get("Device Utilization %"), PERCENT),
        # Not "Alloc system memory", which counts what is mapped, several times of what is in use.
        _count(statistics.get("In use system memory"), WORD),
    )


def _count(value: object, most: float) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None


class AppleGpu(Collector):
    """Utilisation and memory of the GPU of a Mac with Apple silicon."""

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
        self.gaps = ("ioreg has not answered yet",)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields what ioreg has said since the last tick.

        Raises:
            Unavailable: ioreg failed, or lists no GPU of Apple's; a new collector asks again.
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
    """Returns which of a Mac's GPUs are watched, by `Settings.gpus`; no variable hides one from Metal."""
    visible = follows_environment(wanted)
    devices = [GpuId(index, uuid="") for index in range(count)]
    selection = select_listed("all" if visible else wanted, devices, "Apple")
    if wanted.strip().lower() == "process":
        return replace(selection, doubt="macOS does not tell which GPU the job uses: all are shown")
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
