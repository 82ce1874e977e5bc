"""Processes of the job that the kernel killed because memory ran out.

Source:  oom_kill in memory.events of the job's cgroup, nested groups included; v1 in memory.oom_control, the
         job's group only.
Units:   kills since the collector was built; the daemon counts from each run's attach.
Cost:    one read of 100 bytes.
Absent:  no memory cgroup but the root, which does not count; v1 before Linux 4.13.
Check:   cat /sys/fs/cgroup/memory.events
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters
from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.collectors.own_group import OwnGroup
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import V2, controller_directory
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample


class OomLinux(Collector):
    """Kills by the out-of-memory killer in the job's cgroup."""

    cumulative = True
    family: ClassVar[Family] = Family.MEMORY
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.MEMORY_OOM_KILLS,)

    def __init__(self, host: Host) -> None:
        self._group = OwnGroup(host)
        self._file = host.files.keep(_find(host))
        self._text: bytes | None = None
        self._count = self._read()
        self._counter = Counters(bounds.OOM_KILLS, from_zero=bounds.FROM_ZERO)
        self._counter.follow((self._count,), NO_CLOCK)
        self._kills = 0

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns the kills since the collector was built.

        Raises:
            Unavailable: the job's cgroup has changed or is gone; a new collector finds it.
        """
        if self._group.changed(now):
            self._group.confirm()
        step = self._counter.follow((self._read(),), now)
        if step is None:
            return ()
        self._kills += step.grown[0]
        return [catalogue.MEMORY_OOM_KILLS.sample(self._kills)]

    def _read(self) -> int:
        try:
            text = self._file.read()
        except OSError as error:
            raise Unavailable(f"the kills of the cgroup cannot be read: {why_unread(error)}") from error
        if text != self._text:
            kills = number_after(b"oom_kill ", text)
            if kills is None:
                raise Unavailable(f"{self._file.path} has no count of kills")
            self._text, self._count = text, kills
        return self._count


def _find(host: Host) -> str:
    """Returns the file that counts the kills of the job's own group."""
    directory = controller_directory(host, "memory")
    name = "memory.events" if directory.version == V2 else "memory.oom_control"
    files = [str(host.root / path / name) for path in directory.paths]
    # A group whose controller is off has no such file; its nearest ancestor's counts for it.
    found = next((file for file in files if os.path.exists(file)), None)
    if found is None:
        raise Unavailable(f"no {name} counts the kills of the job's cgroup")
    return found
