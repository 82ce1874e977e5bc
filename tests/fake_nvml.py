"""A fake of nvidia-ml-py's `pynvml`, for machines that the tests describe.

`test_nvidia_fake.py` checks its names and arities against the real module, `test_gpu_live.py` its answers
against a real device.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

from fake_gpu import ERRORS, FakeGpu, FieldAnswer, Handle, NVMLError, Process, Value
from fake_monitoring import Monitoring, asked

__all__ = ["FakeGpu", "FakeNvml", "Process"]

# Names missing from bindings of 2023 (12.535.77, our oldest) and from earlier ones, and functions that drivers
# before 535 lack. Bindings look up a function when it is called, so with an old driver the call fails.
OLD_BINDINGS = frozenset(
    {
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetComputeRunningProcesses_v2",
        "NVMLLibraryMismatchError",
    }
)
OLDER_BINDINGS = OLD_BINDINGS | {
    "nvmlMemory_v2",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlGpmQueryDeviceSupport",
    "c_nvmlGpmMetricsGet_t",
}
OLD_DRIVER = frozenset(
    {
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetTemperatureV",
        "nvmlGpmQueryDeviceSupport",
    }
)


class FakeNvml(Monitoring):
    """Replaces the module: functions and error classes under their real names.

    Attributes:
        missing: names that these bindings lack.
    """

    NVMLError = NVMLError
    nvmlMemory_v2 = 0x02000028

    class NVMLLibraryMismatchError(Exception):
        """Raised when the bindings are newer than the driver."""

    def __new__(cls, *_: FakeGpu, missing: Collection[str] = (), **__: Any) -> FakeNvml:
        lacking = type(cls.__name__, (cls,), dict.fromkeys(missing, property(_absent))) if missing else cls
        return super().__new__(lacking)

    def __init__(
        self,
        *gpus: FakeGpu,
        init_error: Exception | None = None,
        driver: str | bytes = "570.133.20",
        cuda: int = 12080,
        missing: Collection[str] = (),
    ) -> None:
        self.gpus = gpus
        self.init_error = init_error
        self.driver = driver
        self.cuda = cuda
        self.missing = missing
        super().__init__()

    @asked
    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise self.init_error

    @asked
    def nvmlSystemGetDriverVersion(self) -> Any:
        return self.driver

    @asked
    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    @asked
    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    @asked
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:
        return self._reach(self.gpus[index])

    @asked
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Handle:
        everything = [one for gpu in self.gpus for one in (gpu, *(gpu.slices or ()))]
        found = [gpu for gpu in everything if gpu.uuid == uuid]
        if not found:
            raise ERRORS[6]("Not Found")
        return self._reach(found[0])

    @asked
    def nvmlDeviceGetName(self, handle: Handle) -> Any:
        return _answer(handle.gpu.name)

    @asked
    def nvmlDeviceGetUUID(self, handle: Handle) -> Any:
        return _answer(handle.gpu.uuid)

    @asked
    def nvmlDeviceGetMemoryInfo(self, handle: Handle, version: int | None = None) -> Any:
        gpu = handle.gpu
        if version is not None:
            assert version == self.nvmlMemory_v2
            self.check("nvmlDeviceGetMemoryInfo_v2", gpu.uuid)  # what the bindings call in this case
        reserved = gpu.memory_reserved_bytes
        used = gpu.memory_used_bytes + (0 if version else reserved)
        told = SimpleNamespace(total=_answer(gpu.memory_bytes), used=used)
        if version is not None:
            told.reserved = reserved
        return told

    @asked
    def nvmlDeviceGetUtilizationRates(self, handle: Handle) -> Any:
        _whole(handle)
        return SimpleNamespace(gpu=_answer(handle.gpu.utilization), memory=handle.gpu.memory_utilization)

    @asked
    def nvmlDeviceGetPowerUsage(self, handle: Handle) -> Any:
        return _answer(handle.gpu.power_milliwatts)

    @asked
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Handle) -> Any:
        return _answer(handle.gpu.power_limit_milliwatts)

    @asked
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle) -> Any:
        return _answer(handle.gpu.energy_millijoules)

    @asked
    def nvmlDeviceGetTemperatureV(self, handle: Handle, sensor: int, version: int = 1) -> Any:
        del sensor, version
        return _answer(handle.gpu.temperature)

    @asked
    def nvmlDeviceGetTemperature(self, handle: Handle, sensor: int) -> Any:
        del sensor
        return _answer(handle.gpu.temperature)

    @asked
    def nvmlDeviceGetFieldValues(self, handle: Handle, fieldIds: Sequence[tuple[int, int]]) -> Any:
        values = [handle.gpu.fields.get(number) for number, _ in fieldIds]
        return [FieldAnswer(3 if value is None else 0, 3, Value(value or 0)) for value in values]

    @asked
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> Any:
        return list(_answer(handle.gpu.processes))

    @asked
    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: Handle) -> Any:
        return list(_answer(handle.gpu.processes))

    @asked
    def nvmlDeviceGetTotalEccErrors(self, handle: Handle, errorType: int, counterType: int) -> Any:
        _no_slices(handle)
        assert counterType == 0
        return _answer((handle.gpu.ecc_corrected, handle.gpu.ecc_uncorrected)[errorType])

    @asked
    def nvmlDeviceGetRemappedRows(self, device: Handle) -> Any:
        _no_slices(device)
        return (0, _answer(device.gpu.remapped_rows), 0, 0)

    @asked
    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Handle) -> Any:
        return _answer(handle.gpu.reasons)

    @asked
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Handle) -> Any:
        return _answer(handle.gpu.reasons)

    @asked
    def nvmlDeviceGetClockInfo(self, handle: Handle, type: int) -> Any:
        return _answer({1: handle.gpu.sm_clock, 2: handle.gpu.memory_clock}[type])

    @asked
    def nvmlDeviceGetClock(self, handle: Handle, type: int, id: int) -> Any:
        assert id == 0
        return _answer({1: handle.gpu.sm_clock, 2: handle.gpu.memory_clock}[type])

    @asked
    def nvmlDeviceGetPowerManagementLimit(self, handle: Handle) -> Any:
        return _answer(handle.gpu.power_limit_milliwatts)

    @asked
    def nvmlDeviceGetMigMode(self, device: Handle) -> list[int]:
        if device.gpu.slices is None and not device.gpu.mig_capable:
            raise ERRORS[3]("Not Supported")
        return [0, 0] if device.gpu.slices is None else [1, 1]

    @asked
    def nvmlDeviceGetMaxMigDeviceCount(self, device: Handle) -> int:
        return 7 if device.gpu.slices is not None else 0

    @asked
    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Handle, index: int) -> Handle:
        if device.gpu.slices is None or index >= len(device.gpu.slices):
            raise ERRORS[6]("Not Found")
        return Handle(device.gpu.slices[index])

    @asked
    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice: Handle) -> Handle:
        return Handle(migDevice.gpu.card)

    @asked
    def nvmlDeviceGetGpuInstanceId(self, device: Handle) -> int:
        return device.gpu.instance

    @asked
    def nvmlDeviceGetComputeInstanceId(self, device: Handle) -> int:
        del device
        return 0

    def _reach(self, gpu: FakeGpu) -> Handle:
        if gpu.card.lost:
            raise ERRORS[15]("GPU is lost")
        return Handle(gpu)


for error in ERRORS.values():
    setattr(FakeNvml, error.__name__, error)


def _absent(nvml: FakeNvml) -> Any:
    raise AttributeError(nvml)


def _answer(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


def _whole(handle: Handle) -> None:
    """Raises the error of NVML for a slice, and for a GPU divided into slices."""
    if handle.gpu.slices or handle.gpu.parent:
        raise ERRORS[3]("Not Supported")


def _no_slices(handle: Handle) -> None:
    """Raises the error of NVML for a GPU divided into slices."""
    if handle.gpu.slices:
        raise ERRORS[3]("Not Supported")
