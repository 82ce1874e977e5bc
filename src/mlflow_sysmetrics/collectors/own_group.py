"""What the job's own cgroup has used, and whether the job is still in it.

CPU time: v2 usage_usec in cpu.stat; v1 cpuacct.usage in nanoseconds. Includes processes that have ended. One
          read of 30 to 200 bytes.
Memory:   v2 memory.current, inactive_file in memory.stat, memory.swap.current; v1 memory.usage_in_bytes,
          total_inactive_file and total_swap in memory.stat. The working set excludes file pages that the
          kernel drops before it kills, as in kubelet and `docker stats`. Two reads, 2 kB.
Absent:   CPU time in v1, if the counted group (cpuacct) is neither the limited group (cpu, cpuset) nor inside
          it: its time would include other jobs.
Check:    cat /sys/fs/cgroup/{cpu.stat,memory.current}; grep inactive_file /sys/fs/cgroup/memory.stat
"""

from __future__ import annotations

from itertools import chain

from mlflow_sysmetrics.collectors.contract import MICROSECONDS
from mlflow_sysmetrics.collectors.kernel_files import count, number_after
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import (
    V2,
    ControllerDirectory,
    controller_directory,
    limit_files,
    unified_directory,
)
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import SAME_TICK_SECONDS, read_bytes
from mlflow_sysmetrics.machine.reasons import why_unread

_GROUPS = "proc/self/cgroup"


class LimitWatch:
    """Notices within four ticks that a limit on the job has changed, or that it was moved to another cgroup.

    Args:
        host: the machine to read.
        controllers: the controllers whose limits matter: "cpu", "cpuset", "memory".
    """

    def __init__(self, host: Host, *controllers: str) -> None:
        self._host = host
        self._files = host.files
        self._controllers = controllers
        self._version = host.files.version
        self._watch()

    def changed(self, now: float) -> bool:
        """Returns whether something has changed since the last call that returned True; cheap.

        Args:
            now: seconds of a clock that never goes back.
        """
        files = self._files
        if not 0 <= now - files.checked_at < SAME_TICK_SECONDS:  # else another collector has asked
            files.check(now)
        if files.version == self._version:
            return False
        self._version = files.version
        self._watch()
        return True

    def _watch(self) -> None:
        files = chain.from_iterable(limit_files(self._host, controller) for controller in self._controllers)
        self._host.files.watch([str(self._host.root / _GROUPS), *files])


class OwnGroup(LimitWatch):
    """Notices when the job is moved to another cgroup; the files read until then would be another job's.

    Args:
        host: the machine to read.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._path = str(host.root / _GROUPS)
        self._groups = self._read()

    def confirm(self) -> None:
        """Looks, after a change, whether the groups are still the same.

        Raises:
            Unavailable: they are not; a new collector finds the job's group.
        """
        if self._read() != self._groups:
            raise Unavailable("the job was moved to another cgroup")

    def _read(self) -> bytes:
        try:
            return read_bytes(self._path)
        except OSError:
            return b""


_NANOSECONDS = 1e9


class GroupCpuTime:
    """Reads the CPU time of the job's own group.

    Args:
        host: the machine to read.
        controller: the controller that limits the group, "cpu" or "cpuset".

    Raises:
        Unavailable: the time of that group is not counted.
    """

    def __init__(self, host: Host, controller: str) -> None:
        held = controller_directory(host, controller)
        if held.version == V2:
            counted, self._v2 = held, True
        else:
            counted, self._v2 = _counted(host, held)
        name = "cpu.stat" if self._v2 else "cpuacct.usage"
        self._file = host.files.keep(str(host.root / counted.own / name))
        self.seconds()

    def seconds(self) -> float:
        """Returns the CPU time since the group was created.

        Raises:
            Unavailable: the group is gone, or its file has no CPU time.
        """
        try:
            text = self._file.read()
            if not self._v2:
                return count(text) / _NANOSECONDS
        except (OSError, ValueError) as error:
            reason = why_unread(error, self._file.path)
            raise Unavailable(f"the CPU time of the cgroup cannot be read: {reason}") from error
        usage = number_after(b"usage_usec ", text)
        if usage is None:
            raise Unavailable(f"{self._file.path} has no usage_usec")
        return usage / MICROSECONDS


def _counted(host: Host, held: ControllerDirectory) -> tuple[ControllerDirectory, bool]:
    """Returns a directory that counts the limited group, and whether it is v2."""
    for find, v2 in ((_of_v1, False), (unified_directory, True)):
        try:
            counted = find(host)
        except Unavailable:
            continue
        if f"{counted.group}/".startswith(f"{held.group.rstrip('/')}/"):
            return counted, v2
    raise Unavailable(f"no hierarchy counts the CPU time of the cgroup {held.group}")


def _of_v1(host: Host) -> ControllerDirectory:
    directory = controller_directory(host, "cpuacct")
    if directory.version == V2:  # cpuacct exists in v1 only
        raise Unavailable("no cpuacct")
    return directory


class GroupMemory:
    """Reads the memory of one group.

    Attributes:
        usage: all bytes of the group at the last reading, with those that the kernel can drop.

    Args:
        host: the machine to read.
        directory: where the memory controller keeps the job's own group.
        path: the group's directory, one of `directory.paths`.

    Attributes:
        inherited: v1: the limit of this group and its ancestors, including those that a container does not
            see, as of the last reading.

    Raises:
        Unavailable: the group has no such files, because its controller is off.
    """

    def __init__(self, host: Host, directory: ControllerDirectory, path: str) -> None:
        v2 = directory.version == V2
        keep, group = host.files.keep, str(host.root / path)
        self._stat = keep(f"{group}/memory.stat")
        self._usage = keep(f"{group}/{'memory.current' if v2 else 'memory.usage_in_bytes'}")
        self._inactive = b"inactive_file " if v2 else b"total_inactive_file "
        self._swap = keep(f"{group}/memory.swap.current") if v2 else None
        self._text = b""
        self.inherited: int | None = None
        self.usage = 0
        self.working_set()

    def working_set(self) -> int:
        """Returns the bytes that the group holds and the kernel cannot simply drop.

        Raises:
            Unavailable: the group is gone, or a file has no such value.
        """
        try:
            text = self._text = self._stat.read()
            inactive = number_after(self._inactive, text)
            usage = count(self._usage.read())
        except (OSError, ValueError) as error:
            reason = why_unread(error, "" if isinstance(error, OSError) else self._usage.path)
            raise Unavailable(f"the memory of the cgroup cannot be read: {reason}") from error
        if inactive is None:
            raise Unavailable(f"{self._stat.path} has no {self._inactive.decode().strip()}")
        if self._swap is None:
            self.inherited = number_after(b"hierarchical_memory_limit ", text)
        self.usage = usage
        return max(usage - inactive, 0)

    def swap(self) -> int | None:
        """Returns the bytes that the group has in swap space; None if that is not counted.

        In v1 that is of the same moment as the last working set.
        """
        try:
            if self._swap is None:
                return number_after(b"total_swap ", self._text)
            return count(self._swap.read())
        except (OSError, ValueError):
            return None
