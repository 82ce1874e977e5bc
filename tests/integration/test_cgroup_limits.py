"""A real process under real cgroup limits reports its own numbers, not the host's.

The kernel must allow the test to create cgroups (as root, or in a delegated cgroup); elsewhere only the recorded
machines of `tests/hosts` cover this.
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

from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import V1, controller_directory
from mlflow_sysmetrics.machine.cpu_share import cpu_share
from mlflow_sysmetrics.machine.host import Host
from watching import LONG_SECONDS

QUOTA_CORES = 0.1  # so little that even a busy machine can provide it
WORKED_SECONDS = 0.1  # least CPU time: the kernel's accounting lags by a tick of 10 ms at most, a tenth
PERIOD_MICROSECONDS = 100_000
LIMIT_MEGABYTES = 200
MEGABYTE = 1_000_000

ENTER = """
import json, os, sys, threading, time
for directory in sys.argv[1:]:
    open(f"{directory}/cgroup.procs", "w").write("0")
from mlflow_sysmetrics.machine.host import Host
"""

# Works on that many cores: a millisecond of CPU time, then a proportional rest, so that it does not catch up after
# the machine was busy. The process is alone in the cgroup: the collector's result for the cgroup is compared with
# the CPU time of the process, read before and after each of the two readings.
WORK = """
from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.collectors.throttling_linux import ThrottlingLinux

def work():
    while True:
        began = time.thread_time()
        while time.thread_time() - began < 0.001:
            pass
        if {cores} < 1:
            time.sleep(0.001 / {cores} - 0.001)

cpu, throttling = CpuLinux(Host()), ThrottlingLinux(Host())

def read():
    before = time.process_time()
    now = time.monotonic()
    shown = {{sample.key: sample.value for sample in cpu.collect(now)}}
    after = time.process_time()
    return now, before, after, shown

threading.Thread(target=work, daemon=True).start()
first, before_first, after_first, _ = read()
list(throttling.collect(first))
while time.monotonic() < first + 2 or time.process_time() < after_first + {seconds}:
    time.sleep(0.1)
last, before_last, after_last, shown = read()
shown |= {{sample.key: sample.value for sample in throttling.collect(last)}}
percent = 100 / (last - first) / {quota}
shown["least"], shown["most"] = (before_last - after_first) * percent, (after_last - before_first) * percent
print(json.dumps(shown))
"""

# Holds anonymous memory, and as much again in the page cache, which the kernel can drop.
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

# Limits its own cgroup while it is read, as `docker update` would.
CHANGE = """
from mlflow_sysmetrics.collectors.registry import LINUX
from mlflow_sysmetrics.daemon.sampling.probe import Probe

def put(files):
    for directory in sys.argv[1:]:
        for name in files.keys() & set(os.listdir(directory)):
            # Not truncated, as runc and systemd write: the kernel leaves the change time alone.
            file = os.open(f"{{directory}}/{{name}}", os.O_WRONLY)
            os.write(file, files[name].encode())
            os.close(file)

def work():
    while True:
        pass

def tick():
    time.sleep(0.3)
    return {{sample.key: sample.value for probe in probes for sample in probe.read(time.monotonic())}}

host = Host()
probes = [Probe(one, host, transparent=True) for one in LINUX if one.family.value in ("cpu", "memory")]
threading.Thread(target=work, daemon=True).start()
shown = {{}}
for name, files in {moments}.items():
    put(files)
    ticks = [tick() for _ in range(4)]
    shown |= {{f"{{name}} {{key}}": value for key, value in ticks[-1].items()}}
print(json.dumps(shown))
"""


@contextlib.contextmanager
def groups(limits: Mapping[str, Mapping[str, str]]) -> Iterator[list[str]]:
    """Creates a cgroup per controller and removes it; yields the directories to enter.

    Args:
        limits: controller -> file -> text; has the file names of v1 and v2, of which existing ones are written.
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
                for file in files.keys() & set(os.listdir(directory)):
                    (directory / file).write_text(files[file])
        except (Unavailable, OSError) as error:
            pytest.skip(f"this kernel does not allow the test to create a cgroup with limits: {error}")
        yield [str(directory) for directory in made]
    finally:
        for directory in made:
            remove(directory)


def quota(cores: float) -> Mapping[str, Mapping[str, str]]:
    """Returns limits that allow that many cores."""
    allowed = round(cores * PERIOD_MICROSECONDS)
    files = {
        # The largest weight: the cgroup gets what its quota allows, even if other programs want a core.
        "cpu.shares": "262144",
        "cpu.weight": "10000",
        "cpu.cfs_period_us": str(PERIOD_MICROSECONDS),
        "cpu.cfs_quota_us": str(allowed),
        "cpu.max": f"{allowed} {PERIOD_MICROSECONDS}",
    }
    counted = {"cpuacct": {}} if controller_directory(Host(), "cpu").version == V1 else {}
    return {"cpu": files, **counted}


