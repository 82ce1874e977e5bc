"""GPM, clocks and links of NVIDIA GPUs, and the utilization of MIG slices from GPM."""

from __future__ import annotations

from typing import Any

import pytest
from nvidia_machines import GPM, SLICE, ampere, collector, hopper, host, sliced, tick

from fake_gpu import Handle
from fake_nvml import FakeGpu, FakeNvml
from fakes import FakeClock
from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile

RECEIVE, TRANSMIT = "0_pcie_receive_megabytes_per_second", "0_pcie_transmit_megabytes_per_second"
NVLINK = "0_nvlink_receive_megabytes_per_second"
SM = "0_sm_active_percentage"
WITHOUT_A_WINDOW = {"0_sm_clock_megahertz", "0_memory_clock_megahertz", "0_memory_utilization_percentage"}


def profile(*gpus: FakeGpu) -> tuple[FakeNvml, Collector]:
    nvml = FakeNvml(*gpus)
    return nvml, collector(nvml, NvidiaProfile)


def test_the_window_spans_one_tick() -> None:
    """The first of the two samples is from the previous tick, so nothing waits for the second."""
    nvml, one = profile(hopper())
    assert tick(one, 0).keys() == WITHOUT_A_WINDOW
    samples = {sample.key: sample for sample in one.collect(2.0)}
    assert samples[f"gpu_{SM}"].value == 40
    assert samples[f"gpu_{SM}"].span == 2.0
    for now in range(3, 10):
        tick(one, now)
    assert nvml.calls["nvmlGpmSampleAlloc"] == 2
    assert nvml.calls["nvmlGpmSampleGet"] == 9
    assert nvml.calls["nvmlGpmMetricsGet"] == 8


def test_gpm_yields_the_whole_family_at_once() -> None:
    _, one = profile(hopper())
    tick(one, 0)
    assert {f"gpu_{key}" for key in tick(one, 1)} == {metric.key(i=0) for metric in NvidiaProfile.metrics}


def test_link_rates_of_gpm_are_in_binary_units() -> None:
    _, one = profile(hopper(gpm={20: 1000.0, 21: 2000.0}))
    tick(one, 0)
    found = tick(one, 1)
    assert (found[TRANSMIT], found[RECEIVE]) == (1048.576, 2097.152)


def test_ticks_in_quick_succession_share_a_window() -> None:
    nvml, one = profile(hopper())
    tick(one, 0)
    assert SM not in tick(one, 0.1)
    assert SM in tick(one, 0.2)
    assert nvml.calls["nvmlGpmSampleGet"] == 2


def test_a_metric_the_device_lacks_is_omitted() -> None:
    _, one = profile(hopper(gpm={2: 40.0, 5: float("nan"), 10: 101.0}))
    tick(one, 0)
    found = tick(one, 1)
    assert found[SM] == 40
    assert found["0_dram_active_percentage"] == 100
    assert "0_tensor_active_percentage" not in found
    assert "0_sm_occupancy_percentage" not in found


def test_a_failed_sample_ends_the_window() -> None:
    nvml, one = profile(hopper())
    tick(one, 0)
    nvml.fail("nvmlGpmSampleGet", 999)
    assert SM not in tick(one, 1)
    nvml.faults.clear()
    assert SM not in tick(one, 2), "the window before is of no use"
    assert SM in tick(one, 3)


def test_links_without_gpm_use_counters() -> None:
    _, one = profile(gpu := ampere())
    tick(one, 0)
    gpu.fields |= {138: 1024 + 2000, 139: 2048 + 1000, 197: 2**33 + 8_000_000, 198: 2**34 + 4_000_000}
    found = tick(one, 2)
    assert (found[TRANSMIT], found[RECEIVE]) == (4, 2)
    assert found[NVLINK] == 0.512
    assert SM not in found
    assert one.gaps == ("gpu_0 GPM: not supported by this device",)


def test_a_counter_that_may_have_wrapped_is_not_used() -> None:
    _, one = profile(gpu := ampere(fields={197: 5, 198: 7}))
    tick(one, 0)
    gpu.fields |= {197: 10, 198: 9}
    assert RECEIVE not in tick(one, 1)


def test_a_link_counter_that_decreases_skips_one_tick() -> None:
    _, one = profile(gpu := ampere())
    tick(one, 0)
    gpu.fields |= {139: 5}
    assert NVLINK not in tick(one, 1)
    gpu.fields |= {139: 1005}
    assert tick(one, 2)[NVLINK] == 1.024


def test_link_ticks_in_quick_succession_share_a_rate() -> None:
    _, one = profile(gpu := ampere())
    tick(one, 0)
    gpu.fields |= {139: 2048 + 500}
    assert NVLINK not in tick(one, 0.1)
    gpu.fields |= {139: 2048 + 1000}
    assert tick(one, 1)[NVLINK] == 1.024


