"""Which processes of a device belong to the job, and their memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from nvidia_machines import collector, hopper, tick

from fake_gpu import UNSUPPORTED, FakeGpu
from fake_nvml import FakeNvml, Process
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvml.processes import Tree
from mlflow_sysmetrics.machine.host import Host


def test_process_memory_is_the_sum_over_the_job(tmp_path: Path) -> None:
    own, child, grandchild, stranger = os.getpid(), 4_000_001, 4_000_002, 4_000_003
    for pid, parent in ((child, own), (grandchild, child), (stranger, 1)):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        numbers = " ".join(["0"] * 48)
        (tmp_path / f"proc/{pid}/stat").write_text(f"{pid} (python (x)) S {parent} {numbers}\n")
    held = [
        Process(pid, 10**6 * 10**place)
        for place, pid in enumerate((own, child, grandchild, stranger, 4_000_009))
    ]
    nvml = FakeNvml(hopper(processes=held))
    one = Nvidia(Host(root=tmp_path, environ={}, load_nvml=lambda: nvml))
    assert tick(one)["0_process_memory_megabytes"] == 111


FOREIGN = 2**22 + 1  # not the id of any process
LACKS = "NVML lists processes that do not exist here: this container has its own process ids"


def test_processes_of_others_give_no_series_and_no_gap() -> None:
    held = [Process(os.getppid(), 10**9)]
    one = collector(FakeNvml(hopper(processes=held)))
    assert "0_process_memory_megabytes" not in tick(one)
    assert not one.gaps


def test_ids_of_another_pid_namespace_are_a_gap_until_ours_is_seen() -> None:
    """As in a container where NVML reports process ids of the host."""
    gpu = hopper(processes=[Process(os.getppid(), 10**9), Process(FOREIGN, 10**9)])
    one = collector(FakeNvml(gpu))
    for now in range(3):
        assert "0_process_memory_megabytes" not in tick(one, now)
        assert one.gaps == (f"gpu_0 process memory: {LACKS}",)
    gpu.processes = [Process(FOREIGN, 10**9), Process(os.getpid(), 10**6)]
    assert tick(one, 3)["0_process_memory_megabytes"] == 1, "asked at every tick"
    assert not one.gaps


def test_with_process_ids_of_another_pid_namespace_are_a_gap() -> None:
    gpu = hopper(processes=[Process(FOREIGN, 10**9)])
    one = collector(FakeNvml(gpu), gpus="process")
    assert not tick(one, 0)
    assert one.gaps == (f"gpu_0 processes: {LACKS}",)
    gpu.processes = [Process(os.getpid(), 10**9)]
    assert tick(one, 10)
    assert not one.gaps


def test_a_device_with_only_foreign_ids_is_no_longer_read() -> None:
    gpu = hopper()
    one = collector(FakeNvml(gpu), gpus="process")
    assert tick(one, 0)
    gpu.processes = [Process(FOREIGN, 10**9)]
    assert not tick(one, 10)


def test_a_device_that_answers_only_with_foreign_ids_is_not_lost() -> None:
    """As on Jetson Orin in a container, where little else is supported."""
    unsupported = (UNSUPPORTED, 0, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED)
    gpu = FakeGpu("Orin", "GPU-o", *unsupported, processes=[Process(FOREIGN, 10**9)])
    nvml = FakeNvml(gpu)
    one = collector(nvml)
    for now in range(3):
        tick(one, now)
    assert f"gpu_0 process memory: {LACKS}" in one.gaps
    assert not nvml.calls["nvmlDeviceGetHandleByUUID"], "it is not lost"


@pytest.mark.parametrize("proc", [True, False], ids=["proc", "psutil"])
def test_a_missing_process_differs_from_one_of_another_job(proc: bool, tmp_path: Path) -> None:
    tree = Tree(Host(root=Path("/") if proc else tmp_path))
    assert tree.lacks(FOREIGN, 0)
    assert not tree.lacks(os.getpid(), 0)
    assert not tree.lacks(os.getppid(), 0)
    assert not tree.lacks(1, 0)


def test_a_process_with_an_unreadable_parent_exists_but_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "proc/4000001").mkdir(parents=True)
    (tmp_path / "proc/4000001/stat").write_text("garbage")
    tree = Tree(Host(root=tmp_path))
    assert not tree.lacks(4_000_001, 0)
    assert not tree.holds(4_000_001, 0)


def test_a_process_hidden_from_psutil_exists_but_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> psutil.Process:
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, "Process", refuse)
    tree = Tree(Host(root=tmp_path))
    assert not tree.lacks(4_000_001, 0)
    assert not tree.holds(4_000_001, 0)


def test_a_cycle_of_parents_ends(tmp_path: Path) -> None:
    for pid, parent in ((4_000_001, 4_000_002), (4_000_002, 4_000_001)):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        numbers = " ".join(["0"] * 48)
        (tmp_path / f"proc/{pid}/stat").write_text(f"{pid} (a) S {parent} {numbers}\n")
    assert not Tree(Host(root=tmp_path)).holds(4_000_001, 0)


@pytest.mark.heavy
def test_without_proc_psutil_gives_the_parents(tmp_path: Path) -> None:
    tree = Tree(Host(root=tmp_path))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert tree.holds(child.pid, 0)
        assert not tree.holds(os.getppid(), 0)
        child.communicate(b"\n")


def test_a_process_is_looked_up_once_per_ten_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tree = Tree(Host(root=tmp_path))
    asked: list[int] = []
    monkeypatch.setattr(tree, "_parent", lambda pid: asked.append(pid) or 0)
    for now in range(20):
        tree.holds(77, now)
    assert asked == [77, 77]
