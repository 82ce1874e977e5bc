"""Devices for the fake NVML, and the errors of NVML. Every answer of a device may be an error instead."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# nvmlReturn_t of nvml.h -> the class name in the bindings.
CODES = {
    1: "Uninitialized",
    2: "InvalidArgument",
    3: "NotSupported",
    4: "NoPermission",
    5: "AlreadyInitialized",
    6: "NotFound",
    7: "InsufficientSize",
    8: "InsufficientPower",
    9: "DriverNotLoaded",
    10: "Timeout",
    11: "IrqIssue",
    12: "LibraryNotFound",
    13: "FunctionNotFound",
    14: "CorruptedInforom",
    15: "GpuIsLost",
    16: "ResetRequired",
    17: "OperatingSystem",
    18: "LibRmVersionMismatch",
    19: "InUse",
    20: "Memory",
    21: "NoData",
    22: "VgpuEccNotSupported",
    23: "InsufficientResources",
    24: "FreqNotSupported",
    25: "ArgumentVersionMismatch",
    26: "Deprecated",
    27: "NotReady",
    28: "GpuNotFound",
    29: "InvalidState",
    30: "ResetTypeNotSupported",
    999: "Unknown",
}


class NVMLError(Exception):
    """Base class of the errors in the bindings."""

    value = 999

    def __str__(self) -> str:
        return super().__str__() or f"NVML error {self.value}"


ERRORS: Mapping[int, type[NVMLError]] = {
    code: type(f"NVMLError_{name}", (NVMLError,), {"value": code}) for code, name in CODES.items()
}
UNSUPPORTED = ERRORS[3]("Not Supported")


class Process(NamedTuple):
    """A process on a device, as the bindings show it."""

    pid: int
    usedGpuMemory: int | None


class Value(NamedTuple):
    """A field value of type unsigned long long, whichever member is read."""

    ullVal: int


class FieldAnswer(NamedTuple):
    """One field: its error code and its value."""

    nvmlReturn: int
    valueType: int
    value: Value


@dataclass(eq=False)
class FakeGpu:
    """A device, or a MIG slice of one; an exception as a value is raised by the query.

    Attributes:
        slices: MIG slices by position; None if MIG is off.
        mig_capable: supports the query of the MIG mode; a divided device always does.
        instance: id of the GPU instance of a slice; its position by default.
        fields: field values by number.
        gpm: metrics by number; None without GPM.
        lost: whether the device has left the bus; set and cleared by tests.
        later: attributes that differ at the second moment of a recorded machine.
    """

    name: str | bytes | Exception
    uuid: str | bytes | Exception = ""
    memory_bytes: int | Exception = 0
    memory_used_bytes: int = 0
    utilization: int | Exception = 0
    power_milliwatts: int | Exception = 0
    power_limit_milliwatts: int | Exception = 0
    slices: tuple[FakeGpu, ...] | None = None
    mig_capable: bool = False
    instance: int = -1
    memory_utilization: int = 0
    memory_reserved_bytes: int = 0
    energy_millijoules: int | Exception = UNSUPPORTED
    temperature: int | Exception = UNSUPPORTED
    processes: Sequence[Process] | Exception = ()
    ecc_corrected: int | Exception = UNSUPPORTED
    ecc_uncorrected: int | Exception = 0
    remapped_rows: int | Exception = UNSUPPORTED
    reasons: int | Exception = UNSUPPORTED
    sm_clock: int | Exception = UNSUPPORTED
    memory_clock: int | Exception = UNSUPPORTED
    fields: dict[int, int] = field(default_factory=dict)
    gpm: Mapping[int, float] | None = None
    lost: bool = False
    later: Mapping[str, Any] = field(default_factory=dict)
    life: int = 0
    parent: FakeGpu | None = None

    def __post_init__(self) -> None:
        for place, piece in enumerate(self.slices or ()):
            piece.parent = self
            if piece.instance < 0:
                piece.instance = 1 + place

    @property
    def card(self) -> FakeGpu:
        """This GPU, or the GPU of this slice."""
        return self.parent or self

    def return_to_the_bus(self) -> None:
        """Returns to the bus after a loss; earlier handles remain invalid."""
        self.lost = False
        self.life += 1


_serial = itertools.count(1)


class Handle:
    """A pointer to a device, valid until the device is lost."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.life = gpu.card.life

    def __bytes__(self) -> bytes:
        return f"{id(self.gpu)}/{self.life}".encode()


class Buffer:
    """A GPM sample."""

    def __init__(self) -> None:
        self.serial = next(_serial)
        self.of: tuple[str, int | None] | None = None
        self.values: Mapping[int, float] = {}


class GpmMetric:
    """One metric of a request."""

    metricId = 0
    nvmlReturn = 0
    value = 0.0


class GpmRequest:
    """Replaces c_nvmlGpmMetricsGet_t."""

    version = 0
    numMetrics = 0
    sample1: Buffer
    sample2: Buffer

    def __init__(self) -> None:
        self.metrics = [GpmMetric() for _ in range(100)]
