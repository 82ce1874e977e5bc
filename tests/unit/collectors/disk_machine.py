"""A machine with disks, as files that a test writes and changes."""

from __future__ import annotations

from pathlib import Path

from mlflow_sysmetrics.collectors.disk_io_linux import DiskIoLinux
from mlflow_sysmetrics.machine.host import DiskUsage, Host

_SECTORS_PER_MEGABYTE = 1e6 / 512
ROOT = "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"


def stat(read: float = 0, written: float = 0, busy: int = 1) -> str:
    """Returns the text of a stat file; arguments are megabytes and milliseconds."""
    return f" 1 2 {read * _SECTORS_PER_MEGABYTE:.0f} 4 5 6 {written * _SECTORS_PER_MEGABYTE:.0f} 8 0 {busy} 11 0 0 0 0 0 0\n"


class Machine:
    """A host with disks, whose job works in /home/job."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.absent: set[str] = set()

    def host(self, *disks: str) -> Host:
        return Host(
            root=self.root, disk_usage=self._usage, working_directory=lambda: "/home/job", disks=disks
        )

    def collector(self, *disks: str) -> DiskIoLinux:
        return DiskIoLinux(self.host(*disks))

    def mounts(self, text: str) -> None:
        self.write("proc/self/mountinfo", text)

    def write(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def device(self, name: str, number: str = "", *, partition: bool = False, physical: bool = False) -> None:
        """Writes the files that /sys has for a device."""
        self.counts(name, stat())
        if number:
            self.write(f"sys/dev/block/{number}/uevent", f"MAJOR=8\nDEVNAME={name.replace('!', '/')}\n")
        if partition:
            self.write(f"sys/class/block/{name}/partition", "1\n")
        if physical:
            self.write(f"sys/block/{name}/device/uevent")
            self.write(f"sys/class/block/{name}/device/uevent")

    def counts(self, name: str, text: str) -> Path:
        return self.write(f"sys/class/block/{name}/stat", text)

    def lies_on(self, name: str, *below: str) -> None:
        for one in below:
            self.write(f"sys/class/block/{name}/slaves/{one}/uevent")

    def _usage(self, path: str) -> DiskUsage:
        if path in self.absent:
            raise FileNotFoundError(2, "No such file or directory", path)
        return DiskUsage(4, 1, 3)


def with_root_on_sda(root: Path) -> Machine:
    """Returns a machine whose root lies on the first partition of sda."""
    made = Machine(root)
    made.mounts(ROOT)
    made.device("sda", "8:0", physical=True)
    made.device("sda1", "8:1", partition=True)
    return made


def devices(collector: DiskIoLinux) -> list[str]:
    return list(collector._stats)


def values(collector: DiskIoLinux, now: float) -> dict[str, float]:
    return {sample.key: sample.value for sample in collector.collect(now)}
