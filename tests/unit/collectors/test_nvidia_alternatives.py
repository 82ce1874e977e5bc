"""Every alternative of an NVML call is tried on every error, unless the GPU is gone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from nvidia_machines import ampere, collector, hopper, tick

from fake_gpu import CODES
from fake_nvml import FakeNvml
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.collectors.nvml.library import FirstOf, NvmlError, Verdict

pytestmark = pytest.mark.exhaustive

GONE = frozenset({1, 15, 16, 28})
OTHER_ERRORS = sorted(CODES.keys() - GONE)
FIELDS = {3: 0, 4: 0, 74: 0, 75: 0, 77: 0, 82: 70, 83: 3_600_000, 142: 0, 143: 0, 186: 350_000}
# The call that fails, and the series that another call has.
ALTERNATIVES = [
    (Nvidia, "nvmlDeviceGetMemoryInfo_v2", "0_memory_usage_megabytes"),
    (Nvidia, "nvmlDeviceGetTemperatureV", "0_temperature_celsius"),
    (Nvidia, "nvmlDeviceGetPowerUsage", "0_power_usage_watts"),
    (Nvidia, "nvmlDeviceGetEnforcedPowerLimit", "0_power_usage_percentage"),
    (Nvidia, "nvmlDeviceGetTotalEnergyConsumption", "0_energy_watt_hours"),
    (Nvidia, "nvmlDeviceGetComputeRunningProcesses", "0_process_memory_megabytes"),
    (Nvidia, "nvmlDeviceGetTotalEccErrors", "0_ecc_errors"),
    (Nvidia, "nvmlDeviceGetRemappedRows", "0_remapped_rows"),
    (Nvidia, "nvmlDeviceGetCurrentClocksEventReasons", "0_throttled_percentage"),
    (NvidiaProfile, "nvmlDeviceGetClockInfo", "0_sm_clock_megahertz"),
]


@pytest.mark.parametrize("code", OTHER_ERRORS, ids=lambda code: CODES[code])
@pytest.mark.parametrize(("kind", "function", "key"), ALTERNATIVES)
def test_another_call_replaces_one_that_fails(
    kind: type[Nvidia | NvidiaProfile], function: str, key: str, code: int
) -> None:
    nvml = FakeNvml(hopper(fields=dict(FIELDS)))
    nvml.fail(function, code)
    one = collector(nvml, kind)
    for now in (0, 1):
        found = tick(one, now)
    assert key in found
    assert not [gap for gap in one.gaps if key[2:8] in gap]


@pytest.mark.parametrize("code", OTHER_ERRORS, ids=lambda code: CODES[code])
def test_throttling_comes_from_reasons_if_the_counters_fail(code: int) -> None:
    nvml = FakeNvml(ampere(reasons=0x20))
    nvml.fail("nvmlDeviceGetFieldValues", code)
    one = collector(nvml)
    tick(one, 0)
    assert tick(one, 1)["0_throttled_percentage"] == 100


def test_energy_is_integrated_if_no_counter_answers_for_good() -> None:
    nvml = FakeNvml(hopper(power_milliwatts=360_000))
    nvml.fail("nvmlDeviceGetTotalEnergyConsumption", 999)
    one = collector(nvml)
    tick(one, 0)
    assert tick(one, 10)["0_energy_watt_hours"] == pytest.approx(1)


def test_a_total_goes_on_when_its_counter_fails_for_good() -> None:
    nvml = FakeNvml(gpu := hopper(power_milliwatts=360_000))
    one = collector(nvml)
    tick(one, 0)
    gpu.energy_millijoules = 7_200_000
    assert tick(one, 10)["0_energy_watt_hours"] == 1
    nvml.fail("nvmlDeviceGetTotalEnergyConsumption", 999)
    found = [tick(one, now).get("0_energy_watt_hours", 0) for now in range(20, 220, 10)]
    assert found[-1] > 10
    assert sorted(found[3:]) == found[3:]


def test_a_fault_of_the_bindings_is_an_error_of_that_call(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(hopper())

    def broken(*arguments: object) -> None:
        raise TypeError

    monkeypatch.setattr(nvml, "nvmlDeviceGetUtilizationRates", broken)
    one = collector(nvml)
    found = tick(one)
    assert "0_temperature_celsius" in found
    assert "gpu_0 utilization: nvidia-ml-py cannot call nvmlDeviceGetUtilizationRates" in one.gaps


def way(*answers: object) -> object:
    left = list(answers)

    def ask() -> object:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Verdict):
            raise NvmlError(answer.value, answer)
        return answer

    return ask


@pytest.mark.parametrize(
    ("first", "second", "answers"),
    [
        ([1], [2], [1, 1, 1, 1]),
        ([Verdict.UNSUPPORTED, 1], [2], [2, 2, 2, 2]),  # for good
        ([Verdict.TROUBLE, 1], [2], [2, 1, 1, 1]),  # for once: a series has one source
        ([Verdict.TROUBLE] * 3 + [1], [2], [2, 2, 2, 2]),
        ([1, 1, Verdict.TROUBLE, 1], [2], [1, 1, 2, 1]),  # also later
        ([Verdict.FORBIDDEN, 1], [2], [2, 1, 1, 1]),
        ([Verdict.UNUSABLE, 1], [2], [2, 1, 1, 1]),
        ([Verdict.UNSUPPORTED, 1], [2, Verdict.TROUBLE, 2], [2, 1, 2, 2]),
    ],
)
def test_alternatives_are_asked_in_turn(
    first: Sequence[object], second: Sequence[object], answers: list[int]
) -> None:
    ask: FirstOf[object] = FirstOf(way(*first), way(*second))  # type: ignore[arg-type]
    assert [ask() for _ in range(4)] == answers


@pytest.mark.parametrize(
    ("verdicts", "raised"),
    [
        ([Verdict.UNSUPPORTED, Verdict.TROUBLE], Verdict.TROUBLE),
        ([Verdict.TROUBLE, Verdict.UNSUPPORTED], Verdict.TROUBLE),
        ([Verdict.FORBIDDEN, Verdict.UNSUPPORTED], Verdict.FORBIDDEN),
        ([Verdict.UNSUPPORTED, Verdict.LOST], Verdict.LOST),
    ],
)
def test_the_error_to_retry_soonest_is_raised(verdicts: list[Verdict], raised: Verdict) -> None:
    ask: FirstOf[object] = FirstOf(*map(way, verdicts))  # type: ignore[arg-type]
    with pytest.raises(NvmlError) as error:
        ask()
    assert error.value.verdict is raised


def test_nothing_else_is_asked_of_a_gpu_that_is_gone() -> None:
    asked = []

    def second() -> int:
        asked.append(2)
        return 2

    ask: FirstOf[object] = FirstOf(way(Verdict.LOST), second)  # type: ignore[arg-type]
    with pytest.raises(NvmlError):
        ask()
    assert not asked


@pytest.mark.parametrize("code", OTHER_ERRORS, ids=lambda code: CODES[code])
def test_counters_of_the_links_replace_a_gpm_that_fails(code: int) -> None:
    fields = {138: 10**9, 139: 10**9, 197: 2**34, 198: 2**34}
    nvml = FakeNvml(gpu := hopper(fields=fields))
    nvml.fail("nvmlGpmQueryDeviceSupport", code)
    one = collector(nvml, NvidiaProfile)
    for now in range(12):
        gpu.fields = {field: count + now * 10**6 for field, count in fields.items()}
        found = tick(one, now)
    assert "0_pcie_receive_megabytes_per_second" in found
    assert "0_nvlink_receive_megabytes_per_second" in found


@pytest.mark.parametrize("code", OTHER_ERRORS, ids=lambda code: CODES[code])
def test_a_gpu_that_cannot_be_found_by_its_uuid_is_found_in_its_place(code: int) -> None:
    nvml = FakeNvml(gpu := hopper())
    one = collector(nvml)
    whole = tick(one, 0)
    gpu.return_to_the_bus()
    nvml.fail("nvmlDeviceGetHandleByUUID", code)
    for now in range(1, 5):
        found = tick(one, now)
    assert found.keys() >= whole.keys()


@pytest.mark.parametrize("function", ["nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMigMode"])
def test_a_query_that_fails_from_the_start_costs_no_series(function: str) -> None:
    whole = tick(collector(FakeNvml(hopper(), hopper("GPU-other"))))
    nvml = FakeNvml(hopper(), hopper("GPU-other"))
    nvml.fail(function, 999, "GPU-hopper")
    assert tick(collector(nvml)).keys() == whole.keys()
