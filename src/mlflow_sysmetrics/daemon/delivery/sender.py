"""The thread that delivers to one tracking server."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from mlflow_sysmetrics.daemon.delivery.flush import Backlog, Deadline, Flusher
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.points import Batch, LateTags, Point, Spilled, read_back
from mlflow_sysmetrics.daemon.delivery.policy import DeliveryCounts, DeliveryPolicy
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.schedule import SendSchedule
from mlflow_sysmetrics.daemon.delivery.sink import Connection, EndWatch, Sink
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal
from mlflow_sysmetrics.errors import JournalUnavailable, ThreadUnavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Condition

# How long the thread outlives its last run: runs that follow each other on one server share it.
_LINGER_SECONDS = 2.0

_logger = Log()


class Sender:
    """Delivers the queues of one tracking server, each at its own interval.

    The lock is held for bookkeeping only, never over a request or a disk access, so a request or a disk that
    hangs blocks this thread and no caller. The thread starts with the first source of points, ends when all
    runs have ended and are delivered, and starts again when it is needed.

    Args:
        tracking_uri: the server.
        open_sink: opens the sink; called in the sender's thread, until it succeeds.
        clock: the time source.
        jitter: returns a factor around 1 for the pauses of the back-off.
        memory: the memory budget of the process; beyond it the oldest points are dropped.
        journal: the journal of this process, cleaned up between two batches.
        host_tags: returns the host tags, or none and calls back with them later.

    Attributes:
        thread_name: name of the thread; None if the caller sends, with `send_next`.
        loop: the thread; None while it is not needed.
    """

    def __init__(
        self,
        tracking_uri: str,
        open_sink: Callable[[str], Sink],
        clock: Clock,
        *,
        # SystemRandom: drawing from the module's generator would change the numbers of a seeded training.
        jitter: Callable[[], float] = lambda: random.SystemRandom().uniform(0.75, 1.25),
        memory: MemoryBudget | None = None,
        journal: ProcessJournal | None = None,
        host_tags: Callable[[Callable[[dict[str, str]], object]], dict[str, str]] | None = None,
    ) -> None:
        self.thread_name: str | None = None
        self._connection = Connection(tracking_uri, open_sink)
        self._clock = clock
        self._memory = memory or MemoryBudget()
        self._journal = journal or ProcessJournal(None, clock)
        self._changed = Condition()
        self._schedule = SendSchedule(jitter)
        self._policy = DeliveryPolicy(self._connection, self._schedule, self._memory)
        self._flusher = Flusher(self._changed, self._schedule, clock)
        self._host_tags = host_tags
        self._wakes_at = -math.inf
        self._untidy = self._runs = self._is_prompt = False
        self._sources = 0
        self.loop: Loop | None = None
        self._end_watches: dict[RunQueue, EndWatch] = {}

    @property
    def is_finished(self) -> bool:
        """Whether all its runs have ended and are delivered, and its thread has ended."""
        with self._changed:
            return self._is_unused and not self._runs

    def open(self) -> None:
        """Records a source of points, so that the sender stays in use until as many have ended.

        Starts the thread: an interpreter of Python 3.12 that is ending starts none, and a program may end
        before its first point is here.
        """
        with self._changed:
            self._sources += 1
            self._ensure_thread()

    def end(self, queue: RunQueue) -> None:
        """Records the end of a source, and makes its points due at once: a caller waits for them."""
        with self._changed:
            self._sources -= 1
            if self._is_unused:
                self._changed.notify_all()
        self.expedite([queue])

    def append(
        self,
        queue: RunQueue,
        points: Sequence[Point] = (),
        tags: dict[str, str] | None = None,
        *,
        host_tags: bool = False,
        late_tags: LateTags | None = None,
        place: int | None = None,
    ) -> bool:
        """Queues points and tags for delivery within the queue's interval. Never blocks on I/O.

        Args:
            queue: the queue of the run.
            points: the points.
            tags: the tags.
            host_tags: adds those of this host if the run has none; only the server knows.
            late_tags: make tags of what the run has at the moment of the send.
            place: where the points are on disk; None if they are not.

        Returns:
            Whether the run still accepts points. If not, these are dropped.
        """
        with self._changed:
            if queue.refused is not None:
                queue.put(points)
                self._policy.own.dropped += queue.give_up()
                return False
            self._schedule.add(queue)
            if tags:
                queue.put_tags(tags)
            if host_tags:
                queue.want_host_tags()
            if late_tags is not None:
                queue.want_late_tags(late_tags)
            now = self._now()
            self._memory.arrived(len(points), now)
            if place is not None and points and (queue.spills or self._memory_is_used_up):
                queue.put_spilled(len(points), place)
            else:
                queue.put(points, place)
                self._memory.add(len(points))
            self._policy.own.pending += len(points)
            self._policy.enforce_memory_budget(now)
            # A queue that has failed keeps the due time of its back-off.
            due_at = None if queue.empty or queue.failures else queue.plan_send(now)
            if due_at is not None and due_at < self._wakes_at:
                self._changed.notify_all()
            if not self._untidy and self._journal.is_full:
                self._untidy = True
                self._changed.notify_all()
            self._ensure_thread()
            return True

    def watch_end(self, queue: RunQueue, ended: Callable[[Mapping[str, str]], object]) -> None:
        """Has the server asked, once a minute after a send, whether a run is over that is not this program's.

        Args:
            queue: the queue of the run.
            ended: called in the sender's thread with the tags of the run each time the answer is yes.
        """
        with self._changed:
            self._end_watches[queue] = EndWatch(ended, self._now())

    def count_lost(self, queue: RunQueue, count: int) -> None:
        """Counts points that never reached the queue as dropped, in a tag of the run as well."""
        with self._changed:
            self._schedule.add(queue)
            queue.count_dropped(count)
            self._policy.own.dropped += count
            if not queue.failures:
                queue.plan_send(self._now())
            self._changed.notify_all()
            self._ensure_thread()

    def adopt(self, queue: RunQueue) -> None:
        """Takes over the queue of a process that died; no caller waits for it, and it has separate counts."""
        with self._changed:
            queue.make_due(self._now())
            self._schedule.add(queue)
            self._policy.replayed.pending += queue.waiting
            self._changed.notify_all()

    def close(self, queue: RunQueue) -> None:
        """Marks the end of a queue's points, so that the queue is removed when it is empty."""
        with self._changed:
            queue.close()
            self._end_watches.pop(queue, None)
            if queue.empty:
                self._schedule.remove(queue)
            if self._is_unused:
                self._changed.notify_all()  # the thread waits for nothing from now on, and ends

    def expedite(self, queues: Iterable[RunQueue] | None = None) -> Backlog:
        """Makes queues due now; by default those of all runs of this process.

        Returns:
            What is in them at this moment, for `wait`.
        """
        backlog = self._flusher.expedite(queues)
        if backlog:
            with self._changed:
                self._is_prompt = True
                self._ensure_thread()
        return backlog

    def wait(self, backlog: Backlog, deadline: Deadline) -> bool:
        """Waits until a backlog is delivered or given up; returns whether it is.

        Args:
            backlog: from `expedite`.
            deadline: when the wait ends at the latest.
        """
        return self._flusher.wait(backlog, deadline)

    def counts(self) -> DeliveryCounts:
        """Returns the counts so far for the runs of this process."""
        with self._changed:
            return self._policy.own.freeze(sum(queue.unsaved for queue in self._schedule))

    def counts_of_replayed(self) -> DeliveryCounts:
        """Returns the counts so far for points left behind by processes that died."""
        with self._changed:
            return self._policy.replayed.freeze(0)

    def due_in(self) -> float:
        """Returns the seconds until the next send; infinity if none is planned."""
        with self._changed:
            return self._schedule.next_due_at() - self._now()

    def send_next(self) -> bool:
        """Sends one batch if one is due; returns whether one was."""
        with self._changed:
            queue = self._schedule.next_due(self._now())
            if queue is None:
                return False
            front, tags = queue.take(self._policy.size.most, self._now())
        batch = Batch([], queue.acknowledged)
        try:
            batch = self._read_back(queue, front) if isinstance(front, Spilled) else front
            if queue.wants_host_tags and queue.bisection is None:
                tags = self._settle_host_tags(queue)
            if queue.late_tags is not None and queue.bisection is None:
                tags = {**tags, **queue.late_tags.made_for(partial(self._connection.state, queue))}
            batch = batch.shortened(self._policy.size.fitting(batch.points, tags))
            self._connection.send(queue, batch.points, tags)
        except BaseException as error:
            # A server may answer anything, and a plugin may end the thread: the points wait for another try.
            with self._changed:
                # No variable has the error: it would keep the batch in memory until the collector runs.
                self._policy.failed(queue, batch, tags, _as_exception(error), self._now())
                self._changed.notify_all()
            if not isinstance(error, Exception):
                raise
        else:
            with self._changed:
                self._policy.delivered(queue, batch, tags, self._now())
                self._flusher.reset()
                self._changed.notify_all()
                watch = self._end_watches.get(queue)
            if watch is not None and watch.is_due(self._now()):
                watch.ask(self._connection, queue)
        if queue.run_journal is not None:
            queue.run_journal.acknowledge(queue.acknowledged)
        return True

    def disconnect(self) -> None:
        """Closes the connection to the server, for a caller that sends itself."""
        sink = self._connection.release()
        if sink is not None:
            sink.close()

    def log_messages(self) -> None:
        """Logs what has happened: in the thread and without the lock, since a log handler may block."""
        with self._changed:
            messages = self._policy.messages()
        for level, message in messages:
            _logger.log(level, "%s", message)
        self._journal.log_health()

    def tidy(self) -> None:
        """Has the journal emptied if no point of this server waits, or compacted if it is full."""
        with self._changed:
            self._untidy = False
            idle = self._policy.own.pending == 0
            prompt = self._is_prompt or not self._sources
        self._journal.tidy(idle=idle, prompt=prompt)

    def _ensure_thread(self) -> None:
        """Starts the thread if it does not run. The caller holds the lock."""
        if self.thread_name is None or self._runs:
            return
        if self.loop is None:
            # A new one each time, since the thread of the last one may not have ended yet.
            self.loop = Loop(self._step, self.thread_name)
        try:
            self.loop.start()  # harmless if a signal handler interrupts it here and the next call repeats it
        except ThreadUnavailable as error:
            self.loop = None
            self._policy.own.last_error = str(error)
            return
        self._runs = True

    def _step(self) -> bool:
        """Sends what is due, then waits for more; returns whether the thread goes on."""
        while self.send_next():
            self.tidy()
            self.log_messages()
        self.tidy()
        with self._changed:
            prompt, self._is_prompt = self._is_prompt or not self._sources, False
        if prompt:  # somebody waits, or nothing comes after; otherwise the next points wake the journal
            self._journal.wake()
        self.log_messages()
        return self._wait_for_work()

    def _wait_for_work(self) -> bool:
        """Returns True when there may be something to do, False when the thread has to end."""
        with self._changed:
            if self._has_work:
                return True
            self._wakes_at = self._schedule.next_due_at()
            left = _LINGER_SECONDS if self._is_unused else self._wakes_at - self._now()
            notified = self._changed.wait(None if math.isinf(left) else max(left, 0.0))
            self._wakes_at = -math.inf
            if notified or not self._is_unused or self._has_work:
                return True
            self._runs = False
            self.loop = None
            sink = self._connection.release()  # another thread, which a call may start now, opens its own
        if sink is not None:
            sink.close()
        return False

    @property
    def _has_work(self) -> bool:
        due = self._schedule.next_due(self._now()) is not None
        return due or self._policy.has_messages or self._untidy

    @property
    def _is_unused(self) -> bool:
        """Whether all sources have ended and nothing waits."""
        return not self._sources and not self._schedule

    @property
    def _memory_is_used_up(self) -> bool:
        return self._memory.is_used_up(failing=self._schedule.is_failing)

    def _settle_host_tags(self, queue: RunQueue) -> dict[str, str]:
        """Asks whether a run lacks host tags, and returns the tags to be set."""
        from mlflow_sysmetrics.daemon.delivery import host_tags as module  # imported by who wants them

        found: dict[str, str] | None = None
        with contextlib.suppress(Fault):  # the points do not wait for the answer
            lacks = not module.has_host_tags(self._connection.tags(queue))
            find = self._host_tags or module.host_tags_now_or_later
            found = find(lambda tags: self.append(queue, tags=tags)) if lacks else {}
        with self._changed:
            return queue.settle_host_tags(found)

    def _now(self) -> float:
        return self._clock.monotonic()

    def _read_back(self, queue: RunQueue, spilled: Spilled) -> Batch:
        assert queue.run_journal is not None  # only points in the journal are spilled
        try:
            return read_back(queue.run_journal, spilled, queue.most_at_once(self._policy.size.most))
        except OSError as error:  # for example an unmounted disk; it may come back
            raise JournalUnavailable(f"the journal cannot be read: {error.strerror or error}") from error


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
