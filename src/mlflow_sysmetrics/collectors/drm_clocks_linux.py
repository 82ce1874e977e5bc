"""Clocks of AMD and Intel GPUs on Linux, and how busy the memory of AMD's is.

Source:  amdgpu hwmon freq<n>_input, labelled sclk and mclk; radeon hwmon freq1_input; i915
         /sys/class/drm/card<n>/gt_act_freq_mhz; xe /sys/class/drm/card<n>/device/tile0/gt0/freq0/act_freq, of
         the first tile if there are more; amdgpu device/mem_busy_percent.
Units:   megahertz, percent.
Cost:    three reads per device, each 3 us plus the driver's own time; the files of the job's processes every
         5 s, at most 0.1 % of a core.
Absent:  no such card; while the kernel has the card switched off; a clock that reads 0, since the engines are
         switched off then; the memory clock on Intel and in a processor with graphics; clocks of partitions
         (MI300); clocks of an Intel GPU without sensors while none of this job's processes uses it.
Check:   grep . /sys/class/drm/card*/device/hwmon/hwmon*/freq*_input /sys/class/drm/card*/gt_act_freq_mhz
Unconfirmed: recorded and constructed files
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.drm.cards import Card, asleep
from mlflow_sysmetrics.collectors.drm.clients import GpuPlace, GpuProcesses
from mlflow_sysmetrics.collectors.drm.hwmon import MICRO, Hwmon, reading
from mlflow_sysmetrics.collectors.drm.watched_gpus import (
    GpuSamples,
    RepeatedSearch,
    watched_amd_devices,
    watched_intel_cards,
)
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample

_MEGAHERTZ = bounds.Bound(1e-6, bounds.GPU_MEGAHERTZ.most, "MHz")  # 0: the engines are switched off


class Gauge(NamedTuple):
    """A file with a level.

    Attributes:
        metric: the metric of the level.
        label: its name in a gap.
        path: the file; "" if the device has none.
        scale: what a unit of the file is in the unit of the metric.
        bound: the values that it may have. Drivers have briefly reported 65535.
    """

    metric: Metric
    label: str
    path: str
    scale: float
    bound: bounds.Bound = _MEGAHERTZ


class ClockedGpu(NamedTuple):
    """A GPU and its clocks.

    Attributes:
        card: where its files are.
        gauges: the clocks that it may have, and how busy its memory is.
        only_when_used: True if it has no sensors, so that it is shown only while the job uses it.
    """

    card: Card
    gauges: tuple[Gauge, ...]
    only_when_used: bool


class DrmClocks(Collector):
    """Clocks of the shader engines and of the memory, and how busy the latter is."""

    family: ClassVar[Family] = Family.GPU_PROFILE
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.GPU_SM_CLOCK,
        catalogue.GPU_MEMORY_CLOCK,
        catalogue.GPU_MEMORY_UTILIZATION,
    )

    def __init__(self, host: Host) -> None:
        self._search = RepeatedSearch(host, _clocked_gpus)
        self._gpus = self._search.found
        self._samples = {ordinal: GpuSamples(ordinal, self.metrics) for ordinal in self._gpus}
        places = {ordinal: GpuPlace(gpu.card.slot, gpu.card.nodes, ()) for ordinal, gpu in self._gpus.items()}
        self._processes = GpuProcesses(host, places)
        self.gaps = tuple(
            f"gpu_{ordinal}: no {gauge.label}: not supported by this device"
            for ordinal, gpu in self._gpus.items()
            for gauge in gpu.gauges
            if not gauge.path
        )

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the levels of each device.

        Raises:
            Unavailable: the devices have changed; a new collector finds them.
        """
        self._search.check(now)
        self._processes.read(now)
        for ordinal, gpu in self._gpus.items():
            if self._is_shown(ordinal) and not asleep(gpu.card):
                for gauge in gpu.gauges:
                    number = reading(gauge.path)
                    if number is not None and gauge.bound.holds(number * gauge.scale):
                        yield self._samples[ordinal].of(gauge.metric, number * gauge.scale)

    def _is_shown(self, ordinal: int) -> bool:
        if self._gpus[ordinal].only_when_used:
            return self._processes.is_used(ordinal)
        return self._processes.is_shown(ordinal)


def _clocked_gpus(host: Host) -> Mapping[int, ClockedGpu]:
    """Returns the GPUs of both vendors that have a clock, by ordinal.

    Raises:
        Unavailable: there is none.
    """
    gpus: dict[int, ClockedGpu] = {}
    reasons: list[str] = []
    for find in (_amd, _intel):
        try:
            gpus |= dict(find(host))
        except Unavailable as reason:
            reasons.append(str(reason))
    gpus = {ordinal: gpu for ordinal, gpu in gpus.items() if any(gauge.path for gauge in gpu.gauges)}
    if not gpus:
        raise Unavailable("; ".join(reasons) or "no AMD or Intel GPU with a clock")
    return gpus


def _amd(host: Host) -> Iterator[tuple[int, ClockedGpu]]:
    for ordinal, device in watched_amd_devices(host)[0].items():
        # The clocks of a partition are unknown: the card's are those of one of its dies.
        if device.card is not None and not device.partitioned:
            hwmon = Hwmon(device.card.device)
            shader, memory = (hwmon.labelled("freq", label) for label in ("sclk", "mclk"))
            if device.card.driver == "radeon":  # older cards; it has this clock only, without a label
                shader = hwmon.path("freq1_input")
            busy = f"{device.card.device}/mem_busy_percent"
            found = busy if os.path.exists(busy) else ""
            gauges = (
                Gauge(catalogue.GPU_SM_CLOCK, "shader clock", shader, MICRO),
                Gauge(catalogue.GPU_MEMORY_CLOCK, "memory clock", memory, MICRO),
                Gauge(catalogue.GPU_MEMORY_UTILIZATION, "memory utilization", found, 1.0, bounds.PERCENT),
            )
            yield ordinal, ClockedGpu(device.card, gauges, only_when_used=False)


def _intel(host: Host) -> Iterator[tuple[int, ClockedGpu]]:
    for ordinal, card in watched_intel_cards(host)[0].items():
        xe, i915 = f"{card.device}/tile0/gt0/freq0/act_freq", f"{card.primary}/gt_act_freq_mhz"
        path = xe if card.driver == "xe" else i915
        # Reading it would switch the card on.
        found = path if os.path.exists(path) else ""
        clock = Gauge(catalogue.GPU_SM_CLOCK, "shader clock", found, 1.0)
        yield ordinal, ClockedGpu(card, (clock,), only_when_used=not Hwmon(card.device))
