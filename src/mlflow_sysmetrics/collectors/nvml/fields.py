"""Field values: one call for many readings of one device.

Source:  nvmlDeviceGetFieldValues; each field has its own error.
Numbers: NVML_FI_DEV_* of nvml.h, defined here instead of taken from the bindings. Bindings and driver often
         differ in age, and some fields were renumbered between CUDA 12.8 and 13 (the newer
         CLOCKS_EVENT_REASON_*: 251 to 253, then 269 to 271); the fields below never were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mlflow_sysmetrics.collectors.nvml.device import Device
from mlflow_sysmetrics.collectors.nvml.library import Handle, Nvml, refusal

PERF_POLICY_POWER = 74
PERF_POLICY_THERMAL = 75
PERF_POLICY_BOARD_LIMIT = 77
MEMORY_TEMPERATURE = 82
TOTAL_ENERGY = 83
REMAPPED_CORRECTABLE, REMAPPED_UNCORRECTABLE = 142, 143
POWER_INSTANT = 186
ECC_CORRECTED, ECC_UNCORRECTED = 3, 4  # since the driver was loaded
NVLINK_DATA_TX, NVLINK_DATA_RX = 138, 139
PCIE_TX_BYTES, PCIE_RX_BYTES = 197, 198
ALL_LINKS = 2**32 - 1  #: scope of the NVLink fields that stands for the sum over all links

# nvmlValueType_t -> the member of the union that holds the value.
_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


class Field(NamedTuple):
    """One field: its number, and the part of the device that it refers to."""

    number: int
    scope: int = 0


class Fields:
    """The fields of one device, which are read together, at most once per tick."""

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._nvml = nvml
        self._device = device
        self._wanted: dict[Field, None] = {}
        self._answers: dict[Field, Handle] = {}
        self._read_at = math.nan

    def values(self, fields: Sequence[Field], now: float) -> list[float]:
        """Returns the values of some fields. Fields that were requested before are read in the same call.

        Raises:
            NvmlError: one of them has no value.
        """
        if now != self._read_at or any(field not in self._answers for field in fields):
            self._wanted.update(dict.fromkeys(fields))
            self._read(now)
        return [_value(self._answers[field]) for field in fields]

    def _read(self, now: float) -> None:
        self._read_at = math.nan
        wanted = list(self._wanted)
        # Cleared until they are answered, so that a field with an error is not requested with the others.
        self._wanted.clear()
        answers = self._nvml.ask(
            "nvmlDeviceGetFieldValues", self._device.card, [tuple(one) for one in wanted]
        )
        self._answers = dict(zip(wanted, answers, strict=True))
        self._wanted.update({field: None for field in wanted if not self._answers[field].nvmlReturn})
        self._read_at = now


def _value(answer: Handle) -> float:
    if answer.nvmlReturn:
        raise refusal(answer.nvmlReturn)
    kind = answer.valueType
    if kind >= len(_MEMBERS):
        return math.nan
    value: float = getattr(answer.value, _MEMBERS[kind], math.nan)  # old bindings lack the last two
    return value
