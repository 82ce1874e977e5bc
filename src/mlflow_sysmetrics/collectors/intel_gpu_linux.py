"""Intel GPUs on Linux, without root and without external tools.

Source:  drivers i915 and xe: /sys/class/drm/card<n>/device/hwmon/hwmon<n>/{energy1_input,power1_max,
         temp<n>_input}; the package (2 instead of 1) if the card as a whole is not measured.
         /proc/<pid>/fdinfo of the job's processes: drm-engine-* (i915), drm-cycles-* (xe), drm-resident-*.
         https://docs.kernel.org/gpu/drm-usage-stats.html
Units:   percent of time in which the busiest engine class worked for this job's processes, over 5 s or more:
         without root no driver reports the use by others; megabytes (1e6 bytes); watts; watt-hours; degrees
         Celsius.
Cost:    four reads per card, each 3 us plus the driver's own time; the files of the job's processes every
         5 s, at most 0.1 % of a core.
Absent:  no such card; while the kernel has the card switched off, since reading would switch it on. Memory
         usage of all processes. A GPU within a processor usually has no sensors: it has no series until one
         of this job's processes uses it.
Check:   sensors 'i915-*' 'xe-*'; grep drm- /proc/<pid>/fdinfo/*; sudo intel_gpu_top
Unconfirmed: recorded and constructed files
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.drm.clients import GpuPlace
from mlflow_sysmetrics.collectors.drm.gpus import DrmGpus
from mlflow_sysmetrics.collectors.drm.intel_gpu import IntelGpu
from mlflow_sysmetrics.collectors.drm.watched_gpus import GpuSamples, RollCall, watched_intel_cards
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample

# The names in i915 and xe, followed by the number of the tile: local0, vram0.
_DEVICE_MEMORY = ("local", "vram")


class IntelLinux(Collector):
    """Power, temperature and this job's load and memory of the Intel GPUs that it may see."""

    family: ClassVar[Family] = Family.GPU
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.GPU_UTILIZATION,
        catalogue.GPU_PROCESS_MEMORY,
        catalogue.GPU_POWER_USAGE,
        catalogue.GPU_POWER_USAGE_PERCENTAGE,
        catalogue.GPU_ENERGY,
        catalogue.GPU_TEMPERATURE,
        catalogue.GPU_MEMORY_TEMPERATURE,
    )

    def __init__(self, host: Host) -> None:
        self._roll_call = RollCall(host, watched_intel_cards)
        cards, self._doubts = self._roll_call.found
        samples = {ordinal: GpuSamples(ordinal, self.metrics) for ordinal in cards}
        gpus = [IntelGpu(card, samples[ordinal]) for ordinal, card in cards.items()]
        places = {
            gpu.samples.ordinal: GpuPlace(
                gpu.card.slot, gpu.card.nodes, _DEVICE_MEMORY if gpu.has_sensors else ()
            )
            for gpu in gpus
        }
        self._gpus = DrmGpus(host, gpus, places, samples)
        self.gaps = (*self._doubts, *self._gpus.gaps)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the readings of each device.

        Raises:
            Unavailable: a device no longer responds, or the devices have changed; a new collector finds them.
        """
        self._roll_call.check(now)
        yield from self._gpus.collect(now)
        self.gaps = (*self._doubts, *self._gpus.gaps)
