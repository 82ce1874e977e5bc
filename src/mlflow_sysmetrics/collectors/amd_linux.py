"""AMD GPUs on Linux, without root and without external tools.

Source:  files of the amdgpu driver: /sys/class/drm/card<n>/device/{gpu_busy_percent,mem_info_vram_used,
         mem_info_vram_total}, hwmon/hwmon<n>/{power1_average,power1_input,power1_cap,temp<n>_input},
         ras/umc_err_count; the order of /sys/class/kfd, which is HIP's; /proc/<pid>/fdinfo of the job's
         processes. https://docs.kernel.org/gpu/amdgpu/thermal.html amdsmi is not used: it reads the same
         driver.
Units:   percent; megabytes (1e6 bytes); watts, watt-hours integrated over the ticks; degrees Celsius of the
         edge sensor, or of the junction on cards without one. In a processor with graphics, memory is the RAM
         reserved for it (vram) plus the RAM that it may use in addition (gtt).
Cost:    seven reads per device, each 3 us plus the driver's own time; the power limit every 10 s, errors once
         a minute; the files of the job's processes every 5 s, at most 0.1 % of a core; a check of the list of
         devices every two minutes.
Absent:  no such card; while the kernel has the card switched off, since reading would switch it on. Power of
         a processor with graphics, whose sensor includes the CPU, and of the second die of an MI250, which
         is included in the first one's. Utilization and memory of partitions (MI300), which exist for the
         whole card only; its power, temperature and errors are reported for its first partition. Throttling,
         which the driver exposes in a binary table only.
Check:   grep . /sys/class/drm/card*/device/{gpu_busy_percent,mem_info_vram_used,hwmon/hwmon*/power1_*}
Unconfirmed: recorded and constructed files
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.drm.amd_gpu import AmdGpu
from mlflow_sysmetrics.collectors.drm.clients import GpuPlace
from mlflow_sysmetrics.collectors.drm.gpus import DrmGpus
from mlflow_sysmetrics.collectors.drm.watched_gpus import GpuSamples, RollCall, watched_amd_devices
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample


class AmdLinux(Collector):
    """Load, memory, power and temperature of AMD GPUs that the job may see."""

    family: ClassVar[Family] = Family.GPU
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.GPU_UTILIZATION,
        catalogue.GPU_MEMORY_USAGE,
        catalogue.GPU_MEMORY_USAGE_PERCENTAGE,
        catalogue.GPU_PROCESS_MEMORY,
        catalogue.GPU_POWER_USAGE,
        catalogue.GPU_POWER_USAGE_PERCENTAGE,
        catalogue.GPU_ENERGY,
        catalogue.GPU_TEMPERATURE,
        catalogue.GPU_MEMORY_TEMPERATURE,
        catalogue.GPU_ECC_ERRORS,
    )

    def __init__(self, host: Host) -> None:
        self._roll_call = RollCall(host, watched_amd_devices)
        devices, self._doubts = self._roll_call.found
        samples = {ordinal: GpuSamples(ordinal, self.metrics) for ordinal in devices}
        gpus = [
            AmdGpu(device.card, samples[ordinal], partitioned=device.partitioned)
            for ordinal, device in devices.items()
            if device.card is not None
        ]
        regions = {gpu.samples.ordinal: gpu.regions for gpu in gpus}
        places = {
            ordinal: GpuPlace(
                "" if device.card is None or device.partitioned else device.card.slot,
                device.nodes,
                regions.get(ordinal, ("vram",)),
            )
            for ordinal, device in devices.items()
        }
        bare = [f"gpu_{ordinal}" for ordinal, device in devices.items() if device.card is None]
        if bare:
            self._doubts += (f"{', '.join(bare)}: partitions, for which only this job's memory is known",)
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