def remove(directory: Path) -> None:
    ends = (
        time.monotonic() + LONG_SECONDS
    )  # a process that has exited may still be in the cgroup for a moment
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            directory.rmdir()
            return
        time.sleep(0.05)
    directory.rmdir()


def run(program: str, directories: list[str], cwd: Path) -> dict[str, float]:
    """Runs a program that enters the cgroups, and returns its output."""
    command = [sys.executable, "-c", ENTER + program, *directories]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, float] = json.loads(finished.stdout)
    return found


def work(cores: float, directories: list[str], cwd: Path) -> dict[str, float]:
    """Returns the collectors' values for a program that works on that many cores, if it gets them."""
    program = WORK.format(cores=cores, quota=QUOTA_CORES, seconds=WORKED_SECONDS)
    found = run(program, directories, cwd)
    assert found["least"] * 0.9 <= found["cpu_utilization_percentage"] <= found["most"] * 1.1
    return found


def test_half_of_a_quota_is_fifty_percent(tmp_path: Path) -> None:
    """On a busy machine it may be less, if the process has had less."""
    with groups(quota(QUOTA_CORES)) as directories:
        found = work(QUOTA_CORES / 2, directories, tmp_path)
    assert 0 < found["cpu_utilization_percentage"] < 60
    assert "host_cpu_utilization_percentage" in found


def test_more_than_the_quota_is_throttled(tmp_path: Path) -> None:
    with groups(quota(QUOTA_CORES)) as directories:
        within = work(QUOTA_CORES / 4, directories, tmp_path)
        beyond = work(1, directories, tmp_path)
    assert beyond["cpu_throttled_percentage"] > 50 > within["cpu_throttled_percentage"]


def test_limits_that_change_while_it_runs_count_within_four_ticks(tmp_path: Path) -> None:
    moments = {
        "free": {},
        "limited": {"cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"},
        "tight": {"cpu.cfs_quota_us": "10000", "cpu.max": "10000 100000"}
        | dict.fromkeys(("memory.limit_in_bytes", "memory.max"), str(LIMIT_MEGABYTES * MEGABYTE)),
    }
    with groups({controller: {} for controller in ("cpu", "cpuacct", "memory")}) as directories:
        found = run(CHANGE.format(moments=moments), directories, tmp_path)
    assert "free cpu_throttled_percentage" not in found
    for moment in ("limited", "tight"):
        assert f"{moment} cpu_throttled_percentage" in found
        assert f"{moment} host_cpu_utilization_percentage" in found
    assert "tight host_memory_usage_percentage" in found
    share = 100 * found["tight system_memory_usage_megabytes"] / LIMIT_MEGABYTES
    assert found["tight system_memory_usage_percentage"] == pytest.approx(share, rel=0.01)


def test_host_numbers_appear_only_if_they_differ_from_the_jobs() -> None:
    collector = CpuLinux(Host())
    list(collector.collect(0))
    time.sleep(0.2)
    keys = {sample.key for sample in collector.collect(0.2)}
    assert ("host_cpu_utilization_percentage" in keys) is cpu_share(Host()).limited


def test_memory_is_the_working_set_of_the_cgroup_and_kills_are_counted(tmp_path: Path) -> None:
    limit = str(LIMIT_MEGABYTES * MEGABYTE)
    files = {"memory.limit_in_bytes": limit, "memory.max": limit, "memory.swap.max": "0"}
    with groups({"memory": files}) as directories:
        quiet = run(HOLD.format(megabytes=80, greed=1), directories, tmp_path)
        greedy = run(HOLD.format(megabytes=80, greed=400), directories, tmp_path)
    for found in (quiet, greedy):
        # 80 MB of the program and 20 MB of the interpreter; the 80 MB of the file do not count.
        assert 80 < found["system_memory_usage_megabytes"] < 130
        share = 100 * found["system_memory_usage_megabytes"] / LIMIT_MEGABYTES
        assert found["system_memory_usage_percentage"] == pytest.approx(share, rel=0.01)
        left = LIMIT_MEGABYTES - found["system_memory_usage_megabytes"]
        assert found["memory_available_megabytes"] == pytest.approx(left, rel=0.01)
        assert "host_memory_usage_percentage" in found
    assert quiet["memory_oom_kills"] == 0
    assert greedy["memory_oom_kills"] == 1
