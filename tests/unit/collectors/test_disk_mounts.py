"""The mount table: which mount contains a path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.mounts import Mount, mount_of, parse_mountinfo, read_mounts, real_path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the paths are those of Linux, with colons in names")


def holder(path: str, *lines: str) -> str | None:
    """Returns the source of the mount that contains a path."""
    found = mount_of(path, parse_mountinfo("".join(f"{line}\n" for line in lines)))
    return None if found is None else found.source


ROOT = "20 1 8:1 / / rw - ext4 root rw"


def test_parses_all_fields_of_a_line() -> None:
    line = r"36 35 98:0 /mnt1 /my\040data rw,noatime shared:1 master:1 - ext3 /dev/root rw,errors=continue"
    assert parse_mountinfo(line) == (
        Mount("36", "35", "98:0", "/mnt1", "/my data", "ext3", "/dev/root", "rw,errors=continue"),
    )


def test_optional_fields_and_source_may_be_absent() -> None:
    (mount,) = parse_mountinfo("25 24 0:23 / /dev/shm rw,relatime - tmpfs  rw")
    assert (mount.filesystem, mount.source) == ("tmpfs", "")


@pytest.mark.parametrize("text", ["", "\n", "garbage", "36 35 98:0 / /data", "a b c d e f - g h i"])
def test_malformed_lines_are_skipped(text: str) -> None:
    assert parse_mountinfo(text) == ()


def test_parses_the_paths_of_an_option() -> None:
    (mount,) = parse_mountinfo(
        r"30 1 0:40 / / rw - overlay overlay rw,lowerdir=/a\040b:/c,upperdir=/u,workdir=/w"
    )
    assert mount.paths("lowerdir") == ["/a b", "/c"]
    assert mount.paths("upperdir") == ["/u"]
    assert mount.paths("dir") == []


def test_the_longest_mount_point_contains_a_path() -> None:
    lines = (ROOT, "21 20 8:2 / /data rw - ext4 data rw", "22 21 8:3 / /data/sets rw - ext4 sets rw")
    assert holder("/data/sets/a", *lines) == "sets"
    assert holder("/data/sets", *lines) == "sets"
    assert holder("/data/a", *lines) == "data"
    assert holder("/datasets", *lines) == "root"


def test_a_later_mount_hides_an_earlier_one_at_the_same_place() -> None:
    lines = (ROOT, "21 20 8:2 / /data rw - ext4 old rw", "22 21 8:3 / /data rw - ext4 new rw")
    assert holder("/data/a", *lines) == "new"


def test_a_mount_hides_earlier_mounts_below_it() -> None:
    lines = (ROOT, "21 20 8:2 / /data/sets rw - ext4 hidden rw", "22 20 8:3 / /data rw - ext4 data rw")
    assert holder("/data/sets/a", *lines) == "data"


def test_a_moved_root_hides_nothing() -> None:
    """An initial RAM disk leaves such a table: the root is listed after the mounts on it."""
    lines = ("21 27 0:21 / /proc rw - proc proc rw", "27 1 8:1 / / rw - ext4 root rw")
    assert holder("/proc/self", *lines) == "proc"


def test_a_root_may_be_its_own_parent() -> None:
    assert holder("/data", "1 1 0:1 / / rw - rootfs rootfs rw", "20 1 8:1 / / rw - ext4 root rw") == "root"


def test_a_cycle_of_mounts_ends() -> None:
    assert holder("/data", "1 2 0:1 / / rw - ext4 a rw", "2 1 0:1 / / rw - ext4 b rw") is None


def test_in_a_chroot_no_mount_may_contain_the_path() -> None:
    assert holder("/data", "21 20 0:21 / /proc rw - proc proc rw") is None


def test_a_host_without_the_table_has_no_mounts(tmp_path: Path) -> None:
    assert read_mounts(Host(root=tmp_path)) == ()


def test_a_link_is_followed_below_the_root_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "big/data").mkdir(parents=True)
    (tmp_path / "data").symlink_to("big/data")
    host = Host(root=tmp_path)
    assert real_path(host, "/data/set") == "/big/data/set"
    assert real_path(host, "/") == "/"


def test_a_link_out_of_a_recorded_machine_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/data").symlink_to(tmp_path / "outside")
    assert real_path(Host(root=tmp_path / "root"), "/data") == str(tmp_path / "outside")


def test_the_table_of_this_host_contains_the_root() -> None:
    mounts = read_mounts(Host())
    if not mounts:
        pytest.skip("this system has no /proc/self/mountinfo")
    found = mount_of("/", mounts)
    assert found is not None
    assert found.point == "/"
