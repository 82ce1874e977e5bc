"""Small machines for tests of one collector: file trees that a test writes and changes."""

from __future__ import annotations

from pathlib import Path

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.machine.host import Host

V2_MOUNT = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def tree(root: Path, files: dict[str, str]) -> Host:
    """Writes files below `root` and returns a host with that root."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Host(root=root, environ={}, process_seconds=_no_clock)


def group_v2(group: str = "/job") -> dict[str, str]:
    """Returns the files that place the job in a cgroup of v2."""
    return {"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": V2_MOUNT}


def values(collector: Collector, now: float) -> dict[str, float]:
    """Returns the values of a collector at one moment, by key."""
    return {sample.key: sample.value for sample in collector.collect(now)}


def _no_clock(pid: int) -> float:
    raise OSError(22, "Invalid argument", str(pid))
