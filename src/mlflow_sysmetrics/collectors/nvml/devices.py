"""The devices that were chosen, read one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.enumeration import Listing, listing
from mlflow_sysmetrics.collectors.nvml.guarded_device import Watch
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
# A device that comes later in a tick than this is read at a time of its own: one before it has held the tick
# up. Within it rates are off by no more than the steps in which drivers count, of 20 to 100 ms.
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
        clock: tells how long a tick has lasted.

    Raises:
        Unavailable: there is no NVML, or no device that the job may see.
    """

    def __init__(self, host: Host, build: Build, clock: Clock = SYSTEM_CLOCK) -> None:
        self._pid = os.getpid()
        self._clock = clock
        if follows_environment(host.gpus) and hides_nvidia_gpus(host.environ):
            raise Unavailable(NO_VISIBLE_NVIDIA_GPU)
        nvml = start(host)
        try:
            found = listing(nvml)
        except NvmlError as error:
            raise unavailable(error) from error
        selection = select_nvidia(
            host.environ, host.gpus, found.gpus, same_model=found.same_model, driver=_driver(nvml)
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
        self._watches = [
            Watch(
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

    def samples(self, now: float) -> Iterator[Sample]:
        """Yields what each device answers; one that does not takes none of the others along.

        Raises:
            Unavailable: this is a forked child, whose NVML is its parent's; a new collector has its own.
        """
        if os.getpid() != self._pid:
            raise Unavailable("NVML: started before this process was forked")
        # Whose clock `now` is of is the caller's choice; beside another one it says nothing about this tick.
        same_clock = 0 <= self._clock.monotonic() - now <= _STALL_SECONDS
        for watch in self._watches:
            late = self._clock.monotonic() - now if same_clock else 0.0
            yield from watch.samples(now + late if late > _STALL_SECONDS else now)
        state: list[object] = [watch.state for watch in self._watches]
        if state != self._state:
            self._state = state
            self.gaps = (*self._chosen_gaps, *(gap for watch in self._watches for gap in watch.gaps))


def _device(chosen: Chosen, first: int, found: Listing) -> Device:
    piece = chosen.slice
    uuid = piece.uuid if piece else next(gpu.uuid for gpu in found.gpus if gpu.index == chosen.index)
    device = Device(chosen, first, uuid)
    card = found.handles.get(chosen.index)
    device.handle, device.card = found.slices[piece] if piece else card, card
    return device


def _driver(nvml: Nvml) -> str | None:
    try:
        version = nvml.ask("nvmlSystemGetDriverVersion")
    except NvmlError:
        return None
    return version.decode() if isinstance(version, bytes) else str(version)


def _why_none(found: Listing, selection: Selection) -> str:
    reason = "no device that this job may see" if found.gpus else "no device"
    return "; ".join((f"NVML: {reason}", *selection.gaps))
