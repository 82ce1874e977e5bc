"""The NVIDIA collectors with differing and unresponsive devices, and when they are rebuilt."""

from __future__ import annotations

import gc
import math
import os

import pytest
from nvidia_machines import HOPPER, SLICE, ampere, collector, hopper, host, sliced, tick

from fake_gpu import CODES, ERRORS, UNSUPPORTED
from fake_nvml import FakeGpu, FakeNvml, Process
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.samples import Kind

both = pytest.mark.parametrize("kind", [Nvidia, NvidiaProfile])
MOST_SERIES = 12  # per device by default: more would crowd the tab of charts


@pytest.mark.parametrize("gpu", [hopper(), ampere(), sliced()], ids=["hopper", "ampere", "slices"])
def test_a_device_stays_within_the_series_limit(gpu: FakeGpu) -> None:
    one = collector(FakeNvml(gpu))
    tick(one, 0)
    first = [sample for sample in one.collect(1) if sample.key.startswith("gpu_0_")]
    assert len([sample for sample in first if sample.kind is not Kind.EVENTS]) <= MOST_SERIES


def test_a_virtual_gpu_without_power_has_the_rest() -> None:
    gpu = FakeGpu("A10-8Q", "GPU-v", 1000, 500, 33, UNSUPPORTED, UNSUPPORTED, temperature=UNSUPPORTED)
    one = collector(FakeNvml(gpu))
    found = tick(one)
    assert found.keys() >= {"0_utilization_percentage", "0_memory_usage_percentage"}
    assert not [key for key in found if "power" in key or "energy" in key or "temperature" in key]
    (gap,) = one.gaps
    assert gap.startswith("gpu_0 power, power limit, energy, temperature,")
    assert gap.endswith(": not supported by this device")


@pytest.mark.parametrize("total", [0, UNSUPPORTED, 2**64 - 1])
def test_unified_memory_has_no_size_but_has_process_memory(total: int | Exception) -> None:
    found = tick(collector(FakeNvml(hopper(memory_bytes=total, memory_used_bytes=500))))
    assert not [key for key in found if "memory_usage" in key]
    assert found["0_process_memory_megabytes"] == 40_000


def test_a_device_that_supports_nothing_is_a_gap() -> None:
    """As on Jetson Orin: one device is listed, and no query of it is supported."""
    nvml = FakeNvml(FakeGpu("Orin", "GPU-o", UNSUPPORTED, 0, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED))
    nvml.fail("nvmlDeviceGetComputeRunningProcesses", 3)
    nvml.fail("nvmlDeviceGetComputeRunningProcesses_v2", 3)
    nvml.fail("nvmlEventSetCreate", 3)
    one = collector(nvml)
    asked = [sum(nvml.calls.values()) for now in range(100) if not tick(one, now)]
    assert len(asked) == 100
    assert asked[-1] == asked[0]
    assert one.gaps[0].startswith("gpu_0 XID errors, utilization, power,")


def test_an_unsupported_query_is_repeated_after_ten_minutes() -> None:
    nvml = FakeNvml(hopper(utilization=UNSUPPORTED))
    one = collector(nvml)
    for now in range(1300):
        tick(one, now)
    assert nvml.calls["nvmlDeviceGetUtilizationRates"] == 3


def test_a_failing_query_backs_off_to_five_minutes() -> None:
    nvml = FakeNvml(hopper(utilization=ERRORS[999]("Unknown Error")))
    one = collector(nvml)
    asked = []
    for now in range(1400):
        before = nvml.calls["nvmlDeviceGetUtilizationRates"]
        tick(one, now)
        if nvml.calls["nvmlDeviceGetUtilizationRates"] > before:
            asked.append(now)
    assert asked == [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111]


def test_a_clock_that_goes_backwards_ends_the_back_off() -> None:
    nvml = FakeNvml(hopper())
    one = collector(nvml)
    tick(one, 1e6)
    nvml.fail("nvmlDeviceGetTemperatureV", 999)
    tick(one, 1e6 + 1)
    nvml.faults.clear()
    assert "0_temperature_celsius" in tick(one, 5.0)


def test_a_missing_permission_is_named() -> None:
    nvml = FakeNvml(hopper())
    nvml.fail("nvmlDeviceGetTotalEccErrors", 4)
    one = collector(nvml)
    tick(one)
    assert one.gaps == ("gpu_0 ECC errors: no permission",)


