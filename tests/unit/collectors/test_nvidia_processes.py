"""Which of a device's processes are ours, and what they hold there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from nvidia_machines import collector, hopper, tick

from fake_nvml import FakeNvml, Process
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvml.processes import Tree
from mlflow_sysmetrics.host import Host


def test_what_the_job_holds_is_what_its_processes_hold(tmp_path: Path) -> None:
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


def test_processes_of_others_alone_are_no_series() -> None:
    """As in a container that gets the host's process ids from NVML: none of them is known here."""
    held = [Process(2**22 + 1, 10**9)]
    assert "0_process_memory_megabytes" not in tick(collector(FakeNvml(hopper(processes=held))))


def test_ids_that_lead_in_a_circle_are_left(tmp_path: Path) -> None:
    for pid, parent in ((4_000_001, 4_000_002), (4_000_002, 4_000_001)):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        numbers = " ".join(["0"] * 48)
        (tmp_path / f"proc/{pid}/stat").write_text(f"{pid} (a) S {parent} {numbers}\n")
    assert not Tree(Host(root=tmp_path)).holds(4_000_001, 0)


def test_without_proc_parents_are_asked_of_psutil(tmp_path: Path) -> None:
    tree = Tree(Host(root=tmp_path))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert tree.holds(child.pid, 0)
        assert not tree.holds(os.getppid(), 0)
        child.communicate(b"\n")


def test_a_process_is_looked_up_once_in_ten_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tree = Tree(Host(root=tmp_path))
    asked: list[int] = []
    monkeypatch.setattr(tree, "_parent", lambda pid: asked.append(pid) or 0)
    for now in range(20):
        tree.holds(77, now)
    assert asked == [77, 77]
