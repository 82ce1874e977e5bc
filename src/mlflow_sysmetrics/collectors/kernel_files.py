"""Text files of the kernel: one number, or a table of labelled numbers, and directories of /sys.

A number that may have been cut off is rejected. In /sys a missing file or directory is an answer, not an
error.
"""

from __future__ import annotations

import os

from mlflow_sysmetrics.machine.kept_files import read_bytes
from mlflow_sysmetrics.machine.reasons import Malformed, quoted

WORD = 2**64  #: kernel counters are 64-bit words; a larger number is invalid


def number_after(label: bytes, text: bytes) -> int | None:
    """Returns the count that follows `label` at the start of a line; None if there is none.

    Extracting one field from /proc/meminfo or memory.stat costs a tenth of splitting all lines.

    Args:
        label: the field's name and its separator: ``b"MemTotal:"``, ``b"usage_usec "``.
        text: lines that each end with a newline; a line without one was cut off and is rejected.
    """
    if text.startswith(label):
        start = len(label)
    else:
        start = text.find(b"\n" + label)
        if start < 0:
            return None
        start += 1 + len(label)
    end = text.find(b"\n", start)
    try:
        number = int(text[start:end].split(None, 1)[0]) if end >= 0 else -1
    except (IndexError, ValueError):
        return None
    return number if 0 <= number < WORD else None


def count(text: bytes) -> int:
    """Returns the number in a file that holds one counter.

    Args:
        text: the file's content; without a final newline it was cut off, and the number with it.

    Raises:
        Malformed: it is not a count.
    """
    try:
        number = int(text) if text.endswith(b"\n") else -1
    except ValueError:
        number = -1
    if not 0 <= number < WORD:
        raise Malformed(f"{quoted(text)} is not a count")
    return number


def listed(directory: str) -> list[str]:
    """Returns the sorted names in a directory; empty if it is missing or may not be read."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def text_of(path: str) -> str:
    """Returns a file's text without the final newline; "" if it is missing or may not be read."""
    try:
        return os.fsdecode(read_bytes(path)).strip()
    except OSError:
        return ""
