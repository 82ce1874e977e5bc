"""CPU time of the host and of the job: which is reported, and relative to which capacity."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_machines import group_v2, tree, values

from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux, parse_stat
from mlflow_sysmetrics.collectors.cpu_times import CpuTimes, busy_percentage
from mlflow_sysmetrics.errors import Unavailable

JOB, HOST = "cpu_utilization_percentage", "host_cpu_utilization_percentage"


def stat(*busy_and_idle: tuple[int, int]) -> dict[str, str]:
    """Returns a /proc/stat whose CPUs have these ticks."""
    busy, idle = (sum(column) for column in zip(*busy_and_idle, strict=True))
    lines = [f"cpu{number} {ticks[0]} 0 0 {ticks[1]} 0" for number, ticks in enumerate(busy_and_idle)]
    return {"proc/stat": "\n".join([f"cpu  {busy} 0 0 {idle} 0", *lines, "intr 5", ""])}


def usage(seconds: float) -> dict[str, str]:
    return {"sys/fs/cgroup/job/cpu.stat": f"usage_usec {seconds * 1e6:.0f}\nuser_usec 0\n"}


def test_without_a_limit_only_host_values_are_reported(tmp_path: Path) -> None:
    one = CpuLinux(tree(tmp_path, {**stat((100, 100), (100, 100)), **group_v2(), **usage(5)}))
    assert values(one, 0) == {}
    tree(tmp_path, {**stat((150, 150), (100, 200)), **usage(9)})
    assert values(one, 1) == {JOB: 25}


def test_under_a_quota_utilization_is_relative_to_the_quota(tmp_path: Path) -> None:
    quota = {"sys/fs/cgroup/job/cpu.max": "50000 100000\n"}
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2(), **usage(5), **quota}))
    values(one, 0)
    tree(tmp_path, {**stat((100, 100), (80, 120)), **usage(5.5)})
    assert values(one, 2) == {HOST: 45, JOB: 50}


def test_the_smallest_quota_applies(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/pod/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/pod/job/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/pod/job/cpu.stat": "usage_usec 0\n",
    }
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2("/pod/job"), **files}))
    values(one, 0)
    tree(tmp_path, {"sys/fs/cgroup/pod/job/cpu.stat": "usage_usec 125000\n"})
    assert values(one, 1)[JOB] == 25


def test_under_a_cpuset_utilization_is_relative_to_its_cpus(tmp_path: Path) -> None:
    cpuset = {"sys/fs/cgroup/job/cpuset.cpus.effective": "0-1\n"}
    four = stat((0, 0), (0, 0), (0, 0), (0, 0))
    one = CpuLinux(tree(tmp_path, {**four, **group_v2(), **usage(0), **cpuset}))
    values(one, 0)
    tree(tmp_path, usage(1))
    assert values(one, 1) == {JOB: 50}


def test_a_burst_is_capped_at_100_percent(tmp_path: Path) -> None:
    quota = {"sys/fs/cgroup/job/cpu.max": "50000 100000\n"}
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2(), **usage(0), **quota}))
    values(one, 0)
    tree(tmp_path, usage(0.6))
    assert values(one, 1) == {JOB: 100}


def test_a_job_with_only_an_affinity_sees_the_load_of_those_cpus(tmp_path: Path) -> None:
    bound = {"proc/self/status": "Cpus_allowed_list:\t1\n"}
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2("/"), **bound}))
    values(one, 0)
    tree(tmp_path, stat((0, 100), (80, 20)))
    assert values(one, 1) == {HOST: 40, JOB: 80}


def bound_to(*cpus: int) -> dict[str, str]:
    return {"proc/self/status": f"Cpus_allowed_list:\t{','.join(map(str, cpus))}\n", **group_v2("/")}


def test_an_offline_cpu_makes_the_collector_unavailable_until_rediscovery(tmp_path: Path) -> None:
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0), (0, 0)), **bound_to(1, 2)}))
    values(one, 0)
    tree(tmp_path, stat((0, 100), (80, 20)))
    with pytest.raises(Unavailable, match="the CPUs of the job have changed"):
        values(one, 1)


def test_all_lines_are_read_on_a_host_with_many_cpus(tmp_path: Path) -> None:
    """The kernel returns /proc/stat in pieces."""
    many = 5000
    one = CpuLinux(tree(tmp_path, {**stat(*[(0, 0)] * many), **bound_to(many - 1)}))
    assert len((tmp_path / "proc/stat").read_bytes()) > 65_536
    values(one, 0)
    tree(tmp_path, stat(*[(0, 100)] * (many - 1), (60, 40)))
    assert values(one, 1)[JOB] == 60


@pytest.mark.parametrize(("seconds", "share"), [(2.9, 100), (3.1, None)])
def test_usage_beyond_the_capacity_of_the_host_is_rejected(
    tmp_path: Path, seconds: float, share: float | None
) -> None:
    """The tolerance between the clocks is 50 %, for a busy machine: two CPUs may give 3 s in one second."""
    quota = {"sys/fs/cgroup/job/cpu.max": "50000 100000\n"}
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2(), **usage(0), **quota}))
    values(one, 0)
    tree(tmp_path, usage(seconds))
    assert values(one, 1).get(JOB) == share


V1_MOUNTS = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n"
    "34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


def v1(cpu: str, cpuacct: str, unified: str = "/") -> dict[str, str]:
    """Returns a job with a quota of half a core, in the cgroups of a hybrid setup."""
    return {
        "proc/self/cgroup": f"2:cpu:{cpu}\n1:cpuacct:{cpuacct}\n0::{unified}\n",
        "proc/self/mountinfo": V1_MOUNTS,
        f"sys/fs/cgroup/cpu{cpu}/cpu.cfs_quota_us": "50000\n",
        f"sys/fs/cgroup/cpu{cpu}/cpu.cfs_period_us": "100000\n",
        f"sys/fs/cgroup/cpuacct{cpuacct}/cpuacct.usage": "0\n",
        f"sys/fs/cgroup/unified{unified}/cpu.stat": "usage_usec 0\n",
        **stat((0, 0), (0, 0)),
    }


@pytest.mark.parametrize(("cpu", "cpuacct"), [("/job", "/job"), ("/job", "/job/step"), ("/", "/")])
def test_v1_counts_the_limited_group(tmp_path: Path, cpu: str, cpuacct: str) -> None:
    one = CpuLinux(tree(tmp_path, v1(cpu, cpuacct)))
    values(one, 0)
    tree(tmp_path, {f"sys/fs/cgroup/cpuacct{cpuacct}/cpuacct.usage": "100000000\n"})
    assert values(one, 1) == {JOB: 20}


def test_v1_excludes_the_time_of_other_groups(tmp_path: Path) -> None:
    one = CpuLinux(tree(tmp_path, v1("/job", "/")))
    values(one, 0)
    tree(tmp_path, {"sys/fs/cgroup/cpuacct/cpuacct.usage": "900000000\n", **stat((100, 0), (0, 100))})
    assert values(one, 1) == {HOST: 50}
    assert one.gaps == ("no CPU utilization of the job: no hierarchy counts the CPU time of the cgroup /job",)


def test_the_unified_hierarchy_is_used_where_v1_does_not_count(tmp_path: Path) -> None:
    one = CpuLinux(tree(tmp_path, v1("/job", "/", "/job")))
    values(one, 0)
    tree(tmp_path, {"sys/fs/cgroup/unified/job/cpu.stat": "usage_usec 250000\n"})
    assert values(one, 1) == {JOB: 50}


def test_the_unified_hierarchy_is_used_without_cpuacct(tmp_path: Path) -> None:
    files = v1("/job", "/job", "/job") | {"proc/self/cgroup": "2:cpu:/job\n0::/job\n"}
    one = CpuLinux(tree(tmp_path, files))
    values(one, 0)
    tree(tmp_path, {"sys/fs/cgroup/unified/job/cpu.stat": "usage_usec 250000\n"})
    assert values(one, 1) == {JOB: 50}


def test_a_removed_group_makes_the_collector_unavailable_until_rediscovery(tmp_path: Path) -> None:
    quota = {"sys/fs/cgroup/job/cpu.max": "50000 100000\n"}
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2(), **usage(5), **quota}))
    values(one, 0)
    (tmp_path / "sys/fs/cgroup/job/cpu.stat").unlink()
    with pytest.raises(Unavailable, match="CPU time of the cgroup"):
        values(one, 1)


def test_a_missing_proc_stat_does_not_shorten_the_interval(tmp_path: Path) -> None:
    """Otherwise the time of the group would be divided by too short an interval."""
    quota = {"sys/fs/cgroup/job/cpu.max": "50000 100000\n"}
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2(), **usage(0), **quota}))
    values(one, 0)
    (tmp_path / "proc/stat").unlink()
    with pytest.raises(OSError, match="No such file"):
        values(one, 1)
    tree(tmp_path, {**stat((0, 0), (0, 0)), **usage(0.5)})
    assert values(one, 2) == {JOB: 50}


def test_a_group_time_that_decreases_is_unknown(tmp_path: Path) -> None:
    quota = {"sys/fs/cgroup/job/cpu.max": "50000 100000\n"}
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2(), **usage(5), **quota}))
    values(one, 0)
    tree(tmp_path, usage(1))
    assert values(one, 1) == {}


def test_a_cpu_stat_without_usage_yields_nothing_for_the_job(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/job/cpu.max": "50000 100000\n", "sys/fs/cgroup/job/cpu.stat": "nr_periods 0\n"}
    one = CpuLinux(tree(tmp_path, {**stat((0, 0), (0, 0)), **group_v2(), **files}))
    assert "has no usage_usec" in one.gaps[0]


def test_iowait_is_idle_and_guest_time_counts_once() -> None:
    text = b"cpu  100 10 50 800 40 5 5 10 60 3\ncpu0 1 2 3\n"
    assert parse_stat(text) == CpuTimes(busy=180, total=1020)


def test_parses_the_stat_of_a_kernel_without_iowait() -> None:
    assert parse_stat(b"cpu 10 0 20 70\n") == CpuTimes(busy=30, total=100)


def test_cpu_1_does_not_match_the_line_of_cpu_10() -> None:
    text = b"cpu  9 0 0 9\ncpu1 1 0 0 1\ncpu10 2 0 0 2\n"
    assert parse_stat(text, b"cpu1") == CpuTimes(busy=1, total=2)
    assert parse_stat(text, b"cpu10") == CpuTimes(busy=2, total=4)


@pytest.mark.parametrize(
    "text", [b"", b"cpu\n", b"cpu0 1 2 3 4 5\n", b"cpu a b c d e\n", b"\xff\xfe\n", b"cpu  1 2 3 4"]
)
def test_an_invalid_stat_is_rejected(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"/proc/stat|invalid literal"):
        parse_stat(text)


def test_unchanged_or_decreasing_counters_give_no_percentage() -> None:
    assert busy_percentage(CpuTimes(1, 10), CpuTimes(1, 10)) is None
    assert busy_percentage(CpuTimes(1, 10), CpuTimes(1, 9)) is None
    assert busy_percentage(CpuTimes(1, 10), CpuTimes(9, 11)) is None
    assert busy_percentage(CpuTimes(2, 10), CpuTimes(1, 20)) == 0
