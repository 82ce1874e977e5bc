"""Answers of NVIDIA devices, and what is computed from them over time."""

from __future__ import annotations

import pytest
from nvidia_machines import HOPPER, ampere, collector, hopper, tick

from fake_gpu import ERRORS, UNSUPPORTED
from fake_nvml import FakeGpu, FakeNvml
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvml.device import Total

ENERGY, THROTTLED = "0_energy_watt_hours", "0_throttled_percentage"


def test_a_limit_is_read_every_ten_seconds() -> None:
    nvml = FakeNvml(gpu := hopper(power_milliwatts=350_000, power_limit_milliwatts=700_000))
    one = collector(nvml)
    for now in range(10):
        assert tick(one, now)["0_power_usage_percentage"] == 50
    assert nvml.calls["nvmlDeviceGetEnforcedPowerLimit"] == 1
    gpu.power_limit_milliwatts = 500_000
    assert tick(one, 10)["0_power_usage_percentage"] == 70


def test_without_a_limit_there_is_no_percentage() -> None:
    assert "0_power_usage_percentage" not in tick(collector(FakeNvml(hopper(power_limit_milliwatts=0))))


def test_energy_is_counted_from_the_first_tick() -> None:
    one = collector(FakeNvml(gpu := hopper(energy_millijoules=9_000_000)))
    assert tick(one, 0)[ENERGY] == 0
    gpu.energy_millijoules += 1_800_000
    assert tick(one, 1)[ENERGY] == 0.5


def test_without_a_counter_energy_is_power_over_time() -> None:
    one = collector(FakeNvml(gpu := ampere(power_milliwatts=100_000)))
    assert tick(one, 0)[ENERGY] == 0
    gpu.power_milliwatts = 300_000
    assert tick(one, 18)[ENERGY] == pytest.approx(1.0)  # 200 W on average for 18 s
    gpu.power_milliwatts = 100_000
    assert tick(one, 36)[ENERGY] == pytest.approx(2.0)


def test_energy_excludes_time_without_readings() -> None:
    one = collector(FakeNvml(ampere(power_milliwatts=360_000)))
    tick(one, 0)
    assert tick(one, 10)[ENERGY] == pytest.approx(1.0)
    assert tick(one, 1000)[ENERGY] == pytest.approx(1.0)
    assert tick(one, 1010)[ENERGY] == pytest.approx(2.0)


def test_power_does_not_replace_a_counter_that_fails_later() -> None:
    nvml = FakeNvml(gpu := hopper())
    one = collector(nvml)
    tick(one, 0)
    nvml.fail("nvmlDeviceGetTotalEnergyConsumption", 3)
    assert not [key for now in range(1, 5) for key in tick(one, now) if key == ENERGY]
    nvml.faults.clear()
    assert isinstance(gpu.energy_millijoules, int)
    gpu.energy_millijoules += 3_600_000
    assert tick(one, 700)[ENERGY] == 1


def test_a_tick_without_power_adds_no_energy() -> None:
    nvml = FakeNvml(ampere(power_milliwatts=360_000))
    one = collector(nvml)
    tick(one, 0)
    nvml.fail("nvmlDeviceGetPowerUsage", 999)
    assert ENERGY not in tick(one, 1)
    nvml.faults.clear()
    assert tick(one, 2)[ENERGY] == 0
    assert tick(one, 12)[ENERGY] == pytest.approx(1.0)


def test_a_total_excludes_what_a_reset_hides() -> None:
    total = Total(100)
    assert [total.follow(count, now) for now, count in enumerate((10, 12, 3, 4))] == [True, True, False, True]
    assert total.value == 3


def test_the_largest_throttling_counter_counts() -> None:
    one = collector(FakeNvml(gpu := hopper()))
    assert THROTTLED not in tick(one, 0)
    gpu.fields |= {74: 500_000_000, 75: 1_000_000_000}
    assert tick(one, 2)[THROTTLED] == 50


