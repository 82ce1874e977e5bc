"""How often a run is sent, how many points go into one request, and how many may be held in memory."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.runtime.native import Lock

# About 2.5 MB: a point takes 120 bytes, since its key and its timestamp are shared. Sixteen minutes of outage
# for eight runs at the default rate, so only real outages cause reads from disk.
MAX_BUFFERED_POINTS = 20_000
# Points that cannot be written to disk: 25 MB, nearly three hours of outage for eight runs of 26 series.
MAX_UNSAVED_POINTS = 200_000

# 240 MB: four thousand runs at 23 points a second have 920,000 between two sends.
MAX_POINTS_IN_FLIGHT = 2_000_000

_HARD_FACTOR = 4
_ARRIVAL_SECONDS = 15.0  # half again as long as between two sends, and counted for at least as long

_FIRST_SECONDS = 0.5  # a run that is shorter costs one request, not two
_TOGETHER_SECONDS = 1.0
_EARLY_SENDS = 2
_TOLERANCE = 0.05  # a send may be early or late by this share of the interval

# MLflow's own limits, https://mlflow.org/docs/latest/rest-api#request-limits
MAX_POINTS = 1000
_MAX_BYTES = 1_000_000
# {"key": , "value": -1.7976931348623157e+308, "timestamp": 1700000000000, "step": 1000000000}, and a comma
_BYTES_BESIDE_KEY = 100
_MOST_BYTES_OF_CHARACTER = 12  # two escapes, for a character outside the basic plane
_BYTES_BESIDE_TAG = 30  # {"key": , "value": }, and a comma
_BYTES_OF_FRAME = 200  # run id, braces
# A server's limit is configured and rarely changes; a wrong guess costs one request in a hundred.
_BATCHES_UNTIL_RETRIAL = 100


class SendInterval:
    """When a run is sent: at an interval, after two earlier sends.

    The first points show that the run is alive: they are sent sooner, the first rates as soon as they are
    there. If that is at once, one send brings both.

    Args:
        send_interval: seconds between two sends, after the first two.
        early_interval: seconds until the first rates.
    """

    def __init__(self, send_interval: float, early_interval: float) -> None:
        self._send_interval = send_interval
        together = early_interval <= _TOGETHER_SECONDS
        sooner = (_TOGETHER_SECONDS,) if together else (_FIRST_SECONDS, early_interval)
        self._intervals = deque(min(interval, send_interval) for interval in sooner)
        self._sent_at: float | None = None  # before the first send, when the first point arrived

    def due_at(self, now: float) -> float:
        """Returns when to send a point that arrives now.

        A point may trigger the send slightly before the interval is over; otherwise the send happens slightly
        after it. So the point of a window that closes just when the send is due travels with this send, not
        with the next.
        """
        if self._sent_at is None:
            self._sent_at = now
        interval = self._intervals[0] if self._intervals else self._send_interval
        early = self._sent_at + (1 - _TOLERANCE) * interval
        return now if now >= early else self._sent_at + (1 + _TOLERANCE) * interval

    def sent(self, now: float) -> None:
        """Records a send."""
        if len(self._intervals) != _EARLY_SENDS:  # the second is planned from the first point
            self._sent_at = now
        if self._intervals:
            self._intervals.popleft()


class MemoryBudget:
    """Counts the points in memory, of all runs and servers of the process.

    As many points as have arrived lately are on their way to a server that takes them, and that is no reason
    to leave them on disk: a thousand runs at a point a second have 230,000. So while a server takes points,
    its bounds are no lower than that number.

    Args:
        buffered: above this number, points that are on disk are not kept in memory as well.
        unsaved: above this number, the oldest points are dropped.
        in_flight: the most that the number of points that arrived lately may raise both.
    """

    def __init__(
        self,
        buffered: int = MAX_BUFFERED_POINTS,
        unsaved: int = MAX_UNSAVED_POINTS,
        in_flight: int = MAX_POINTS_IN_FLIGHT,
    ) -> None:
        self._buffered = buffered
        self._unsaved = unsaved
        self._most_in_flight = in_flight
        self._used = self._arrived = self._arrived_before = 0
        self._period_ends = -math.inf
        self._lock = Lock()  # shared by all senders; no other code runs under it

    def is_used_up(self, *, failing: bool) -> bool:
        """Returns whether points that are on disk stay there.

        Args:
            failing: whether their server has not taken the last ones.
        """
        return self._used >= self._buffered and self._used > self._expected(failing=failing)

    def excess(self, *, failing: bool) -> int:
        """Returns how many points are too many, on disk or not."""
        return max(self._used - max(self._unsaved, self._expected(failing=failing)), 0)

    def hard_excess(self, *, failing: bool) -> int:
        """Returns how many points must be dropped even if their server takes points, only not fast enough."""
        most = self._unsaved if failing else _HARD_FACTOR * self._unsaved
        return max(self._used - max(most, self._expected(failing=failing)), 0)

    @property
    def margin(self) -> int:
        """How many points there may be in excess for a moment: looking for what to drop takes time."""
        return self._unsaved // 20

    def add(self, points: int) -> None:
        """Adds to the count; negative for points released."""
        with self._lock:
            self._used += points

    def arrived(self, points: int, now: float) -> None:
        """Counts points that arrive at a monotonic time, whether they stay in memory or not."""
        with self._lock:
            if now >= self._period_ends:
                is_next = now < self._period_ends + _ARRIVAL_SECONDS
                self._arrived_before = self._arrived if is_next else 0
                self._arrived = 0
                self._period_ends = now + _ARRIVAL_SECONDS
            self._arrived += points

    def _expected(self, *, failing: bool) -> int:
        """Returns how many points may be on their way to a server that takes them."""
        return 0 if failing else min(self._arrived + self._arrived_before, self._most_in_flight)


class BatchSize:
    """Learns how many points a server takes in one request: Azure, for one, rejects more than 200.

    Attributes:
        most: how many points to send at once.
    """

    def __init__(self) -> None:
        self.most = MAX_POINTS
        self._taken = 0

    def fitting(self, points: Sequence[Point], tags: Mapping[str, str]) -> int:
        """Returns how many of the points, from the first, fit into one request; at least one."""
        size = _BYTES_OF_FRAME + sum(
            _BYTES_BESIDE_TAG + _json_bytes(key) + _json_bytes(value) for key, value in tags.items()
        )
        # Nearly all requests fit however their keys are written; exact lengths cost more than sending.
        characters = sum([len(point.key) for point in points])
        if size + _BYTES_BESIDE_KEY * len(points) + _MOST_BYTES_OF_CHARACTER * characters <= _MAX_BYTES:
            return len(points)
        for count, point in enumerate(points):
            size += _BYTES_BESIDE_KEY + _json_bytes(point.key)
            if size > _MAX_BYTES:
                return max(count, 1)
        return len(points)

    def refused(self, count: int) -> None:
        """Records that a batch of `count` points was too large: the next has half as many."""
        self.most = max(count // 2, 1)
        self._taken = 0

    def taken(self, count: int) -> None:
        """Records that the server took `count` points; after 100 full batches the limit is doubled."""
        if count < self.most or self.most == MAX_POINTS:
            return
        self._taken += 1
        if self._taken >= _BATCHES_UNTIL_RETRIAL:
            self.reset(self.most * 2)

    def reset(self, most: int = MAX_POINTS) -> None:
        """Forgets what was learned: a single point was too large, not the batch."""
        self.most = min(most, MAX_POINTS)
        self._taken = 0


def _json_bytes(text: str) -> int:
    """Returns the length of a string in JSON, with its quotes and escapes."""
    return len(json.dumps(text))
