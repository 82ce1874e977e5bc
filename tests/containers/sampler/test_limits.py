"""Under the limits of a container our series agree with the kernel's own accounting of it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from comparison import (
    HOLD,
    MEBIBYTE,
    POINTS,
    WORK,
    check_cpu,
    check_memory,
    check_throttling,
    mean,
)
from kernel_accounting import Group, Witness
from sampled_containers import Start


def test_limits_that_are_given_at_the_start(start: Start) -> None:
    limited = start(WORK.format(share=1), HOLD.format(megabytes=150), options=["--memory=600m", "--cpus=0.5"])
    limited.wait_for(1, "cpu_throttled_percentage", after=time.time())
    began = time.time()
    points = limited.wait_for(POINTS, "cpu_utilization_percentage", after=began)
    check_cpu(limited, points, 0.5)
    check_throttling(limited.witness, limited.points("cpu_throttled_percentage", after=began))
    check_memory(limited, began, 600 * MEBIBYTE)
    assert {"host_cpu_utilization_percentage", "host_memory_usage_percentage"} <= limited.series()
    tags = limited.tags()
    assert tags["sys.cpu_cores_effective"] == "0.5"
    assert float(tags["sys.memory_limit_gb"]) == pytest.approx(600 * MEBIBYTE / 1e9, abs=0.1)
    assert tags["sys.container"] == "docker"
    limited.end()


def test_half_of_the_quota_is_half(start: Start) -> None:
    """The sampler itself is in the container and takes its share of the quota, too."""
    limited = start(WORK.format(share=0.2), options=["--cpus=0.5"])
    began = time.time()
    points = limited.wait_for(POINTS, "cpu_utilization_percentage", after=began)
    check_cpu(limited, points, 0.5)
    assert mean(points) < 80
    assert "host_memory_usage_percentage" not in limited.series()
    limited.end()


def test_without_limits_the_numbers_are_the_hosts(start: Start) -> None:
    free = start()
    free.wait_for(2, "cpu_utilization_percentage", after=time.time())
    limits = {"cpu_throttled_percentage", "host_cpu_utilization_percentage", "host_memory_usage_percentage"}
    assert not limits & free.series()
    total = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024
    assert float(free.tags()["sys.memory_gb"]) == pytest.approx(total / 1e9, abs=0.1)
    free.end()


LIVE = {
    "less": (["--cpus=1", "--memory=900m", "--memory-swap=900m"], ["--cpus=0.5", "--memory=600m"]),
    "more": (["--cpus=0.25", "--memory=600m", "--memory-swap=600m"], ["--cpus=0.5", "--memory=900m"]),
    "from none": ([], ["--cpus=0.5", "--memory=600m"]),
}


@pytest.mark.parametrize("case", LIVE)
def test_limits_that_change_while_the_program_runs(start: Start, case: str) -> None:
    """The second point after the change is the first that shows the new limits, and every later one does."""
    before, after = LIVE[case]
    limit = float(re.search(r"--memory=(\d+)m", " ".join(after))[1]) * MEBIBYTE
    limited = start(WORK.format(share=1), options=before)
    limited.wait_for(2, "cpu_utilization_percentage", after=time.time())
    swap = f"--memory-swap={int(limit)}"
    limited.docker("update", *after, swap, limited.name)
    changed = time.time()
    points = limited.wait_for(POINTS + 2, "cpu_utilization_percentage", after=changed)[1:]
    check_cpu(limited, points, 0.5)
    check_memory(limited, points[0][0], limit)
    check_throttling(limited.witness, limited.points("cpu_throttled_percentage", after=points[0][0] - 0.01))
    limited.end()


def test_a_quota_that_is_removed(start: Start) -> None:
    """What follows is the host's."""
    limited = start(WORK.format(share=1), options=["--cpus=0.5"])
    limited.wait_for(2, "cpu_throttled_percentage", after=time.time())
    limited.docker("update", "--cpu-quota=-1", limited.name)
    changed = time.time()
    second = limited.wait_for(POINTS, "cpu_utilization_percentage", after=changed)[1][0]
    assert limited.points("cpu_throttled_percentage", after=second) == []
    assert limited.points("host_cpu_utilization_percentage", after=second) == []
    limited.end()


