"""The NVIDIA collectors yield the same series with older bindings and drivers."""

from __future__ import annotations

import pytest
from nvidia_machines import ampere, collector, hopper, tick

from fake_nvml import OLD_BINDINGS, OLD_DRIVER, OLDER_BINDINGS, FakeNvml
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile


@pytest.mark.parametrize("missing", [OLD_BINDINGS, OLDER_BINDINGS], ids=["2023", "before"])
def test_old_bindings_give_the_same_series(missing: frozenset[str]) -> None:
    newest, old = [
        collector(FakeNvml(ampere(), missing=one)) for one in ((), missing)
    ]  # except for GPM, which is newer
    for now in (0, 1):
        assert tick(old, now).keys() == tick(newest, now).keys()


def test_without_version_2_of_the_call_reserved_memory_counts_as_used() -> None:
    assert tick(collector(FakeNvml(hopper(), missing=OLDER_BINDINGS)))["0_memory_usage_megabytes"] == 41_000
    assert tick(collector(FakeNvml(hopper())))["0_memory_usage_megabytes"] == 40_000


def test_an_old_driver_gives_the_same_series() -> None:
    nvml = FakeNvml(ampere(), driver="470.57.02")
    for name in OLD_DRIVER:
        nvml.fail(name, 13)
    newest, old = collector(FakeNvml(ampere())), collector(nvml)
    for now in (0, 1):
        assert tick(old, now).keys() == tick(newest, now).keys()


def test_old_bindings_have_no_gpm() -> None:
    one = collector(FakeNvml(ampere(), missing=OLDER_BINDINGS), NvidiaProfile)
    assert tick(one).keys() == {
        "0_sm_clock_megahertz",
        "0_memory_clock_megahertz",
        "0_memory_utilization_percentage",
    }
    assert "gpu_0 GPM: nvidia-ml-py is too old" in one.gaps


def test_byte_strings_of_old_bindings_are_decoded() -> None:
    nvml = FakeNvml(hopper(name=b"NVIDIA H100", uuid=b"GPU-a"), driver=b"418.87")
    assert "0_temperature_celsius" in tick(collector(nvml, CUDA_VISIBLE_DEVICES="GPU-a"))


def test_bindings_newer_than_the_driver_are_not_a_device_fault() -> None:
    nvml = FakeNvml(hopper())
    nvml.faults["nvmlDeviceGetMemoryInfo", None] = FakeNvml.NVMLLibraryMismatchError("v3")
    one = collector(nvml)
    assert "0_memory_usage_megabytes" not in tick(one)
    assert one.gaps == ("gpu_0 memory usage: not supported by this driver",)


def test_an_undecodable_name_affects_nothing_else() -> None:
    nvml = FakeNvml(hopper(name=UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")))
    assert "0_temperature_celsius" in tick(collector(nvml))


def test_bindings_without_the_gpm_structure_have_no_gpm() -> None:
    nvml = FakeNvml(hopper(), missing={"c_nvmlGpmMetricsGet_t"})
    one = collector(nvml, NvidiaProfile)
    tick(one)
    assert "gpu_0 GPM: nvidia-ml-py is too old" in one.gaps
    assert not nvml.live
