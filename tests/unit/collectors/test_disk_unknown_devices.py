"""Disk I/O: paths whose devices are unknown, and paths without a device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from disk_machine import ROOT, Machine, devices, stat, with_root_on_sda

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.mounts import has_local_device

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the paths are those of Linux, with colons in names")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with the disk of its root, further disks, and devices that are not disks."""
    made = with_root_on_sda(tmp_path)
    made.device("sdb", physical=True)
    made.device("nvme0c0n1", physical=True)
    made.write("sys/block/nvme0c0n1/hidden", "1\n")
    for name in ("loop0", "ram0", "dm-0", "md0"):
        made.device(name)
        made.write(f"sys/block/{name}/stat", stat())
    return made


@pytest.mark.parametrize(
    ("mounts", "clause"),
    [
        ("20 1 0:40 / / rw - overlay overlay rw,upperdir=/var/lib/docker/u\n", "/home/job (overlay)"),
        ("20 1 0:40 / / rw - zfs tank/home rw\n", "/home/job (zfs)"),
        ("20 1 0:40 / / rw - btrfs /dev/sdz rw\n", "/home/job (btrfs)"),
        ("20 1 8:99 / / rw - ext4 /dev/sdz rw\n", "/home/job (ext4)"),
        ("", "/home/job"),
    ],
    ids=["container", "zfs", "btrfs", "no such device", "no table"],
)
def test_with_unknown_devices_all_hardware_disks_count(machine: Machine, mounts: str, clause: str) -> None:
    machine.mounts(mounts)
    collector = machine.collector()
    assert devices(collector) == ["sda", "sdb"]
    assert collector.gaps == (f"the devices of {clause} are unknown: all disks are counted",)


def test_an_overlay_with_visible_layers_uses_their_devices(machine: Machine) -> None:
    machine.mounts(
        "20 1 0:40 / / rw - overlay overlay rw,lowerdir=/lower:/mem,upperdir=/upper\n"
        "21 20 8:1 / /lower rw - ext4 /dev/sda1 rw\n"
        "22 20 8:16 / /upper rw - ext4 /dev/sdb rw\n"
        "23 20 0:41 / /mem rw - tmpfs tmpfs rw\n"
    )
    machine.device("sdb", "8:16")
    for name in ("lower", "upper", "mem"):
        (machine.root / name).mkdir()
    assert devices(machine.collector()) == ["sda", "sdb"]


@pytest.mark.parametrize(
    "below",
    [
        "",
        "21 20 0:42 / /upper rw - zfs tank/u rw\n",
        "21 20 0:42 / /upper rw - tmpfs tmpfs rw\n",
    ],
    ids=["in the overlay itself", "on zfs", "in memory"],
)
def test_an_overlay_with_unresolvable_layers_is_unknown(machine: Machine, below: str) -> None:
    machine.mounts("20 1 0:40 / / rw - overlay overlay rw,upperdir=/upper\n" + below)
    (machine.root / "upper").mkdir()
    assert devices(machine.collector()) == ["sda", "sdb"]


@pytest.mark.parametrize(
    "filesystem", ["nfs", "nfs4", "cifs", "lustre", "fuse.sshfs", "tmpfs", "9p", "virtiofs"]
)
def test_a_filesystem_without_a_local_device_is_named(machine: Machine, filesystem: str) -> None:
    machine.mounts(f"20 1 0:40 / / rw - {filesystem} server:/home rw\n")
    with pytest.raises(Unavailable, match=f"^/home/job is on {filesystem}, which has no local device$"):
        machine.collector()


def test_a_filesystem_without_a_device_next_to_a_disk_is_a_gap(machine: Machine) -> None:
    machine.mounts(ROOT + "21 20 0:40 / /data rw - nfs4 server:/data rw\n")
    collector = machine.collector("/data")
    assert devices(collector) == ["sda"]
    assert collector.gaps == ("/data is on nfs4, which has no local device",)


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs", "zfs", "overlay", "fuseblk", "nfsd"])
def test_other_filesystems_have_a_local_device(filesystem: str) -> None:
    assert has_local_device(filesystem)


def test_a_missing_path_does_not_count_as_its_parent(machine: Machine) -> None:
    machine.mounts(ROOT + "21 20 8:16 / /data rw - ext4 /dev/sdb rw\n")
    machine.device("sdb", "8:16")
    machine.absent.add("/home/job")
    assert devices(machine.collector("/data")) == ["sdb"]


def test_a_machine_without_disks_is_unavailable(tmp_path: Path) -> None:
    bare = Machine(tmp_path / "bare")
    with pytest.raises(Unavailable, match=r"are unknown: all disks are counted; no disk in /sys/block$"):
        bare.collector()