def test_the_health_names_what_is_missing_until_it_recovers() -> None:
    nvml = FakeNvml(hopper())
    probe = Probe(Nvidia, host(nvml), transparent=True)
    probe.read(0.0)
    assert probe.health == "ok"
    nvml.fail("nvmlDeviceGetPowerUsage", 999)
    probe.read(1.0)
    assert probe.health == "ok, but gpu_0 power, power limit: NVML error 999"
    nvml.faults.clear()
    probe.read(2.0)
    assert probe.health == "ok"


@both
def test_a_forked_child_builds_its_own_collector(kind: type[Nvidia], monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(hopper())
    one = collector(nvml, kind)
    tick(one)
    asked = nvml.calls.copy()
    own = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: own + 1)
    with pytest.raises(Unavailable, match="before this process was forked"):
        tick(one, 1)
    del one
    gc.collect()
    assert nvml.calls == asked, "NVML is the parent's"


@both
def test_rebuilding_a_collector_leaks_nothing(kind: type[Nvidia]) -> None:
    nvml = FakeNvml(hopper(), sliced())
    probe = Probe(kind, host(nvml), transparent=True)
    for now in range(10):
        probe.read(float(now))
        if not now:
            held = len(nvml.live)
        assert len(nvml.live) == held, now
        probe.renew()
    assert held > 0
    assert nvml.calls["nvmlShutdown"] == 0


@both
@pytest.mark.parametrize("code", CODES)
def test_an_error_while_freeing_is_ignored(kind: type[Nvidia], code: int) -> None:
    nvml = FakeNvml(hopper())
    one = collector(nvml, kind)
    tick(one)
    nvml.fail("nvmlEventSetFree", code)
    nvml.fail("nvmlGpmSampleFree", code)
    del one
    assert nvml.live


def test_with_process_only_devices_of_the_job_are_read() -> None:
    ours, theirs = hopper("GPU-a"), hopper("GPU-b", processes=[Process(1, 1000)])
    one = collector(FakeNvml(ours, theirs), gpus="process")
    assert {key[0] for key in tick(one, 0)} == {"0"}
    ours.processes, theirs.processes = (), [Process(os.getpid(), 2_000_000)]
    assert {key[0] for key in tick(one, 1)} == {"0"}, "looked at every ten seconds"
    assert {key[0] for key in tick(one, 10)} == {"1"}


@pytest.mark.parametrize(("code", "lost"), [(999, False), (15, True)])
def test_a_device_with_unknown_processes_is_read_as_before(code: int, lost: bool) -> None:
    nvml = FakeNvml(hopper())
    one = collector(nvml, gpus="process")
    tick(one, 0)
    for version in ("", "_v2"):
        nvml.fail(f"nvmlDeviceGetComputeRunningProcesses{version}", code)
    assert bool(tick(one, 10)) is not lost
    assert any("NVML error" in gap for gap in one.gaps)
    nvml.faults.clear()
    tick(one, 20)
    assert tick(one, 21)
    assert not one.gaps


@pytest.mark.parametrize("nothing", [2**32 - 1, 2**64 - 1, -1, math.nan, math.inf])
def test_the_not_available_marker_is_not_reported(nothing: float) -> None:
    gpu = hopper(
        utilization=2**32 - 1,
        memory_utilization=2**32 - 1,
        memory_used_bytes=nothing,
        power_milliwatts=nothing,
        energy_millijoules=nothing,
        temperature=nothing,
        processes=[Process(os.getpid(), nothing)],
        ecc_corrected=nothing,
        remapped_rows=nothing,
        fields=dict.fromkeys((74, 75, 77, 82), nothing),
    )
    one = collector(FakeNvml(gpu))
    for now in range(3):
        assert tick(one, now).keys() <= {"0_xid_errors"}


def test_a_process_with_unknown_memory_makes_the_sum_unknown() -> None:
    processes = [Process(os.getpid(), 1_000_000), Process(os.getpid(), None)]
    assert "0_process_memory_megabytes" not in tick(collector(FakeNvml(hopper(processes=processes))))


def test_slices_and_gpus_have_distinct_ordinals() -> None:
    found = tick(collector(FakeNvml(hopper(), sliced()), CUDA_VISIBLE_DEVICES=f"{SLICE},{HOPPER}"))
    assert found["0_memory_usage_megabytes"] == 5_000
    assert found["1_memory_usage_megabytes"] == 40_000
