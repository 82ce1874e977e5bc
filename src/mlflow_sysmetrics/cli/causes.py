"""Why a process ended without a word, as far as the kernel or its last points tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlflow_sysmetrics.collectors.fields import number_after
from mlflow_sysmetrics.host import read_short

UNKNOWN = "the process ended without a word"
_COUNTS = ("memory.events", "memory.oom_control")  # of cgroup v2 and v1
_MEMORY = "/system_memory_usage_percentage"
# The kernel kills at the limit. A point is the mean of up to ten seconds of which the last are the fullest.
_FULL_PERCENT = 95


def cause(cgroup: str | None, kills_before: int | None, system: Mapping[str, float]) -> str:
    """Returns what is known of the end of a run's process.

    Args:
        cgroup: directory of its memory control group on this machine; None where it is not known.
        kills_before: what that group had counted when the run began.
        system: newest value of each ``system/`` series of the run.
    """
    found = _kills(cgroup) if cgroup is not None else None
    if found is not None and kills_before is not None and found[1] > kills_before:
        file, kills = found[0], found[1] - kills_before
        return f"out of memory: {file} counted {kills} kill{'' if kills == 1 else 's'}"
    fullest = max((value for key, value in system.items() if key.endswith(_MEMORY)), default=0.0)
    if fullest >= _FULL_PERCENT:
        return f"out of memory likely: memory at {fullest:.0f} % in the last point"
    return UNKNOWN


def _kills(cgroup: str) -> tuple[str, int] | None:
    """Returns which file of a group counts its kills, and how many; None where the group is gone."""
    # Absolute in the journal or relative to the root of the host: both are the same here.
    directory = Path("/") / cgroup
    for name in _COUNTS:
        try:
            kills = number_after(b"oom_kill ", read_short(str(directory / name)))
        except OSError:
            continue
        if kills is not None:
            return name, kills
    return None
