"""The NVIDIA collectors without a library, driver or devices, and which devices are read."""

from __future__ import annotations

import pytest
from nvidia_machines import collector, hopper, host, tick

from fake_gpu import ERRORS
from fake_nvml import FakeNvml
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

both = pytest.mark.parametrize("kind", [Nvidia, NvidiaProfile])


@both
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (4, "no permission: this user needs to read and write /dev/nvidia*"),
        (8, "lacks external power"),
        (9, "driver not loaded: load it"),
        (11, "interrupts"),
        (12, "driver not found"),
        (15, "a GPU is lost: reset it or reboot"),
        (16, "needs a reset"),
        (17, "/dev/nvidiactl"),
        (18, "driver/library version mismatch: reload the driver or reboot"),
        (999, "NVML error 999"),
    ],
)
def test_a_library_that_fails_to_start_names_the_remedy(kind: type[Nvidia], code: int, says: str) -> None:
    with pytest.raises(Unavailable, match=f"^NVML: .*{says}"):
        collector(FakeNvml(hopper(), init_error=ERRORS[code]()), kind)


def test_a_container_without_gpus_differs_from_one_without_a_driver() -> None:
    with pytest.raises(Unavailable, match=r"^NVML: no device$"):
        collector(FakeNvml())


def test_a_failing_device_count_is_like_a_failing_start() -> None:
    nvml = FakeNvml(hopper())
    nvml.fail("nvmlDeviceGetCount", 18)
    with pytest.raises(Unavailable, match="version mismatch"):
        collector(nvml)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'pynvml'"), "nvidia-ml-py is not installed"),
        (ImportError("cannot import name 'x'"), "nvidia-ml-py cannot be imported"),
    ],
)
def test_missing_bindings_are_named(error: ImportError, reason: str) -> None:
    def missing() -> FakeNvml:
        raise error

    with pytest.raises(Unavailable, match=f"^{reason}: [a-z -]+$"):
        Nvidia(Host(load_nvml=missing))


@pytest.mark.parametrize("hidden", ["", "-1", "7"])
def test_hidden_devices_are_not_read(hidden: str) -> None:
    with pytest.raises(Unavailable, match="that this job may see"):
        collector(FakeNvml(hopper()), CUDA_VISIBLE_DEVICES=hidden)


def test_a_device_missing_from_this_host_is_named() -> None:
    with pytest.raises(Unavailable, match="that this job may see; MLFLOW_SYSMETRICS_GPUS: 5 matches none"):
        collector(FakeNvml(hopper()), gpus="5")


def test_devices_have_the_ordinals_of_the_job() -> None:
    nvml = FakeNvml(hopper("GPU-a", temperature=30), hopper("GPU-b", temperature=40))
    found = tick(collector(nvml, CUDA_VISIBLE_DEVICES="GPU-b,GPU-a"))
    assert (found["0_temperature_celsius"], found["1_temperature_celsius"]) == (40, 30)


def test_devices_are_registered_by_uuid() -> None:
    machine = host(FakeNvml(hopper("GPU-a"), hopper("GPU-b")), environ={"CUDA_VISIBLE_DEVICES": "GPU-b"})
    Nvidia(machine)
    assert machine.gpu_ordinals.of("GPU-b") == 0
    assert machine.gpu_ordinals.of("GPU-a") is None
