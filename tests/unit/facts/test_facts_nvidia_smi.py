"""GPUs from recorded output of nvidia-smi."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts_machines import machine, printed, tools

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import nvidia_smi
from mlflow_sysmetrics.facts.values import Gpu, GpuReport
from mlflow_sysmetrics.machine.command import CommandFailed, CommandTimeout


def report(root: Path, answer: str | Exception, **environ: str) -> GpuReport:
    return nvidia_smi.gpus(machine(root, environ=environ), tools(nvidia_smi=answer))


def test_reads_one_gpu(tmp_path: Path) -> None:
    assert report(tmp_path, printed("nvidia_smi/one_h200.csv")).gpus == (
        Gpu(
            name="NVIDIA H200",
            memory_bytes=143771 * 2**20,
            uuid="GPU-3f1c2a6e-8d5b-4a77-9c1e-6b0f2d9e4a10",
            driver="570.133.20",
            index=0,
        ),
    )


@pytest.mark.parametrize(
    ("recorded", "names"),
    [
        ("two_a100", ["NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB"]),
        ("rtx4090_and_t1000", ["NVIDIA GeForce RTX 4090", "NVIDIA T1000 8GB"]),
    ],
)
def test_reads_two_gpus(tmp_path: Path, recorded: str, names: list[str]) -> None:
    found = report(tmp_path, printed(f"nvidia_smi/{recorded}.csv"))
    assert [gpu.name for gpu in found.gpus] == names


def test_unified_memory_is_reported(tmp_path: Path) -> None:
    (gpu,) = report(tmp_path, printed("nvidia_smi/gb10_unified.csv")).gpus
    assert (gpu.unified, gpu.memory_bytes) == (True, None)


def test_a_size_that_is_an_error_is_unknown(tmp_path: Path) -> None:
    (gpu,) = report(tmp_path, "NVIDIA T4, GPU-1, [Unknown Error], 550.1\n").gpus
    assert (gpu.unified, gpu.memory_bytes) == (False, None)


def test_only_visible_gpus_are_listed(tmp_path: Path) -> None:
    found = report(tmp_path, printed("nvidia_smi/rtx4090_and_t1000.csv"), CUDA_VISIBLE_DEVICES="1,0")
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA T1000 8GB", "NVIDIA GeForce RTX 4090"]


def test_an_unknown_slice_does_not_mean_no_gpus(tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match="nvidia-smi: CUDA_VISIBLE_DEVICES names a MIG device that is not listed"
    ):
        report(tmp_path, printed("nvidia_smi/one_h200.csv"), CUDA_VISIBLE_DEVICES="MIG-1")


def test_the_order_of_different_models_is_ambiguous(tmp_path: Path) -> None:
    found = report(tmp_path, printed("nvidia_smi/rtx4090_and_t1000.csv"))
    assert [gpu.index for gpu in found.gpus] == [0, 1]
    assert [problem.rpartition(": ")[2] for problem in found.problems] == ["set CUDA_DEVICE_ORDER=PCI_BUS_ID"]


@pytest.mark.parametrize("exit_code", [0, 6])
def test_a_host_without_devices_has_no_gpus(tmp_path: Path, exit_code: int) -> None:
    text = printed("nvidia_smi/no_devices.txt")
    answer = CommandFailed("nvidia-smi", exit_code, text) if exit_code else text
    assert report(tmp_path, answer) == GpuReport()


def test_a_missing_tool_is_not_a_problem(tmp_path: Path) -> None:
    assert nvidia_smi.gpus(machine(tmp_path), tools()) == GpuReport()


def test_a_missing_tool_is_a_problem_if_device_nodes_exist(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="/dev/nvidiactl exists"):
        nvidia_smi.gpus(machine(tmp_path, {"dev/nvidiactl": ""}), tools())


@pytest.mark.parametrize(("recorded", "exit_code"), [("driver_not_loaded", 9), ("version_mismatch", 18)])
def test_a_broken_driver_is_a_problem(tmp_path: Path, recorded: str, exit_code: int) -> None:
    answer = CommandFailed("nvidia-smi", exit_code, printed(f"nvidia_smi/{recorded}.txt"))
    with pytest.raises(Unavailable, match=f"^nvidia-smi failed with exit code {exit_code}$"):
        report(tmp_path, answer)


def test_a_hanging_tool_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(CommandTimeout):
        report(tmp_path, CommandTimeout("nvidia-smi did not finish within 3 s"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "printed nothing"),
        ("\n", "printed nothing"),
        ("\ufffd\x00", "did not print a list"),
        ("a, b\n", "did not print a list"),
    ],
)
def test_garbage_is_a_problem(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        report(tmp_path, text)


@pytest.mark.parametrize(
    ("row", "gpu"),
    [
        ("[Unknown Error], GPU-1, 9, 550.1", ("unknown NVIDIA GPU", "GPU-1", "550.1")),
        ("\ufffd\ufffd, GPU-1, 9, 550.1", ("unknown NVIDIA GPU", "GPU-1", "550.1")),
        ("NVIDIA T4, [GPU requires reset], 9, ERR!", ("NVIDIA T4", None, None)),
        ("NVIDIA RTX, special edition, GPU-1, 9, 550.1", ("NVIDIA RTX, special edition", "GPU-1", "550.1")),
    ],
)
def test_a_gpu_whose_values_cannot_be_read_keeps_its_place(
    row: str, gpu: tuple[str, str | None, str | None]
) -> None:
    first, second = nvidia_smi.parse_gpus(f"{row}\nNVIDIA T4, GPU-2, 9, 550.1\n")
    assert (first.name, first.uuid, first.driver) == gpu
    assert (second.uuid, second.index) == ("GPU-2", 1)
