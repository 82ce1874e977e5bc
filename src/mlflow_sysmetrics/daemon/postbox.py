"""Where the threads of a program leave points of their own, for the sampler to take.

Leaving them costs microseconds and waits for nothing. They are taken together, a second after the first at
the latest, so that a training that writes at each of its steps has the sampler woken twice in a second.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

from mlflow_sysmetrics.clock import Clock
from mlflow_sysmetrics.daemon.lane import Lane
from mlflow_sysmetrics.daemon.points import Point

_COLLECT_SECONDS = 1.0
_MANY = 1000  # what a request to a server may hold, too: so many are taken at once
# A bound of the memory, some 20 MB, for a sampler that a source holds up: the newest are not taken then.
_MOST = 100_000


class Postbox:
    """Holds points until the sampler takes them.

    Args:
        clock: tells the time.
        wake: has the sampler look at `due_at` again.
    """

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self.due_at = math.inf  #: monotonic time at which what is in it is to be taken
        self._clock = clock
        self._wake = wake
        self._lock = threading.RLock()  # a signal handler may come back in
        self._points: dict[Lane, list[Point]] = {}
        self._count = 0
        self._lost: dict[Lane, int] = {}
        self._ending: list[Lane] = []
        self._waiters: list[threading.Event] = []

    def put(self, lane: Lane, points: Sequence[Point]) -> None:
        """Leaves points for a run. From any thread; waits for nothing."""
        with self._lock:
            if self._count + len(points) > _MOST:
                self._lost[lane] = self._lost.get(lane, 0) + len(points)
                return
            self._points.setdefault(lane, []).extend(points)
            self._count += len(points)
            first = math.isinf(self.due_at)
            if first:
                self.due_at = self._clock.monotonic() + _COLLECT_SECONDS
            if self._count >= _MANY > self._count - len(points):
                self.due_at = self._clock.monotonic()
                first = True
        if first:
            self._wake()

    def hasten(self, *, ending: Lane | None = None) -> threading.Event:
        """Has everything taken at once.

        Args:
            ending: a lane that gets no more points.

        Returns:
            What tells when that is done.
        """
        done = threading.Event()
        with self._lock:
            if ending is not None:
                self._ending.append(ending)
            self._waiters.append(done)
            self.due_at = self._clock.monotonic()
        self._wake()
        return done

    def collect(self) -> None:
        """Takes everything: on disk, then into the outboxes. For the sampler."""
        if math.isinf(self.due_at):
            return
        with self._lock:
            points, self._points = self._points, {}
            lost, self._lost = self._lost, {}
            ending, self._ending = self._ending, []
            waiters, self._waiters = self._waiters, []
            self._count = 0
            self.due_at = math.inf
        for lane, of_lane in points.items():
            for first in range(0, len(of_lane), _MANY):
                lane.keep(of_lane[first : first + _MANY])
        for lane, count in lost.items():
            lane.sender.count_lost(lane.outbox, count)
        for lane in ending:
            lane.end()
        for done in waiters:
            done.set()