def test_throttling_is_at_most_100_percent() -> None:
    one = collector(FakeNvml(gpu := hopper()))
    tick(one, 0)
    gpu.fields |= {74: 1_400_000_000}
    assert tick(one, 1)[THROTTLED] == 100


def test_a_tick_that_comes_too_soon_is_merged_into_the_next() -> None:
    one = collector(FakeNvml(gpu := hopper()))
    tick(one, 0)
    gpu.fields |= {74: 100_000_000}
    assert THROTTLED not in tick(one, 0.1)
    assert tick(one, 1)[THROTTLED] == 10


def test_a_throttling_counter_that_decreases_skips_one_tick() -> None:
    one = collector(FakeNvml(gpu := hopper(fields={74: 10**9, 75: 0, 77: 0})))
    tick(one, 0)
    gpu.fields |= {74: 0}
    assert THROTTLED not in tick(one, 1)
    gpu.fields |= {74: 250_000_000}
    assert tick(one, 2)[THROTTLED] == 25


def test_a_device_without_the_board_counter_uses_the_other_two() -> None:
    one = collector(FakeNvml(gpu := hopper(fields={74: 0, 75: 0, 82: 70})))
    tick(one, 0)
    gpu.fields |= {75: 300_000_000}
    assert tick(one, 1)[THROTTLED] == 30


@pytest.mark.parametrize(
    ("reasons", "share"),
    [
        (0x1, 0),
        (0x2, 0),
        (0x10, 0),
        (0x100, 0),
        (0x4, 100),
        (0x8, 100),
        (0x20, 100),
        (0x40, 100),
        (0x81, 100),
    ],
)
def test_without_counters_the_current_reasons_count(reasons: int, share: float) -> None:
    one = collector(FakeNvml(ampere(reasons=reasons)))
    tick(one, 0)
    assert tick(one, 1)[THROTTLED] == share


def test_a_brake_without_a_counter_is_reported() -> None:
    one = collector(FakeNvml(hopper(reasons=0x80)))
    tick(one, 0)
    assert tick(one, 1)[THROTTLED] == 100


def test_a_counter_takes_precedence_over_its_reason() -> None:
    one = collector(FakeNvml(gpu := hopper(reasons=0x04)))
    tick(one, 0)
    gpu.fields |= {74: 250_000_000}
    assert tick(one, 1)[THROTTLED] == 25
    gpu.fields |= {75: 500_000_000}
    gpu.reasons = 0x08 | 0x20 | 0x40
    assert tick(one, 2)[THROTTLED] == 50


@pytest.mark.parametrize("reasons", [0x04, 0x20, 0x40, 0x08])
def test_a_counter_that_contradicts_its_reason_is_not_used(reasons: int) -> None:
    one = collector(FakeNvml(hopper(reasons=reasons)))
    tick(one, 0)
    assert tick(one, 1)[THROTTLED] == 100


@pytest.mark.parametrize("reasons", [2**64 - 1, UNSUPPORTED, ERRORS[4]("Insufficient Permissions")])
def test_without_reasons_the_counters_are_used(reasons: int | Exception) -> None:
    nvml = FakeNvml(gpu := hopper(reasons=reasons))
    one = collector(nvml)
    tick(one, 0)
    gpu.fields |= {74: 250_000_000}
    assert tick(one, 1)[THROTTLED] == 25
    assert not one.gaps


def test_unsupported_reasons_are_queried_once() -> None:
    nvml = FakeNvml(hopper(reasons=UNSUPPORTED))
    one = collector(nvml)
    for now in range(20):
        tick(one, now)
    assert nvml.calls["nvmlDeviceGetCurrentClocksEventReasons"] == 1


def test_without_counters_and_reasons_there_is_no_percentage() -> None:
    one = collector(FakeNvml(ampere(reasons=UNSUPPORTED)))
    tick(one, 0)
    assert THROTTLED not in tick(one, 1)
    assert one.gaps == ("gpu_0 throttling: not supported by this device",)


