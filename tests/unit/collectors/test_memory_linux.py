"""Memory of the host and of the job under limits; kills for memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_machines import V2_MOUNT, group_v2, tree, values

from mlflow_sysmetrics.collectors.memory_linux import Memory, MemoryLinux, parse_meminfo
from mlflow_sysmetrics.collectors.oom_linux import OomLinux
from mlflow_sysmetrics.errors import Unavailable

MB = 1_000_000
# 16 GB of memory, 12 GB available; 2 of 8 GB of swap used.
MEMINFO = {
    "proc/meminfo": "MemTotal: 15625000 kB\nMemFree: 9 kB\nMemAvailable: 11718750 kB\n"
    "SwapTotal: 7812500 kB\nSwapFree: 5859375 kB\n"
}
V1_MEMORY = {
    "proc/self/cgroup": "4:memory:/docker/c0ffee\n",
    "proc/self/mountinfo": "60 50 0:31 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
}


def memory(group: str, usage: int, inactive: int, **files: str) -> dict[str, str]:
    """Returns the memory files of a v2 group; sizes are in megabytes."""
    path = f"sys/fs/cgroup{group}"
    return {
        f"{path}/memory.current": f"{usage * MB}\n",
        f"{path}/memory.stat": f"anon 5\ninactive_anon 7\ninactive_file {inactive * MB}\n",
        **{f"{path}/memory.{name.replace('_', '.')}": f"{text}\n" for name, text in files.items()},
    }


def test_without_a_limit_only_host_values_are_reported(tmp_path: Path) -> None:
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **memory("/job", 900, 100, max="max")}))
    assert values(one, 0) == {
        "system_memory_usage_megabytes": 4000,
        "system_memory_usage_percentage": 25,
        "memory_available_megabytes": 12000,
        "swap_usage_megabytes": 2000,
    }


def test_a_limit_equal_to_the_host_is_ignored(tmp_path: Path) -> None:
    limit = str(16_000 * MB)
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **memory("/job", 900, 100, max=limit)}))
    assert values(one, 0)["system_memory_usage_percentage"] == 25


def test_under_a_limit_usage_is_the_working_set(tmp_path: Path) -> None:
    files = memory("/job", 900, 100, max=str(2000 * MB), high=str(1600 * MB), swap_current=str(3 * MB))
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **files}))
    assert values(one, 0) == {
        "host_memory_usage_percentage": 25,
        "system_memory_usage_megabytes": 800,
        "system_memory_usage_percentage": 50,
        "memory_available_megabytes": 800,
        "swap_usage_megabytes": 3,
    }


def test_usage_of_a_sibling_group_reduces_what_is_available(tmp_path: Path) -> None:
    pod = memory("/pod", 1900, 0, max=str(2000 * MB))
    job = memory("/pod/job", 500, 0, max=str(4000 * MB))
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2("/pod/job"), **pod, **job}))
    found = values(one, 0)
    assert found["system_memory_usage_percentage"] == 25
    assert found["memory_available_megabytes"] == 100


def test_available_memory_is_capped_by_that_of_the_host(tmp_path: Path) -> None:
    files = memory("/job", 500, 0, max=str(14_000 * MB))
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **files}))
    assert values(one, 0)["memory_available_megabytes"] == 12_000


def test_without_a_memory_controller_the_nearest_ancestor_counts(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/job/task/cgroup.procs": "1\n", **memory("/job", 500, 100, max=str(1600 * MB))}
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2("/job/task"), **files}))
    assert values(one, 0)["system_memory_usage_percentage"] == 25


def test_v1_reports_the_limits_of_invisible_ancestors(tmp_path: Path) -> None:
    stat = f"cache 1\nhierarchical_memory_limit {1000 * MB}\ntotal_swap {7 * MB}\ntotal_inactive_file {100 * MB}\n"
    files = {
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{350 * MB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.stat": stat,
    }
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **V1_MEMORY, **files}))
    assert values(one, 0) == {
        "host_memory_usage_percentage": 25,
        "system_memory_usage_megabytes": 250,
        "system_memory_usage_percentage": 25,
        "memory_available_megabytes": 750,
        "swap_usage_megabytes": 7,
    }


def test_a_page_cache_larger_than_the_usage_is_not_negative_memory(tmp_path: Path) -> None:
    files = memory("/job", 100, 101, max=str(1600 * MB))
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **files}))
    assert values(one, 0)["system_memory_usage_megabytes"] == 0


def test_uncounted_swap_is_absent(tmp_path: Path) -> None:
    files = memory("/job", 900, 100, max=str(2000 * MB))
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **files}))
    assert "swap_usage_megabytes" not in values(one, 0)


@pytest.mark.parametrize("damage", ["memory.stat", "memory.current"])
def test_an_unreadable_limited_group_does_not_fall_back_to_the_host(tmp_path: Path, damage: str) -> None:
    files = memory("/job", 900, 100, max=str(2000 * MB)) | {f"sys/fs/cgroup/job/{damage}": "garbage\n"}
    with pytest.raises(Unavailable, match="memory of the cgroup /job cannot be read"):
        MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **files}))


def test_a_group_over_its_soft_limit_has_nothing_available(tmp_path: Path) -> None:
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **memory("/job", 900, 0, high=str(600 * MB))}))
    assert values(one, 0)["system_memory_usage_percentage"] == 100
    assert values(one, 0)["memory_available_megabytes"] == 0


def test_a_removed_group_makes_the_collector_unavailable_until_rediscovery(tmp_path: Path) -> None:
    files = memory("/job", 900, 100, max=str(2000 * MB))
    one = MemoryLinux(tree(tmp_path, {**MEMINFO, **group_v2(), **files}))
    values(one, 0)
    (tmp_path / "sys/fs/cgroup/job/memory.current").unlink()
    with pytest.raises(Unavailable, match="memory of the cgroup"):
        values(one, 1)


def test_memory_usage_is_the_total_minus_available() -> None:
    text = b"MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    600 kB\n"
    assert parse_meminfo(text) == Memory(total=1000 * 1024, available=600 * 1024)


def test_available_memory_is_estimated_for_old_kernels() -> None:
    text = b"MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 250 kB\n"
    assert parse_meminfo(text).available == 400 * 1024


def test_available_memory_is_at_most_the_total() -> None:
    """LXC shows its own total, but the available memory of the host."""
    assert parse_meminfo(b"MemTotal: 100 kB\nMemAvailable: 900 kB\n") == Memory(100 * 1024, 100 * 1024)


def test_a_host_without_swap_space_has_no_swap() -> None:
    text = b"MemTotal: 9 kB\nMemAvailable: 9 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
    assert parse_meminfo(text).swap is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"MemTotal: 100 kB\n",
        b"MemTotal: 0 kB\nMemAvailable: 0 kB\n",
        b"MemTotal: -1 kB\nMemFree: 1 kB\n",
    ],
)
def test_an_empty_meminfo_is_rejected(text: bytes) -> None:
    with pytest.raises(ValueError, match="/proc/meminfo"):
        parse_meminfo(text)


def events(kills: int, group: str = "/job") -> dict[str, str]:
    return {f"sys/fs/cgroup{group}/memory.events": f"low 0\nhigh 3\nmax 9\noom 5\noom_kill {kills}\n"}


def test_kills_are_counted_from_the_first_reading(tmp_path: Path) -> None:
    one = OomLinux(tree(tmp_path, {**group_v2(), **events(4)}))
    assert values(one, 0) == {"memory_oom_kills": 0}
    tree(tmp_path, events(6))
    assert values(one, 1) == {"memory_oom_kills": 2}


def test_kills_are_counted_in_v1(tmp_path: Path) -> None:
    control = "sys/fs/cgroup/memory/memory.oom_control"
    one = OomLinux(tree(tmp_path, {**V1_MEMORY, control: "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"}))
    tree(tmp_path, {control: "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"})
    assert values(one, 0) == {"memory_oom_kills": 1}


def test_without_a_memory_controller_kills_are_counted_by_an_ancestor(tmp_path: Path) -> None:
    task = {"sys/fs/cgroup/job/task/cgroup.procs": "1\n"}
    one = OomLinux(tree(tmp_path, {**group_v2("/job/task"), **task, **events(0)}))
    tree(tmp_path, events(1))
    assert values(one, 0) == {"memory_oom_kills": 1}


def test_a_group_without_a_kill_counter_is_unavailable(tmp_path: Path) -> None:
    root = {
        "sys/fs/cgroup/cgroup.procs": "1\n",
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": V2_MOUNT,
    }
    with pytest.raises(Unavailable, match=r"no memory\.events counts"):
        OomLinux(tree(tmp_path, root))


def test_kills_of_other_groups_do_not_count(tmp_path: Path) -> None:
    one = OomLinux(tree(tmp_path, {**group_v2(), **events(0), **events(7, "/other")}))
    values(one, 0)
    tree(tmp_path, group_v2("/other"))
    with pytest.raises(Unavailable, match="moved to another cgroup"):
        values(one, 130)


def test_a_removed_kill_counter_makes_the_collector_unavailable_until_rediscovery(tmp_path: Path) -> None:
    one = OomLinux(tree(tmp_path, {**group_v2(), **events(0)}))
    (tmp_path / "sys/fs/cgroup/job/memory.events").unlink()
    with pytest.raises(Unavailable, match="kills of the cgroup cannot be read"):
        values(one, 1)
