"""What one server has taken, and what it still is owed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivery:
    """Counts of one sender, since it began.

    Attributes:
        delivered: points that the server took.
        pending: points that wait.
        unsaved: how many of them are in memory only.
        dropped: points that were given up: refused by the server, or too many for memory or disk.
        last_error: why the last attempt failed, None when it did not.
    """

    delivered: int
    pending: int
    unsaved: int
    dropped: int
    last_error: str | None


@dataclass(slots=True)
class Account:
    """Counts of one sender, while they grow.

    Attributes:
        delivered: as in `Delivery`.
        pending: as there.
        dropped: as there.
        last_error: as there.
    """

    delivered: int = 0
    pending: int = 0
    dropped: int = 0
    last_error: str | None = None

    def settle(self, gone: int, lost: int) -> None:
        """Takes note of points that wait no more, and how many of them will not reach the server."""
        self.delivered += gone - lost
        self.dropped += lost
        self.pending -= gone

    def freeze(self, unsaved: int) -> Delivery:
        """Returns the counts so far."""
        return Delivery(self.delivered, self.pending, unsaved, self.dropped, self.last_error)
