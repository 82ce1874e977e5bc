"""GPUs through NVML, on a fake whose names are checked against the real module."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from facts_machines import NO_NVML, machine, tools

from fake_nvml import FakeGpu, FakeNvml
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import nvml_gpus
from mlflow_sysmetrics.facts.gpus import gpu_tags
from mlflow_sysmetrics.facts.values import Gpu, GpuReport
from mlflow_sysmetrics.machine.host import Host

H200 = FakeGpu("NVIDIA H200", "GPU-aaaa", 150_754_820_096)
T4 = FakeGpu("Tesla T4", "GPU-bbbb", 16_106_127_360)
SLICES = (
    FakeGpu("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "MIG-1111", 42_412_802_048),
    FakeGpu("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "MIG-2222", 10_468_982_784),
)
SLICED = FakeGpu("NVIDIA H100 80GB HBM3", "GPU-cccc", 85_520_809_984, slices=SLICES)


def report(root: Path, fake: FakeNvml, **environ: str) -> GpuReport:
    return nvml_gpus.gpus(machine(root, nvml=fake, environ=environ), tools())


def test_the_fake_has_only_real_names() -> None:
    pynvml = importlib.import_module("pynvml")
    names = [name for name in vars(FakeNvml) if name.lower().startswith("nvml")]
    assert [name for name in names if not hasattr(pynvml, name)] == []
    errors = [name for name in names if name.startswith("NVMLError_")]
    assert all(issubclass(getattr(pynvml, name), pynvml.NVMLError) for name in errors)


def test_reads_one_gpu(tmp_path: Path) -> None:
    assert report(tmp_path, FakeNvml(H200)) == GpuReport(
        gpus=(
            Gpu(
                name="NVIDIA H200",
                memory_bytes=150_754_820_096,
                uuid="GPU-aaaa",
                driver="570.133.20",
                index=0,
            ),
        ),
        cuda="12.8",
        conclusive=True,
    )


def test_byte_strings_of_old_bindings_are_decoded(tmp_path: Path) -> None:
    fake = FakeNvml(FakeGpu(b"Tesla V100", b"GPU-dddd", 1), driver=b"418.87", cuda=10010)
    found = report(tmp_path, fake)
    assert found.gpus == (Gpu(name="Tesla V100", memory_bytes=1, uuid="GPU-dddd", driver="418.87", index=0),)
    assert found.cuda == "10.1"


def test_only_visible_gpus_are_listed_in_order(tmp_path: Path) -> None:
    found = report(tmp_path, FakeNvml(H200, T4), CUDA_VISIBLE_DEVICES="1,0", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert [(gpu.name, gpu.index) for gpu in found.gpus] == [("Tesla T4", 1), ("NVIDIA H200", 0)]


def test_an_index_beyond_the_last_gpu_means_no_gpus(tmp_path: Path) -> None:
    assert report(tmp_path, FakeNvml(H200), CUDA_VISIBLE_DEVICES="1") == GpuReport()


def test_cdi_containers_list_their_gpus(tmp_path: Path) -> None:
    assert report(tmp_path, FakeNvml(H200), NVIDIA_VISIBLE_DEVICES="void").gpus


def test_the_order_of_different_models_is_ambiguous(tmp_path: Path) -> None:
    found = report(tmp_path, FakeNvml(H200, T4))
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA H200", "Tesla T4"]
    assert [problem.rpartition(": ")[2] for problem in found.problems] == ["set CUDA_DEVICE_ORDER=PCI_BUS_ID"]


def test_only_gpus_selected_by_the_user_are_listed(tmp_path: Path) -> None:
    host = machine(tmp_path, nvml=FakeNvml(H200, H200, T4), environ={"CUDA_VISIBLE_DEVICES": "0"})
    found = nvml_gpus.gpus(replace(host, gpus="2,5"), tools())
    assert [(gpu.name, gpu.index) for gpu in found.gpus] == [("Tesla T4", 2)]
    assert found.problems == ("MLFLOW_SYSMETRICS_GPUS: 5 matches none of this host's NVIDIA GPUs",)


def test_selecting_missing_gpus_is_a_problem(tmp_path: Path) -> None:
    host = replace(machine(tmp_path, nvml=FakeNvml(H200)), gpus="5")
    with pytest.raises(Unavailable, match="5 matches none of this host's NVIDIA GPUs"):
        nvml_gpus.gpus(host, tools())


def test_an_unsupported_query_affects_only_its_value(tmp_path: Path) -> None:
    lost = FakeNvml.NVMLError("Unknown Error")
    found = report(tmp_path, FakeNvml(FakeGpu("GRID A10-4Q", "GPU-a10", lost)))
    assert found.gpus == (Gpu(name="GRID A10-4Q", uuid="GPU-a10", driver="570.133.20", index=0),)
    assert found.problems == ()


@pytest.mark.parametrize("memory", [0, FakeNvml.NVMLError_NotSupported("Not Supported")])
def test_unified_memory_is_reported(tmp_path: Path, memory: int | Exception) -> None:
    (gpu,) = report(tmp_path, FakeNvml(FakeGpu("NVIDIA GB10", "GPU-gb10", memory))).gpus
    assert (gpu.unified, gpu.memory_bytes) == (True, None)


def test_a_lost_gpu_affects_no_other(tmp_path: Path) -> None:
    lost = FakeGpu(FakeNvml.NVMLError_GpuIsLost("GPU is lost"), "GPU-bbbb")
    found = report(tmp_path, FakeNvml(H200, lost))
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA H200", "unknown NVIDIA GPU"]
    assert found.problems == ("GPU 1: GPU is lost: reset it or reboot",)


def test_a_gpu_with_an_undecodable_name_affects_no_other(tmp_path: Path) -> None:
    garbage = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    found = report(tmp_path, FakeNvml(FakeGpu(garbage, "GPU-bbbb"), H200))
    assert [(gpu.name, gpu.uuid) for gpu in found.gpus] == [
        ("unknown NVIDIA GPU", "GPU-bbbb"),
        ("NVIDIA H200", "GPU-aaaa"),
    ]
    assert found.problems == ("GPU 0: its name cannot be read",)


GARBAGE = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
UNKNOWN_ERROR = FakeNvml.NVMLError("Unknown Error")
SMI = "NVIDIA RTX, GPU-bbbb, 24576, 570.1\nNVIDIA H200, GPU-aaaa, 143771, 570.1\n"


@pytest.mark.parametrize("name", [GARBAGE, UNKNOWN_ERROR, b"\xf8\xff", "", "\x00\x01"])
def test_nvidia_smi_knows_a_name_that_nvml_garbles(tmp_path: Path, name: Any) -> None:
    host = machine(tmp_path, nvml=FakeNvml(FakeGpu(name, "GPU-bbbb", 9), H200))
    found = nvml_gpus.gpus(host, tools(nvidia_smi=SMI))
    assert [(gpu.name, gpu.uuid) for gpu in found.gpus] == [
        ("NVIDIA RTX", "GPU-bbbb"),
        ("NVIDIA H200", "GPU-aaaa"),
    ]
    assert found.problems == ()


@pytest.mark.parametrize("uuid", [GARBAGE, UNKNOWN_ERROR, b"\xf8\xff", "\ufffd\ufffd"])
def test_a_uuid_that_nvml_garbles_is_that_of_its_place_in_nvidia_smi(tmp_path: Path, uuid: Any) -> None:
    host = machine(tmp_path, nvml=FakeNvml(FakeGpu("NVIDIA RTX", uuid, 9), H200))
    assert [gpu.uuid for gpu in nvml_gpus.gpus(host, tools(nvidia_smi=SMI)).gpus] == ["GPU-bbbb", "GPU-aaaa"]
    assert [gpu.uuid for gpu in nvml_gpus.gpus(host, tools()).gpus] == [None, "GPU-aaaa"]


@pytest.mark.parametrize("driver", [GARBAGE, b"\xff\xff", UNKNOWN_ERROR])
def test_a_driver_that_nvml_garbles_is_that_of_nvidia_smi(tmp_path: Path, driver: Any) -> None:
    class Nvml(FakeNvml):
        def nvmlSystemGetDriverVersion(self) -> Any:
            if isinstance(driver, Exception):
                raise driver
            return driver

    host = machine(tmp_path, nvml=Nvml(H200))
    (gpu,) = nvml_gpus.gpus(host, tools(nvidia_smi="NVIDIA H200, GPU-aaaa, 143771, 570.1\n")).gpus
    assert (gpu.name, gpu.uuid, gpu.driver) == ("NVIDIA H200", "GPU-aaaa", "570.1")
    (gpu,) = nvml_gpus.gpus(host, tools()).gpus
    assert (gpu.name, gpu.uuid, gpu.driver) == ("NVIDIA H200", "GPU-aaaa", None)


def test_nvidia_smi_is_not_asked_for_what_nvml_knows(tmp_path: Path) -> None:
    host = machine(tmp_path, nvml=FakeNvml(H200))
    assert nvml_gpus.gpus(host, tools(nvidia_smi=AssertionError())).gpus


def test_another_number_of_gpus_in_nvidia_smi_fills_in_by_uuid_only(tmp_path: Path) -> None:
    host = machine(tmp_path, nvml=FakeNvml(FakeGpu(GARBAGE, "GPU-bbbb", 9), FakeGpu(GARBAGE, GARBAGE, 9)))
    found = nvml_gpus.gpus(host, tools(nvidia_smi="NVIDIA RTX, GPU-bbbb, 24576, 570.1\n"))
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA RTX", "unknown NVIDIA GPU"]


def test_a_gpu_that_cannot_be_read_keeps_its_place_in_every_tag(tmp_path: Path) -> None:
    lost = FakeGpu("NVIDIA H200", "GPU-bbbb", 1, lost=True)
    found = report(tmp_path, FakeNvml(lost, H200))
    assert any("GPU 0: GPU is lost" in problem for problem in found.problems)
    tags = dict(gpu_tags(found._replace(problems=())))
    assert tags["sys.gpu"] == "unknown NVIDIA GPU, NVIDIA H200"
    assert tags["sys.gpu_count"] == "2"
    assert tags["sys.gpu_uuid"] == "unknown,GPU-aaaa"
    assert tags["sys.gpu_memory_gb"] == "unknown,150.75"
    assert tags["sys.gpu_index"] == "0,1"


def test_memory_of_another_version_of_the_query_counts(tmp_path: Path) -> None:
    class Nvml(FakeNvml):
        def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int | None = None) -> Any:
            if version is None:
                raise UNKNOWN_ERROR
            return super().nvmlDeviceGetMemoryInfo(handle, version)

    (gpu,) = report(tmp_path, Nvml(H200)).gpus
    assert gpu.memory_bytes == 150_754_820_096


def test_impossible_memory_is_unknown(tmp_path: Path) -> None:
    (gpu,) = report(tmp_path, FakeNvml(FakeGpu("NVIDIA H200", "GPU-aaaa", 2**60))).gpus
    assert (gpu.memory_bytes, gpu.unified) == (None, False)


def test_a_hidden_lost_gpu_is_not_a_problem(tmp_path: Path) -> None:
    lost = FakeGpu(FakeNvml.NVMLError_GpuIsLost("GPU is lost"), "GPU-bbbb")
    assert report(tmp_path, FakeNvml(H200, lost), CUDA_VISIBLE_DEVICES="0").problems == ()


def test_a_lost_gpu_is_named_by_its_uuid(tmp_path: Path) -> None:
    lost = FakeGpu(FakeNvml.NVMLError_GpuIsLost("GPU is lost"), "GPU-bbbb")
    found = report(tmp_path, FakeNvml(H200, lost), CUDA_VISIBLE_DEVICES="GPU-bbbb,GPU-aaaa")
    assert [gpu.name for gpu in found.gpus] == ["unknown NVIDIA GPU", "NVIDIA H200"]
    assert found.problems == ("GPU 1: GPU is lost: reset it or reboot",)


def test_a_sliced_gpu_is_listed_as_its_slices(tmp_path: Path) -> None:
    found = report(tmp_path, FakeNvml(SLICED)).gpus
    assert [(gpu.name, gpu.uuid, gpu.index) for gpu in found] == [
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "MIG-1111", 0),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "MIG-2222", 0),
    ]


def test_with_an_old_driver_only_one_slice_is_listed(tmp_path: Path) -> None:
    found = report(tmp_path, FakeNvml(SLICED, driver="535.183.01"))
    assert [gpu.uuid for gpu in found.gpus] == ["MIG-1111"]


def test_one_slice_per_gpu_instance_is_listed(tmp_path: Path) -> None:
    class OneInstance(FakeNvml):
        def nvmlDeviceGetGpuInstanceId(self, handle: object) -> int:
            return 0

    assert [gpu.uuid for gpu in report(tmp_path, OneInstance(SLICED)).gpus] == ["MIG-1111"]


def test_a_slice_without_a_name_uses_that_of_its_gpu(tmp_path: Path) -> None:
    nameless = FakeGpu(FakeNvml.NVMLError("Unknown Error"), "MIG-3333", 1)
    sliced = FakeGpu("NVIDIA A100-SXM4-40GB", "GPU-cccc", 1, slices=(nameless,))
    assert [gpu.name for gpu in report(tmp_path, FakeNvml(sliced)).gpus] == ["NVIDIA A100-SXM4-40GB MIG"]


def test_only_the_selected_slice_is_listed(tmp_path: Path) -> None:
    found = report(tmp_path, FakeNvml(H200, SLICED), CUDA_VISIBLE_DEVICES="MIG-2222")
    assert [gpu.uuid for gpu in found.gpus] == ["MIG-2222"]


def test_an_unknown_slice_does_not_mean_no_gpus(tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"^NVML: CUDA_VISIBLE_DEVICES names a MIG device that is not listed$"
    ):
        report(tmp_path, FakeNvml(H200), CUDA_VISIBLE_DEVICES="MIG-9999")


def test_a_host_without_devices_has_no_gpus(tmp_path: Path) -> None:
    assert report(tmp_path, FakeNvml()) == GpuReport()


def test_a_missing_library_is_not_a_problem(tmp_path: Path) -> None:
    assert report(tmp_path, NO_NVML) == GpuReport()


def test_missing_bindings_are_not_a_problem(tmp_path: Path) -> None:
    def missing() -> NoReturn:
        raise ImportError

    assert nvml_gpus.gpus(Host(root=tmp_path, environ={}, load_nvml=missing), tools()) == GpuReport()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("DriverNotLoaded", "driver not loaded: load it (modprobe nvidia)"),
        ("LibRmVersionMismatch", "driver/library version mismatch: reload the driver or reboot"),
        ("NoPermission", "no permission: this user needs to read and write /dev/nvidia*"),
        ("Unknown", "as the bindings call it"),
    ],
)
def test_the_message_about_a_broken_library_includes_cause_and_remedy(
    tmp_path: Path, error: str, reason: str
) -> None:
    kind = type(f"NVMLError_{error}", (FakeNvml.NVMLError,), {})
    assert hasattr(importlib.import_module("pynvml"), kind.__name__)
    with pytest.raises(Unavailable) as raised:
        report(tmp_path, FakeNvml(init_error=kind("as the bindings call it")))
    assert str(raised.value) == f"NVML: {reason}"
