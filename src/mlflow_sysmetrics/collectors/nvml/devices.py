"""The chosen devices, read in turn: each reading can fail on its own, and a lost device is found again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.enumeration import Listing, find, listing
from mlflow_sysmetrics.collectors.nvml.library import Nvml, NvmlError, Support, Verdict, start, unavailable
from mlflow_sysmetrics.collectors.nvml.processes import ProcessMemory, Tree
from mlflow_sysmetrics.collectors.presence import NO_VISIBLE_NVIDIA_GPU
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.environment import hides_nvidia_gpus
from mlflow_sysmetrics.machine.visible_gpus.nvidia import select_nvidia
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, Selection, follows_environment
from mlflow_sysmetrics.runtime.clock import Clock, SystemClock
from mlflow_sysmetrics.samples import Sample

_PRESENCE_SECONDS = 10.0  # a device that the job starts to use is shown within this time
_PROCESS = "process"
# If earlier devices have delayed the tick by more than this, the next device is read with its real time.
# Below it the error of a rate is no larger than the steps in which drivers count, 20 to 100 ms.
_STALL_SECONDS = 0.05
SYSTEM_CLOCK = SystemClock()

Build = Callable[[Nvml, Device, Tree], Sequence[Reading]]


class GuardedDevice:
    """One device under guard.

    Args:
        nvml: NVML.
        device: the device.
        readings: its readings, in the order of a tick.
        processes: lists the job's processes on the device, if it is read only while there are any.
    """

    def __init__(
        self,
        nvml: Nvml,
        device: Device,
        readings: Sequence[Reading],
        processes: ProcessMemory | None = None,
    ) -> None:
        self._nvml = nvml
        self._device = device
        self._supports: dict[Reading, Support] = {reading: Support() for reading in readings}
        self._reach = Support()
        self._processes = processes
        self._presence = Support()
        self._look = Pause(_PRESENCE_SECONDS, read=False)
        self._occupied = False
        self._answers = False

    def samples(self, now: float) -> list[Sample]:
        """Returns the samples of the device at this tick."""
        found: list[Sample] = []
        if self._device.handle is None:
            self._find(now)
        if self._device.handle is None or not self._is_in_use(now):
            return found
        for reading, support in self._supports.items():
            if support.due(now):
                self._read(reading, support, now, found)
                if self._device.handle is None:
                    return found
        self._lose_if_silent(now)
        return found

    @property
    def gaps(self) -> Iterator[str]:
        """What is missing, one clause per cause."""
        name = self._device.name
        lost = self._device.handle is None
        if lost:
            yield f"{name}: {self._reach.gap or 'not reached'}"
        elif self._presence.gap:
            yield f"{name} processes: {self._presence.gap}"
        causes: dict[str, list[str]] = {}
        for reading, support in self._supports.items():
            needed = self._supports.get(reading.needs) if reading.needs else None
            why = needed if needed and needed.gap and not support.gap else support
            # What the device never supported is still missing when it is back, so that gap stays meanwhile.
            if why.gap and (not lost or why.verdict in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN)):
                causes.setdefault(why.gap, []).append(reading.name)
        for cause, names in causes.items():
            yield f"{name} {', '.join(names)}: {cause}"

    @property
    def state(self) -> tuple[object, ...]:
        """The values that determine `gaps`, cheap to compare at every tick."""
        return (
            self._device.handle is None,
            self._reach.gap,
            self._presence.gap,
            *[one.gap for one in self._supports.values()],
        )

    def _read(self, reading: Reading, support: Support, now: float, samples: list[Sample]) -> None:
        try:
            for sample in reading.read(now):
                samples.append(sample)  # noqa: PERF402 - samples before an error are kept
        except NvmlError as error:
            support.refused(error, now)
            if error.verdict is Verdict.LOST:
                self._lose(error, now)
            if error.verdict is not Verdict.UNUSABLE:
                return
        else:
            if support.gap:
                support.answered()
        if _proves_presence(reading):
            self._answers = True
            if self._reach.gap:
                self._reach.answered()

    def _is_in_use(self, now: float) -> bool:
        """Returns whether to read the device; while NVML lists no processes, as before."""
        if self._processes is None:
            return True
        if self._presence.due(now) and self._look.renew_if_over(now):
            try:
                self._occupied = bool(self._processes.ours(now))
                self._presence.answered()
            except NvmlError as error:
                self._presence.refused(error, now)
                if error.verdict is Verdict.UNUSABLE:
                    self._occupied = False
                if error.verdict is Verdict.LOST:
                    self._lose(error, now)
        return self._occupied and self._device.handle is not None

    def _lose_if_silent(self, now: float) -> None:
        """Treats a silent device as lost: NVML does not always report that, nor an outdated handle."""
        gaps = []
        for reading, support in self._supports.items():
            if _proves_presence(reading):
                if not support.gap or support.verdict is Verdict.UNUSABLE:
                    return
                if self._answers or support.verdict is Verdict.TROUBLE:
                    gaps.append(support.gap)
        if gaps:
            self._lose(NvmlError(gaps[0], Verdict.LOST), now)

    def _lose(self, error: NvmlError, now: float) -> None:
        self._device.handle = self._device.card = None
        self._answers = False
        self._reach.refused(error, now)

    def _find(self, now: float) -> None:
        if not self._reach.due(now):
            return
        try:
            find(self._nvml, self._device)
        except NvmlError as error:
            self._reach.refused(error, now)
            return
        for reading, support in self._supports.items():
            reading.restart()
            support.wake()


def _proves_presence(reading: Reading) -> bool:
    return (
        reading.vouches and reading.needs is None
    )  # a reading that depends on another one makes no call itself


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
