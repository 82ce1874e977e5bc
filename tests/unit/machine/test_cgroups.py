"""The cgroup of this process and its limits, on small trees of /proc and /sys/fs/cgroup."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import (
    V1,
    V2,
    allowed_cpus,
    controller_directory,
    group_paths,
    parse_cpu_list,
    parse_cpu_quota,
    parse_memory_limit,
    parse_own_groups,
    shows,
    smallest_cpu_quota,
    smallest_memory_limit,
)
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.mounts import Mount, parse_mountinfo

V2_MOUNT = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
SLICE = "sys/fs/cgroup/user.slice"


class Limits(NamedTuple):
    """The limits of the own group; None if unlimited."""

    memory_bytes: int | None = None
    cpu_cores: float | None = None
    cpus: frozenset[int] | None = None


def limits(machine: Host) -> Limits:
    return Limits(smallest_memory_limit(machine), smallest_cpu_quota(machine), allowed_cpus(machine))


def host(root: Path, cgroup: str, mountinfo: str, files: Mapping[str, str]) -> Host:
    tree = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, **files}
    for path, text in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Host(root=root, environ={})


def test_v2_reads_quota_and_memory_of_the_own_group(tmp_path: Path) -> None:
    machine = host(
        tmp_path,
        "0::/user.slice/job.scope\n",
        V2_MOUNT,
        {
            f"{SLICE}/job.scope/cpu.max": "150000 100000\n",
            f"{SLICE}/job.scope/memory.max": "4294967296\n",
            f"{SLICE}/job.scope/memory.high": "max\n",
            f"{SLICE}/job.scope/cpuset.cpus.effective": "0-3,8\n",
        },
    )
    assert limits(machine) == Limits(memory_bytes=4294967296, cpu_cores=1.5, cpus=frozenset({0, 1, 2, 3, 8}))


def test_v2_uses_the_smallest_limit_of_all_ancestors(tmp_path: Path) -> None:
    machine = host(
        tmp_path,
        "0::/user.slice/job.scope\n",
        V2_MOUNT,
        {
            f"{SLICE}/job.scope/cpu.max": "800000 100000\n",
            f"{SLICE}/job.scope/memory.max": "8589934592\n",
            f"{SLICE}/cpu.max": "200000 100000\n",
            f"{SLICE}/memory.max": "2147483648\n",
        },
    )
    assert limits(machine) == Limits(memory_bytes=2147483648, cpu_cores=2.0)


def test_v2_memory_high_is_a_limit(tmp_path: Path) -> None:
    files = {f"{SLICE}/memory.max": "4294967296\n", f"{SLICE}/memory.high": "1073741824\n"}
    assert limits(host(tmp_path, "0::/user.slice\n", V2_MOUNT, files)).memory_bytes == 1073741824


def test_v2_uses_the_cpuset_of_an_ancestor_if_the_group_has_none(tmp_path: Path) -> None:
    files = {f"{SLICE}/job.scope/cpu.max": "max 100000\n", f"{SLICE}/cpuset.cpus.effective": "4-5\n"}
    machine = host(tmp_path, "0::/user.slice/job.scope\n", V2_MOUNT, files)
    assert limits(machine) == Limits(cpus=frozenset({4, 5}))


def test_v2_supports_a_private_namespace(tmp_path: Path) -> None:
    machine = host(
        tmp_path,
        "0::/\n",
        "1200 1190 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
        {"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": "536870912\n"},
    )
    assert limits(machine) == Limits(memory_bytes=536870912, cpu_cores=0.5)


def test_v1_supports_a_mount_root_equal_to_the_group(tmp_path: Path) -> None:
    machine = host(
        tmp_path,
        "5:memory:/docker/c0ffee\n4:cpu,cpuacct:/docker/c0ffee\n3:cpuset:/docker/c0ffee\n1:name=systemd:/docker/c0ffee\n",
        "60 50 0:31 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "61 50 0:32 /docker/c0ffee /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        "62 50 0:33 /docker/c0ffee /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n",
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.stat": "cache 0\nhierarchical_memory_limit 3221225472\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpuset/cpuset.effective_cpus": "\n",
            "sys/fs/cgroup/cpuset/cpuset.cpus": "0,2\n",
        },
    )
    assert limits(machine) == Limits(memory_bytes=3221225472, cpu_cores=2.5, cpus=frozenset({0, 2}))


HYBRID_GROUPS = "4:memory:/job/a\n3:cpuset:/\n2:cpu:/\n0::/\n"
HYBRID_MOUNTS = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


def test_hybrid_reads_each_controller_where_it_is_bound(tmp_path: Path) -> None:
    machine = host(
        tmp_path,
        HYBRID_GROUPS,
        HYBRID_MOUNTS,
        {
            "sys/fs/cgroup/memory/job/a/memory.limit_in_bytes": "2147483648\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1073741824\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/unified/io.stat": "",
        },
    )
    assert limits(machine) == Limits(memory_bytes=1073741824)
    assert controller_directory(machine, "memory").version == V1
    assert controller_directory(machine, "memory").own == "sys/fs/cgroup/memory/job/a"
    assert controller_directory(machine, "io").version == V2
    assert controller_directory(machine, "io").paths == ("sys/fs/cgroup/unified",)


def test_an_invisible_group_falls_back_to_its_nearest_visible_ancestor(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "1048576\n"}
    assert limits(host(tmp_path, "0::/gone/group\n", V2_MOUNT, files)).memory_bytes == 1048576


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert limits(Host(root=tmp_path, environ={})) == Limits()


def test_without_cgroups_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no cgroup"):
        controller_directory(Host(root=tmp_path, environ={}), "memory")


def test_an_unmounted_controller_has_no_directory(tmp_path: Path) -> None:
    machine = host(tmp_path, "4:memory:/\n", "", {})
    with pytest.raises(Unavailable, match="memory controller is mounted"):
        controller_directory(machine, "memory")
    with pytest.raises(Unavailable, match="no cgroup has the cpu controller"):
        controller_directory(machine, "cpu")


def test_garbage_gives_no_limit(tmp_path: Path) -> None:
    files = {
        f"{SLICE}/memory.max": "\x00\x01",
        f"{SLICE}/cpu.max": "soon",
        f"{SLICE}/cpuset.cpus.effective": "a-b",
    }
    assert limits(host(tmp_path, "0::/user.slice\n", V2_MOUNT, files)) == Limits()


@pytest.mark.parametrize(
    ("group", "root", "expected"),
    [
        ("/a/b", "/", ("m/a/b", "m/a", "m")),
        ("/docker/c0ffee", "/docker/c0ffee", ("m",)),
        ("/docker/c0ffee/job", "/docker/c0ffee", ("m/job", "m")),
        ("/docker/c0ffee2", "/docker/c0ffee", ("m",)),
        ("/", "/docker/c0ffee", ("m",)),
        ("/../other", "/", ("m",)),
        ("/", "/..", ("m",)),
    ],
)
def test_the_mount_root_is_stripped_from_group_paths(
    group: str, root: str, expected: tuple[str, ...]
) -> None:
    assert group_paths(group, Mount("35", "24", "0:30", root, "/m", "cgroup2", "cgroup2", "rw")) == expected


def test_parses_the_own_groups_by_controller() -> None:
    text = "4:cpu,cpuacct:/a:b\n1:name=systemd:/init.scope\n0::/user.slice\nnonsense\n"
    assert parse_own_groups(text) == {
        "cpu": "/a:b",
        "cpuacct": "/a:b",
        "name=systemd": "/init.scope",
        "": "/user.slice",
    }


def test_parses_mounts_of_both_versions() -> None:
    text = (
        "22 1 0:5 / /proc rw - proc proc rw\n"
        r"60 50 0:31 / /sys/fs/my\040cgroup rw shared:3 - cgroup cgroup rw,memory"
        "\n" + V2_MOUNT + "short - line\n"
    )
    proc, memory, unified = parse_mountinfo(text)
    assert memory.point == "/sys/fs/my cgroup"
    assert [shows(mount, V1, "memory") for mount in (proc, memory, unified)] == [False, True, False]
    assert [shows(mount, V2, "memory") for mount in (proc, memory, unified)] == [False, False, True]
    assert not shows(memory, V1, "cpu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max\n", None),
        ("9223372036854771712\n", None),
        ("9223372036854710272\n", None),
        ("0\n", None),
        ("", None),
        ("1073741824\n", 1073741824),
    ],
)
def test_parses_a_memory_limit(text: str, expected: int | None) -> None:
    assert parse_memory_limit(text) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("max", "100000", None),
        ("-1", "100000", None),
        ("150000", "100000", 1.5),
        ("1000", "0", None),
        ("", "", None),
    ],
)
def test_parses_a_cpu_quota(quota: str, period: str, expected: float | None) -> None:
    assert parse_cpu_quota(quota, period) == expected


@pytest.mark.parametrize(("text", "expected"), [("0-2,5\n", {0, 1, 2, 5}), ("3", {3}), ("\n", set())])
def test_parses_a_cpu_list(text: str, expected: set[int]) -> None:
    assert parse_cpu_list(text) == expected
