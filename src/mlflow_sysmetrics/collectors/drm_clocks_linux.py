"""Clocks of AMD and Intel GPUs on Linux.

Source:  amdgpu hwmon freq<n>_input, labelled sclk and mclk; i915 /sys/class/drm/card<n>/gt_act_freq_mhz; xe
         /sys/class/drm/card<n>/device/tile0/gt0/freq0/act_freq, of the first tile where there are more.
Units:   megahertz.
Cost:    two reads per device, each 3 us and what the driver takes.
Absent:  no such card; while the kernel has the card switched off; the memory's clock on Intel and in a
         processor with graphics.
Check:   grep . /sys/class/drm/card*/device/hwmon/hwmon*/freq*_input /sys/class/drm/card*/gt_act_freq_mhz
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.drm.amd_devices import watched_amd_devices
from mlflow_sysmetrics.collectors.drm.cards import Card, asleep
from mlflow_sysmetrics.collectors.drm.gpu_samples import GpuSamples
from mlflow_sysmetrics.collectors.drm.hwmon import MICRO, Hwmon, reading
from mlflow_sysmetrics.collectors.drm.intel_devices import watched_intel_cards
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample

_MOST_MEGAHERTZ = 10_000.0  # drivers have answered 65535 for a moment


class Clock(NamedTuple):
    """A file with a clock, and the megahertz of its unit."""

    metric: Metric
    path: str
    megahertz: float


class DrmClocks(Collector):
    """Clocks of the shader engines and of the memory."""

    family: ClassVar[Family] = Family.GPU_PROFILE
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.GPU_SM_CLOCK, catalogue.GPU_MEMORY_CLOCK)

    def __init__(self, host: Host) -> None:
        self._clocks: list[tuple[Card, GpuSamples, list[Clock]]] = []
        reasons: list[str] = []
        for find in (self._find_amd, self._find_intel):
            try:
                find(host)
            except Unavailable as reason:  # noqa: PERF203 - one vendor's absence says nothing of the other
                reasons.append(str(reason))
        if not self._clocks:
            raise Unavailable("; ".join(reasons) or "no AMD or Intel GPU with a clock")

    def collect(self, now: float) -> Iterator[Sample]:  # noqa: ARG002 - a level has no rhythm
        """Yields the clocks of each device."""
        for card, samples, clocks in self._clocks:
            if not asleep(card):
                for clock in clocks:
                    number = reading(clock.path)
                    if number is not None and number * clock.megahertz <= _MOST_MEGAHERTZ:
                        yield samples.of(clock.metric, number * clock.megahertz)

    def _find_amd(self, host: Host) -> None:
        for ordinal, device in watched_amd_devices(host)[0].items():
            # A partition's clocks are not told: the card's are those of one of its dies.
            if device.card is not None and not device.partitioned:
                hwmon = Hwmon(device.card.device)
                self._add(
                    ordinal,
                    device.card,
                    Clock(catalogue.GPU_SM_CLOCK, hwmon.labelled("freq", "sclk"), MICRO),
                    Clock(catalogue.GPU_MEMORY_CLOCK, hwmon.labelled("freq", "mclk"), MICRO),
                )

    def _find_intel(self, host: Host) -> None:
        for ordinal, card in watched_intel_cards(host)[0].items():
            xe, i915 = f"{card.device}/tile0/gt0/freq0/act_freq", f"{card.primary}/gt_act_freq_mhz"
            self._add(ordinal, card, Clock(catalogue.GPU_SM_CLOCK, xe if card.driver == "xe" else i915, 1.0))

    def _add(self, ordinal: int, card: Card, *clocks: Clock) -> None:
        # Reading it would switch the card on.
        found = [clock for clock in clocks if os.path.exists(clock.path)]  # noqa: PTH110 - a string is read
        if found:
            self._clocks.append((card, GpuSamples(ordinal, self.metrics), found))
