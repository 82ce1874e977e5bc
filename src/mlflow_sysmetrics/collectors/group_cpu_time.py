"""CPU time that the job's own cgroup has used, all that has ended in it included.

Source:  v2 usage_usec in cpu.stat; v1 cpuacct.usage in nanoseconds.
Cost:    one read of 30 to 200 bytes.
Absent:  in v1, where the group that is counted (cpuacct) is not the group that is limited (cpu, cpuset) or
         one inside it: its time would be that of others too.
Check:   cat /sys/fs/cgroup/cpu.stat
"""

from __future__ import annotations

from mlflow_sysmetrics.collectors.contract import MICROSECONDS
from mlflow_sysmetrics.collectors.fields import count, number_after
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import V2, ControllerDirectory, controller_directory, unified_directory
from mlflow_sysmetrics.machine.host import Host, read_short

_NANOSECONDS = 1e9


class GroupCpuTime:
    """Reads the CPU time of the own group.

    Args:
        host: the machine to read.
        controller: the one whose limit holds the group, "cpu" or "cpuset".

    Raises:
        Unavailable: the time of that group is not counted.
    """

    def __init__(self, host: Host, controller: str) -> None:
        held = controller_directory(host, controller)
        if held.version == V2:
            counted, self._v2 = held, True
        else:
            counted, self._v2 = _counted(host, held)
        self._path = str(host.root / counted.own / ("cpu.stat" if self._v2 else "cpuacct.usage"))
        self.seconds()

    def seconds(self) -> float:
        """Returns the CPU time since the group was made.

        Raises:
            Unavailable: the group is gone, or its file does not tell the time.
        """
        try:
            text = read_short(self._path)
            if not self._v2:
                return count(text) / _NANOSECONDS
        except (OSError, ValueError) as error:
            raise Unavailable(f"the CPU time of the cgroup cannot be read: {error}") from error
        usage = number_after(b"usage_usec ", text)
        if usage is None:
            raise Unavailable(f"{self._path} has no usage_usec")
        return usage / MICROSECONDS


def _counted(host: Host, held: ControllerDirectory) -> tuple[ControllerDirectory, bool]:
    """Returns a directory that counts the group that is held, and whether it is of v2."""
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
    if directory.version == V2:  # where v1 does not have it, the controller does not exist
        raise Unavailable("no cpuacct")
    return directory
