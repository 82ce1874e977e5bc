"""Which block devices are behind a filesystem: their counters are its throughput.

Source:  /sys/dev/block/<major:minor>/uevent, /sys/class/block/<device>/{partition,slaves}, /sys/block,
         /sys/fs/btrfs; https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-block
Check:   lsblk
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from mlflow_sysmetrics.collectors.kernel_files import listed, text_of
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.mounts import (
    Mount,
    below_root,
    has_local_device,
    mount_of,
    read_mounts,
    real_path,
)

_ANONYMOUS_MAJOR = "0"  # Documentation/admin-guide/devices.txt: unnamed devices
_CLASS = "sys/class/block"


def devices_behind(host: Host, mount: Mount, mounts: Sequence[Mount]) -> frozenset[str] | None:
    """Returns the names of the devices that a filesystem reads and writes; None if they are unknown.

    A partition is represented by its whole disk, a device-mapper or md device by itself: the filesystem's
    view.
    """
    if not mount.device.startswith(f"{_ANONYMOUS_MAJOR}:"):
        name = _device_of_number(host, mount.device)
        return None if name is None else frozenset((whole_disk(host, name),))
    if mount.filesystem == "overlay":
        return _devices_of_overlay(host, mount, mounts)
    if mount.source.startswith("/dev/"):  # filesystems with subvolumes, such as btrfs, have anonymous numbers
        name = Path(real_path(host, mount.source)).name
        members = _btrfs_members(host, name) or (name,)
        if all(_exists(host, f"{_CLASS}/{member}/stat") for member in members):
            return frozenset(whole_disk(host, member) for member in members)
    return None


def physical_disks(host: Host) -> frozenset[str]:
    """Returns the hardware disks: no loop, RAM, device-mapper or md devices, and no hidden NVMe paths."""
    return frozenset(
        name
        for name in _names(host, "sys/block")
        if _exists(host, f"sys/block/{name}/device") and _text(host, f"sys/block/{name}/hidden") != "1"
    )


def whole_disk(host: Host, name: str) -> str:
    """Returns the disk of a partition; any other device unchanged."""
    if not _exists(host, f"{_CLASS}/{name}/partition"):
        return name
    # A partition's directory is inside its disk's; the class directory only links to it.
    parent = Path(os.path.realpath(host.root / _CLASS / name)).parent.name
    if not _exists(host, f"{_CLASS}/{parent}/stat"):  # a recorded tree without links: sda1, nvme0n1p1
        parent = re.sub(r"(?<=\d)p\d+$|(?<=\D)\d+$", "", name)
    return parent if _exists(host, f"{_CLASS}/{parent}/stat") else name


def without_overlaps(host: Host, names: Iterable[str]) -> frozenset[str]:
    """Returns the devices; one that lies on another of them is replaced by the disks below it.

    If one path lies on a logical volume and another on a plain partition of the same disk, the disk counts
    the volume's bytes too.
    """
    remaining = set(names)
    for name in sorted(remaining):
        disks = _disks_below(host, name)
        if disks & remaining:
            remaining.remove(name)
            remaining |= {disk for disk in disks if not _names(host, f"{_CLASS}/{disk}/slaves")}
    return frozenset(remaining)


def counting_devices(host: Host, name: str) -> list[str]:
    """Returns the devices whose counters represent a device: itself, or none if it keeps no statistics.

    Before Linux 6.3 an NVMe disk with several paths counts nothing, but its otherwise hidden paths do.
    """
    # Devices without hardware, such as device-mapper and md, count whatever their queue's switch says.
    if _text(host, f"{_CLASS}/{name}/queue/iostats") != "0" or not _exists(host, f"{_CLASS}/{name}/device"):
        return [name]
    path = re.sub(r"^(nvme\d+)(n\d+)$", r"\1c[0-9]*\2", name)
    return [one for one in _names(host, _CLASS) if path != name and fnmatch(one, path)]


def _device_of_number(host: Host, number: str) -> str | None:
    match = re.search(r"^DEVNAME=(\S+)$", _text(host, f"sys/dev/block/{number}/uevent"), re.MULTILINE)
    # The name of a device node may contain a directory ("cciss/c0d0"), which sysfs writes with "!".
    name = match[1].replace("/", "!") if match else None
    return name if name is not None and _exists(host, f"{_CLASS}/{name}/stat") else None


def _devices_of_overlay(host: Host, overlay: Mount, mounts: Sequence[Mount]) -> frozenset[str] | None:
    """Returns the devices of the directories below an overlay; inside a container these are invisible."""
    layers = [path for path in overlay.paths("upperdir") + overlay.paths("lowerdir") if path.startswith("/")]
    found: set[str] = set()
    for path in layers:
        mount = mount_of(real_path(host, path), mounts) if os.path.isdir(below_root(host, path)) else None
        # A path that leads into an overlay is a host path that also exists in this container.
        if mount is None or mount.filesystem == "overlay":
            return None
        if has_local_device(mount.filesystem):
            devices = devices_behind(host, mount, mounts)
            if devices is None:
                return None
            found |= devices
    return frozenset(found) or None


def _btrfs_members(host: Host, name: str) -> list[str]:
    """Returns all devices of the btrfs to which a device belongs; the mount table shows only one."""
    for uuid in _names(host, "sys/fs/btrfs"):
        members = _names(host, f"sys/fs/btrfs/{uuid}/devices")
        if name in members:
            return members
    return []


def _disks_below(host: Host, name: str) -> set[str]:
    return {whole_disk(host, below) for below in _below(host, name, {name})}


def _below(host: Host, name: str, seen: set[str]) -> Iterator[str]:
    for slave in (*_names(host, f"{_CLASS}/{name}/slaves"), *_behind_loop(host, name)):
        if slave not in seen:
            seen.add(slave)
            yield slave
            yield from _below(host, slave, seen)


def _behind_loop(host: Host, name: str) -> frozenset[str]:
    """Returns the devices that hold the file of a loop device; none for other devices."""
    file = _text(host, f"{_CLASS}/{name}/loop/backing_file")
    mounts = read_mounts(host) if file else ()
    mount = mount_of(real_path(host, file), mounts) if mounts else None
    return (devices_behind(host, mount, mounts) if mount else None) or frozenset()


def _names(host: Host, directory: str) -> list[str]:
    return listed(str(host.root / directory))


def _exists(host: Host, path: str) -> bool:
    return os.path.exists(host.root / path)  # not Path.exists, which raises if access is denied


def _text(host: Host, path: str) -> str:
    return text_of(str(host.root / path))
