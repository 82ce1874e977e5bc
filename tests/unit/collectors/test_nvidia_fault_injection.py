"""Every NVML function in use, failing with every NVML error: nothing else is lost, and everything recovers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from nvidia_machines import AMPERE, CARD, HOPPER, ampere, collector, hopper, sliced, tick

from fake_gpu import CODES
from fake_nvml import FakeNvml
from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.errors import Unavailable
from reduced import part

pytestmark = pytest.mark.exhaustive

# Ordinals: 0 hopper, 1 ampere, 2 and 3 the slices of the card.
PLACES = {HOPPER: "0", AMPERE: "1", CARD: "23"}
NEWER = frozenset(
    {
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetTemperatureV",
    }
)
HEALTHY = (0.0, 1.0)
# Late enough to repeat rare queries.
FAULTY = (100.0, 101.0, 108.0)
# Beyond the pauses: five minutes after errors, ten minutes for unsupported queries.
RECOVERED = (109.0, 420.0, 720.0, 721.0)

LOSSES = frozenset({"Uninitialized", "GpuIsLost", "ResetRequired", "GpuNotFound"})
# Those that the collectors tell apart from the others.
ALWAYS = LOSSES | {"NotSupported", "NoPermission", "Timeout"}
_PROFILE = frozenset(
    {
        "sm_active_percentage",
        "sm_occupancy_percentage",
        "tensor_active_percentage",
        "dram_active_percentage",
    }
)
_LINKS = frozenset(
    f"{link}_{way}_megabytes_per_second" for link in ("pcie", "nvlink") for way in ("receive", "transmit")
)
_GPM = _PROFILE | _LINKS | {"utilization_percentage"}  # the latter for slices
_THROTTLING = frozenset({"throttled_percentage"})
_POWER = frozenset({"power_usage_watts", "power_usage_percentage", "energy_watt_hours"})
_XID = frozenset({"xid_errors"})
# The series that an error of a function may affect; a function not listed may affect none.
COSTS: Mapping[str, frozenset[str]] = {
    "nvmlDeviceGetUtilizationRates": frozenset({"utilization_percentage", "memory_utilization_percentage"}),
    "nvmlDeviceGetMemoryInfo": frozenset({"memory_usage_megabytes", "memory_usage_percentage"}),
    "nvmlDeviceGetPowerUsage": _POWER,
    "nvmlDeviceGetEnforcedPowerLimit": frozenset({"power_usage_percentage"}),
    "nvmlDeviceGetTotalEnergyConsumption": frozenset({"energy_watt_hours"}),
    "nvmlDeviceGetTemperature": frozenset({"temperature_celsius"}),
    "nvmlDeviceGetTemperatureV": frozenset({"temperature_celsius"}),
    "nvmlDeviceGetFieldValues": _THROTTLING | _LINKS | {"memory_temperature_celsius"},
    "nvmlDeviceGetComputeRunningProcesses": frozenset({"process_memory_megabytes"}),
    "nvmlDeviceGetComputeRunningProcesses_v2": frozenset({"process_memory_megabytes"}),
    "nvmlDeviceGetCurrentClocksEventReasons": _THROTTLING,
    "nvmlDeviceGetCurrentClocksThrottleReasons": _THROTTLING,
    "nvmlDeviceGetTotalEccErrors": frozenset({"ecc_errors"}),
    "nvmlDeviceGetRemappedRows": frozenset({"remapped_rows"}),
    "nvmlDeviceGetClockInfo": frozenset({"sm_clock_megahertz", "memory_clock_megahertz"}),
    "nvmlEventSetWait_v2": _XID,
    "nvmlEventSetCreate": _XID,
    "nvmlDeviceRegisterEvents": _XID,
    "nvmlGpmQueryDeviceSupport": _GPM,
    "nvmlGpmSampleAlloc": _GPM,
    "nvmlGpmSampleGet": _GPM,
    "nvmlGpmMigSampleGet": _GPM,
    "nvmlGpmMetricsGet": _GPM,
}


class Machine:
    """Four devices with both collectors, built as a probe builds them."""

    def __init__(self, *, older: bool = False) -> None:
        self.nvml = FakeNvml(hopper(), ampere(), sliced(), missing=NEWER if older else ())
        self._built: dict[type[Collector], Collector] = {}

    def tick(self, now: float) -> set[str]:
        """Returns the keys of one tick."""
        keys = set()
        for kind in (Nvidia, NvidiaProfile):
            try:
                one = self._built.get(kind) or self._built.setdefault(kind, collector(self.nvml, kind))
            except Unavailable:
                continue
            keys |= tick(one, now).keys()
        return keys

    def ticks(self, times: Sequence[float]) -> list[set[str]]:
        return [self.tick(now) for now in times]

    def rebuild(self) -> None:
        self._built.clear()

    @property
    def gaps(self) -> list[str]:
        return [gap for one in self._built.values() for gap in one.gaps]


def functions_asked(*, older: bool) -> Counter[str]:
    """Returns the functions called on a machine where a device is lost, returns, and is dropped."""
    machine = Machine(older=older)
    machine.ticks(HEALTHY)
    for gpu in machine.nvml.gpus:
        gpu.lost = True
    machine.tick(3.0)
    for gpu in machine.nvml.gpus:
        gpu.return_to_the_bus()
    machine.ticks(FAULTY)
    machine.rebuild()
    return machine.nvml.calls


NEW_FUNCTIONS = sorted(functions_asked(older=False))
OLD_FUNCTIONS = sorted(functions_asked(older=True).keys() - set(NEW_FUNCTIONS))
every_function = pytest.mark.parametrize(
    ("function", "older"),
    [*((name, False) for name in NEW_FUNCTIONS), *((name, True) for name in OLD_FUNCTIONS)],
)


def errors_of(function: str) -> list[tuple[int, str]]:
    """Returns the errors that a function fails with: those that have answers of their own, and a part of the others."""
    always = [(code, name) for code, name in CODES.items() if name in ALWAYS]
    others = [one for one in CODES.items() if one not in always]
    return always + part(others, every=4, start=len(function))


def test_everything_that_can_be_asked_is_asked() -> None:
    assert set(COSTS) <= {*NEW_FUNCTIONS, *OLD_FUNCTIONS}
    assert "nvmlDeviceGetPcieThroughput" not in NEW_FUNCTIONS, "it blocks for 20 ms"
    assert len(NEW_FUNCTIONS) + len(OLD_FUNCTIONS) > 35


@pytest.mark.slow
@every_function
def test_an_error_of_one_device_costs_no_other_device(function: str, older: bool) -> None:
    place = PLACES[HOPPER]
    cost = COSTS.get(function, frozenset())
    for code, name in errors_of(function):
        machine = Machine(older=older)
        whole = machine.ticks(HEALTHY)[-1]
        machine.nvml.fail(function, code, HOPPER)
        for now in FAULTY:
            lost = whole - machine.tick(now)
            assert all(key[0] == place for key in lost), name
            if name not in LOSSES:
                assert {key[2:] for key in lost} <= cost, name
            if lost:
                assert any(gap.startswith(f"gpu_{place}") for gap in machine.gaps), name
        machine.nvml.faults.clear()
        assert machine.ticks(RECOVERED)[-1] == whole, name


@pytest.mark.slow
@every_function
def test_an_error_of_all_devices_costs_only_what_was_asked(function: str, older: bool) -> None:
    cost = COSTS.get(function, frozenset())
    for code, name in errors_of(function):
        machine = Machine(older=older)
        whole = machine.ticks(HEALTHY)[-1]
        gaps = machine.gaps
        machine.nvml.fail(function, code)
        for keys in machine.ticks(FAULTY):
            # An event set fails as a whole, also for a GPU other than the one read.
            if name not in LOSSES or function == "nvmlEventSetWait_v2":
                assert {key[2:] for key in whole - keys} <= cost, name
        machine.nvml.faults.clear()
        assert machine.ticks(RECOVERED)[-1] == whole, name
        assert machine.gaps == gaps, name


@pytest.mark.slow
@every_function
def test_an_error_from_the_start_is_survived(function: str, older: bool) -> None:
    whole = Machine(older=older).ticks(HEALTHY)[-1]
    for code, name in errors_of(function):
        machine = Machine(older=older)
        machine.nvml.fail(function, code)
        machine.ticks(FAULTY)
        machine.nvml.faults.clear()
        # A wrong list of devices is corrected when the next collector is built, at the latest.
        if machine.ticks(RECOVERED)[-1] != whole:
            assert function not in COSTS, name
            machine.rebuild()
            machine.ticks([1000.0, 1001.0])
            assert machine.tick(1002.0) == whole, name
