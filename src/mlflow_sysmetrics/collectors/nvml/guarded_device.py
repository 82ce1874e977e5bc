"""Reads one device: each reading by itself, and the device again after it was lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.enumeration import find
from mlflow_sysmetrics.collectors.nvml.library import Nvml, NvmlError, Verdict
from mlflow_sysmetrics.collectors.nvml.processes import ProcessMemory
from mlflow_sysmetrics.collectors.nvml.support import Support
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.samples import Sample

_PRESENCE_SECONDS = 10.0  # how soon a device on which the job has begun to work must be seen


class Watch:
    """One device under guard.

    Args:
        nvml: NVML.
        device: the device.
        readings: what is read of it, in the order of a tick.
        processes: where the device is read only while our processes are on it: tells which those are.
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
        """Returns what the device answers at this tick."""
        found: list[Sample] = []
        if self._device.handle is None:
            self._find(now)
        if self._device.handle is None or not self._chosen(now):
            return found
        for reading, support in self._supports.items():
            if support.due(now):
                self._read(reading, support, now, found)
                if self._device.handle is None:
                    return found
        self._listen(now)
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
            # What it never had, it lacks when it is back, too: that is no news then.
            if why.gap and (not lost or why.verdict in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN)):
                causes.setdefault(why.gap, []).append(reading.name)
        for cause, names in causes.items():
            yield f"{name} {', '.join(names)}: {cause}"

    @property
    def state(self) -> tuple[object, ...]:
        """What `gaps` follows from, cheap to compare at every tick."""
        return (
            self._device.handle is None,
            self._reach.gap,
            self._presence.gap,
            *[one.gap for one in self._supports.values()],
        )

    def _read(self, reading: Reading, support: Support, now: float, found: list[Sample]) -> None:
        try:
            for sample in reading.read(now):
                found.append(sample)  # noqa: PERF402 - what came before an error is kept
        except NvmlError as error:
            support.refused(error, now)
            if error.verdict is Verdict.LOST:
                self._lose(error, now)
            if error.verdict is not Verdict.UNUSABLE:
                return
        else:
            if support.gap:
                support.answered()
        if _vouches(reading):
            self._answers = True
            if self._reach.gap:
                self._reach.answered()

    def _chosen(self, now: float) -> bool:
        """Tells whether to read the device; while NVML does not say who uses it, as before."""
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

    def _listen(self, now: float) -> None:
        """Takes a device that is silent for lost: NVML does not always call it so, nor an outdated handle."""
        gaps = []
        for reading, support in self._supports.items():
            if _vouches(reading):
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


def _vouches(reading: Reading) -> bool:
    return reading.vouches and reading.needs is None  # what follows from another reading asks nothing itself
