"""The daemon: sampler, senders and journal, assembled. One per process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from mlflow_sysmetrics.collectors import COLLECTORS, AnyCollector
from mlflow_sysmetrics.collectors.registry import resolve_all
from mlflow_sysmetrics.daemon.attachments import Attachments
from mlflow_sysmetrics.daemon.delivery import sink
from mlflow_sysmetrics.daemon.delivery.flush import Deadline, OutageBudget
from mlflow_sysmetrics.daemon.delivery.inbox import Channel, Channels, RunKey
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.senders import Senders
from mlflow_sysmetrics.daemon.delivery.sink import Sink
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal, oom_evidence
from mlflow_sysmetrics.daemon.journal.run_journal import ProcessRunJournal
from mlflow_sysmetrics.daemon.journal.spool import spool_directory, spooled_names
from mlflow_sysmetrics.daemon.journal.thread import JournalThread
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import SAMPLED, Sampler
from mlflow_sysmetrics.daemon.state import Status, log_start, log_summary
from mlflow_sysmetrics.daemon.watchdog import Watchdog
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.exports.last_tick import Source, prepare
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri
from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored, lasting, with_secrets
from mlflow_sysmetrics.runtime.clock import Clock, SystemClock
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event, RLock
from mlflow_sysmetrics.settings import Settings
from mlflow_sysmetrics.summary.alerts import AlertSender
from mlflow_sysmetrics.summary.announcer import announcer_of

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.journal.recovery import Recovery
    from mlflow_sysmetrics.exports.watch import Watch

RECOVERY_THREAD_NAME = "sysmetrics-recovery"

_LAST_SAMPLE_SECONDS = 0.25


class Daemon:
    """Samples for all attached runs with one sampler, and delivers with one sender per tracking server.

    Args:
        settings: those of the first attach; they select the collectors.
        host: the machine.
        clock: the time source.
        collectors: the collectors, as classes or entries of the registry.
        open_sink: opens the sink of a tracking server; by default the real one.
        transparent: lets a collector's exceptions through, for tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        host: Host | None = None,
        clock: Clock | None = None,
        collectors: Sequence[AnyCollector] = COLLECTORS,
        open_sink: Callable[[str], Sink] | None = None,
        transparent: bool = False,
    ) -> None:
        host = replace(host or Host(), disks=settings.disks, gpus=settings.gpus)
        self._clock = clock or SystemClock()
        self._open_sink = open_sink or partial(sink.open_sink, trusts=self._trusts)
        chosen = [collector for collector in collectors if collector.family in settings.collectors]
        self._probes = [
            Probe(collector, host, build, transparent=transparent)
            for collector, build in zip(chosen, resolve_all(chosen, host), strict=True)
        ]
        self.sampler = Sampler(self._probes, self._clock)
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self.attachments = Attachments(self.sampler, self._lock)
        self._channels = Channels()  # of the program itself
        self._running = self._ended = False
        self._flush_timeout = settings.flush_timeout
        self._sampler_budget = OutageBudget()
        journal_thread = JournalThread(self._clock)
        self._journal = ProcessJournal(
            partial(_create_journal, settings) if settings.journalled else None,
            self._clock,
            lambda: oom_evidence(host),
            journal_thread,
        )
        self._watchdog = Watchdog(
            self.sampler,
            self._clock,
            self._loops,
            self.attachments.all,
            guard=journal_thread if settings.journalled else None,
        )
        self._senders = Senders(self._open_sink, self._clock, MemoryBudget(), self._journal)
        self.sampler.together = self._senders.buffer
        self._recovery: Recovery | None = None
        self._recovery_loop = Loop(self._recover, RECOVERY_THREAD_NAME)
        self._settings = settings
        self._alerts = AlertSender()
        self._show_ticks = prepare(settings, Source(self.sampler, self._clock, self.attachments.run_ids))

    def attach(
        self,
        run_id: str,
        tracking_uri: str,
        settings: Settings,
        *,
        started_at: int | None = None,
        holder: object = None,
        told: str | None = None,
    ) -> RunSeries:
        """Attaches a run, or adds a holder to an attached one.

        Args:
            run_id: the run.
            tracking_uri: its tracking server.
            settings: the current ones; a run keeps those of its first holder.
            started_at: when the run started, in milliseconds since 1970; None asks the server.
            holder: who holds the run until `detach`.
            told: value of the tag `METRICS_TAG` that the run has already.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        tracking_uri = anchored(tracking_uri)  # opened later, when the working directory may differ
        key = (tracking_uri, run_id)
        with self._lock:
            self._flush_timeout = settings.flush_timeout
            started = self._start()
            series = self.attachments.hold(
                key, holder, partial(self._series, key, settings, started_at, told)
            )
        if started:  # without the lock: a log handler may block
            log_start(settings, [probe.name for probe in self._probes])
        return series

    def detach(self, series: RunSeries, timeout: float | None, *, holder: object = None) -> bool:
        """Removes a holder of a run; the last one ends the series and waits for delivery.

        Args:
            series: the run.
            timeout: longest wait in seconds; None waits for the flush timeout, or less if an outage of the
                server has used that up.
            holder: as in `attach`.

        Returns:
            True if all points of the run were delivered, or the run has other holders.
        """
        if not self.attachments.release(series, holder):
            return True
        deadline = Deadline.after(timeout, series.settings.flush_timeout, self._clock)
        # The program's own points must be delivered too when the run is over.
        self._channels.gather(series.key)
        channels = self._channels.of(series.key)
        waited_for = [series.ended, *([self.sampler.inbox.expedite()] if channels else [])]
        try:
            complete = all(self._await_sampler(event, deadline) for event in waited_for)
        finally:
            series.channel.sender.close(series.channel.queue)
        return self._deliver(deadline, [series.channel, *channels]) and complete

    def release(self, series: RunSeries, holder: object) -> None:
        """Removes a holder of a run as `detach` does, without waiting for delivery. Safe to call again."""
        if self.attachments.release(series, holder):
            series.channel.sender.close(series.channel.queue)

    def open_channel(
        self,
        run_id: str,
        tracking_uri: str,
        settings: Settings,
        *,
        gather: Callable[[], None] | None = None,
        started_at: int | None = None,
    ) -> Channel:
        """Opens a channel for the program's own points of a run.

        Args:
            run_id: the run.
            tracking_uri: its tracking server.
            settings: the current ones.
            gather: writes points that the program has held back; called before a wait for delivery.
            started_at: as in `attach`; only points without a step need it.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        key = (anchored(tracking_uri), run_id)
        with self._lock:
            self._flush_timeout = settings.flush_timeout
            self._start()
            channel = self._channel(key, settings, started_at)
            self._channels.add(key, channel, gather)
        return channel

    def close_channel(self, channel: Channel, timeout: float | None, settings: Settings) -> bool:
        """Ends a channel and waits until its points are delivered.

        Args:
            channel: from `open_channel`.
            timeout: as in `detach`.
            settings: those that it was opened with.

        Returns:
            True if all of them were delivered.
        """
        try:
            deadline = Deadline.after(timeout, settings.flush_timeout, self._clock)
            collected = self.sampler.inbox.expedite(ending=channel)
            self._channels.end(channel, collected)
            complete = self._await_sampler(collected, deadline)
        finally:
            channel.sender.close(channel.queue)
        return self._deliver(deadline, [channel]) and complete

    def release_channel(self, channel: Channel) -> None:
        """Ends a channel without a wait; its points are delivered in the background."""
        self._channels.end(channel, self.sampler.inbox.expedite(ending=channel))
        channel.sender.close(channel.queue)

    def watch(self, interval: float) -> Watch:
        """Returns a watch, which keeps the sampler reading.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        from mlflow_sysmetrics.exports.watch import Watch  # rarely needed

        with self._lock:
            self._start()
        return Watch(self.sampler, self._clock, interval)

    def flush(self, timeout: float | None) -> bool:
        """Closes all windows and waits until all points are delivered.

        Args:
            timeout: as in `detach`.

        Returns:
            True if they were.
        """
        if not self._running:
            return True
        deadline = Deadline.after(timeout, self._flush_timeout, self._clock)
        self._channels.gather()
        # Includes runs that have just ended: the sampler takes their last sample in the same tick.
        complete = self._await_sampler(self.sampler.flush(), deadline)
        return self._deliver(deadline) and complete

    def end(self) -> None:
        """Ends all series and waits for delivery, at most the flush timeout. For the end of the process."""
        self._channels.gather()
        with self._lock:
            if self._ended or not self._running:
                return
            self._ended = True
            all_series = self.attachments.release_all()
            flushed = self.sampler.flush()
        now = self._clock.monotonic()
        last_sample = now + max(self._flush_timeout, _LAST_SAMPLE_SECONDS)
        # Wait for the last sample even if the flush timeout is 0: its points are counted in the summary.
        self._await_sampler(flushed, Deadline(last_sample, full_timeout=False))
        for series in all_series:
            series.channel.sender.close(series.channel.queue)
        self._deliver(Deadline(now + self._flush_timeout, full_timeout=False))
        self._delete_journal()
        log_summary(self.status(), self._flush_timeout)

    def forget_after_fork(self) -> None:
        """Closes the descriptors in a forked child: journals and locks belong to the parent."""
        self._journal.forget_after_fork()
        if self._recovery is not None:
            self._recovery.forget_after_fork()

    @property
    def is_sampling(self) -> bool:
        """Whether there are samples, and nothing is wrong with threads and sources."""
        has_samples = self._running and not self._ended and bool(self.sampler.latest[1])
        return has_samples and self._watchdog.metrics == SAMPLED and self._watchdog.fault is None

    def status(self) -> Status:
        """Returns a snapshot."""
        with self._lock:
            counts = self._senders.counts()
            return Status(
                running=self.sampler.thread.loop.is_alive,
                attached=self.attachments.run_ids(),
                ticks=self.sampler.ticks,
                points_delivered=counts.delivered,
                points_pending=counts.pending,
                points_unsaved=counts.unsaved,
                points_dropped=counts.dropped,
                last_error=self._watchdog.fault or counts.last_error,
                collectors=MappingProxyType({probe.name: probe.health for probe in self._probes}),
                journal=None if self._journal.path is None else str(self._journal.path),
                journal_bytes=self._journal.size,
                journal_failed=self._journal.failed,
            )

    def _loops(self) -> list[Loop]:
        loops = [sender.loop for sender in self._senders.all()]
        return [*(loop for loop in loops if loop is not None), *self._journal.loops, self._recovery_loop]

    def _delete_journal(self) -> None:
        """Has the journal deleted if nothing waits in it. Its thread does that: a disk may hang."""
        if not self._journal.delete_when_empty() or self._senders.counts().pending:
            return
        self._journal.tidy(idle=True)
        self._journal.deleted.wait(_LAST_SAMPLE_SECONDS)

    def _await_sampler(self, event: Event, deadline: Deadline) -> bool:
        """Waits for an event of the sampler; a hanging collector has an outage budget, as a server does."""
        self._watchdog.revive()
        return self._sampler_budget.wait_for(event, deadline, self._clock)

    def _deliver(self, deadline: Deadline, channels: Sequence[Channel] = ()) -> bool:
        """Sends the points of one run, or of all runs, at once and waits until they are delivered."""
        if channels:  # of one run, hence of one server
            sender = channels[0].sender
            return sender.wait(sender.expedite([channel.queue for channel in channels]), deadline)
        # All are expedited before the first wait: a dead server must not use up the time of a good one.
        backlogs = [(sender, sender.expedite()) for sender in self._senders.all()]
        delivered = [sender.wait(backlog, deadline) for sender, backlog in backlogs]
        return all(delivered)

    def _start(self) -> bool:
        """Starts the sampler if it does not run yet; returns whether it was started for the first time."""
        if self._running:
            self._watchdog.revive()
            return False
        self.sampler.start()
        self._running = True
        self._show_ticks()
        if self._settings.journalled:
            with contextlib.suppress(ThreadUnavailable):
                self._recovery_loop.start()
        return True

    def _recover(self) -> bool:
        """Delivers what processes that died have left behind. Runs in a separate thread."""
        if self._recovery is None and not self._may_have_orphans():
            return False
        with contextlib.suppress(ImportError):  # the interpreter is shutting down
            # Imported in this thread, because no attach has to wait for it.
            from mlflow_sysmetrics.daemon.journal.recovery import Recovery

            self._recovery = self._recovery or Recovery(
                lambda: spool_directory(self._settings), self._adopt, self._open_sink, self._tracking_uris
            )
            self._recovery.run()
        return False

    def _may_have_orphans(self) -> bool:
        """Returns False if the directory of journals has nothing but this process's own."""
        own = self._journal.path
        with contextlib.suppress(Exception):  # `Recovery` says what is wrong
            names = spooled_names(spool_directory(self._settings))
            return any(own is None or not name.startswith(own.stem) for name in names)
        return True

    def _channel(self, key: RunKey, settings: Settings, started_at: int | None) -> Channel:
        tracking_uri, run_id = key
        journal = ProcessRunJournal(self._journal, run_id, lasting(tracking_uri), started_at)
        early = settings.window_seconds
        queue = RunQueue(run_id, started_at, settings.send_interval, journal, early_interval=early)
        return self._senders.open_channel(tracking_uri, queue)

    def _series(self, key: RunKey, settings: Settings, started_at: int | None, told: str | None) -> RunSeries:
        announcer = announcer_of(key[1], settings, self.sampler.history, self._alerts)
        return RunSeries(key, settings, self._channel(key, settings, started_at), told, announcer)

    def _adopt(self, tracking_uri: str, queue: RunQueue) -> None:
        """Gives the queue of a process that died to the sender of its server."""
        self._senders.adopt(with_secrets(tracking_uri, self._tracking_uris()), queue)

    def _tracking_uris(self) -> list[str]:
        """Returns the tracking URIs of this program, with credentials."""
        return [*self._senders.tracking_uris, current_tracking_uri()]

    def _trusts(self, tracking_uri: str) -> bool:
        """Returns whether a server may see credentials: the program itself uses it, not only a journal."""
        if self._senders.is_in_use(tracking_uri):
            return True
        from mlflow_sysmetrics.mlflow_api.tracking_uris import is_trusted  # for orphans only

        return is_trusted(tracking_uri, self._tracking_uris())


def _create_journal(settings: Settings) -> Journal:
    return Journal.create(spool_directory(settings), settings.spool_bytes)
