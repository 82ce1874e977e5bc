"""A real process under real cgroup limits: its own numbers, not the host's.

The kernel must let the test make cgroups of its own (root, or a delegated group); elsewhere only the recorded
machines of `tests/hosts` tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mlflow_sysmetrics.cgroups import V1, controller_directory
from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.cpu_share import cpu_share
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host

QUOTA_CORES = 0.4  # of two CPUs or more, so that a busy neighbour still leaves it free
PERIOD_MICROSECONDS = 100_000
LIMIT_MEGABYTES = 200
MEGABYTE = 1_000_000

ENTER = """
import json, os, sys, threading, time
for directory in sys.argv[1:]:
    open(f"{directory}/cgroup.procs", "w").write("0")
from mlflow_sysmetrics.host import Host
"""

# Works on so many cores, paced by CPU time: a busy machine changes when the work is done and not how much.
WORK = """
from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.collectors.throttling_linux import ThrottlingLinux

def work():
    while True:
        if time.process_time() - spent < {cores} * (time.monotonic() - began):
            sum(range(2000))
        else:
            time.sleep(0.002)

collectors = [CpuLinux(Host()), ThrottlingLinux(Host())]
began, spent = time.monotonic(), time.process_time()
threading.Thread(target=work, daemon=True).start()
for collector in collectors:
    list(collector.collect(time.monotonic()))
time.sleep(3)
now = time.monotonic()
print(json.dumps({{sample.key: sample.value for one in collectors for sample in one.collect(now)}}))
"""

# Holds memory of its own, and as much again in the page cache, which the kernel drops when it needs to.
HOLD = """
import tempfile
from mlflow_sysmetrics.collectors.memory_linux import MemoryLinux
from mlflow_sysmetrics.collectors.oom_linux import OomLinux

collectors = [MemoryLinux(Host()), OomLinux(Host())]
for collector in collectors:
    list(collector.collect(0))
held = bytearray(os.urandom(1_000_000)) * {megabytes}
with tempfile.TemporaryFile(dir=os.getcwd()) as file:
    file.write(held)
    file.flush()
    os.fsync(file.fileno())
    child = os.fork()
    if child == 0:
        greedy = bytearray(os.urandom(1_000_000)) * {greed}
        os._exit(0)
    os.waitpid(child, 0)
    print(json.dumps({{sample.key: sample.value for one in collectors for sample in one.collect(1)}}))
"""


@contextlib.contextmanager
def groups(limits: Mapping[str, Mapping[str, str]]) -> Iterator[list[str]]:
    """Makes a group per controller and removes it; yields the directories to enter.

    Args:
        limits: controller -> file -> text, with v1's file names where the controller is one of v1, else v2's.
    """
    made: list[Path] = []
    try:
        try:
            for controller, files in limits.items():
                held = controller_directory(Host(), controller)
                directory = Path("/") / held.own / f"sysmetrics-test-{os.getpid()}"
                if directory not in made:
                    directory.mkdir()
                    made.append(directory)
                for file in files.keys() & set(os.listdir(directory)):  # noqa: PTH208 - names, not paths
                    (directory / file).write_text(files[file])
        except (Unavailable, OSError) as error:
            pytest.skip(f"this kernel does not let the test make a cgroup with limits: {error}")
        yield [str(directory) for directory in made]
    finally:
        for directory in made:
            remove(directory)


def quota(cores: float) -> Mapping[str, Mapping[str, str]]:
    """Returns limits that allow so many cores."""
    allowed = round(cores * PERIOD_MICROSECONDS)
    files = {
        "cpu.cfs_period_us": str(PERIOD_MICROSECONDS),
        "cpu.cfs_quota_us": str(allowed),
        "cpu.max": f"{allowed} {PERIOD_MICROSECONDS}",
    }
    counted = {"cpuacct": {}} if controller_directory(Host(), "cpu").version == V1 else {}
    return {"cpu": files, **counted}


def remove(directory: Path) -> None:
    for _ in range(50):  # a process that has ended may still be counted in for a moment
        with contextlib.suppress(OSError):
            directory.rmdir()
            return
        time.sleep(0.05)
    directory.rmdir()


def run(program: str, directories: list[str], cwd: Path) -> dict[str, float]:
    """Returns what a program that enters the groups prints."""
    command = [sys.executable, "-c", ENTER + program, *directories]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, float] = json.loads(finished.stdout)
    return found


def test_half_of_a_quota_is_fifty_percent(tmp_path: Path) -> None:
    with groups(quota(QUOTA_CORES)) as directories:
        found = run(WORK.format(cores=QUOTA_CORES / 2), directories, tmp_path)
    assert found["cpu_utilization_percentage"] == pytest.approx(50, abs=5)
    assert "host_cpu_utilization_percentage" in found


def test_more_than_the_quota_is_throttled(tmp_path: Path) -> None:
    with groups(quota(QUOTA_CORES)) as directories:
        within = run(WORK.format(cores=QUOTA_CORES / 4), directories, tmp_path)
        beyond = run(WORK.format(cores=QUOTA_CORES * 2), directories, tmp_path)
    assert beyond["cpu_utilization_percentage"] == pytest.approx(100, abs=8)
    assert beyond["cpu_throttled_percentage"] > 50 > within["cpu_throttled_percentage"]


def test_the_hosts_numbers_stand_beside_the_jobs_only_where_they_differ() -> None:
    collector = CpuLinux(Host())
    list(collector.collect(0))
    time.sleep(0.2)
    keys = {sample.key for sample in collector.collect(0.2)}
    assert ("host_cpu_utilization_percentage" in keys) is cpu_share(Host()).limited


def test_memory_is_the_working_set_of_the_group_and_its_kills_are_counted(tmp_path: Path) -> None:
    limit = str(LIMIT_MEGABYTES * MEGABYTE)
    files = {"memory.limit_in_bytes": limit, "memory.max": limit, "memory.swap.max": "0"}
    with groups({"memory": files}) as directories:
        quiet = run(HOLD.format(megabytes=80, greed=1), directories, tmp_path)
        greedy = run(HOLD.format(megabytes=80, greed=400), directories, tmp_path)
    for found in (quiet, greedy):
        # 80 MB of its own and the interpreter's 20; the 80 MB of the file do not count.
        assert 80 < found["system_memory_usage_megabytes"] < 130
        share = 100 * found["system_memory_usage_megabytes"] / LIMIT_MEGABYTES
        assert found["system_memory_usage_percentage"] == pytest.approx(share, rel=0.01)
        left = LIMIT_MEGABYTES - found["system_memory_usage_megabytes"]
        assert found["memory_available_megabytes"] == pytest.approx(left, rel=0.01)
        assert "host_memory_usage_percentage" in found
    assert quiet["memory_oom_kills"] == 0
    assert greedy["memory_oom_kills"] == 1
