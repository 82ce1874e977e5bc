"""How many points the process may hold in memory, all runs and servers together."""

from __future__ import annotations

import threading

# About 2.5 MB: a point takes 120 bytes, since its key and its timestamp are shared. Sixteen minutes of outage
# for eight runs at the default rate, so the disk is read back in real outages only.
MAX_HELD_POINTS = 20_000
# Where no disk takes them, memory must: 25 MB, nearly three hours of outage for eight runs of 26 series.
MAX_UNSAVED_POINTS = 200_000


class Allowance:
    """Counts the points that are in memory.

    Args:
        held: over so many, points that are on disk are not held in memory too.
        unsaved: over so many, the oldest are dropped.
    """

    def __init__(self, held: int = MAX_HELD_POINTS, unsaved: int = MAX_UNSAVED_POINTS) -> None:
        self._held = held
        self._unsaved = unsaved
        self._used = 0
        self._lock = threading.Lock()  # of several senders; nothing is called while it is held

    @property
    def is_used_up(self) -> bool:
        """Whether points that are on disk stay there."""
        return self._used >= self._held

    @property
    def excess(self) -> int:
        """How many points must be dropped."""
        return max(self._used - self._unsaved, 0)

    def add(self, points: int) -> None:
        """Counts points that came, or less than none that went."""
        with self._lock:
            self._used += points
