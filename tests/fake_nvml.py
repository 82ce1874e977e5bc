# ruff: noqa: N802 - the functions have the names of the real ones, and NVML's manual describes them
"""A module like nvidia-ml-py's `pynvml`, for machines that the tests describe.

`test_facts_nvml.py` checks its names against the real module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class _Memory(NamedTuple):
    total: int
    used: int


class _Utilization(NamedTuple):
    gpu: int
    memory: int


@dataclass(frozen=True)
class FakeGpu:
    """One device, or one MIG slice of one; an exception stands for a query that fails with it."""

    name: str | bytes | Exception
    uuid: str | bytes = ""
    memory_bytes: int | Exception = 0
    memory_used_bytes: int = 0
    utilization: int | Exception = 0
    power_milliwatts: int | Exception = 0
    power_limit_milliwatts: int | Exception = 0
    slices: tuple[FakeGpu, ...] | None = None
    """MIG slices by their place; None where MIG is off."""


class FakeNvml:
    """Stands for the module: functions and error classes under their real names."""

    class NVMLError(Exception):
        """The base of the real module's errors."""

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818 - the real name
        """No libnvidia-ml.so.1."""

    class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801, N818 - the real name
        """The kernel module does not run."""

    class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818 - the real name
        """This device has no such thing."""

    class NVMLError_NotFound(NVMLError):  # noqa: N801, N818 - the real name
        """There is no MIG slice in that place."""

    class NVMLError_GpuIsLost(NVMLError):  # noqa: N801, N818 - the real name
        """It fell off the bus."""

    def __init__(
        self,
        *gpus: FakeGpu,
        init_error: Exception | None = None,
        driver: str | bytes = "570.133.20",
        cuda: int = 12080,
    ) -> None:
        self.gpus = gpus
        self.init_error = init_error
        self.driver = driver
        self.cuda = cuda

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise self.init_error

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self.gpus[index]

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str | bytes:
        return _answer(handle.name)  # type: ignore[no-any-return]

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str | bytes:
        return handle.uuid

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu) -> _Memory:
        return _Memory(_answer(handle.memory_bytes), handle.memory_used_bytes)

    def nvmlDeviceGetUtilizationRates(self, handle: FakeGpu) -> _Utilization:
        return _Utilization(_answer(handle.utilization), 0)

    def nvmlDeviceGetPowerUsage(self, handle: FakeGpu) -> int:
        return _answer(handle.power_milliwatts)  # type: ignore[no-any-return]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeGpu) -> int:
        return _answer(handle.power_limit_milliwatts)  # type: ignore[no-any-return]

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetMigMode(self, handle: FakeGpu) -> list[int]:
        if handle.slices is None:
            raise self.NVMLError_NotSupported("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: FakeGpu) -> int:
        return 7 if handle.slices is not None else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: FakeGpu, index: int) -> FakeGpu:
        if handle.slices is None or index >= len(handle.slices):
            raise self.NVMLError_NotFound("Not Found")
        return handle.slices[index]


def _answer(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value
