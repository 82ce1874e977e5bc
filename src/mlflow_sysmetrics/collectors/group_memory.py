"""Memory of a cgroup: its working set and its swap.

Source:  v2 memory.current, inactive_file in memory.stat, memory.swap.current; v1 memory.usage_in_bytes,
         total_inactive_file and total_swap in memory.stat.
Units:   bytes. The working set leaves out file pages that the kernel drops before it kills, as kubelet and
         `docker stats` do.
Cost:    two reads, 2 kB.
Check:   cat /sys/fs/cgroup/memory.current; grep inactive_file /sys/fs/cgroup/memory.stat
"""

from __future__ import annotations

from mlflow_sysmetrics.collectors.fields import count, number_after
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import V2, ControllerDirectory
from mlflow_sysmetrics.machine.host import Host, read_short


class GroupMemory:
    """Reads the memory of one group.

    Args:
        host: the machine to read.
        directory: where the memory controller keeps the own group's files.
        path: the group's directory, one of `directory.paths`.

    Raises:
        Unavailable: the group does not tell, because its controller is off.
    """

    def __init__(self, host: Host, directory: ControllerDirectory, path: str) -> None:
        v2 = directory.version == V2
        self._stat = str(host.root / path / "memory.stat")
        self._usage = str(host.root / path / ("memory.current" if v2 else "memory.usage_in_bytes"))
        self._inactive = b"inactive_file " if v2 else b"total_inactive_file "
        self._swap = str(host.root / path / "memory.swap.current") if v2 else None
        self.working_set()

    def working_set(self) -> int:
        """Returns the bytes that the group holds and that the kernel cannot simply drop.

        Raises:
            Unavailable: the group is gone, or a file does not tell.
        """
        try:
            inactive = number_after(self._inactive, read_short(self._stat))
            usage = count(read_short(self._usage))
        except (OSError, ValueError) as error:
            raise Unavailable(f"the memory of the cgroup cannot be read: {error}") from error
        if inactive is None:
            raise Unavailable(f"{self._stat} has no {self._inactive.decode().strip()}")
        return max(usage - inactive, 0)

    def swap(self) -> int | None:
        """Returns the bytes that the group has in swap space; None where that is not counted."""
        try:
            if self._swap is None:
                return number_after(b"total_swap ", read_short(self._stat))
            return count(read_short(self._swap))
        except (OSError, ValueError):
            return None
