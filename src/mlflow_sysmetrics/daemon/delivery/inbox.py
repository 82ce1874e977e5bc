"""Where threads of the program leave their own points for the sampler to collect.

Leaving points takes microseconds and never blocks. The sampler collects them together, at most a second after
the first, so a training that writes at each step wakes the sampler twice a second at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.journal.run_journal import ProcessRunJournal, append_together
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.native import Event, RLock

RunKey: TypeAlias = tuple[str, str]  #: tracking URI and run id
Gather: TypeAlias = Callable[[], None]  #: writes points that the program has held back so far

_COLLECT_SECONDS = 1.0
_MANY = 1000  # this many points are collected at once: they fill one request to a server
# Bounds the memory at about 20 MB while a slow source holds up the sampler. Beyond it new points are lost.
_MOST = 100_000


class Channel:
    """Takes the points of one source for one run. Called by the sampler's thread only.

    Args:
        sender: the sender of the run's tracking server.
        queue: the queue of these points.
        buffer: writes them to disk with those of other runs.

    Attributes:
        sender: as above.
        queue: as above.
    """

    def __init__(self, sender: Sender, queue: RunQueue, buffer: PointBuffer | None = None) -> None:
        self.sender = sender
        self.queue = queue
        self._buffer = buffer or PointBuffer()
        sender.open()

    def put(self, points: Sequence[Point]) -> None:
        """Writes points to disk, then into the queue: a crash in between loses nothing."""
        if points and self.queue.refused is None:
            self._buffer.put(self, points)

    def enqueue(self, points: Sequence[Point], place: int | None) -> None:
        """Puts points into the queue, after they were written to a place on disk; None if they were not."""
        taken = self.sender.append(self.queue, points, place=place)
        if not taken and self.queue.run_journal is not None:  # the run was given up at this moment
            self.queue.run_journal.acknowledge(self.queue.acknowledged)

    def put_tags(self, tags: dict[str, str], *, at_once: bool) -> None:
        """Queues tags, which travel with the next points; or sends them at once."""
        self.sender.append(self.queue, tags=tags)
        if at_once:
            self.sender.expedite([self.queue])

    def end(self) -> None:
        """Marks the end of the points and makes the waiting ones due at once: a caller waits for them."""
        if self.queue.run_journal is not None:
            self.queue.run_journal.end()
        self.sender.end(self.queue)


class PointBuffer:
    """Writes points to disk, and then puts them into their queues.

    In a ``with`` block of the sampler's thread those of all runs are written together, at its end: asking the
    thread that writes takes as long as writing. Otherwise at once.
    """

    def __init__(self) -> None:
        self._waiting: dict[Channel, Sequence[Point]] = {}
        self._failing: Channel | None = None
        self._is_open = False

    def __enter__(self) -> None:
        self._is_open = True

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._hand_over()

    def put(self, channel: Channel, points: Sequence[Point]) -> None:
        """Takes points of a channel."""
        if channel in self._waiting:  # their indices follow those of the ones that wait
            self._hand_over()
        if self._is_open:
            self._waiting[channel] = points
        else:
            channel.enqueue(points, _write({channel: points}).get(channel))

    def _hand_over(self) -> None:
        """Takes off the list what is done. A channel that fails twice in a row loses its points."""
        places = _write(self._waiting)
        for channel, points in list(self._waiting.items()):
            try:
                channel.enqueue(points, places.get(channel))
            except BaseException:
                # Not enough memory, or an exception set in this thread: no run may hold up the others.
                if self._failing is not channel:
                    self._failing = channel
                    raise
                channel.sender.count_lost(channel.queue, len(points))
            self._failing = None
            del self._waiting[channel]


def _write(waiting: Mapping[Channel, Sequence[Point]]) -> dict[Channel, int | None]:
    """Writes the points of each channel to disk; returns where."""
    places: dict[Channel, int | None] = {}
    together = []
    # No other thread appends to these queues, so the points will have the indices from here on.
    for channel, points in waiting.items():
        run_journal = channel.queue.run_journal
        if isinstance(run_journal, ProcessRunJournal):
            together.append((channel, (run_journal, channel.queue.appended, points)))
        elif run_journal is not None:
            places[channel] = run_journal.append(channel.queue.appended, points)
    if together:
        found = append_together([append for _, append in together])
        places |= zip((channel for channel, _ in together), found, strict=True)
    return places


class Channels:
    """The channels that the program writes to, or has written to, by run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._channels: dict[RunKey, dict[Channel, Gather | None]] = {}
        self._ended: dict[RunKey, dict[Channel, Event]] = {}  # whose points may still wait

    def add(self, key: RunKey, channel: Channel, gather: Gather | None) -> None:
        """Adds a channel of a run."""
        with self._lock:
            self._channels.setdefault(key, {})[channel] = gather

    def end(self, channel: Channel, collected: Event) -> None:
        """Moves a channel that gets no more points to those whose points may still wait.

        Args:
            channel: the channel.
            collected: is set when all its points are in its queue.
        """
        with self._lock:
            for key in [key for key, channels in self._channels.items() if channel in channels]:
                del self._channels[key][channel]
                if not self._channels[key]:
                    del self._channels[key]
                self._ended.setdefault(key, {})[channel] = collected
            self._forget_delivered()

    def of(self, key: RunKey) -> list[Channel]:
        """Returns the channels of a run, with those that have ended while points of theirs may wait."""
        with self._lock:
            self._forget_delivered()
            return [*self._channels.get(key, ()), *self._ended.get(key, ())]

    def _forget_delivered(self) -> None:
        for key, channels in list(self._ended.items()):
            for channel, collected in list(channels.items()):
                if collected.is_set() and channel.queue.empty:
                    del channels[channel]
            if not channels:
                del self._ended[key]

    def gather(self, key: RunKey | None = None) -> None:
        """Makes the program write the points it has held back: of one run, or of all."""
        with self._lock:
            chosen = list(self._channels.values()) if key is None else [self._channels.get(key, {})]
            gathers = [one for channels in chosen for one in channels.values() if one is not None]
        for gather in gathers:  # without the lock: reading a device may take long
            gather()


