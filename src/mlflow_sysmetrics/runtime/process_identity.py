"""Identifies a process across restarts and containers, and finds out whether it still runs.

A process id alone does not identify a process: ids are reused, and mean nothing on another machine, in
another container or after a reboot.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
# Start times are counted from the boot in hundredths of a second, and the boot time moves slightly when the
# clock is set. Only slightly: the first process of a restarted container has its predecessor's id and host
# name, and with a wide tolerance would be mistaken for it.
_TOLERANCE_SECONDS = 2.0


def this_process() -> dict[str, Any]:
    """Returns what identifies this process, as JSON can hold it."""
    import psutil

    return {**_place(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def is_gone(process: object) -> bool:
    """Returns whether a process has certainly ended: it ran on this machine and does not any more.

    A process on another machine, or in another container of the same name, cannot be seen from here and
    counts as running.

    Args:
        process: what `this_process` returned there.
    """
    here = _place()
    if not isinstance(process, Mapping) or process.get("host") != here["host"]:
        return False
    if process.get("boot") != here["boot"]:
        return True  # the machine has been restarted since
    if process.get("namespace") != here["namespace"]:
        return False
    try:
        began = process["began"]
        return not is_running(process["pid"], began_after=began, began_before=began)
    except (OSError, KeyError, TypeError, ValueError):
        return False


def is_running(pid: int, *, began_before: float, began_after: float = -math.inf) -> bool:
    """Returns whether a process of this machine runs: not another one that got its id later.

    True as well if the operating system does not let us look at it.

    Args:
        pid: its id.
        began_before: seconds since 1970 by which it had started, give or take two.
        began_after: seconds since 1970 before which it had not started, give or take two.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        began = process.create_time()
        if not began_after - _TOLERANCE_SECONDS <= began <= began_before + _TOLERANCE_SECONDS:
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return True


def _place() -> dict[str, Any]:
    """Returns the machine, its boot, and the namespace in which process ids are valid."""
    try:
        boot, namespace = _BOOT.read_text("ascii").strip(), _NAMESPACE.stat().st_ino
    except OSError:  # not Linux
        boot, namespace = "", 0
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}
