"""What the daemon of a process is doing, for who asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the daemon of this process is doing.

    Attributes:
        running: whether its threads have been started.
        attached: ids of the runs that it feeds.
        ticks: passes over the collectors so far.
        points_delivered: points that tracking servers took.
        points_pending: points that wait for delivery.
        points_unsaved: how many of them are in memory only.
        points_dropped: points that were given up.
        last_error: why the last attempt to deliver failed; None when all servers answer.
        collectors: health of each collector by name: "ok", "ok, but ..." with what of its source this host
            lacks, or the reason why it yields nothing.
        journal: the file that keeps points until their server has them; None where there is none yet.
        journal_bytes: its size.
        journal_failed: why points are kept in memory only; None while nothing speaks against the disk.
    """

    running: bool = False
    attached: tuple[str, ...] = ()
    ticks: int = 0
    points_delivered: int = 0
    points_pending: int = 0
    points_unsaved: int = 0
    points_dropped: int = 0
    last_error: str | None = None
    collectors: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    journal: str | None = None
    journal_bytes: int = 0
    journal_failed: str | None = None
