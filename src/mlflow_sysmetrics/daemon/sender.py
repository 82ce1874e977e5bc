"""The thread that delivers to one tracking server."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mlflow_sysmetrics.clock import Clock
from mlflow_sysmetrics.daemon.allowance import Allowance
from mlflow_sysmetrics.daemon.backoff import Rest, pause_seconds
from mlflow_sysmetrics.daemon.batch_size import BatchSize
from mlflow_sysmetrics.daemon.outbox import Outbox
from mlflow_sysmetrics.daemon.own_journal import OwnJournal
from mlflow_sysmetrics.daemon.patience import Patience
from mlflow_sysmetrics.daemon.points import Batch, Point, Spilled, read_back
from mlflow_sysmetrics.daemon.sink import Sink
from mlflow_sysmetrics.daemon.tracking_uris import redacted, without_secrets
from mlflow_sysmetrics.daemon.turns import Turns
from mlflow_sysmetrics.errors import BatchTooLarge, NotAllowed, RunRefused, ServerUnreachable
from mlflow_sysmetrics.thread import start_thread

_MILLISECONDS = 1000
_REMEDY = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"

Debt: TypeAlias = dict[Outbox, int]  #: how many points each outbox had taken when the debt was counted

_logger = logging.getLogger("mlflow_sysmetrics")


@dataclass(frozen=True, slots=True)
class Delivery:
    """Counts of one sender, since it began.

    Attributes:
        delivered: points that the server took.
        pending: points of this process that wait.
        unsaved: how many of them are in memory only.
        dropped: points that were given up: refused by the server, or too many for memory or disk.
        last_error: why the last attempt failed, None when it did not.
    """

    delivered: int
    pending: int
    unsaved: int
    dropped: int
    last_error: str | None


class Sender:
    """Delivers what the outboxes of one tracking server hold, each at its own interval.

    Nothing that a caller may wait for is done under the lock but counting: a request that hangs holds up
    this thread alone, and so does a disk.

    Args:
        tracking_uri: the server.
        open_sink: makes the sink; called in the sender's thread, again after each failure to make one.
        clock: tells the time.
        jitter: returns a factor around 1 for the pauses of the back-off.
        allowance: bound of the memory of the process; over it the oldest points are dropped.
        journal: of this process, tidied up between two batches.
    """

    def __init__(  # noqa: PLR0913 - every part that a test replaces is one
        self,
        tracking_uri: str,
        open_sink: Callable[[str], Sink],
        clock: Clock,
        *,
        jitter: Callable[[], float] = lambda: random.SystemRandom().uniform(
            0.75, 1.25
        ),  # a training's seed is its own
        allowance: Allowance | None = None,
        journal: OwnJournal | None = None,
    ) -> None:
        self.tracking_uri = tracking_uri
        self._open_sink = open_sink
        self._clock = clock
        self._jitter = jitter
        self._allowance = allowance or Allowance()
        self._journal = journal or OwnJournal(None, clock)
        self._changed = threading.Condition()
        self._turns = Turns()
        self._size = BatchSize()
        self._sink: Sink | None = None
        self._news: list[tuple[int, str]] = []  # told by the thread, never under the lock
        self._wakes_at = -math.inf
        self._rest = Rest(jitter)
        self._patience = Patience()
        self._delivered = self._pending = self._dropped = 0
        self._last_error: str | None = None
        self._untidy = False

    def start(self, name: str) -> None:
        """Starts the thread.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        start_thread(self._run, name)

    def append(
        self,
        outbox: Outbox,
        points: Sequence[Point] = (),
        tags: dict[str, str] | None = None,
        *,
        place: int | None = None,
    ) -> bool:
        """Takes points and tags for delivery within the outbox's interval. Never blocks on I/O.

        Args:
            outbox: of the run.
            points: points.
            tags: tags.
            place: where the points are on disk; None where they are not.

        Returns:
            Whether the run still takes points. If not, these are given up.
        """
        with self._changed:
            if outbox.refused is not None:
                outbox.hold(points)
                self._dropped += outbox.give_up()
                return False
            self._turns.add(outbox)
            outbox.tags.update(tags or {})
            if place is not None and points and (outbox.spills or self._allowance.is_used_up):
                outbox.spill(len(points), place)
            else:
                outbox.hold(points, saved=place is not None)
                self._allowance.add(len(points))
            self._pending += len(points)
            self._keep_within_bound()
            # One that failed has its time already.
            due_at = None if outbox.empty or outbox.failures else self._turns.schedule(outbox, self._now())
            if due_at is not None and due_at < self._wakes_at:
                self._changed.notify_all()
            if not self._untidy and self._journal.is_full:
                self._untidy = True
                self._changed.notify_all()
            return True

    def adopt(self, outbox: Outbox) -> None:
        """Takes over what a process that died had owed. Nobody waits for it: it does not count as pending."""
        with self._changed:
            outbox.due_at = self._now()
            self._turns.add(outbox)
            self._changed.notify_all()

    def close(self, outbox: Outbox) -> None:
        """Says that nothing more will come, so that the outbox is let go when it is empty."""
        with self._changed:
            outbox.closed = True
            if outbox.empty:
                self._turns.remove(outbox)

    def wake(self) -> None:
        """Has the thread look after the journal."""
        with self._changed:
            self._untidy = True
            self._changed.notify_all()

    def hasten(self, outboxes: Iterable[Outbox] | None = None) -> Debt:
        """Makes what the outboxes hold due now.

        Args:
            outboxes: what to send; None for those of all runs of this process.

        Returns:
            What is owed at this moment, to wait for.
        """
        with self._changed:
            now = self._now()
            chosen = (box for box in self._turns if not box.replayed) if outboxes is None else outboxes
            debt = {outbox: outbox.appended for outbox in chosen if not outbox.empty}
            for outbox in debt:
                outbox.due_at = now
            if debt:
                self._rest.shorten(now)
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
            began = self._now()
            if not patient:
                ends = began + self._patience.seconds(max(ends - began, 0.0))
            while not _settled(debt):
                now = self._now()
                if now >= ends or self._next_attempt(debt) > ends:
                    self._patience.waited_in_vain(began, now)
                    return False
                self._changed.wait(ends - now)
            return True

    def counts(self) -> Delivery:
        """Returns the counts so far."""
        with self._changed:
            unsaved = sum(outbox.unsaved for outbox in self._turns)
            return Delivery(self._delivered, self._pending, unsaved, self._dropped, self._last_error)

    def due_in(self) -> float:
        """Returns in how many seconds something is to be sent; infinity where nothing waits."""
        with self._changed:
            return self._next_wake() - self._now()

    def send_next(self) -> bool:
        """Sends one batch if one is due; returns whether one was. The thread does little else."""
        with self._changed:
            outbox = self._next_due()
            if outbox is None:
                return False
            front, tags = outbox.first(self._size.most), dict(outbox.tags)
            outbox.due_at = None  # set again by whatever asks for the next send while this one is under way
            outbox.sent_at = self._now()
        batch = Batch([], outbox.settled)
        try:
            batch = self._read_back(outbox, front) if isinstance(front, Spilled) else front
            batch = batch.shortened(self._size.fitting(batch.points, tags))
            self._deliver(outbox, batch.points, tags)
        except RunRefused as reason:
            self._give_up(outbox, self._clean(reason))
        except BatchTooLarge as reason:
            self._halve(outbox, batch, tags, self._clean(reason))
        except ServerUnreachable as reason:
            self._back_off(outbox, reason, self._clean(reason))
        except Exception as error:  # noqa: BLE001
            # A server may answer anything, and without this thread every run of it would be lost.
            self._back_off(outbox, error, self._clean(error, kind=f"{type(error).__name__}: "))
        else:
            self._record(outbox, batch, tags)
        if outbox.backing is not None:
            outbox.backing.acknowledge(outbox.settled)
        return True

    def tell(self) -> None:
        """Logs what has happened. A log handler may block; so it is the thread's, and holds no lock."""
        with self._changed:
            news, self._news = self._news, []
        for level, message in news:
            _logger.log(level, "%s", message)
        self._journal.tell()

    def tidy(self) -> None:
        """Has the journal emptied if nothing of this server's waits, or room made in it."""
        with self._changed:
            self._untidy = False
            idle = self._pending == 0
        self._journal.tidy(idle=idle)

    def _run(self) -> None:
        while True:
            while self.send_next():
                self.tidy()
                self.tell()
            self.tidy()
            self.tell()
            with self._changed:
                if self._next_due() is None and not self._news and not self._untidy:
                    self._wakes_at = self._next_wake()
                    left = self._wakes_at - self._now()
                    self._changed.wait(None if math.isinf(left) else max(left, 0.0))
                    self._wakes_at = -math.inf

    def _now(self) -> float:
        return self._clock.monotonic()

    def _next_due(self) -> Outbox | None:
        now = self._now()
        return None if now < self._rest.until else self._turns.next_due(now)

    def _next_attempt(self, debt: Debt) -> float:
        # No time at all means that it is under way.
        due = [-math.inf if box.due_at is None else box.due_at for box in debt if not box.empty]
        return max(min(due, default=-math.inf), self._rest.until)

    def _next_wake(self) -> float:
        due = self._turns.next_due_at()
        return max(due, self._rest.until) if math.isfinite(due) else math.inf

    def _read_back(self, outbox: Outbox, spilled: Spilled) -> Batch:
        assert outbox.backing is not None  # noqa: S101 - only what it has taken is spilled
        try:
            return read_back(outbox.backing, spilled, self._size.most)
        except FileNotFoundError:  # deleted under our hands: nothing will bring it back
            return Batch([], spilled.until, lost=spilled.until - spilled.first)

    def _deliver(self, outbox: Outbox, points: list[Point], tags: dict[str, str]) -> None:
        if not points and not tags:
            return  # all of it was thinned on disk
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

    def _record(self, outbox: Outbox, batch: Batch, tags: dict[str, str]) -> None:
        with self._changed:
            self._size.taken(len(batch.points))
            self._settle(outbox, batch, tags)
            self._patience.reward()
            if outbox.failures:
                self._tell_later(logging.INFO, f"{self._server} takes points of run {outbox.run_id} again.")
            outbox.failures = 0
            self._rest.end()
            self._last_error = None
            self._go_on(outbox, more=len(batch.points) >= self._size.most)

    def _settle(self, outbox: Outbox, batch: Batch, tags: dict[str, str], *, given_up: int = 0) -> None:
        """Takes out what was sent.

        It is counted by what has gone, since the bound may have dropped some of it meanwhile.
        """
        waited, held = outbox.waiting, outbox.held
        outbox.settle(batch, tags)
        gone = waited - outbox.waiting
        lost = min(batch.lost + given_up, gone)
        outbox.count_dropped(lost)
        outbox.count_delivered(gone - lost)
        self._allowance.add(outbox.held - held)
        self._delivered += gone - lost
        self._dropped += lost
        self._pending -= 0 if outbox.replayed else gone

    def _go_on(self, outbox: Outbox, *, more: bool) -> None:
        if outbox.empty:
            outbox.due_at = None  # whatever was hastened meanwhile is what has just arrived
        elif more or outbox.due_at is None:
            outbox.due_at = self._now()  # the rest of a backlog
        self._turns.to_the_end(outbox)
        self._changed.notify_all()

    def _halve(self, outbox: Outbox, batch: Batch, tags: dict[str, str], reason: str) -> None:
        """Has fewer points sent at once; what is too large by itself is given up."""
        with self._changed:
            if len(batch.points) > 1:
                self._size.refused(len(batch.points))
            elif tags:
                outbox.settle(Batch([], outbox.settled), tags)
                self._tell_later(
                    logging.WARNING, f"Run {outbox.run_id} does not take the tags {sorted(tags)}: {reason}."
                )
            else:
                self._size.reset()
                self._settle(outbox, batch, {}, given_up=len(batch.points))
                if outbox.dropped == len(batch.points):
                    message = f"Run {outbox.run_id} does not take {batch.points[0].key}: {reason}."
                    self._tell_later(logging.WARNING, message)
            self._go_on(outbox, more=True)

    def _back_off(self, outbox: Outbox, error: Exception, reason: str) -> None:
        with self._changed:
            now = self._now()
            # The server rests for everybody; a run that it alone chokes on rests longer and longer by itself.
            self._rest.failed(now, error)
            outbox.due_at = now + pause_seconds(outbox.failures, error, self._jitter)
            if self._last_error is None and not outbox.failures:
                remedy = f"; {_REMEDY}" if isinstance(error, NotAllowed) else ""
                message = (
                    f"{self._server} does not take system metrics ({reason}); keeping them and trying again"
                )
                self._tell_later(logging.WARNING, f"{message}{remedy}.")
            outbox.failures += 1
            self._last_error = reason
            self._turns.to_the_end(outbox)  # the others first
            self._changed.notify_all()

    def _give_up(self, outbox: Outbox, reason: str) -> None:
        with self._changed:
            outbox.refused = reason
            held, lost = outbox.held, outbox.give_up()
            self._allowance.add(-held)
            self._pending -= 0 if outbox.replayed else lost
            self._dropped += lost
            self._turns.remove(outbox)
            self._tell_later(
                logging.WARNING, f"Run {outbox.run_id} takes no system metrics any more: {reason}."
            )
            self._changed.notify_all()

    def _keep_within_bound(self) -> None:
        while self._allowance.excess:
            fullest = max(self._turns, key=lambda box: box.held)
            if not fullest.held:  # it is another server's points that fill the memory
                return
            dropped = fullest.drop_oldest(self._allowance.excess)
            if self._dropped == 0:
                self._tell_later(
                    logging.WARNING,
                    f"{self._server} has been away for too long: dropping the oldest system metrics.",
                )
                self._changed.notify_all()
            self._allowance.add(-dropped)
            self._pending -= dropped
            self._dropped += dropped

    def _tell_later(self, level: int, message: str) -> None:
        self._news.append((level, f"mlflow-sysmetrics: {message}"))

    def _clean(self, error: Exception, kind: str = "") -> str:
        return without_secrets(f"{kind}{error}", self.tracking_uri)

    @property
    def _server(self) -> str:
        return f"Tracking server {redacted(self.tracking_uri)}"


def _settled(debt: Debt) -> bool:
    return all(outbox.settled >= count and not outbox.tags for outbox, count in debt.items())
