"""Critical errors that the driver reports for a GPU: XID errors.

Source:  an event set for nvmlEventTypeXidCriticalError, polled at each tick without waiting.
         https://docs.nvidia.com/deploy/xid-errors
MIG:     an event names the GPU and, if the driver knows it, the GPU instance: it counts for the slices of
         that instance, else for all slices of the GPU.
Loss:    polling fails for all GPUs once one of them has fallen off the bus. The set is then freed, and a new
         one listens to the GPUs that still respond.
Absent:  on Windows.
"""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Iterator

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.library import TIMEOUT, Handle, Nvml, NvmlError, Verdict
from mlflow_sysmetrics.samples import Sample

_XID = 8  # nvmlEventTypeXidCriticalError
_NO_INSTANCE = 2**32 - 1  # gpuInstanceId of an event without a slice
_MOST_PER_TICK = 64  # a failing GPU reports thousands of events: the rest waits for the next tick


class XidEvents:
    """The event set of all watched devices.

    Attributes:
        generation: incremented when the set was freed, and all devices must register again.
    """

    def __init__(self, nvml: Nvml) -> None:
        self.generation = 0
        self._nvml = nvml
        self._set: Handle = None
        self._finalizer: weakref.finalize[[Nvml, Handle, int], XidEvents] | None = None
        self._polled = False
        self._counts: Counter[tuple[bytes, int]] = Counter()

    def register(self, card: Handle) -> None:
        """Starts to listen to a GPU.

        Raises:
            NvmlError: there are no such events.
        """
        if self._set is None:
            self._set = self._nvml.ask("nvmlEventSetCreate")
            self._finalizer = weakref.finalize(self, _free, self._nvml, self._set, os.getpid())
            self._finalizer.atexit = False
        self._nvml.ask("nvmlDeviceRegisterEvents", card, _XID, self._set)

    def begin_tick(self) -> None:
        """Allows the first device of the next tick to poll."""
        self._polled = False

    def poll(self) -> None:
        """Takes the events that have arrived, once per tick.

        Raises:
            NvmlError: polling failed.
        """
        if self._polled:
            return
        for _ in range(_MOST_PER_TICK):
            try:
                event = self._nvml.ask("nvmlEventSetWait_v2", self._set, 0)
            except NvmlError as error:
                if error.code == TIMEOUT:
                    break  # no more events
                if error.verdict is not Verdict.LOST:
                    raise
                self._start_over()
                # The readings of the lost GPU notice its loss themselves.
                raise NvmlError(str(error), Verdict.TROUBLE, error.code) from error
            self._counts[bytes(event.device), event.gpuInstanceId] += 1
        self._polled = True

    def count(self, device: Device) -> int:
        """Returns the number of events of a device."""
        # A handle is a pointer: its bytes distinguish GPUs even if they no longer respond.
        card = bytes(device.card)
        instance = None if device.slice is None else device.slice.gpu_instance
        return sum(
            count
            for (source, of), count in self._counts.items()
            if source == card and (instance is None or of in (instance, _NO_INSTANCE))
        )

    def _start_over(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._set = None
        self.generation += 1


class XidErrors(Reading):
    """Critical errors of one device."""

    name = "XID errors"
    vouches = False

    def __init__(self, device: Device, events: XidEvents) -> None:
        self._device = device
        self._events = events
        self._registered: int | None = None
        self._first: int | None = None

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the number of errors since the collector was built."""
        if self._registered != self._events.generation:
            self._events.register(self._device.card)
            self._registered = self._events.generation
        if self._first is None:
            self._first = self._events.count(self._device)
        self._events.poll()
        yield self._device.sample(catalogue.GPU_XID_ERRORS, self._events.count(self._device) - self._first)

    def restart(self) -> None:
        """Listens to the device again: a reset has ended the registration."""
        self._registered = None


def _free(nvml: Nvml, events: Handle, pid: int) -> None:
    if os.getpid() != pid:  # in a forked child NVML belongs to the parent
        return
    try:
        nvml.ask("nvmlEventSetFree", events)
    except NvmlError:
        return  # the library was shut down and freed the set
