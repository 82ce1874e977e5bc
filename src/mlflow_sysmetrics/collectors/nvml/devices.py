"""The chosen devices, read one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.enumeration import Listing, listing
from mlflow_sysmetrics.collectors.nvml.guarded_device import GuardedDevice
from mlflow_sysmetrics.collectors.nvml.library import Nvml, NvmlError, start, unavailable
from mlflow_sysmetrics.collectors.nvml.processes import ProcessMemory, Tree
from mlflow_sysmetrics.collectors.presence import NO_VISIBLE_NVIDIA_GPU
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.environment import hides_nvidia_gpus
from mlflow_sysmetrics.machine.visible_gpus.nvidia import select_nvidia
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, Selection, follows_environment
from mlflow_sysmetrics.runtime.clock import Clock, SystemClock
from mlflow_sysmetrics.samples import Sample

_PROCESS = "process"
# If earlier devices have delayed the tick by more than this, the next device is read with its real time.
# Below it the error of a rate is no larger than the steps in which drivers count, 20 to 100 ms.
_STALL_SECONDS = 0.05
SYSTEM_CLOCK = SystemClock()

Build = Callable[[Nvml, Device, Tree], Sequence[Reading]]


class Devices:
    """The chosen devices of a host.

    Attributes:
        gaps: what is missing and why, as `Collector.gaps`.

    Args:
        host: the machine to look at.
        build: returns the readings of one device.
        clock: measures how long a tick has taken.

    Raises:
        Unavailable: there is no NVML, or no device that the job may see.
    """

    def __init__(self, host: Host, build: Build, clock: Clock = SYSTEM_CLOCK) -> None:
        self._pid = os.getpid()
        self._clock = clock
        self._job, self._gpus = host.job, host.job.gpus
        wanted = host.wanted_gpus
        if follows_environment(wanted) and hides_nvidia_gpus(host.environ):
            raise Unavailable(NO_VISIBLE_NVIDIA_GPU)
        nvml = start(host)
        try:
            found = listing(nvml)
        except NvmlError as error:
            raise unavailable(error) from error
        selection = select_nvidia(
            host.environ, wanted, found.gpus, same_model=found.same_model, driver=_driver(nvml)
        )
        if not selection.chosen:
            raise Unavailable(_why_none(found, selection))
        first = host.gpu_ordinals.first("nvidia", selection.places)
        tree = Tree(host)
        devices = [_device(chosen, first, found) for chosen in selection.chosen]
        for device in devices:
            if device.uuid:
                host.gpu_ordinals.assign(device.uuid, device.ordinal)
        only_used = host.gpus.strip().lower() == _PROCESS
        self._guarded = [
            GuardedDevice(
                nvml,
                device,
                build(nvml, device, tree),
                ProcessMemory(nvml, device, tree) if only_used else None,
            )
            for device in devices
        ]
        self._chosen_gaps = selection.gaps
        self._state: list[object] = []
        self.gaps: tuple[str, ...] = selection.gaps

    @property
    def is_outdated(self) -> bool:
        """Whether other processes of the job have come, which may see other devices."""
        return self._job.gpus != self._gpus

    def samples(self, now: float) -> Iterator[Sample]:
        """Yields the readings of each device; a device that fails does not affect the others.

        Raises:
            Unavailable: this is a forked child, and NVML its parent's; a new collector starts its own.
        """
        if os.getpid() != self._pid:
            raise Unavailable("NVML: started before this process was forked")
        # `now` may come from a different clock, which says nothing about the delay within this tick.
        same_clock = 0 <= self._clock.monotonic() - now <= _STALL_SECONDS
        for device in self._guarded:
            late = self._clock.monotonic() - now if same_clock else 0.0
            yield from device.samples(now + late if late > _STALL_SECONDS else now)
        state: list[object] = [device.state for device in self._guarded]
        if state != self._state:
            self._state = state
            self.gaps = (*self._chosen_gaps, *(gap for device in self._guarded for gap in device.gaps))


def _device(chosen: Chosen, first: int, listed: Listing) -> Device:
    piece = chosen.slice
    uuid = piece.uuid if piece else next(gpu.uuid for gpu in listed.gpus if gpu.index == chosen.index)
    device = Device(chosen, first, uuid)
    card = listed.handles.get(chosen.index)
    device.handle, device.card = listed.slices[piece] if piece else card, card
    return device


def _driver(nvml: Nvml) -> str | None:
    try:
        version = nvml.ask("nvmlSystemGetDriverVersion")
    except NvmlError:
        return None
    return version.decode("utf-8", "replace") if isinstance(version, bytes) else str(version)


def _why_none(listed: Listing, selection: Selection) -> str:
    reason = "no device that this job may see" if listed.gpus else "no device"
    return "; ".join((f"NVML: {reason}", *selection.gaps))
