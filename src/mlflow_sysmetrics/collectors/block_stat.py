"""What the kernel counts of one block device.

https://docs.kernel.org/block/stat.html
"""

from __future__ import annotations

from typing import NamedTuple

from mlflow_sysmetrics.collectors.fields import WORD

_SECTOR_BYTES = 512  # in this file, whatever the device's own sectors are
_READ, _WRITTEN, _BUSY = 2, 6, 9
_BUSY_WRAPS_AT = 2**32  # the kernel prints an unsigned int of milliseconds: 50 days


class DeviceWork(NamedTuple):
    """What a device did, since it came up or between two readings; `busy_ms` is None where it is unknown."""

    read_bytes: int
    written_bytes: int
    busy_ms: int | None


def parse_stat(text: bytes) -> DeviceWork:
    """Returns what a device did since it came up from the text of its stat file.

    Raises:
        ValueError: the text is none.
    """
    fields = text.split(None, _BUSY + 1)
    if len(fields) <= _BUSY + 1:  # one more than is read: a text cut within a number is refused
        raise ValueError(f"{text[:40]!r} are not the counters of a block device")
    read, written, busy = int(fields[_READ]), int(fields[_WRITTEN]), int(fields[_BUSY])
    if min(read, written, busy) < 0 or max(read, written, busy) >= WORD:
        raise ValueError(f"{text[:40]!r} are not the counters of a block device")
    # A driver that counts sectors but no time leaves 0 there for ever.
    counts_time = busy > 0 or not (read or written)
    return DeviceWork(read * _SECTOR_BYTES, written * _SECTOR_BYTES, busy if counts_time else None)


def work_between(before: DeviceWork, now: DeviceWork) -> DeviceWork | None:
    """Returns what a device did between two readings; None where it started again in between."""
    read, written = now.read_bytes - before.read_bytes, now.written_bytes - before.written_bytes
    if read < 0 or written < 0:
        return None
    if before.busy_ms is None or now.busy_ms is None:
        return DeviceWork(read, written, None)
    busy = (now.busy_ms - before.busy_ms) % _BUSY_WRAPS_AT
    # More than half the range ahead means behind.
    return DeviceWork(read, written, busy if busy < _BUSY_WRAPS_AT // 2 else None)
