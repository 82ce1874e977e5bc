"""The senders of a process: one per tracking server in use, and a few threads for points of dead processes.

A program chooses its tracking URIs, and a sweep or a test suite may choose a new one for each run. So a
sender is forgotten once its runs have ended and all their points are delivered. Journals of dead processes
may name any number of servers that no longer exist; their senders share a few threads.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable

from mlflow_sysmetrics.daemon.delivery.inbox import Channel, PointBuffer
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.policy import Counters, DeliveryCounts
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.delivery.sink import Sink
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.native import Condition, RLock
from mlflow_sysmetrics.runtime.threads import start_thread

THREAD_NAME = "sysmetrics-sender"
ORPHANS_THREAD_NAME = "sysmetrics-sender-orphans"

# Four hanging servers delay the others by half a minute; their next attempts are a minute apart.
_MOST_ORPHAN_THREADS = 4
# Earlier tracking URIs of the program, whose servers may still see its credentials.
_MOST_REMEMBERED = 64

_logger = Log()


class Senders:
    """The senders of the program's own tracking servers, and those for dead processes. Thread-safe.

    Args:
        open_sink: opens the sink of a tracking server.
        clock: the time source.
        memory: the memory budget of the process.
        journal: the journal of this process.

    Attributes:
        buffer: writes the points of all runs to disk.
    """

    def __init__(
        self, open_sink: Callable[[str], Sink], clock: Clock, memory: MemoryBudget, journal: ProcessJournal
    ) -> None:
        self._open_sink = open_sink
        self._clock = clock
        self._memory = memory
        self._journal = journal
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._senders: dict[str, Sender] = {}
        self._numbers = itertools.count()
        self._earlier: dict[str, None] = {}  # as an ordered set
        self._finished = Counters()
        self.buffer = PointBuffer()
        self._orphans = OrphanSenders(open_sink, clock)

    @property
    def tracking_uris(self) -> list[str]:
        """The tracking URIs that the program uses, or has used lately, with credentials."""
        with self._lock:
            return list(dict.fromkeys([*self._senders, *self._earlier]))

    def is_in_use(self, tracking_uri: str) -> bool:
        """Returns whether the program itself delivers to a tracking URI now."""
        return tracking_uri in self._senders

    def open_channel(self, tracking_uri: str, queue: RunQueue) -> Channel:
        """Returns a channel to the sender of a tracking server, which is made if there is none."""
        with self._lock:
            sender = self._senders.get(tracking_uri)
            if sender is None:
                self._forget_finished()
                sender = Sender(
                    tracking_uri, self._open_sink, self._clock, memory=self._memory, journal=self._journal
                )
                sender.thread_name = f"{THREAD_NAME}-{next(self._numbers)}"
                self._senders[tracking_uri] = sender
            return Channel(sender, queue, self.buffer)

    def adopt(self, tracking_uri: str, queue: RunQueue) -> None:
        """Takes over the queue of a process that died."""
        self._orphans.adopt(tracking_uri, queue)

    def all(self) -> list[Sender]:
        """Returns the senders of the program's own points."""
        with self._lock:
            return list(self._senders.values())

    def counts(self) -> DeliveryCounts:
        """Returns the counts of all runs of this process so far."""
        with self._lock:
            counts = [sender.counts() for sender in self._senders.values()]
            return DeliveryCounts(
                delivered=self._finished.delivered + sum(count.delivered for count in counts),
                pending=sum(count.pending for count in counts),
                unsaved=sum(count.unsaved for count in counts),
                dropped=self._finished.dropped + sum(count.dropped for count in counts),
                last_error=next((count.last_error for count in counts if count.last_error), None),
            )

    def _forget_finished(self) -> None:
        for uri, sender in list(self._senders.items()):
            if not sender.is_finished:
                continue
            counts = sender.counts()
            self._finished.delivered += counts.delivered
            self._finished.dropped += counts.dropped
            del self._senders[uri]
            self._earlier.pop(uri, None)
            self._earlier[uri] = None
        while len(self._earlier) > _MOST_REMEMBERED:
            del self._earlier[next(iter(self._earlier))]


class OrphanSenders:
    """Delivers what dead processes left behind, with at most four threads, however many servers there are.

    Args:
        open_sink: opens the sink of a tracking server.
        clock: the time source.
    """

    def __init__(self, open_sink: Callable[[str], Sink], clock: Clock) -> None:
        self._open_sink = open_sink
        self._clock = clock
        self._changed = Condition()
        self._senders: dict[str, Sender] = {}
        self._busy: set[Sender] = set()
        self._threads = 0
        self._numbers = itertools.count()

    def adopt(self, tracking_uri: str, queue: RunQueue) -> None:
        """Takes over a queue.

        Raises:
            ThreadUnavailable: no thread can be started, and none is running.
        """
        with self._changed:
            sender = self._senders.get(tracking_uri)
            if sender is None:
                sender = self._senders[tracking_uri] = Sender(tracking_uri, self._open_sink, self._clock)
            sender.adopt(queue)
            self._changed.notify_all()
            if self._threads < min(len(self._senders), _MOST_ORPHAN_THREADS):
                self._start_thread()

    def _start_thread(self) -> None:
        self._threads += 1
        try:
            start_thread(self._run, f"{ORPHANS_THREAD_NAME}-{next(self._numbers)}")
        except ThreadUnavailable:
            self._threads -= 1
            if not self._threads:
                raise

    def _run(self) -> None:
        try:
            while (sender := self._next_due()) is not None:
                self._send(sender)
        finally:
            with self._changed:
                self._threads -= 1

    def _send(self, sender: Sender) -> None:
        failed = True
        try:
            sender.send_next()
            failed = False
            with contextlib.suppress(Exception):  # a log handler of the program may raise
                sender.log_messages()
        except Exception as error:  # noqa: BLE001
            # This thread serves other servers as well; the points of this one stay on disk.
            _logger.debug("Delivery for dead processes failed: %s: %s.", type(error).__name__, error)
        finally:
            with self._changed:
                self._busy.discard(sender)
                ended = failed or sender.is_finished
                if ended:
                    self._senders = {uri: one for uri, one in self._senders.items() if one is not sender}
                self._changed.notify_all()
            if ended:
                sender.disconnect()

    def _next_due(self) -> Sender | None:
        """Waits for a sender that is due and reserves it; returns None when there is no sender left."""
        with self._changed:
            while self._senders:
                waits = {
                    sender: sender.due_in() for sender in self._senders.values() if sender not in self._busy
                }
                first = min(waits, key=waits.__getitem__, default=None)
                if first is not None and waits[first] <= 0:
                    self._busy.add(first)
                    return first
                seconds = math.inf if first is None else waits[first]
                self._changed.wait(None if math.isinf(seconds) else seconds)
            return None
