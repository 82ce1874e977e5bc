"""Disk I/O: which devices back the watched paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from disk_machine import ROOT, Machine, devices, stat, with_root_on_sda

from mlflow_sysmetrics.collectors.block_devices import without_overlaps
from mlflow_sysmetrics.errors import Unavailable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the paths are those of Linux, with colons in names")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return with_root_on_sda(tmp_path)


def test_a_partition_counts_as_its_disk(machine: Machine) -> None:
    assert devices(machine.collector()) == ["sda"]


def test_a_partition_is_found_in_its_disks_directory(machine: Machine) -> None:
    """As on a real machine, where the class directory contains only links."""
    machine.write("sys/devices/pci/block/vda/stat", stat())
    machine.write("sys/devices/pci/block/vda/vda-odd/stat", stat())
    machine.write("sys/devices/pci/block/vda/vda-odd/partition", "1\n")
    for name, target in (("vda", "vda"), ("vda-odd", "vda/vda-odd")):
        (machine.root / "sys/class/block" / name).symlink_to(f"../../devices/pci/block/{target}")
    machine.write("sys/dev/block/8:1/uevent", "DEVNAME=vda-odd\n")
    assert devices(machine.collector()) == ["vda"]


@pytest.mark.parametrize(("disk", "partition"), [("nvme0n1", "nvme0n1p2"), ("sdb", "sdb12")])
def test_the_name_of_a_partition_identifies_its_disk_as_a_last_resort(
    machine: Machine, disk: str, partition: str
) -> None:
    machine.device(disk)
    machine.device(partition, "8:1", partition=True)
    assert devices(machine.collector()) == [disk]


def test_a_partition_without_a_known_disk_counts_itself(machine: Machine) -> None:
    machine.device("sdq1", "8:1", partition=True)
    assert devices(machine.collector()) == ["sdq1"]


def test_a_logical_volume_counts_itself(machine: Machine) -> None:
    machine.mounts("20 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n")
    machine.device("dm-0", "253:0")
    machine.lies_on("dm-0", "sda1")
    assert devices(machine.collector()) == ["dm-0"]


def test_a_volume_and_a_partition_of_one_disk_count_as_the_disk(machine: Machine) -> None:
    machine.mounts(ROOT + "21 20 253:0 / /data rw - ext4 /dev/mapper/vg-data rw\n")
    machine.device("dm-0", "253:0")
    machine.lies_on("dm-0", "sda1")
    assert devices(machine.collector("/data")) == ["sda"]


def test_a_disk_of_an_array_includes_the_other_disks(machine: Machine) -> None:
    machine.lies_on("dm-0", "md0")
    machine.lies_on("md0", "sda1", "sdb1")
    for name in ("sdb", "dm-0", "md0"):
        machine.device(name)
    machine.device("sdb1", partition=True)
    assert without_overlaps(machine.host(), ["dm-0", "md0", "sda"]) == {"sda", "sdb"}
    assert without_overlaps(machine.host(), ["dm-0"]) == {"dm-0"}


def test_a_cycle_of_slaves_ends(machine: Machine) -> None:
    machine.lies_on("dm-0", "dm-1", "sda")
    machine.lies_on("dm-1", "dm-0")
    assert without_overlaps(machine.host(), ["dm-0", "sda"]) == {"sda"}


def test_a_slash_in_a_device_name_becomes_an_exclamation_mark(machine: Machine) -> None:
    machine.device("cciss!c0d0", "8:1")
    assert devices(machine.collector()) == ["cciss!c0d0"]


def test_btrfs_is_identified_by_its_source(machine: Machine) -> None:
    machine.mounts("20 1 0:30 /@ / rw - btrfs /dev/mapper/root rw,subvol=/@\n")
    machine.write("dev/dm-3")
    (machine.root / "dev/mapper").mkdir()
    (machine.root / "dev/mapper/root").symlink_to("../dm-3")
    machine.device("dm-3")
    assert devices(machine.collector()) == ["dm-3"]


def test_btrfs_on_two_disks_counts_both(machine: Machine) -> None:
    machine.mounts("20 1 0:30 /@ / rw - btrfs /dev/sda1 rw,subvol=/@\n")
    machine.device("sdb")
    for uuid, members in (("11-22", ("sdx",)), ("aa-bb", ("sda1", "sdb"))):
        for member in members:
            machine.write(f"sys/fs/btrfs/{uuid}/devices/{member}/uevent")
    assert devices(machine.collector()) == ["sda", "sdb"]


def test_nvme_paths_replace_a_disk_without_counters(machine: Machine) -> None:
    machine.mounts("20 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n")
    machine.device("nvme0n1", "259:0", physical=True)
    machine.write("sys/class/block/nvme0n1/queue/iostats", "0\n")
    for name in ("nvme0c0n1", "nvme0c12n1", "nvme1c0n1", "nvme0c0n2"):
        machine.device(name)
    assert devices(machine.collector()) == ["nvme0c0n1", "nvme0c12n1"]


def test_the_message_about_disabled_iostats_includes_the_remedy(machine: Machine) -> None:
    machine.write("sys/class/block/sda/queue/iostats", "0\n")
    with pytest.raises(Unavailable, match="sda keeps no statistics: write 1 to /sys/block/sda/queue/iostats"):
        machine.collector()


def test_iostats_of_a_virtual_device_is_ignored(machine: Machine) -> None:
    machine.mounts("20 1 253:0 / / rw - ext4 /dev/dm-0 rw\n")
    machine.device("dm-0", "253:0")
    machine.write("sys/class/block/dm-0/queue/iostats", "0\n")
    assert devices(machine.collector()) == ["dm-0"]
