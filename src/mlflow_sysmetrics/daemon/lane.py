"""The way of one series of points: on disk first, then into the outbox that its sender empties."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_sysmetrics.daemon.outbox import Outbox
from mlflow_sysmetrics.daemon.points import Point
from mlflow_sysmetrics.daemon.sender import Sender


class Lane:
    """Takes the points of one run from one source, from the sampler's thread alone.

    Attributes:
        sender: the sender of the run's tracking server.
        outbox: what the run is owed.
    """

    def __init__(self, sender: Sender, outbox: Outbox) -> None:
        self.sender = sender
        self.outbox = outbox

    def keep(self, points: Sequence[Point]) -> None:
        """Puts points on disk, then into the outbox: a crash in between loses nothing."""
        if not points or self.outbox.refused is not None:
            return
        backing = self.outbox.backing
        # Nobody else adds points to this outbox, so this is the index that they will have.
        place = None if backing is None else backing.append(self.outbox.appended, points)
        taken = self.sender.append(self.outbox, points, place=place)
        if not taken and backing is not None:  # given up in this moment
            backing.acknowledge(self.outbox.settled)

    def end(self) -> None:
        """Says that no more points will come, and has those that wait sent: somebody waits for them."""
        if self.outbox.backing is not None:
            self.outbox.backing.end()
        self.sender.hasten([self.outbox])