def test_without_later_reasons_throttling_is_absent() -> None:
    nvml = FakeNvml(hopper())
    one = collector(nvml)
    tick(one, 0)
    for name in ("Event", "Throttle"):
        nvml.fail(f"nvmlDeviceGetCurrentClocks{name}Reasons", 3)
    assert THROTTLED not in tick(one, 1)
    assert one.gaps == ("gpu_0 throttling: not supported by this device",)


def test_unavailable_reasons_give_no_throttling() -> None:
    one = collector(FakeNvml(ampere(reasons=2**64 - 1)))
    tick(one, 0)
    assert THROTTLED not in tick(one, 1)


def test_all_fields_of_a_device_are_read_in_one_call() -> None:
    nvml = FakeNvml(hopper())
    one = collector(nvml)
    tick(one, 0)
    before = nvml.calls["nvmlDeviceGetFieldValues"]
    tick(one, 1)
    assert nvml.calls["nvmlDeviceGetFieldValues"] == before + 1


def test_memory_without_a_sensor_has_no_temperature() -> None:
    found = tick(collector(FakeNvml(hopper(fields={74: 0, 75: 0, 77: 0, 82: 0}))))
    assert "0_memory_temperature_celsius" not in found


def test_faults_are_read_every_ten_seconds_and_repeated_in_between() -> None:
    nvml = FakeNvml(gpu := hopper(ecc_corrected=5, ecc_uncorrected=1, remapped_rows=2))
    one = collector(nvml)
    first = tick(one, 0)
    assert (first["0_ecc_errors"], first["0_remapped_rows"]) == (0, 0)
    gpu.ecc_corrected, gpu.ecc_uncorrected, gpu.remapped_rows = 7, 2, 3
    assert tick(one, 9)["0_ecc_errors"] == 0
    found = tick(one, 10)
    assert (found["0_ecc_errors"], found["0_remapped_rows"]) == (3, 1)
    assert nvml.calls["nvmlDeviceGetRemappedRows"] == 2


def test_a_tick_makes_eight_calls_per_device() -> None:
    nvml = FakeNvml(hopper(), hopper("GPU-other"))
    one = collector(nvml)
    tick(one, 0)
    tick(one, 1)
    before = sum(nvml.calls.values())
    tick(one, 2)
    # Events once for all devices; per device utilization, power, energy, memory, processes, temperature, fields,
    # reasons.
    assert sum(nvml.calls.values()) - before == 1 + 2 * 8


def test_the_docstring_example_matches_the_catalogue() -> None:
    one = collector(FakeNvml(hopper()))
    tick(one, 0)
    found = tick(one, 1)
    assert {f"gpu_{key}" for key in found} == {metric.key(i=0) for metric in Nvidia.metrics}


def test_a_field_of_an_unknown_type_has_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu: FakeGpu = hopper(fields={82: 70})
    nvml = FakeNvml(gpu)
    answer = nvml.nvmlDeviceGetFieldValues

    def newer(kind: int) -> None:
        monkeypatch.setattr(
            nvml,
            "nvmlDeviceGetFieldValues",
            lambda *asked: [one._replace(valueType=kind) for one in answer(*asked)],
        )

    for kind in (6, 7):  # unsigned short, and an unknown type
        newer(kind)
        assert "0_memory_temperature_celsius" not in tick(collector(nvml))


def test_without_power_there_is_no_energy() -> None:
    one = collector(FakeNvml(ampere(power_milliwatts=UNSUPPORTED)))
    found = tick(one)
    assert not {"0_power_usage_watts", "0_power_usage_percentage", ENERGY} & found.keys()
    assert one.gaps[0] == "gpu_0 power, power limit, energy: not supported by this device"


def test_a_device_is_selected_by_a_uuid_prefix() -> None:
    assert tick(collector(FakeNvml(hopper()), CUDA_VISIBLE_DEVICES=HOPPER[:6]))
