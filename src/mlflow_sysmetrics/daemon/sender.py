"""The thread that delivers to one tracking server."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from mlflow_sysmetrics.clock import Clock
from mlflow_sysmetrics.daemon.patience import Patience
from mlflow_sysmetrics.daemon.points import Outbox, Point
from mlflow_sysmetrics.daemon.sink import MAX_POINTS_PER_BATCH, Sink, redacted, without_secrets
from mlflow_sysmetrics.errors import RunRefused, ServerUnreachable
from mlflow_sysmetrics.thread import start_thread

# About 20 MB of memory: eight hours of outage for eight runs at the default rate.
MAX_PENDING_POINTS = 200_000
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 60.0
_TOLERANCE = 0.05  # share of a send interval by which a send may be early or late
_MILLISECONDS = 1000

Debt: TypeAlias = dict[Outbox, int]  #: how many points each outbox had taken when the debt was counted

_logger = logging.getLogger("mlflow_sysmetrics")


@dataclass(frozen=True, slots=True)
class Delivery:
    """Counts of one sender, since it began.

    Attributes:
        delivered: points that the server took.
        pending: points that wait.
        dropped: points that were given up: refused by the server, or too many for the memory.
        last_error: why the last attempt failed, None when it did not.
    """

    delivered: int
    pending: int
    dropped: int
    last_error: str | None


class Sender:
    """Delivers what the outboxes of one tracking server hold, each at its own interval.

    Nothing that a caller may wait for is done under the lock but counting: a request that hangs holds up
    this thread alone.

    Args:
        tracking_uri: the server.
        open_sink: makes the sink; called in the sender's thread, again after each failure to make one.
        clock: tells the time.
        jitter: returns a factor around 1 for the pauses of the back-off.
        max_pending_points: bound of the memory; over it the oldest points are dropped.
    """

    def __init__(
        self,
        tracking_uri: str,
        open_sink: Callable[[str], Sink],
        clock: Clock,
        *,
        jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25),  # noqa: S311 - no secret hangs on it
        max_pending_points: int = MAX_PENDING_POINTS,
    ) -> None:
        self.tracking_uri = tracking_uri
        self._open_sink = open_sink
        self._clock = clock
        self._jitter = jitter
        self._max_pending_points = max_pending_points
        self._changed = threading.Condition()
        self._outboxes: dict[Outbox, None] = {}  # ordered: the first is the next in turn
        self._sink: Sink | None = None
        self._news: list[tuple[int, str]] = []  # told by the thread, never under the lock
        self._wakes_at = -math.inf
        self._retry_at = -math.inf
        self._failed_at = -math.inf
        self._failures = 0
        self._patience = Patience()
        self._delivered = self._pending = self._dropped = 0
        self._last_error: str | None = None

    def start(self, name: str) -> None:
        """Starts the thread.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        start_thread(self._run, name)

    def append(
        self, outbox: Outbox, points: Iterable[Point] = (), tags: dict[str, str] | None = None
    ) -> None:
        """Takes points and tags for delivery within the outbox's interval. Never blocks on I/O."""
        with self._changed:
            if outbox.refused is not None:
                self._dropped += sum(1 for _ in points)
                return
            self._outboxes.setdefault(outbox, None)
            self._pending += outbox.append(points, tags or {})
            self._keep_within_bound()
            if not outbox.empty and not outbox.failures:  # one that failed has its time already
                self._schedule(outbox)

    def close(self, outbox: Outbox) -> None:
        """Says that nothing more will come, so that the outbox is let go when it is empty."""
        with self._changed:
            outbox.closed = True
            if outbox.empty:
                self._outboxes.pop(outbox, None)

    def hasten(self, outboxes: Iterable[Outbox] | None = None) -> Debt:
        """Makes what the outboxes hold due now.

        Args:
            outboxes: what to send; None for all.

        Returns:
            What is owed at this moment, to wait for.
        """
        with self._changed:
            now = self._clock.monotonic()
            chosen = self._outboxes if outboxes is None else outboxes
            debt = {outbox: outbox.appended for outbox in chosen if not outbox.empty}
            for outbox in debt:
                outbox.due_at = now
            # One attempt at once, whatever the back-off says, but not one per run that ends in an outage.
            if debt and now - self._failed_at >= _FIRST_BACKOFF_SECONDS:
                self._retry_at = now
            if debt:
                self._changed.notify_all()
            return debt

    def wait(self, debt: Debt, ends: float, *, patient: bool = False) -> bool:
        """Waits until a debt is settled: delivered, or given up for good.

        Args:
            debt: what `hasten` returned.
            ends: monotonic time at which the wait ends at the latest.
            patient: waits until then even where an outage has used up the program's patience.

        Returns:
            Whether the debt is settled.
        """
        with self._changed:
            began = self._clock.monotonic()
            if not patient:
                ends = began + self._patience.seconds(max(ends - began, 0.0))
            while not _settled(debt):
                now = self._clock.monotonic()
                if now >= ends or self._next_attempt(debt) > ends:
                    self._patience.waited_in_vain(began, now)
                    return False
                self._changed.wait(ends - now)
            return True

    def counts(self) -> Delivery:
        """Returns the counts so far."""
        with self._changed:
            return Delivery(self._delivered, self._pending, self._dropped, self._last_error)

    def send_next(self) -> bool:
        """Sends one batch if one is due; returns whether one was. The thread does nothing else."""
        with self._changed:
            outbox = self._next_due()
            if outbox is None:
                return False
            points, tags = outbox.first(MAX_POINTS_PER_BATCH), dict(outbox.tags)
            settled = outbox.settled + len(points)
            outbox.due_at = None  # set again by whatever asks for the next send while this one is under way
            outbox.sent_at = self._clock.monotonic()
        try:
            self._deliver(outbox, points, tags)
        except RunRefused as reason:
            self._give_up(outbox, without_secrets(str(reason), self.tracking_uri))
        except ServerUnreachable as reason:
            self._back_off(outbox, without_secrets(str(reason), self.tracking_uri))
        except Exception as error:  # noqa: BLE001
            # A server may answer anything, and without this thread every run of it would be lost.
            self._back_off(outbox, without_secrets(f"{type(error).__name__}: {error}", self.tracking_uri))
        else:
            self._record(outbox, settled, tags)
        return True

    def tell(self) -> None:
        """Logs what has happened. A log handler may block; so it is the thread's, and holds no lock."""
        with self._changed:
            news, self._news = self._news, []
        for level, message in news:
            _logger.log(level, "%s", message)

    def _run(self) -> None:
        while True:
            while self.send_next():
                self.tell()
            self.tell()
            with self._changed:
                if self._next_due() is None and not self._news:
                    self._wakes_at = self._next_wake()
                    left = self._wakes_at - self._clock.monotonic()
                    self._changed.wait(None if math.isinf(left) else max(left, 0.0))
                    self._wakes_at = -math.inf

    def _schedule(self, outbox: Outbox) -> None:
        """Makes an outbox due about one send interval after its last send.

        A little earlier when a point comes in then, and else a little later: so the point of a window that
        closes just when the send is due travels with it, and not one interval later.
        """
        now = self._clock.monotonic()
        if outbox.sent_at is None:
            outbox.sent_at = now
        early = outbox.sent_at + (1 - _TOLERANCE) * outbox.send_interval
        late = outbox.sent_at + (1 + _TOLERANCE) * outbox.send_interval
        due_at = now if now >= early else late
        if outbox.due_at is None or due_at < outbox.due_at:
            outbox.due_at = due_at
            if due_at < self._wakes_at:
                self._changed.notify_all()

    def _next_due(self) -> Outbox | None:
        now = self._clock.monotonic()
        if now < self._retry_at:
            return None
        return next((box for box in self._outboxes if box.due_at is not None and box.due_at <= now), None)

    def _next_attempt(self, debt: Debt) -> float:
        # No time at all means that it is under way.
        due = [-math.inf if box.due_at is None else box.due_at for box in debt if not box.empty]
        return max(min(due, default=-math.inf), self._retry_at)

    def _next_wake(self) -> float:
        due = min((box.due_at for box in self._outboxes if box.due_at is not None), default=math.inf)
        return max(due, self._retry_at) if math.isfinite(due) else math.inf

    def _deliver(self, outbox: Outbox, points: list[Point], tags: dict[str, str]) -> None:
        if self._sink is None:
            try:
                self._sink = self._open_sink(self.tracking_uri)
            except Exception as error:
                # A store is made by MLflow or by a plugin: it may raise anything, and may do better later.
                raise ServerUnreachable(f"no client for {redacted(self.tracking_uri)}: {error}") from error
        if outbox.started_at is None:
            outbox.started_at = self._sink.started_at(outbox.run_id)
        started_at = outbox.started_at
        steps = [max(point.timestamp - started_at, 0) // _MILLISECONDS for point in points]
        self._sink.send(outbox.run_id, points, steps, tags)

    def _record(self, outbox: Outbox, settled: int, tags: dict[str, str]) -> None:
        with self._changed:
            # Counted from the front of the queue, since the bound may have dropped some of them meanwhile.
            sent = outbox.settle(max(settled - outbox.settled, 0), tags)
            self._delivered += sent
            self._pending -= sent
            self._patience.reward()
            if outbox.failures:
                self._tell_later(logging.INFO, f"{self._server} takes points of run {outbox.run_id} again.")
            self._failures = outbox.failures = 0
            self._retry_at = -math.inf
            self._last_error = None
            if outbox.empty:
                outbox.due_at = None  # whatever was hastened meanwhile is what has just arrived
            elif len(outbox.points) >= MAX_POINTS_PER_BATCH or outbox.due_at is None:
                outbox.due_at = self._clock.monotonic()  # the rest of a backlog
            self._to_the_end(outbox)
            self._changed.notify_all()

    def _to_the_end(self, outbox: Outbox) -> None:
        self._outboxes.pop(outbox, None)
        if not (outbox.closed and outbox.empty):
            self._outboxes[outbox] = None

    def _back_off(self, outbox: Outbox, reason: str) -> None:
        with self._changed:
            self._failed_at = self._clock.monotonic()
            # The server rests for everybody; a run that it alone chokes on rests longer and longer by itself.
            self._retry_at = self._failed_at + self._pause(self._failures)
            outbox.due_at = self._failed_at + self._pause(outbox.failures)
            if self._last_error is None and not outbox.failures:
                self._tell_later(
                    logging.WARNING,
                    f"{self._server} does not take system metrics ({reason}); keeping them and trying again.",
                )
            self._failures = min(self._failures + 1, 16)  # 2**16 s is far over the longest pause
            outbox.failures = min(outbox.failures + 1, 16)
            self._last_error = reason
            self._to_the_end(outbox)  # the others first
            self._changed.notify_all()

    def _pause(self, failures: int) -> float:
        return min(_FIRST_BACKOFF_SECONDS * 2.0**failures, _LONGEST_BACKOFF_SECONDS) * self._jitter()

    def _give_up(self, outbox: Outbox, reason: str) -> None:
        with self._changed:
            outbox.refused = reason
            lost = outbox.settle(len(outbox.points), dict(outbox.tags))
            self._pending -= lost
            self._dropped += lost
            self._outboxes.pop(outbox, None)
            self._tell_later(
                logging.WARNING, f"Run {outbox.run_id} takes no system metrics any more: {reason}."
            )
            self._changed.notify_all()

    def _tell_later(self, level: int, message: str) -> None:
        self._news.append((level, f"mlflow-sysmetrics: {message}"))

    @property
    def _server(self) -> str:
        return f"Tracking server {redacted(self.tracking_uri)}"

    def _keep_within_bound(self) -> None:
        while self._pending > self._max_pending_points:
            fullest = max(self._outboxes, key=lambda box: len(box.points))
            dropped = fullest.settle(self._pending - self._max_pending_points, {})
            if self._dropped == 0:
                self._tell_later(
                    logging.WARNING,
                    f"{self._server} has been away for too long: dropping the oldest system metrics.",
                )
                self._changed.notify_all()
            self._pending -= dropped
            self._dropped += dropped


def _settled(debt: Debt) -> bool:
    return all(outbox.settled >= count and not outbox.tags for outbox, count in debt.items())