def test_links_start_afresh_after_a_loss() -> None:
    _, one = profile(gpu := ampere())
    tick(one, 0)
    gpu.return_to_the_bus()
    for now in (1, 2):
        assert NVLINK not in tick(one, now)
    assert NVLINK in tick(one, 3)


class Stalling(FakeNvml):
    """A library where queries of the first device may be slow, and link counters follow the clock."""

    stall = 0.0
    clock: FakeClock

    def nvmlDeviceGetClockInfo(self, handle: Handle, type: int) -> Any:
        if handle.gpu is self.gpus[0]:
            self.clock.move(self.stall)
            self.stall = 0.0
        return super().nvmlDeviceGetClockInfo(handle, type)

    def nvmlDeviceGetFieldValues(self, handle: Handle, fieldIds: Any) -> Any:
        handle.gpu.fields |= {138: round(self.clock.seconds * 10**6)}
        return super().nvmlDeviceGetFieldValues(handle, fieldIds)


@pytest.mark.parametrize("stall", [0.04, 0.5, 2.0, 100.0])
def test_a_stalled_device_does_not_distort_rates_of_others(stall: float) -> None:
    nvml = Stalling(ampere(), ampere("GPU-other"))
    nvml.clock = clock = FakeClock()
    one = NvidiaProfile(host(nvml), clock)
    rates = []
    for second in range(10):
        nvml.stall = stall if second == 5 else 0.0
        rates.append(tick(one, clock.seconds).get("1_nvlink_transmit_megabytes_per_second"))
        clock.move(1)
    assert rates[1:] == [pytest.approx(1024, rel=0.05)] * 9


def test_a_timestamp_of_another_clock_is_used_unchanged() -> None:
    nvml = Stalling(ampere(), ampere("GPU-other"))
    nvml.clock = clock = FakeClock()
    one = NvidiaProfile(host(nvml), clock)
    tick(one, 7)
    clock.move(1)
    assert tick(one, 8)["1_nvlink_transmit_megabytes_per_second"] == 1024


def test_a_link_that_started_with_counters_keeps_them() -> None:
    _, one = profile(gpu := ampere())
    tick(one, 0)
    gpu.gpm = GPM
    for now in (1, 700, 701):
        found = tick(one, now)
    assert found[NVLINK] == 0, "the counter stands still; GPM would say 3 MiB/s"
    assert found[SM] == 40


def test_no_link_is_counted_until_gpm_support_is_known() -> None:
    nvml, one = profile(ampere())
    nvml.fail("nvmlGpmQueryDeviceSupport", 999)
    for now in (0, 1):
        assert NVLINK not in tick(one, now)
    assert "nvmlDeviceGetFieldValues" not in nvml.calls


def test_slice_utilization_comes_from_the_gpm_samples_of_its_instance() -> None:
    nvml = FakeNvml(sliced())
    one = collector(nvml)
    assert "0_utilization_percentage" not in tick(one, 0)
    found = tick(one, 1)
    assert (found["0_utilization_percentage"], found["1_utilization_percentage"]) == (50, 50)
    assert nvml.calls["nvmlDeviceGetUtilizationRates"] == 0
    assert nvml.calls["nvmlGpmMigSampleGet"] == 4


@pytest.mark.parametrize("what", ["power", "energy"])
def test_slices_do_not_report_values_of_the_whole_gpu(what: str) -> None:
    one = collector(FakeNvml(sliced()))
    tick(one, 0)
    assert not [key for key in tick(one, 1) if what in key]
    assert "gpu_0 power, energy: reported for the whole GPU, not for a slice" in one.gaps


def test_slices_have_no_link_series() -> None:
    _, one = profile(sliced())
    tick(one, 0)
    found = tick(one, 1)
    assert not [key for key in found if "pcie" in key or "nvlink" in key]
    assert {"0_sm_active_percentage", "1_sm_active_percentage"} <= found.keys()


def test_missing_utilization_of_a_slice_before_hopper_is_a_gap() -> None:
    one = collector(FakeNvml(sliced(gpm=None)))
    tick(one, 0)
    assert "0_utilization_percentage" not in tick(one, 1)
    assert [gap for gap in one.gaps if gap.startswith("gpu_0 utilization")] == [
        "gpu_0 utilization, ECC errors, remapped rows: not supported by this device"
    ]


def test_a_slice_of_an_unknown_instance_is_not_queried() -> None:
    nvml = FakeNvml(sliced())
    nvml.fail("nvmlDeviceGetGpuInstanceId", 3)
    one = collector(nvml, CUDA_VISIBLE_DEVICES=SLICE)
    tick(one, 0)
    assert "0_utilization_percentage" not in tick(one, 1)
    assert "gpu_0 utilization: its GPU instance is unknown" in one.gaps
    assert nvml.calls["nvmlGpmMigSampleGet"] == 0


def test_empty_slice_positions_and_empty_cards_are_not_devices() -> None:
    found = tick(collector(FakeNvml(hopper(), sliced(slices=()))))
    assert {key[0] for key in found} == {"0"}