def test_a_cpuset(start: Start) -> None:
    """On one CPU of several, the share is of that one."""
    bound = start(WORK.format(share=0.5), options=["--cpuset-cpus=0"])
    began = time.time()
    points = bound.wait_for(POINTS, "cpu_utilization_percentage", after=began)
    assert bound.tags()["sys.cpu_cores_effective"] == "1"
    assert "cpu_throttled_percentage" not in bound.series()
    check_cpu(bound, points, 1)
    bound.end()


# Makes a group below the container's, with limits of its own ("-" for none), and runs the rest of its arguments in it.
NESTED = """
set -e
quota=$1 limit=$2; shift 2
for mount in /sys/fs/cgroup/cpu /sys/fs/cgroup/cpuacct /sys/fs/cgroup/memory /sys/fs/cgroup; do
  ! [ -d $mount ] || mount -o remount,bind,rw $mount
done
if [ -d /sys/fs/cgroup/memory ]; then
  for controller in cpu cpuacct memory; do mkdir -p /sys/fs/cgroup/$controller/inner; done
  [ $quota = - ] || echo $quota >/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us
  [ $limit = - ] || echo $limit >/sys/fs/cgroup/memory/inner/memory.limit_in_bytes
  for controller in cpu cpuacct memory; do echo $$ >/sys/fs/cgroup/$controller/inner/cgroup.procs; done
else
  mkdir /sys/fs/cgroup/inner
  echo $$ >/sys/fs/cgroup/inner/cgroup.procs
  echo "+cpu +memory" >/sys/fs/cgroup/cgroup.subtree_control
  [ $quota = - ] || echo "$quota 100000" >/sys/fs/cgroup/inner/cpu.max
  [ $limit = - ] || echo $limit >/sys/fs/cgroup/inner/memory.max
fi
exec "$@"
"""
# What a container needs for it; not all that --privileged gives, which a host may not have.
MAY_MOUNT = ["--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined", "--security-opt=label=disable"]
NESTINGS = {
    "the inner group has less": (["--cpus=1", "--memory=900m"], "50000", str(600 * MEBIBYTE)),
    "the container has less": (["--cpus=0.5", "--memory=600m"], "-", str(900 * MEBIBYTE)),
    "the inner group has none": (["--cpus=0.5", "--memory=600m"], "-", "-"),
}


@pytest.mark.parametrize("namespace", ["host", "private"])
@pytest.mark.parametrize("case", NESTINGS)
def test_a_group_below_that_of_the_container(start: Start, case: str, namespace: str) -> None:
    """Time and memory are the inner group's, the limits the smallest of both; what is left is the less of both."""
    options, quota, limit = NESTINGS[case]
    nested = start(
        WORK.format(share=1),
        options=[*MAY_MOUNT, f"--cgroupns={namespace}", *options],
        entry=["sh", "-c", NESTED, "sh", quota, limit],
    )
    containers = Witness(Group(nested.pid, above=1))
    began = time.time()
    points = nested.wait_for(POINTS, "cpu_utilization_percentage", after=began)
    check_cpu(nested, points, 0.5)
    given = float(re.search(r"--memory=(\d+)m", " ".join(options))[1]) * MEBIBYTE
    limited = [(given, containers), *([] if limit == "-" else [(float(limit), nested.witness)])]
    check_memory(nested, began, 600 * MEBIBYTE, limited)
    throttled = nested.points("cpu_throttled_percentage", after=began)
    assert len(throttled) >= POINTS - 1
    check_throttling(nested.witness if quota != "-" else containers, throttled)
    containers.close()
    nested.end()
