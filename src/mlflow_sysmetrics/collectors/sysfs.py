"""Directories and one-line files of /sys, where what is missing is an answer and no error."""

from __future__ import annotations

import os

from mlflow_sysmetrics.machine.host import read_bytes


def listed(directory: str) -> list[str]:
    """Returns the names in a directory, in order; none where it is missing or may not be read."""
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names, not paths
    except OSError:
        return []


def text_of(path: str) -> str:
    """Returns what a file says, without its end of line; "" where it is missing or may not be read."""
    try:
        return os.fsdecode(read_bytes(path)).strip()
    except OSError:
        return ""
