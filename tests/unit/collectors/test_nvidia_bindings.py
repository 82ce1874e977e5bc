"""The collectors with the real nvidia-ml-py bindings on top of a library in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest
from nvidia_machines import tick
from stub_library import NUMBERS, Library

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

Load = Callable[..., Library]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Makes the bindings use a library as if they had loaded it."""

    def put(library: Any) -> Any:
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        monkeypatch.setitem(NUMBERS, "nvmlDeviceGetCurrentClocksEventReasons", 0)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return library

    return put


def built(kind: type[Collector], **environ: str) -> Collector:
    return kind(Host(root=Path("/nowhere"), environ=environ, load_nvml=lambda: pynvml))


def test_the_real_bindings_yield_every_default_series(load: Load) -> None:
    load(Library())
    one = built(Nvidia)
    tick(one, 0)
    assert tick(one, 1) == {
        "0_xid_errors": 0,
        "0_utilization_percentage": 87,
        "0_power_usage_watts": 350,
        "0_power_usage_percentage": 50,
        "0_energy_watt_hours": 0,
        "0_memory_usage_megabytes": 40_000,
        "0_memory_usage_percentage": 50,
        "0_process_memory_megabytes": 2,
        "0_temperature_celsius": 61,
        "0_memory_temperature_celsius": 70,
        "0_throttled_percentage": 0,
        "0_ecc_errors": 0,
        "0_remapped_rows": 0,
    }
    assert not one.gaps


def test_an_event_is_assigned_by_its_device_pointer(load: Load) -> None:
    library = load(Library())
    one = built(Nvidia)
    tick(one, 0)
    library.events = 3
    assert tick(one, 1)["0_xid_errors"] == 3


def test_gpm_samples_of_the_real_bindings_are_read_and_freed(load: Load) -> None:
    library = load(Library())
    one = built(NvidiaProfile)
    tick(one, 0)
    for now in (1, 2):
        assert tick(one, now) == {
            "0_sm_clock_megahertz": 1980,
            "0_memory_clock_megahertz": 2619,
            "0_memory_utilization_percentage": 41,
            "0_sm_active_percentage": 40,
            "0_pcie_transmit_megabytes_per_second": 1048.576,
        }
    del one
    assert library.calls["nvmlGpmSampleFree"] == library.calls["nvmlGpmSampleAlloc"] == 2


def test_functions_missing_from_the_driver_fall_back_to_older_ones(load: Load) -> None:
    load(
        Library(
            "nvmlDeviceGetTemperatureV",
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetComputeRunningProcesses_v3",
        )
    )
    found = tick(built(Nvidia))
    assert found["0_temperature_celsius"] == 61
    assert found["0_memory_usage_megabytes"] == 41_000
    assert found["0_process_memory_megabytes"] == 2


def test_an_old_driver_without_gpm_is_a_gap(load: Load) -> None:
    load(Library("nvmlGpmQueryDeviceSupport"))
    one = built(NvidiaProfile)
    tick(one, 0)
    assert "gpu_0 GPM: not supported by this driver" in one.gaps


def test_devices_are_selected_by_the_uuid_of_the_real_bindings(load: Load) -> None:
    load(Library())
    assert tick(built(Nvidia, CUDA_VISIBLE_DEVICES="GPU-11111111"))


def test_the_real_bindings_report_a_missing_driver(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(2, "No such file or directory", name)

    load(None)
    monkeypatch.setattr(pynvml, "CDLL", no_library)
    with pytest.raises(Unavailable, match=r"^NVML: driver not found$"):
        built(Nvidia)


def test_a_tick_makes_few_calls(load: Load) -> None:
    """Counts calls, which dominate the cost; benchmarks/gpu.py measures the time."""
    library = load(Library())
    one = built(Nvidia)
    tick(one, 0)
    before = library.calls.total()
    tick(one, 1)
    # Events, utilization, memory, temperature, fields, and processes, which the bindings query twice; the
    # stub does not count power, energy and reasons.
    assert library.calls.total() - before == 7
