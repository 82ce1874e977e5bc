"""Which process carries out a trial, written down so that another can tell whether it is gone."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
# The boot's time, from which the ages of processes are counted, moves a little when the clock is set.
_TOLERANCE_SECONDS = 2.0


def this_process() -> dict[str, Any]:
    """Returns what tells this process from every other, as JSON can hold it."""
    return {**_place(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def is_gone(process: object) -> bool:
    """Returns whether a process certainly lives no more: it was on this machine, and is not there.

    One on another machine, or in another container of the same name, cannot be seen from here, and counts
    as alive.

    Args:
        process: what `this_process` has returned in it.
    """
    here = _place()
    if not isinstance(process, Mapping) or process.get("host") != here["host"]:
        return False
    if process.get("boot") != here["boot"]:
        return True  # the machine was started again since
    if process.get("namespace") != here["namespace"]:
        return False
    try:
        there = psutil.Process(process["pid"])
        age_differs = abs(there.create_time() - process["began"]) > _TOLERANCE_SECONDS
        return age_differs or there.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError, KeyError, TypeError, ValueError):
        return False


def _place() -> dict[str, Any]:
    """Returns the machine, since when it is up, and in which of its rooms process ids mean the same."""
    try:
        boot, namespace = _BOOT.read_text("ascii").strip(), _NAMESPACE.stat().st_ino
    except OSError:  # not Linux
        boot, namespace = "", 0
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}
