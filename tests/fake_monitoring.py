"""Events and GPM samples of the fake NVML, call counts and injected faults."""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from fake_gpu import ERRORS, Buffer, FakeGpu, GpmRequest, Handle


def asked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Counts the calls of a function and raises the faults that the test injected."""
    name = function.__name__

    @functools.wraps(function)
    def call(self: Monitoring, *arguments: Any) -> Any:
        self.calls[name] += 1
        handle = arguments[0] if arguments and isinstance(arguments[0], Handle) else None
        if self.faults:
            self.check(name, handle.gpu.uuid if handle else None)
        if handle is not None and (handle.gpu.card.lost or handle.life != handle.gpu.card.life):
            raise ERRORS[15]("GPU is lost")
        return function(self, *arguments)

    return call


class Monitoring:
    """Call counts, faults, events and samples.

    Attributes:
        calls: how often each function was called.
        faults: errors by function and UUID, or None for every device; raised until removed.
        events: pending XID events: the GPU and the GPU instance.
        live: GPM samples and event sets that were created and not freed.
    """

    c_nvmlGpmMetricsGet_t = GpmRequest

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.faults: dict[tuple[str, Any], Exception] = {}
        self.events: deque[tuple[FakeGpu, int]] = deque()
        self.registered: set[str] = set()
        self.live: list[object] = []

    def fail(self, function: str, code: int, uuid: str | None = None) -> None:
        """Makes a function fail from now on, for one device or for all."""
        self.faults[function, uuid] = ERRORS[code]()

    def check(self, function: str, uuid: Any = None) -> None:
        """Raises the fault that the test injected into a function, if any."""
        for key in ((function, uuid), (function, None)):
            if key in self.faults:
                raise self.faults[key]

    @asked
    def nvmlEventSetCreate(self) -> object:
        self.live.append(events := object())
        return events

    @asked
    def nvmlDeviceRegisterEvents(self, handle: Handle, eventTypes: int, eventSet: object) -> None:
        assert eventTypes == 8, "nvmlEventTypeXidCriticalError"
        assert eventSet in self.live
        self.registered.add(str(handle.gpu.uuid))

    @asked
    def nvmlEventSetWait_v2(self, eventSet: object, timeoutms: int) -> Any:
        assert eventSet in self.live
        assert timeoutms == 0, "nobody waits"
        if not self.events:
            raise ERRORS[10]("Timeout")
        gpu, instance = self.events.popleft()
        return SimpleNamespace(device=Handle(gpu), eventType=8, eventData=79, gpuInstanceId=instance)

    @asked
    def nvmlEventSetFree(self, eventSet: object) -> None:
        self.live.remove(eventSet)

    @asked
    def nvmlGpmQueryDeviceSupport(self, device: Handle) -> Any:
        return SimpleNamespace(isSupportedDevice=int(device.gpu.gpm is not None))

    @asked
    def nvmlGpmSampleAlloc(self) -> Buffer:
        self.live.append(buffer := Buffer())
        return buffer

    @asked
    def nvmlGpmSampleFree(self, gpmSample: Buffer) -> None:
        self.live.remove(gpmSample)

    @asked
    def nvmlGpmSampleGet(self, device: Handle, gpmSample: Buffer) -> Buffer:
        gpmSample.of, gpmSample.values = (str(device.gpu.uuid), None), dict(device.gpu.gpm or {})
        return gpmSample

    @asked
    def nvmlGpmMigSampleGet(self, device: Handle, gpuInstanceId: int, gpmSample: Buffer) -> Buffer:
        piece = next((one for one in device.gpu.slices or () if one.instance == gpuInstanceId), None)
        if piece is None:
            raise ERRORS[2]("Invalid Argument")
        gpmSample.of, gpmSample.values = (str(device.gpu.uuid), gpuInstanceId), dict(piece.gpm or {})
        return gpmSample

    @asked
    def nvmlGpmMetricsGet(self, metricsGet: GpmRequest) -> GpmRequest:
        before, after = metricsGet.sample1, metricsGet.sample2
        assert metricsGet.version == 1
        assert before.of == after.of is not None, "two samples of one device"
        for metric in metricsGet.metrics[: metricsGet.numMetrics]:
            value = after.values.get(metric.metricId)
            metric.nvmlReturn, metric.value = (3, 0.0) if value is None else (0, value)
        return metricsGet
