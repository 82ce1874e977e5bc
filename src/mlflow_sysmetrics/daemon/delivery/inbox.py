"""Where the threads of a program leave points of their own, for the sampler to take.

Leaving them costs microseconds and waits for nothing. They are taken together, a second after the first at
the latest, so that a training that writes at each of its steps has the sampler woken twice in a second.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.runtime.clock import Clock

# FOLDED lane: The way of one series of points: on disk first, then into the queue that its sender empties.


class Channel:
    """Takes the points of one run from one source, from the sampler's thread alone.

    Attributes:
        sender: the sender of the run's tracking server.
        queue: what the run is owed.
    """

    def __init__(self, sender: Sender, queue: RunQueue) -> None:
        self.sender = sender
        self.queue = queue

    def put(self, points: Sequence[Point]) -> None:
        """Puts points on disk, then into the queue: a crash in between loses nothing."""
        if not points or self.queue.refused is not None:
            return
        run_journal = self.queue.run_journal
        # Nobody else adds points to this queue, so this is the index that they will have.
        place = None if run_journal is None else run_journal.append(self.queue.appended, points)
        taken = self.sender.append(self.queue, points, place=place)
        if not taken and run_journal is not None:  # given up in this moment
            run_journal.acknowledge(self.queue.acknowledged)

    def end(self) -> None:
        """Says that no more points will come, and has those that wait sent: somebody waits for them."""
        if self.queue.run_journal is not None:
            self.queue.run_journal.end()
        self.sender.expedite([self.queue])


# FOLDED open_lanes: The lanes that programs write into at this moment, by the run that they lead to.

Key: TypeAlias = tuple[str, str]  #: tracking URI and run id
Gather: TypeAlias = Callable[[], None]  #: puts into its lane what was held back so far


class OpenChannels:
    """Holds lanes until they are closed. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may come back in
        self._channels: dict[Key, dict[Channel, Gather | None]] = {}

    def add(self, key: Key, channel: Channel, gather: Gather | None) -> None:
        """Takes a lane of a run."""
        with self._lock:
            self._channels.setdefault(key, {})[channel] = gather

    def remove(self, channel: Channel) -> None:
        """Lets go of a lane."""
        with self._lock:
            for key in [key for key, channels in self._channels.items() if channel in channels]:
                del self._channels[key][channel]
                if not self._channels[key]:
                    del self._channels[key]

    def of(self, key: Key) -> list[Channel]:
        """Returns the lanes of a run."""
        with self._lock:
            return list(self._channels.get(key, ()))

    def gather(self, key: Key | None = None) -> None:
        """Has programs hand over what they hold back: for one run, or for all."""
        with self._lock:
            chosen = list(self._channels.values()) if key is None else [self._channels.get(key, {})]
            gathers = [one for channels in chosen for one in channels.values() if one is not None]
        for gather in gathers:  # without the lock: a device may take its time
            gather()


_COLLECT_SECONDS = 1.0
_MANY = 1000  # what a request to a server may hold, too: so many are taken at once
# A bound of the memory, some 20 MB, for a sampler that a source holds up: the newest are not taken then.
_MOST = 100_000


class Inbox:
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
        self._points: dict[Channel, list[Point]] = {}
        self._count = 0
        self._lost: dict[Channel, int] = {}
        self._ending: list[Channel] = []
        self._waiters: list[threading.Event] = []

    def put(self, channel: Channel, points: Sequence[Point]) -> None:
        """Leaves points for a run. From any thread; waits for nothing."""
        with self._lock:
            if self._count + len(points) > _MOST:
                self._lost[channel] = self._lost.get(channel, 0) + len(points)
                return
            self._points.setdefault(channel, []).extend(points)
            self._count += len(points)
            first = math.isinf(self.due_at)
            if first:
                self.due_at = self._clock.monotonic() + _COLLECT_SECONDS
            if self._count >= _MANY > self._count - len(points):
                self.due_at = self._clock.monotonic()
                first = True
        if first:
            self._wake()

    def expedite(self, *, ending: Channel | None = None) -> threading.Event:
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
        """Takes everything: on disk, then into the queues. For the sampler."""
        if math.isinf(self.due_at):
            return
        with self._lock:
            points, self._points = self._points, {}
            lost, self._lost = self._lost, {}
            ending, self._ending = self._ending, []
            waiters, self._waiters = self._waiters, []
            self._count = 0
            self.due_at = math.inf
        for channel, of_channel in points.items():
            for first in range(0, len(of_channel), _MANY):
                channel.put(of_channel[first : first + _MANY])
        for channel, count in lost.items():
            channel.sender.count_lost(channel.queue, count)
        for channel in ending:
            channel.end()
        for done in waiters:
            done.set()
