"""The search for points that a server refuses, so that they do not hold back the others of their run.

If MLflow names something in the request as invalid, a batch is halved until one point is left: that is the
one. An error that may have other reasons (HTTP 500 from a database, 413 from a proxy) proves nothing alone: a
server that is out of order answers the same to any point. Then a single point is given up only after it has
failed five times, and another point of the run was accepted after each failure.
"""

from __future__ import annotations

from mlflow_sysmetrics.daemon.delivery.points import Batch

# Of a server that fails at random, other points fail too; each such failure calls for one more proof.
_PROOFS_NEEDED = 5
_MOST_PROOFS_NEEDED = 10


class Bisection:
    """The state of a search in one queue.

    Args:
        count: number of points or tags in the batch that failed.
        until: one more than the index of its newest point.

    Attributes:
        most: how many points or tags to send at once.
        until: as above; the search ends there.
        suspect: a single point that has failed, while another one is tried.
        reason: why it has failed.
        control: how many points after the suspect is the one to try now; 0 to send from the front.
    """

    def __init__(self, count: int, until: int) -> None:
        self.most = max(count // 2, 1)
        self.until = until
        self.suspect: Batch | None = None
        self.reason = ""
        self.control = 0
        self._distance = self._first_distance = 1
        self._proofs = self._control_failures = 0

    def failed(self, count: int) -> None:
        """Records that a batch of several points or tags failed."""
        self.most = max(count // 2, 1)

    def accepted(self, count: int) -> None:
        """Records that a batch was accepted: the next may be twice as large."""
        self.most = max(count * 2, 1)

    def try_control(self, suspect: Batch, reason: str, others: int) -> None:
        """Records that a single point failed, and why; the next attempt is with one of those behind it."""
        if self.suspect is None or self.suspect.until != suspect.until:
            self._proofs = 0
        self.suspect, self.reason = suspect, reason
        if self._distance > 2 * others:
            self._first_distance = self._first_distance + 2 if self._first_distance < others else 1
            self._distance = self._first_distance
        self.control = min(self._distance, others)

    def control_failed(self, *, exists: bool) -> None:
        """Records that the other point failed too, or that there is none at that distance.

        Neighbours often share what is wrong with a point, such as their time. The distances are 1,
        2, 4, 8 and so on, then 3, 6, 12 and so on, then 5, 10, until there is a point that passes.
        """
        self.control = self._proofs = 0
        self._control_failures += exists
        self._distance *= 2

    def control_accepted(self) -> bool:
        """Records that the server took the other point; returns whether the suspect is to be given up."""
        self.control = 0
        self._proofs += 1
        return self._proofs >= min(_PROOFS_NEEDED + self._control_failures, _MOST_PROOFS_NEEDED)
