"""Small machines for tests of one collector: a tree of files that a test writes and changes."""

from __future__ import annotations

from pathlib import Path

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.machine.host import Host

V2_MOUNT = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def tree(root: Path, files: dict[str, str]) -> Host:
    """Writes files below `root` and returns the host they make."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Host(root=root, environ={}, process_seconds=_no_clock)


def group_v2(group: str = "/job") -> dict[str, str]:
    """Returns the files that say that the job is in a group of v2."""
    return {"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": V2_MOUNT}


def values(collector: Collector, now: float) -> dict[str, float]:
    """Returns what a collector says at one moment, by key."""
    return {sample.key: sample.value for sample in collector.collect(now)}


def _no_clock(pid: int) -> float:
    raise OSError(22, "Invalid argument", str(pid))
