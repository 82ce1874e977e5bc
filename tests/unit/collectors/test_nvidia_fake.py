"""The fake NVML has the names, arities, constants and errors of the real module."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import pynvml
import pytest

import mlflow_sysmetrics.collectors.nvml as package
from fake_gpu import CODES, Buffer, GpmMetric, GpmRequest
from fake_nvml import FakeNvml
from mlflow_sysmetrics.collectors.nvml import fields, gpm, library, throttling

pytestmark = pytest.mark.exhaustive

SOURCES = sorted(Path(package.__file__).parent.glob("*.py"))
NAMES = sorted(name for name in dir(FakeNvml) if name.lower().startswith(("nvml", "c_nvml")))
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(FakeNvml, name))]
GONE = {
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
}  # with CUDA 14, according to nvml.h


def asked() -> set[str]:
    """Returns the functions, constants and structures that the collectors use."""
    found = {name for file in SOURCES for name in re.findall(r'"((?:c_)?nvml\w+)"', file.read_text())}
    return found | {"nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId"}  # composed at run time


@pytest.mark.parametrize("name", NAMES)
def test_the_real_module_has_what_the_fake_has(name: str) -> None:
    assert hasattr(pynvml, name) or name in GONE


@pytest.mark.parametrize("name", sorted(asked()))
def test_the_fake_has_what_the_collectors_use(name: str) -> None:
    assert hasattr(FakeNvml, name)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if hasattr(pynvml, name)])
def test_functions_have_the_arity_of_the_real_ones(name: str) -> None:
    real = inspect.signature(getattr(pynvml, name)).parameters
    _, *fake = inspect.signature(getattr(FakeNvml, name)).parameters.values()
    assert [one.name for one in fake] == list(real)
    for one in fake:
        assert (one.default is one.empty) is (real[one.name].default is one.empty)


@pytest.mark.parametrize(("code", "name"), CODES.items())
def test_errors_have_the_real_numbers_and_names(code: int, name: str) -> None:
    real = pynvml.NVMLError(code)
    assert type(real).__name__ == f"NVMLError_{name}"
    assert real.value == code
    assert getattr(FakeNvml, f"NVMLError_{name}").value == code


def test_every_error_is_covered() -> None:
    real = {name for name in dir(pynvml) if name.startswith("NVML_ERROR_")}
    assert {getattr(pynvml, name) for name in real} == set(CODES)


def test_a_library_mismatch_is_not_an_nvml_error() -> None:
    assert not issubclass(pynvml.NVMLLibraryMismatchError, pynvml.NVMLError)
    assert not issubclass(FakeNvml.NVMLLibraryMismatchError, FakeNvml.NVMLError)


NUMBERS: Mapping[str, int] = {
    "NVML_ERROR_UNINITIALIZED": library.UNINITIALIZED,
    "NVML_ERROR_NOT_SUPPORTED": library.NOT_SUPPORTED,
    "NVML_ERROR_NO_PERMISSION": library.NO_PERMISSION,
    "NVML_ERROR_TIMEOUT": library.TIMEOUT,
    "NVML_FI_DEV_PERF_POLICY_POWER": fields.PERF_POLICY_POWER,
    "NVML_FI_DEV_PERF_POLICY_THERMAL": fields.PERF_POLICY_THERMAL,
    "NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT": fields.PERF_POLICY_BOARD_LIMIT,
    "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP": fields.PERF_POLICY_POWER,
    "NVML_FI_DEV_MEMORY_TEMP": fields.MEMORY_TEMPERATURE,
    "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX": fields.NVLINK_DATA_TX,
    "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX": fields.NVLINK_DATA_RX,
    "NVML_FI_DEV_PCIE_COUNT_TX_BYTES": fields.PCIE_TX_BYTES,
    "NVML_FI_DEV_PCIE_COUNT_RX_BYTES": fields.PCIE_RX_BYTES,
    "NVML_GPM_METRIC_GRAPHICS_UTIL": gpm.GRAPHICS_UTIL,
    "NVML_GPM_METRIC_SM_UTIL": gpm.SM_UTIL,
    "NVML_GPM_METRIC_SM_OCCUPANCY": gpm.SM_OCCUPANCY,
    "NVML_GPM_METRIC_ANY_TENSOR_UTIL": gpm.ANY_TENSOR_UTIL,
    "NVML_GPM_METRIC_DRAM_BW_UTIL": gpm.DRAM_BW_UTIL,
    "NVML_GPM_METRIC_PCIE_TX_PER_SEC": gpm.PCIE_TX_PER_SEC,
    "NVML_GPM_METRIC_PCIE_RX_PER_SEC": gpm.PCIE_RX_PER_SEC,
    "NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC": gpm.NVLINK_RX_PER_SEC,
    "NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC": gpm.NVLINK_TX_PER_SEC,
    "NVML_GPM_METRICS_GET_VERSION": 1,
    "NVML_CLOCK_SM": 1,
    "NVML_CLOCK_MEM": 2,
    "NVML_TEMPERATURE_GPU": 0,
    "NVML_MEMORY_ERROR_TYPE_CORRECTED": 0,
    "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1,
    "NVML_VOLATILE_ECC": 0,
    "NVML_DEVICE_MIG_ENABLE": 1,
    "nvmlEventTypeXidCriticalError": 8,
    "nvmlMemory_v2": FakeNvml.nvmlMemory_v2,
}


@pytest.mark.parametrize(("name", "number"), NUMBERS.items())
def test_constants_equal_those_of_the_real_module(name: str, number: int) -> None:
    assert getattr(pynvml, name) == number


def test_counted_reasons_are_power_heat_and_brakes() -> None:
    names = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    bits = 0
    for name in names:
        # The bindings have some of them only under the newer name, others only under the older one.
        newer, older = f"nvmlClocksEventReason{name}", f"nvmlClocksThrottleReason{name}"
        bits |= getattr(pynvml, newer, None) or getattr(pynvml, older)
    assert bits == throttling._HELD_DOWN


def test_the_gpm_request_has_the_real_members() -> None:
    request = {name for name, *_ in pynvml.c_nvmlGpmMetricsGet_t._fields_}
    assert request == {"version", "numMetrics", "metrics", *GpmRequest.__annotations__}
    metric = {name for name, *_ in pynvml.c_nvmlGpmMetric_t._fields_}
    assert {name for name in vars(GpmMetric) if not name.startswith("__")} < metric
    assert isinstance(Buffer().serial, int)


def test_field_value_members_follow_the_order_of_types() -> None:
    members = [name for name, *_ in pynvml.c_nvmlValue_t._fields_]
    assert list(fields._MEMBERS) == members[: len(fields._MEMBERS)]
