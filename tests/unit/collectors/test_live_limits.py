"""What can change while a job runs is seen at the next tick, or the one after: limits, the group, the CPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from small_machines import group_v2, tree

from mlflow_sysmetrics.collectors import registry
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.samples import Family

CPU, HOST_CPU = "cpu_utilization_percentage", "host_cpu_utilization_percentage"
THROTTLED, MEMORY = "cpu_throttled_percentage", "system_memory_usage_percentage"
GB = 1_000_000_000
FAMILIES = {Family.CPU, Family.MEMORY, Family.PRESSURE}

V1_MOUNTS = "".join(
    f"6{at} 50 0:3{at} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
    for at, name in enumerate(("cpu", "cpuacct", "cpuset", "memory"))
)


def memory_of_v2(group: str, limit: str = "max") -> dict[str, str]:
    path = f"sys/fs/cgroup{group}"
    return {
        f"{path}/memory.current": f"{2 * GB}\n",
        f"{path}/memory.stat": "inactive_file 0\n",
        f"{path}/memory.max": f"{limit}\n",
        f"{path}/memory.high": "max\n",
        f"{path}/memory.events": "oom_kill 0\n",
    }


def quota_of_v2(group: str, quota: str = "max") -> dict[str, str]:
    return {f"sys/fs/cgroup{group}/cpu.max": f"{quota} 100000\n"}


class Machine:
    """Four CPUs and 16 GB, where every second the job uses half a core and the host one of four."""

    def __init__(self, root: Path, files: Mapping[str, str]) -> None:
        self.root, self.second = root, 0
        self.cpus: tuple[int, ...] = (0, 1, 2, 3)
        self.total = 16 * GB
        host = tree(root, {**self._moving(), **files})
        host = replace(host, affinity=lambda: self.cpus)
        entries = [one for one in registry.LINUX if one.family in FAMILIES]
        self.probes = [Probe(one, host, transparent=True) for one in entries]

    def tick(self, count: int = 1) -> dict[str, float]:
        """Returns the samples of the last of some ticks."""
        for _ in range(count):
            self.second += 1
            tree(self.root, self._moving())
            samples = [sample for probe in self.probes for sample in probe.read(float(self.second))]
        return {sample.key: round(sample.value, 3) for sample in samples}

    def _moving(self) -> dict[str, str]:
        ticks, micro = 100 * self.second, 500_000 * self.second
        lines = [f"cpu{cpu} {ticks // 4} 0 0 {3 * ticks // 4} 0" for cpu in range(4)]
        meminfo = f"MemTotal: {self.total // 1024} kB\nMemAvailable: {self.total // 1024 * 3 // 4} kB\n"
        return {
            "proc/stat": "\n".join([f"cpu  {ticks} 0 0 {3 * ticks} 0", *lines, "intr 5", ""]),
            "proc/self/status": f"Cpus_allowed_list:\t{','.join(map(str, self.cpus))}\n",
            "proc/meminfo": meminfo,
            **{
                f"sys/fs/cgroup{group}/cpu.stat": f"usage_usec {micro}\nnr_periods {10 * self.second}\n"
                f"nr_throttled {5 * self.second}\n"
                for group in ("/job", "/pod/job", "/pod", "/other")
            },
            "sys/fs/cgroup/cpu/job/cpu.stat": f"nr_periods {10 * self.second}\nnr_throttled 0\n",
            "sys/fs/cgroup/cpuacct/job/cpuacct.usage": f"{1000 * micro}\n",
        }


def unlimited(group: str = "/job") -> dict[str, str]:
    parts = group.strip("/").split("/")
    groups = ["/" + "/".join(parts[: depth + 1]) for depth in range(len(parts))]
    files = group_v2(group)
    for one in groups:
        files |= {**memory_of_v2(one), **quota_of_v2(one)}
    return files


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Machine]:
    return lambda files: Machine(tmp_path, files)


Make = Callable[..., Machine]


def test_a_quota_that_changes_counts_within_two_ticks(machine: Make) -> None:
    one = machine({**unlimited(), **quota_of_v2("/job", "200000")})
    assert one.tick(2)[CPU] == 25
    tree(one.root, quota_of_v2("/job", "50000"))
    assert one.tick().get(CPU) is None, "over a span with two limits there is no share of either"
    assert one.tick()[CPU] == 100


def test_a_quota_that_appears_counts_and_throttles_within_two_ticks(machine: Make) -> None:
    one = machine(unlimited())
    first = one.tick(20)  # pauses of sources that are absent are long by now
    assert (first[CPU], first.get(HOST_CPU), first.get(THROTTLED)) == (25, None, None)
    tree(one.root, quota_of_v2("/job", "100000"))
    assert one.tick()[HOST_CPU] == 25
    second = one.tick()
    assert (second[CPU], second[THROTTLED]) == (50, 50)


def test_a_quota_that_is_removed_no_longer_counts_after_two_ticks(machine: Make) -> None:
    one = machine({**unlimited(), **quota_of_v2("/job", "50000")})
    one.tick(2)
    tree(one.root, quota_of_v2("/job"))
    found = one.tick(2)
    assert (found[CPU], found.get(HOST_CPU), found.get(THROTTLED)) == (25, None, None)


def test_the_quota_of_an_ancestor_counts_within_two_ticks(machine: Make) -> None:
    one = machine(unlimited("/pod/job"))
    one.tick(2)
    tree(one.root, quota_of_v2("/pod", "50000"))
    assert one.tick(2)[CPU] == 100


@pytest.mark.parametrize("name", ["memory.max", "memory.high"])
@pytest.mark.parametrize("group", ["/pod/job", "/pod"])
def test_a_memory_limit_counts_at_the_next_tick(machine: Make, group: str, name: str) -> None:
    one = machine(unlimited("/pod/job"))
    assert one.tick()[MEMORY] == 25
    for limit, share in ((8 * GB, 25), (4 * GB, 50), ("max", 25)):
        tree(one.root, {f"sys/fs/cgroup{group}/{name}": f"{limit}\n"})
        assert one.tick()[MEMORY] == share


def test_a_controller_that_is_enabled_later_brings_its_limit(machine: Make) -> None:
    """As `systemctl set-property` does for a group that had no memory controller."""
    limits = memory_of_v2("/job", str(4 * GB))
    files = {path: text for path, text in unlimited().items() if path not in limits}
    one = machine({**files, "sys/fs/cgroup/job/cgroup.controllers": "cpu\n"})
    assert one.tick(2)[MEMORY] == 25
    tree(one.root, {**limits, "sys/fs/cgroup/job/cgroup.controllers": "cpu memory\n"})
    assert one.tick()[MEMORY] == 50


def test_a_cpuset_that_changes_counts_within_two_ticks(machine: Make) -> None:
    cpus = "sys/fs/cgroup/job/cpuset.cpus.effective"
    one = machine({**unlimited(), cpus: "0-3\n"})
    assert one.tick(2)[CPU] == 25
    tree(one.root, {cpus: "0-1\n"})
    found = one.tick(2)
    assert (found[CPU], found[HOST_CPU]) == (25, 25)


def test_an_affinity_that_changes_counts_within_two_ticks(machine: Make) -> None:
    one = machine(unlimited())
    assert one.tick(2).get(HOST_CPU) is None
    one.cpus = (2,)
    assert HOST_CPU in one.tick(2)


def test_a_move_to_another_group_counts_within_two_ticks(machine: Make) -> None:
    other = {**memory_of_v2("/other", str(4 * GB)), **quota_of_v2("/other", "100000")}
    one = machine({**unlimited(), **other})
    one.tick(2)
    tree(one.root, group_v2("/other"))
    found = one.tick(2)
    assert (found[CPU], found[MEMORY]) == (50, 50)


def v1(quota: str, limit: int, inherited: int) -> dict[str, str]:
    groups = "".join(f"{at}:{name}:/job\n" for at, name in enumerate(("cpu", "cpuacct", "cpuset", "memory")))
    return {
        "proc/self/cgroup": groups,
        "proc/self/mountinfo": V1_MOUNTS,
        "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": f"{quota}\n",
        "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpuset/job/cpuset.effective_cpus": "0-3\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{limit}\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{2 * GB}\n",
        "sys/fs/cgroup/memory/job/memory.stat": f"hierarchical_memory_limit {inherited}\n"
        "total_inactive_file 0\ntotal_swap 0\n",
    }


@pytest.mark.parametrize(
    ("before", "after", "cpu", "memory"),
    [
        (("-1", 2**62, 2**62), ("100000", 4 * GB, 4 * GB), 50, 50),
        (("200000", 8 * GB, 8 * GB), ("50000", 4 * GB, 4 * GB), 100, 50),
        # The limit of an ancestor that the container's mount does not show.
        (("200000", 8 * GB, 8 * GB), ("200000", 8 * GB, 4 * GB), 25, 50),
    ],
    ids=["appears", "changes", "hidden"],
)
def test_limits_of_v1_count_within_two_ticks(
    machine: Make, before: tuple[str, int, int], after: tuple[str, int, int], cpu: float, memory: float
) -> None:
    one = machine(v1(*before))
    one.tick(3)
    tree(one.root, v1(*after))
    found = one.tick(2)
    assert (found[CPU], found[MEMORY]) == (cpu, memory)


def test_memory_that_is_added_to_the_host_counts_at_the_next_tick(machine: Make) -> None:
    """A limit above the old amount of memory becomes one when a virtual machine grows."""
    one = machine({**unlimited(), **memory_of_v2("/job", str(20 * GB))})
    assert one.tick()["system_memory_usage_megabytes"] == 4000
    one.total = 32 * GB
    assert one.tick()["system_memory_usage_megabytes"] == 2000
