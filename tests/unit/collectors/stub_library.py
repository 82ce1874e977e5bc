"""A libnvidia-ml in Python with one GPU, for the real bindings: it receives and fills the structures they pass."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pynvml

UUID = b"GPU-11111111-2222-3333-4444-555555555555"
ADDRESS, SET_ADDRESS, SAMPLE_ADDRESS = 0x1000, 0x2000, 0x3000  # never read
OK, NOT_SUPPORTED, INSUFFICIENT_SIZE, TIMEOUT = 0, 3, 7, 10
FIELDS = {74: 0, 75: 0, 77: 0, 82: 70}
GPM = {2: 40.0, 20: 1000.0}
# Functions that write one number to an address: function -> value.
NUMBERS = {
    "nvmlDeviceGetPowerUsage": 350_000,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetTotalEnergyConsumption": 3_600_000,
    "nvmlDeviceGetCount_v2": 1,
}


class Library:
    """Replaces the loaded library.

    Attributes:
        lacks: functions missing from this driver.
        calls: how often each function was called.
        events: number of pending XID errors.
    """

    def __init__(self, *lacks: str) -> None:
        self.lacks = lacks
        self.calls: Counter[str] = Counter()
        self.events = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name in self.lacks:
            raise AttributeError(name)
        if name in NUMBERS:
            return lambda *passed: _put(passed[-1], NUMBERS[name])
        function: Callable[..., int] = getattr(self, f"_{name}")

        def call(*passed: Any) -> int:
            self.calls[name] += 1
            return function(*passed)

        return call

    def _nvmlInitWithFlags(self, flags: int) -> int:
        del flags
        return OK

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int:
        del index
        return self._device(device)

    def _nvmlDeviceGetHandleByUUID(self, uuid: Any, device: Any) -> int:
        return self._device(device) if uuid.value == UUID else NOT_SUPPORTED

    def _device(self, device: Any) -> int:
        return _point(device, ADDRESS)

    def _nvmlDeviceGetUUID(self, device: Any, text: Any, size: Any) -> int:
        return self._text(device, text, size, UUID)

    def _nvmlDeviceGetName(self, device: Any, text: Any, size: Any) -> int:
        return self._text(device, text, size, b"NVIDIA H100")

    def _text(self, device: Any, text: Any, size: Any, value: bytes) -> int:
        assert _address(device) == ADDRESS
        assert len(value) < size.value
        text.value = value
        return OK

    def _nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:
        del size
        text.value = b"570.133.20"
        return OK

    def _nvmlDeviceGetMigMode(self, *passed: Any) -> int:
        del passed
        return NOT_SUPPORTED

    def _nvmlDeviceGetUtilizationRates(self, device: Any, rates: Any) -> int:
        del device
        rates._obj.gpu, rates._obj.memory = 87, 41
        return OK

    def _nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:
        del device
        memory._obj.total, memory._obj.used = 80_000_000_000, 41_000_000_000
        return OK

    def _nvmlDeviceGetMemoryInfo_v2(self, device: Any, memory: Any) -> int:
        assert memory._obj.version == pynvml.nvmlMemory_v2
        self._nvmlDeviceGetMemoryInfo(device, memory)
        memory._obj.used, memory._obj.reserved = 40_000_000_000, 1_000_000_000
        return OK

    def _nvmlDeviceGetTemperatureV(self, device: Any, temperature: Any) -> int:
        del device
        assert temperature._obj.sensorType == 0
        temperature._obj.temperature = 61
        return OK

    def _nvmlDeviceGetTemperature(self, device: Any, sensor: Any, celsius: Any) -> int:
        del device
        assert sensor.value == 0
        return _put(celsius, 61)

    def _nvmlDeviceGetFieldValues(self, device: Any, count: Any, values: Any) -> int:
        del device
        for value in values._obj[: count.value]:
            known = value.fieldId in FIELDS and value.scopeId == 0
            value.nvmlReturn = OK if known else NOT_SUPPORTED
            value.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            value.value.ullVal = FIELDS.get(value.fieldId, 0)
        return OK

    def _nvmlDeviceGetComputeRunningProcesses_v3(self, device: Any, count: Any, processes: Any) -> int:
        del device
        _put(count, 1)
        if processes is None:
            return INSUFFICIENT_SIZE
        processes[0].pid, processes[0].usedGpuMemory = os.getpid(), 2_000_000
        return OK

    _nvmlDeviceGetComputeRunningProcesses_v2 = _nvmlDeviceGetComputeRunningProcesses_v3

    def _nvmlDeviceGetTotalEccErrors(self, device: Any, kind: Any, counter: Any, count: Any) -> int:
        del device
        assert counter.value == 0
        return _put(count, kind.value)

    def _nvmlDeviceGetRemappedRows(self, device: Any, *counts: Any) -> int:
        del device
        for count in counts:
            _put(count, 0)
        return OK

    def _nvmlEventSetCreate(self, events: Any) -> int:
        return _point(events, SET_ADDRESS)

    def _nvmlDeviceRegisterEvents(self, device: Any, types: Any, events: Any) -> int:
        del device
        assert types.value == pynvml.nvmlEventTypeXidCriticalError
        assert _address(events) == SET_ADDRESS
        return OK

    def _nvmlEventSetWait_v2(self, events: Any, event: Any, milliseconds: Any) -> int:
        del events
        assert milliseconds.value == 0
        if not self.events:
            return TIMEOUT
        self.events -= 1
        event._obj.gpuInstanceId = 2**32 - 1
        return _point(event, ADDRESS)  # the device is the first member

    def _nvmlEventSetFree(self, events: Any) -> int:
        del events
        return OK

    def _nvmlDeviceGetClockInfo(self, device: Any, domain: Any, megahertz: Any) -> int:
        del device
        return _put(megahertz, {1: 1980, 2: 2619}[domain.value])

    def _nvmlGpmQueryDeviceSupport(self, device: Any, support: Any) -> int:
        del device
        assert support._obj.version == pynvml.NVML_GPM_SUPPORT_VERSION
        support._obj.isSupportedDevice = 1
        return OK

    def _nvmlGpmSampleAlloc(self, sample: Any) -> int:
        return _point(sample, SAMPLE_ADDRESS + self.calls["nvmlGpmSampleAlloc"])

    def _nvmlGpmSampleFree(self, sample: Any) -> int:
        del sample
        return OK

    def _nvmlGpmSampleGet(self, device: Any, sample: Any) -> int:
        del device, sample
        return OK

    def _nvmlGpmMetricsGet(self, request: Any) -> int:
        asked = request._obj
        assert asked.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        first, second = _address(asked.sample1), _address(asked.sample2)
        assert SAMPLE_ADDRESS < min(first, second) < max(first, second)
        for metric in asked.metrics[: asked.numMetrics]:
            metric.nvmlReturn = OK if metric.metricId in GPM else NOT_SUPPORTED
            metric.value = GPM.get(metric.metricId, 0.0)
        return OK


def _put(address: Any, value: int) -> int:
    address._obj.value = value
    return OK


def _point(target: Any, address: int) -> int:
    """Makes the first pointer at the target point to an address."""
    pointer = bytes(ctypes.c_void_p(address))
    ctypes.memmove(ctypes.addressof(target._obj), pointer, len(pointer))
    return OK


def _address(pointer: Any) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0
