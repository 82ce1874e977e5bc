"""Sampler, feeds and senders, assembled: one daemon per process."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from mlflow_sysmetrics.collectors import COLLECTORS, Collector
from mlflow_sysmetrics.daemon.delivery import sink
from mlflow_sysmetrics.daemon.delivery.credential_scope import is_trusted
from mlflow_sysmetrics.daemon.delivery.flush import OutageBudget
from mlflow_sysmetrics.daemon.delivery.inbox import Channel, OpenChannels
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.delivery.sink import Sink, current_tracking_uri
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal, oom_evidence
from mlflow_sysmetrics.daemon.journal.recovery import Recovery
from mlflow_sysmetrics.daemon.journal.run_journal import ProcessRunJournal
from mlflow_sysmetrics.daemon.journal.spool import spool_directory
from mlflow_sysmetrics.daemon.journal.thread import JournalThread
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.daemon.sampling.watch import Watch
from mlflow_sysmetrics.daemon.state import Status, log_summary
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored, lasting, with_secrets
from mlflow_sysmetrics.runtime.clock import Clock, SystemClock
from mlflow_sysmetrics.settings import Settings

_LAST_SAMPLE_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = threading.TIMEOUT_MAX / 2  # the sum with the clock must stay below the maximum

_logger = logging.getLogger("mlflow_sysmetrics")


class Daemon:
    """Feeds every attached run from one sampler, through one sender per tracking server.

    Args:
        settings: those in force at the first attach; they choose the collectors.
        host: the machine to look at.
        clock: tells the time.
        collectors: classes of the collectors.
        open_sink: makes the sink of a tracking server, by default the real one.
        transparent: lets a collector's exceptions through, for tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        host: Host | None = None,
        clock: Clock | None = None,
        collectors: Sequence[type[Collector]] = COLLECTORS,
        open_sink: Callable[[str], Sink] | None = None,
        transparent: bool = False,
    ) -> None:
        host = replace(host or Host(), disks=settings.disks, gpus=settings.gpus)
        self._clock = clock or SystemClock()
        self._open_sink = open_sink or partial(sink.open_sink, trusts=self._trusts)
        self._probes = [
            Probe(collector, host, transparent=transparent)
            for collector in collectors
            if collector.family in settings.collectors
        ]
        self.sampler = Sampler(self._probes, self._clock)
        self._lock = threading.RLock()  # a signal handler may come back in
        self._series: dict[tuple[str, str], RunSeries] = {}
        self._channels = OpenChannels()  # of what programs write of their own
        self._senders: dict[str, Sender] = {}
        self._attached_to: dict[str, None] = {}  # tracking URIs that this program has chosen, in their order
        self._running = self._ended = False
        self._flush_timeout = settings.flush_timeout
        self._sampler_budget = OutageBudget()
        self._memory = MemoryBudget()
        self._journal = ProcessJournal(
            (lambda: _create_journal(settings)) if settings.journalled else None,
            self._clock,
            lambda: oom_evidence(host),
            JournalThread(self._clock),
        )
        self._recovery = Recovery(
            lambda: spool_directory(settings), self._adopt, self._open_sink, self._tracking_uris
        )
        self._recovers = settings.journalled

    def attach(
        self, run_id: str, tracking_uri: str, settings: Settings, *, started_at: int | None = None
    ) -> RunSeries:
        """Begins to feed a run, or holds it once more.

        Args:
            run_id: the run.
            tracking_uri: its tracking server.
            settings: those in force now; those of the first holder of a run stay.
            started_at: milliseconds since 1970 when the run started, if known; else the server is asked.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        tracking_uri = anchored(tracking_uri)  # the sender opens it later, when a program may be elsewhere
        key = (tracking_uri, run_id)
        with self._lock:
            self._flush_timeout = settings.flush_timeout
            series = self._series.get(key)
            started = series is None and self._start()
            if series is None:
                series = self._series[key] = RunSeries(
                    key, settings, self._channel(key, settings, started_at)
                )
                self.sampler.add(series)
            series.holders += 1
        if started:  # told without the lock: a log handler may block
            _logger.info(
                "Sampling started: a tick every %g s, a point every %g s, from %s.",
                settings.sampling_interval,
                settings.window_seconds,
                ", ".join(probe.name for probe in self._probes) or "no collector",
            )
        return series

    def detach(self, series: RunSeries, timeout: float | None) -> bool:
        """Lets go of a run; the last holder ends its feed and waits for delivery.

        Args:
            feed: the run.
            timeout: longest wait in seconds; None waits the flush timeout, less where an outage of the
                server has used it up.

        Returns:
            Whether all points of the run have been delivered, or it is still held by others.
        """
        with self._lock:
            series.holders -= 1
            if series.holders > 0:
                return True
            self._series.pop(series.key, None)
            self.sampler.remove(series)
        return self.deliver(series, timeout)

    def deliver(self, series: RunSeries, timeout: float | None) -> bool:
        """Waits for the last points of a feed that was ended, then for the delivery of what it is owed.

        Args:
            feed: the run.
            timeout: as in `detach`.

        Returns:
            As `detach`.
        """
        if series.holders > 0:
            return True
        full_timeout = timeout is not None
        ends = self._clock.monotonic() + _bounded(
            series.settings.flush_timeout if timeout is None else timeout
        )
        # What the program has written of its own is to be there, too, when the run is over.
        self._channels.gather(series.key)
        channels = self._channels.of(series.key)
        waited_for = [series.ended, *([self.sampler.inbox.expedite()] if channels else [])]
        try:
            complete = all(
                self._await_sampler(event, ends, full_timeout=full_timeout) for event in waited_for
            )
        finally:
            series.channel.sender.close(series.channel.queue)
        return self._deliver(ends, [series.channel, *channels], full_timeout=full_timeout) and complete

    def open_channel(
        self,
        run_id: str,
        tracking_uri: str,
        settings: Settings,
        *,
        gather: Callable[[], None] | None = None,
        started_at: int | None = None,
    ) -> Channel:
        """Returns a way for points of the program's own into a run; what is put into it is not sampled.

        Args:
            run_id: the run.
            tracking_uri: its tracking server.
            settings: those in force now.
            gather: puts into it what was held back so far; called before its delivery is waited for.
            started_at: as in `attach`; only points without a step need it.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        key = (anchored(tracking_uri), run_id)
        with self._lock:
            self._flush_timeout = settings.flush_timeout
            self._start()
            channel = self._channel(key, settings, started_at)
            self._channels.add(key, channel, gather)
        return channel

    def close_channel(self, channel: Channel, timeout: float | None, settings: Settings) -> bool:
        """Says that a lane gets no more points, and waits for the delivery of what it has.

        Args:
            lane: from `open_lane`.
            timeout: as in `detach`.
            settings: those that it was opened with.

        Returns:
            Whether all of it has been delivered.
        """
        self._channels.remove(channel)
        full_timeout = timeout is not None
        ends = self._clock.monotonic() + _bounded(settings.flush_timeout if timeout is None else timeout)
        try:
            complete = self._await_sampler(
                self.sampler.inbox.expedite(ending=channel), ends, full_timeout=full_timeout
            )
        finally:
            channel.sender.close(channel.queue)
        return self._deliver(ends, [channel], full_timeout=full_timeout) and complete

    def watch(self, interval: float) -> Watch:
        """Begins to keep the sampler reading for somebody who looks at what it reads.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        with self._lock:
            self._start()
        return Watch(self.sampler, self._clock, interval)

    def flush(self, timeout: float | None) -> bool:
        """Closes all windows and waits until everything that was sampled has been delivered.

        Args:
            timeout: as in `detach`.

        Returns:
            Whether nothing is waiting any more.
        """
        if not self._running:
            return True
        full_timeout = timeout is not None
        ends = self._clock.monotonic() + _bounded(self._flush_timeout if timeout is None else timeout)
        self._channels.gather()
        # Of runs that have just ended, too: the sampler takes their last sample in the same tick.
        complete = self._await_sampler(self.sampler.cut(), ends, full_timeout=full_timeout)
        return self._deliver(ends, full_timeout=full_timeout) and complete

    def end(self) -> None:
        """Ends all feeds and waits for delivery, at most the flush timeout; for the end of the process."""
        self._channels.gather()
        with self._lock:
            if self._ended or not self._running:
                return
            self._ended = True
            all_series = list(self._series.values())
            self._series.clear()
            for series in all_series:
                self.sampler.remove(series)
            cut = self.sampler.cut()
        now = self._clock.monotonic()
        # The last sample is waited for even where delivery is not: what it adds to is counted below.
        self._await_sampler(cut, now + max(self._flush_timeout, _LAST_SAMPLE_SECONDS), full_timeout=False)
        for series in all_series:
            series.channel.sender.close(series.channel.queue)
        self._deliver(now + self._flush_timeout, full_timeout=False)
        self._delete_journal()
        log_summary(self.status(), self._flush_timeout)

    def forget_after_fork(self) -> None:
        """Closes a forked child's descriptors: the journals and their locks stay its parent's."""
        self._journal.forget_after_fork()
        self._recovery.forget_after_fork()

    def status(self) -> Status:
        """Returns what the daemon is doing."""
        with self._lock:
            counts = [sender.counts() for sender in self._senders.values()]
            return Status(
                running=self._running,
                attached=tuple(run_id for _, run_id in self._series),
                ticks=self.sampler.ticks,
                points_delivered=sum(count.delivered for count in counts),
                points_pending=sum(count.pending for count in counts),
                points_unsaved=sum(count.unsaved for count in counts),
                points_dropped=sum(count.dropped for count in counts),
                last_error=next((count.last_error for count in counts if count.last_error), None),
                collectors=MappingProxyType({probe.name: probe.health for probe in self._probes}),
                journal=None if self._journal.path is None else str(self._journal.path),
                journal_bytes=self._journal.size,
                journal_failed=self._journal.failed,
            )

    def _delete_journal(self) -> None:
        """Has the journal deleted if nothing waits in it; by a sender, since a disk may hang."""
        if not self._journal.delete_when_empty():
            return
        with self._lock:
            senders = list(self._senders.values())
        if any(sender.counts().pending for sender in senders):
            return
        for sender in senders:
            sender.wake()
        self._journal.deleted.wait(_LAST_SAMPLE_SECONDS)

    def _await_sampler(self, event: threading.Event, ends: float, *, full_timeout: bool) -> bool:
        """Waits for an event of the sampler; a collector that hangs uses up patience, as a server does."""
        began = self._clock.monotonic()
        if not full_timeout:
            ends = began + self._sampler_budget.seconds(max(ends - began, 0.0))
        happened = event.wait(max(ends - began, 0.0))
        if happened:
            self._sampler_budget.reset()
        else:
            self._sampler_budget.timed_out(began, self._clock.monotonic())
        return happened

    def _deliver(self, ends: float, channels: Sequence[Channel] = (), *, full_timeout: bool) -> bool:
        """Has what one run is owed delivered at once, or what all runs are, and waits for it."""
        if channels:  # of one run, hence of one server
            sender = channels[0].sender
            return sender.wait(
                sender.expedite([channel.queue for channel in channels]), ends, full_timeout=full_timeout
            )
        with self._lock:
            senders = list(self._senders.values())
        # All are hastened before any is waited for: a dead server must not take the time of a good one.
        owed = [(sender, sender.expedite()) for sender in senders]
        acknowledged = [sender.wait(backlog, ends, full_timeout=full_timeout) for sender, backlog in owed]
        return all(acknowledged)

    def _start(self) -> bool:
        """Starts the sampler if it does not run yet; returns whether it did not."""
        if self._running:
            return False
        self.sampler.start()
        self._running = True
        if self._recovers:
            with contextlib.suppress(
                RuntimeError
            ):  # too late in the life of the interpreter for others' points
                self._recovery.start()
        return True

    def _channel(self, key: tuple[str, str], settings: Settings, started_at: int | None) -> Channel:
        tracking_uri, run_id = key
        self._attached_to[tracking_uri] = None
        run_journal = ProcessRunJournal(self._journal, run_id, lasting(tracking_uri), started_at)
        queue = RunQueue(run_id, started_at, settings.send_interval, run_journal)
        return Channel(self._sender(tracking_uri), queue)

    def _adopt(self, tracking_uri: str, queue: RunQueue) -> None:
        """Gives what a process that died had owed to the sender of its server."""
        uri = with_secrets(tracking_uri, self._tracking_uris())
        with self._lock:
            sender = self._sender(uri)
        sender.adopt(queue)

    def _tracking_uris(self) -> list[str]:
        """Returns the tracking URIs of this program, with their credentials."""
        current = current_tracking_uri()
        with self._lock:
            return [*self._attached_to, current]

    def _trusts(self, tracking_uri: str) -> bool:
        """Tells whether a server may see credentials: this program uses it, beside what journals name."""
        return is_trusted(tracking_uri, self._tracking_uris())

    def _sender(self, tracking_uri: str) -> Sender:
        sender = self._senders.get(tracking_uri)
        if sender is None:
            sender = Sender(
                tracking_uri,
                self._open_sink,
                self._clock,
                memory=self._memory,
                journal=self._journal,
            )
            sender.start(f"sysmetrics-sender-{len(self._senders)}")
            self._senders[tracking_uri] = sender
        return sender


def _create_journal(settings: Settings) -> Journal:
    return Journal.create(spool_directory(settings), settings.spool_bytes)


def _bounded(timeout: float) -> float:
    """Returns a timeout that the operating system can wait for."""
    return min(max(timeout, 0.0), _LONGEST_WAIT_SECONDS)
