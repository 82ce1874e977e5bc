"""NVIDIA's collector when devices misbehave. The ordinary case is in the golden files."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from fake_nvml import FakeGpu, FakeNvml
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host

LOST = FakeNvml.NVMLError_GpuIsLost("GPU is lost")
UNSUPPORTED = FakeNvml.NVMLError_NotSupported("Not Supported")
GOOD = FakeGpu("H200", "GPU-a", 1000, 500, 87, 100_000, 700_000)


def collector(nvml: FakeNvml, **environ: str) -> Nvidia:
    return Nvidia(Host(root=Path("/nowhere"), environ=environ, load_nvml=lambda: nvml))


def keys(one: Nvidia, now: float = 0) -> list[str]:
    return [sample.key.removeprefix("gpu_") for sample in one.collect(now)]


def test_one_unsupported_reading_costs_no_other() -> None:
    gpu = FakeGpu("A10", "GPU-a", 1000, 500, UNSUPPORTED, 100_000, UNSUPPORTED)
    assert keys(collector(FakeNvml(gpu))) == [
        "0_memory_usage_megabytes",
        "0_memory_usage_percentage",
        "0_power_usage_watts",
    ]


def test_what_is_unsupported_is_asked_again_only_after_ten_minutes() -> None:
    nvml = FakeNvml(FakeGpu("A10", "GPU-a", 1000, 500, UNSUPPORTED, 100_000, 700_000))
    asked: list[int] = []
    ask = nvml.nvmlDeviceGetUtilizationRates
    nvml.nvmlDeviceGetUtilizationRates = lambda handle: asked.append(1) or ask(handle)  # type: ignore[method-assign]
    one = collector(nvml)
    for now in range(1300):
        keys(one, now)
    assert len(asked) == 3


def test_a_device_that_is_lost_does_not_take_the_others_along() -> None:
    lost = FakeGpu("H200", "GPU-b", LOST, 0, LOST, LOST, LOST)
    found = keys(collector(FakeNvml(lost, GOOD)))
    assert {key[0] for key in found} == {"1"}
    assert len(found) == 5


def test_when_no_device_answers_the_collector_says_so_to_be_built_anew() -> None:
    lost = FakeGpu("H200", "GPU-b", LOST, 0, LOST, LOST, LOST)
    with pytest.raises(Unavailable, match="no device answers"):
        keys(collector(FakeNvml(lost)))


def test_a_memory_of_no_size_gives_no_percentage() -> None:
    assert "0_memory_usage_percentage" not in keys(collector(FakeNvml(FakeGpu("GB10", "GPU-a", 0, 500))))


@pytest.mark.parametrize("hidden", ["", "-1", "7"])
def test_hidden_devices_are_not_read(hidden: str) -> None:
    with pytest.raises(Unavailable, match="that this job may see"):
        collector(FakeNvml(GOOD), CUDA_VISIBLE_DEVICES=hidden)


def test_no_device_at_all() -> None:
    with pytest.raises(Unavailable, match=r"NVML: no device$"):
        collector(FakeNvml())


def test_a_driver_that_does_not_run_is_named() -> None:
    error = FakeNvml.NVMLError_DriverNotLoaded("Driver Not Loaded")
    with pytest.raises(Unavailable, match="NVML: Driver Not Loaded"):
        collector(FakeNvml(init_error=error))


def test_bindings_that_are_missing_are_named() -> None:
    def missing() -> FakeNvml:
        raise ImportError("No module named 'pynvml'")

    with pytest.raises(Unavailable, match="nvidia-ml-py cannot be imported"):
        Nvidia(Host(load_nvml=missing))


def test_the_fake_has_the_names_of_the_real_module() -> None:
    pynvml = importlib.import_module("pynvml")
    for name in dir(FakeNvml):
        if name.lower().startswith("nvml"):
            assert hasattr(pynvml, name), name
    assert issubclass(pynvml.NVMLError_NotSupported, pynvml.NVMLError)