class Inbox:
    """Holds points until the sampler collects them.

    Args:
        clock: the time source.
        wake: makes the sampler check `due_at` again.

    Attributes:
        due_at: monotonic time at which to collect; infinity while there is nothing to do.
    """

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self.due_at = math.inf
        self._clock = clock
        self._wake = wake
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._points: dict[Channel, list[Point]] = {}
        self._count = 0
        self._lost: dict[Channel, int] = {}
        self._ending: list[Channel] = []
        self._waiters: list[Event] = []
        self._failing: set[Channel] = set()

    def put(self, channel: Channel, points: Sequence[Point]) -> None:
        """Leaves points for a run. Thread-safe, never blocks."""
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

    def expedite(self, *, ending: Channel | None = None) -> Event:
        """Makes the sampler collect everything at once.

        Args:
            ending: a channel that gets no more points.

        Returns:
            An event that is set when that is done.
        """
        done = Event()
        with self._lock:
            if ending is not None:
                self._ending.append(ending)
            self._waiters.append(done)
            self.due_at = self._clock.monotonic()
        self._wake()
        return done

    def collect(self) -> None:
        """Moves everything to disk and into the queues. Called by the sampler."""
        if math.isinf(self.due_at):
            return
        with self._lock:
            points, self._points = self._points, {}
            lost, self._lost = self._lost, {}
            ending, self._ending = self._ending, []
            waiters, self._waiters = self._waiters, []
            self._count = 0
            self.due_at = math.inf
        try:
            self._hand_over(points, lost, ending)
        except BaseException:
            self._take_back(points, lost, ending, waiters)
            raise
        for done in waiters:
            done.set()

    def _hand_over(
        self, points: dict[Channel, list[Point]], lost: dict[Channel, int], ending: list[Channel]
    ) -> None:
        """Takes off each list what is done. A channel that fails twice in a row loses its points."""
        for channel, of_channel in list(points.items()):
            while of_channel:
                try:
                    channel.put(of_channel[:_MANY])
                except BaseException:
                    # Not enough memory, or an exception set in this thread: no run may hold up the others.
                    if channel not in self._failing:
                        self._failing.add(channel)
                        raise
                    lost[channel] = lost.get(channel, 0) + len(of_channel[:_MANY])
                self._failing.discard(channel)
                del of_channel[:_MANY]
            del points[channel]
        while lost:
            channel, count = lost.popitem()
            channel.sender.count_lost(channel.queue, count)
        while ending:
            ending.pop(0).end()

    def _take_back(
        self,
        points: dict[Channel, list[Point]],
        lost: dict[Channel, int],
        ending: list[Channel],
        waiters: list[Event],
    ) -> None:
        """Has what is left handed over later, before what has come since."""
        with self._lock:
            for channel, of_channel in points.items():
                self._count += len(of_channel)
                self._points[channel] = of_channel + self._points.get(channel, [])
            for channel, count in lost.items():
                self._lost[channel] = self._lost.get(channel, 0) + count
            self._ending[:0] = ending
            self._waiters[:0] = waiters
            self.due_at = self._clock.monotonic()
