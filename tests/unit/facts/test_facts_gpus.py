"""The first source that reports GPUs, and the tags from its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from facts_machines import NO_NVML, machine, printed, tools

from fake_nvml import FakeGpu, FakeNvml
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import drm_gpus, nvidia_smi, nvml_gpus
from mlflow_sysmetrics.facts.gpus import find_gpus, gpu_tags
from mlflow_sysmetrics.facts.values import Gpu, GpuReport
from mlflow_sysmetrics.machine.command import CommandFailed, CommandTimeout

SOURCES = (nvml_gpus.gpus, nvidia_smi.gpus, drm_gpus.gpus)
BROKEN = FakeNvml(init_error=FakeNvml.NVMLError_DriverNotLoaded("Driver Not Loaded"))
INTEL = {"sys/class/drm/card0/device/vendor": "0x8086\n", "sys/class/drm/card0/device/device": "0x56a0\n"}


def tags_and_reason(report: GpuReport) -> tuple[dict[str, str], str]:
    tags: dict[str, str] = {}
    try:
        for tag, value in gpu_tags(report):
            tags[tag] = value  # noqa: PERF403 - items yielded before an error count
    except Unavailable as reason:
        return tags, str(reason)
    return tags, ""


def found_on(
    root: Path,
    *,
    fake: FakeNvml = NO_NVML,
    files: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    **answers: str | Exception,
) -> tuple[dict[str, str], str]:
    host = machine(root, files, environ=environ, nvml=fake)
    return tags_and_reason(find_gpus(host, tools(**answers), SOURCES))


NONE = {"sys.gpu": "None", "sys.gpu_count": "0"}


def test_two_equal_gpus_are_counted() -> None:
    h200 = Gpu(name="NVIDIA H200", memory_bytes=150_754_820_096, uuid="GPU-a", driver="570.1")
    assert tags_and_reason(GpuReport(gpus=(h200, h200), cuda="12.8")) == (
        {
            "sys.gpu": "2 x NVIDIA H200",
            "sys.gpu_count": "2",
            "sys.gpu_memory_gb": "150.75,150.75",
            "sys.gpu_driver": "570.1",
            "sys.gpu_uuid": "GPU-a,GPU-a",
            "sys.gpu_cuda": "12.8",
        },
        "",
    )


def test_different_gpus_are_listed() -> None:
    report = GpuReport(gpus=(Gpu(name="A", memory_bytes=10**9), Gpu(name="B"), Gpu(name="A", unified=True)))
    tags, _ = tags_and_reason(report)
    assert tags["sys.gpu"] == "2 x A, B"
    assert tags["sys.gpu_memory_gb"] == "1.00,unknown,unified"


def test_unified_memory_is_stated_once() -> None:
    tags, _ = tags_and_reason(GpuReport(gpus=(Gpu(name="NVIDIA GB10", unified=True),) * 2))
    assert tags["sys.gpu_memory_gb"] == "unified"


def test_unknown_values_are_absent() -> None:
    tags, _ = tags_and_reason(GpuReport(gpus=(Gpu(name="Intel GPU [8086:56a0]"),)))
    assert tags == {"sys.gpu": "Intel GPU [8086:56a0]", "sys.gpu_count": "1"}


def test_an_unknown_uuid_keeps_its_position() -> None:
    tags, _ = tags_and_reason(GpuReport(gpus=(Gpu(name="A"), Gpu(name="A", uuid="GPU-a"))))
    assert tags["sys.gpu_uuid"] == "unknown,GPU-a"


def test_indices_are_listed_in_ordinal_order() -> None:
    tags, _ = tags_and_reason(GpuReport(gpus=(Gpu(name="A", index=2), Gpu(name="A", index=0))))
    assert tags["sys.gpu_index"] == "2,0"


def test_the_uuids_of_sixteen_gpus_are_abbreviated_to_prefixes_cuda_accepts() -> None:
    gpus = tuple(Gpu(name="V100", uuid=f"GPU-{index:08x}-d72c-4106-c12f-20bd9faed9f6") for index in range(16))
    tags, _ = tags_and_reason(GpuReport(gpus=gpus))
    assert len(tags["sys.gpu_uuid"]) < 250
    assert tags["sys.gpu_uuid"].split(",") == [f"GPU-{index:08x}" for index in range(16)]


def test_uuids_with_a_common_prefix_are_cut_between_items() -> None:
    gpus = tuple(Gpu(name="V100", uuid=f"GPU-{index:036d}") for index in range(16))
    tags, _ = tags_and_reason(GpuReport(gpus=gpus))
    assert len(tags["sys.gpu_uuid"]) < 250
    assert tags["sys.gpu_uuid"].endswith(f"GPU-{4:036d},+11 more")


def test_nvml_comes_before_the_tool(tmp_path: Path) -> None:
    fake = FakeNvml(FakeGpu("Tesla T4", "GPU-1", 16 * 10**9))
    tags, reason = found_on(tmp_path, fake=fake, nvidia_smi=AssertionError())
    assert (tags["sys.gpu"], reason) == ("Tesla T4", "")


def test_the_tool_is_used_if_nvml_fails(tmp_path: Path) -> None:
    tags, reason = found_on(tmp_path, fake=BROKEN, nvidia_smi=printed("nvidia_smi/two_a100.csv"))
    assert tags["sys.gpu"] == "2 x NVIDIA A100-SXM4-80GB"
    assert reason == "NVML: driver not loaded: load it (modprobe nvidia)"


def test_an_intel_gpu_does_not_hide_a_broken_nvidia_driver(tmp_path: Path) -> None:
    failed = CommandFailed("nvidia-smi", 9, printed("nvidia_smi/driver_not_loaded.txt"))
    tags, reason = found_on(tmp_path, fake=BROKEN, files=INTEL, nvidia_smi=failed)
    assert tags["sys.gpu"] == "Intel GPU [8086:56a0]"
    assert reason == (
        "NVML: driver not loaded: load it (modprobe nvidia), nvidia-smi failed with exit code 9"
    )


def test_without_library_tool_and_card_there_is_no_gpu(tmp_path: Path) -> None:
    assert found_on(tmp_path) == (NONE, "")


def test_if_the_tool_finds_no_devices_there_is_no_gpu(tmp_path: Path) -> None:
    assert found_on(tmp_path, nvidia_smi=printed("nvidia_smi/no_devices.txt")) == (NONE, "")


@pytest.mark.parametrize("listed", ["", "-1"])
def test_if_all_gpus_are_hidden_there_is_no_gpu(tmp_path: Path, listed: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": listed}
    fake = FakeNvml(FakeGpu("Tesla T4", "GPU-1", 1))
    assert found_on(tmp_path, fake=fake, files=INTEL, environ=environ) == (NONE, "")


def test_selected_gpus_are_listed_even_if_all_are_hidden(tmp_path: Path) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": ""}
    host = machine(tmp_path, environ=environ, nvml=FakeNvml(FakeGpu("Tesla T4", "GPU-1", 1)))
    report = find_gpus(replace(host, gpus="all"), tools(), SOURCES)
    assert [gpu.uuid for gpu in report.gpus] == ["GPU-1"]


def test_if_an_invalid_index_hides_all_there_is_no_gpu(tmp_path: Path) -> None:
    fake = FakeNvml(FakeGpu("Tesla T4", "GPU-1", 1))
    assert found_on(tmp_path, fake=fake, environ={"CUDA_VISIBLE_DEVICES": "3"}) == (NONE, "")


def test_hiding_nvidia_gpus_does_not_hide_those_of_other_vendors(tmp_path: Path) -> None:
    fake = FakeNvml(FakeGpu("Tesla T4", "GPU-1", 1))
    tags, problem = found_on(tmp_path, fake=fake, files=INTEL, environ={"CUDA_VISIBLE_DEVICES": "3"})
    assert (tags["sys.gpu"], problem) == ("Intel GPU [8086:56a0]", "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (CommandTimeout("nvidia-smi did not finish within 3 s"), "nvidia-smi did not finish within 3 s"),
        (CommandFailed("nvidia-smi", 9, ""), "nvidia-smi failed with exit code 9"),
        ("", "nvidia-smi printed nothing"),
        ("\ufffd", "nvidia-smi did not print a list of GPUs"),
    ],
)
def test_a_failing_tool_does_not_mean_no_gpus(tmp_path: Path, answer: str | Exception, reason: str) -> None:
    assert found_on(tmp_path, nvidia_smi=answer) == ({}, reason)
