"""How many points go into one request."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.daemon.delivery.points import Point

# FOLDED allowance: How many points the process may hold in memory, all runs and servers together.

# About 2.5 MB: a point takes 120 bytes, since its key and its timestamp are shared. Sixteen minutes of outage
# for eight runs at the default rate, so the disk is read back in real outages only.
MAX_BUFFERED_POINTS = 20_000
# Where no disk takes them, memory must: 25 MB, nearly three hours of outage for eight runs of 26 series.
MAX_UNSAVED_POINTS = 200_000


class MemoryBudget:
    """Counts the points that are in memory.

    Args:
        held: over so many, points that are on disk are not held in memory too.
        unsaved: over so many, the oldest are dropped.
    """

    def __init__(self, buffered: int = MAX_BUFFERED_POINTS, unsaved: int = MAX_UNSAVED_POINTS) -> None:
        self._held = buffered
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


# MLflow's own limits, https://mlflow.org/docs/latest/rest-api#request-limits
MAX_POINTS = 1000
_MAX_BYTES = 1_000_000
# {"key": , "value": -1.7976931348623157e+308, "timestamp": 1700000000000, "step": 1000000000}, and a comma
_BYTES_BESIDE_KEY = 100
_BYTES_BESIDE_TAG = 30  # {"key": , "value": }, and a comma
_BYTES_OF_FRAME = 200  # run id, braces
# A limit is a server's configuration and seldom changes; a wrong guess costs one request in a hundred.
_BATCHES_UNTIL_RETRIAL = 100


class BatchSize:
    """Learns how many points a server takes in one request: Azure, for one, refuses more than 200.

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
        for count, point in enumerate(points):
            size += _BYTES_BESIDE_KEY + _json_bytes(point.key)
            if size > _MAX_BYTES:
                return max(count, 1)
        return len(points)

    def refused(self, count: int) -> None:
        """Takes note that so many points were too many: half of them are tried next."""
        self.most = max(count // 2, 1)
        self._taken = 0

    def taken(self, count: int) -> None:
        """Takes note that the server took so many; after many full batches it is asked for twice as much."""
        if count < self.most or self.most == MAX_POINTS:
            return
        self._taken += 1
        if self._taken >= _BATCHES_UNTIL_RETRIAL:
            self.reset(self.most * 2)

    def reset(self, most: int = MAX_POINTS) -> None:
        """Forgets what was learned, since it was about one point and not about the size."""
        self.most = min(most, MAX_POINTS)
        self._taken = 0


def _json_bytes(text: str) -> int:
    """Returns the length of a string in JSON, with its quotes and escapes."""
    return len(json.dumps(text))
