"""The daemon: sampler, senders and journal, assembled. One per process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from mlflow_sysmetrics.collectors import COLLECTORS, AnyCollector
from mlflow_sysmetrics.daemon.attachments import Attachments
from mlflow_sysmetrics.daemon.delivery import sink
from mlflow_sysmetrics.daemon.delivery.credential_scope import is_trusted
from mlflow_sysmetrics.daemon.delivery.flush import Deadline, OutageBudget
from mlflow_sysmetrics.daemon.delivery.inbox import Channel, OpenChannels
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.delivery.sink import Sink
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal, oom_evidence
from mlflow_sysmetrics.daemon.journal.run_journal import ProcessRunJournal
from mlflow_sysmetrics.daemon.journal.spool import spool_directory
from mlflow_sysmetrics.daemon.journal.thread import JournalThread
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler, Watch
from mlflow_sysmetrics.daemon.state import Status, log_summary
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri
from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored, lasting, with_secrets
from mlflow_sysmetrics.runtime.clock import Clock, SystemClock
from mlflow_sysmetrics.runtime.native import Event, RLock
from mlflow_sysmetrics.runtime.threads import start_thread
from mlflow_sysmetrics.settings import Settings

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.journal.recovery import Recovery

RECOVERY_THREAD_NAME = "sysmetrics-recovery"

_LAST_SAMPLE_SECONDS = 0.25

_logger = logging.getLogger("mlflow_sysmetrics")


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
        self._probes = [
            Probe(collector, host, transparent=transparent)
            for collector in collectors
            if collector.family in settings.collectors
        ]
        self.sampler = Sampler(self._probes, self._clock)
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self.attachments = Attachments(self.sampler, self._lock)
        self._channels = OpenChannels()  # of the program itself
        self._senders: dict[str, Sender] = {}
        self._attached_to: dict[str, None] = {}  # the program's tracking URIs, in order
        self._running = self._ended = False
        self._flush_timeout = settings.flush_timeout
        self._sampler_budget = OutageBudget()
        self._memory = MemoryBudget()
        self._journal = ProcessJournal(
            partial(_create_journal, settings) if settings.journalled else None,
            self._clock,
            lambda: oom_evidence(host),
            JournalThread(self._clock),
        )
        self._recovery: Recovery | None = None
        self._settings = settings

    def attach(
        self,
        run_id: str,
        tracking_uri: str,
        settings: Settings,
        *,
        started_at: int | None = None,
        holder: object = None,
    ) -> RunSeries:
        """Attaches a run, or adds a holder to an attached one.

        Args:
            run_id: the run.
            tracking_uri: its tracking server.
            settings: the current ones; a run keeps those of its first holder.
            started_at: when the run started, in milliseconds since 1970; None asks the server.
            holder: who holds the run until `detach`.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        tracking_uri = anchored(tracking_uri)  # opened later, when the working directory may differ
        key = (tracking_uri, run_id)
        with self._lock:
            self._flush_timeout = settings.flush_timeout
            started = self._start()
            series = self.attachments.hold(
                key, holder, lambda: RunSeries(key, settings, self._channel(key, settings, started_at))
            )
        if started:  # without the lock: a log handler may block
            _logger.info(
                "Sampling started: a tick every %g s, a point every %g s, from %s.",
                settings.sampling_interval,
                settings.window_seconds,
                ", ".join(probe.name for probe in self._probes) or "no collector",
            )
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
        deadline = Deadline.after(self._clock, timeout, series.settings.flush_timeout)
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
            self._channels.remove(channel)
            deadline = Deadline.after(self._clock, timeout, settings.flush_timeout)
            complete = self._await_sampler(self.sampler.inbox.expedite(ending=channel), deadline)
        finally:
            channel.sender.close(channel.queue)
        return self._deliver(deadline, [channel]) and complete

    def watch(self, interval: float) -> Watch:
        """Returns a watch, which keeps the sampler reading.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
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
        deadline = Deadline.after(self._clock, timeout, self._flush_timeout)
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

    def status(self) -> Status:
        """Returns a snapshot."""
        with self._lock:
            counts = [sender.counts() for sender in self._senders.values()]
            return Status(
                running=self._running,
                attached=self.attachments.run_ids(),
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
        """Has a sender delete the journal if nothing waits in it. Not this thread: a disk may hang."""
        if not self._journal.delete_when_empty():
            return
        with self._lock:
            senders = list(self._senders.values())
        if any(sender.counts().pending for sender in senders):
            return
        for sender in senders:
            sender.wake()
        self._journal.deleted.wait(_LAST_SAMPLE_SECONDS)

    def _await_sampler(self, event: Event, deadline: Deadline) -> bool:
        """Waits for an event of the sampler; a hanging collector has an outage budget, as a server does."""
        began = self._clock.monotonic()
        timeout = max(deadline.ends - began, 0.0)
        happened = event.wait(timeout if deadline.full_timeout else self._sampler_budget.seconds(timeout))
        if happened:
            self._sampler_budget.reset()
        else:
            self._sampler_budget.timed_out(began, self._clock.monotonic())
        return happened

    def _deliver(self, deadline: Deadline, channels: Sequence[Channel] = ()) -> bool:
        """Sends the points of one run, or of all runs, at once and waits until they are delivered."""
        if channels:  # of one run, hence of one server
            sender = channels[0].sender
            return sender.wait(sender.expedite([channel.queue for channel in channels]), deadline)
        with self._lock:
            senders = list(self._senders.values())
        # All are expedited before the first wait: a dead server must not use up the time of a good one.
        backlogs = [(sender, sender.expedite()) for sender in senders]
        delivered = [sender.wait(backlog, deadline) for sender, backlog in backlogs]
        return all(delivered)

    def _start(self) -> bool:
        """Starts the sampler if it does not run yet; returns whether it was started."""
        if self._running:
            return False
        self.sampler.start()
        self._running = True
        if self._settings.journalled:
            with contextlib.suppress(ThreadUnavailable):
                start_thread(self._recover, RECOVERY_THREAD_NAME)
        return True

    def _recover(self) -> None:
        """Delivers what processes that died have left behind. Runs in a separate thread."""
        with contextlib.suppress(ImportError):  # the interpreter is shutting down
            # Imported in this thread, because no attach has to wait for it.
            from mlflow_sysmetrics.daemon.journal.recovery import Recovery

            self._recovery = Recovery(
                lambda: spool_directory(self._settings), self._adopt, self._open_sink, self._tracking_uris
            )
            self._recovery.run()

    def _channel(self, key: tuple[str, str], settings: Settings, started_at: int | None) -> Channel:
        tracking_uri, run_id = key
        self._attached_to[tracking_uri] = None
        run_journal = ProcessRunJournal(self._journal, run_id, lasting(tracking_uri), started_at)
        queue = RunQueue(
            run_id, started_at, settings.send_interval, run_journal, early_interval=settings.window_seconds
        )
        return Channel(self._sender(tracking_uri), queue)

    def _adopt(self, tracking_uri: str, queue: RunQueue) -> None:
        """Gives the queue of a process that died to the sender of its server."""
        uri = with_secrets(tracking_uri, self._tracking_uris())
        with self._lock:
            sender = self._sender(uri)
        sender.adopt(queue)

    def _tracking_uris(self) -> list[str]:
        """Returns the tracking URIs of this program, with credentials."""
        current = current_tracking_uri()
        with self._lock:
            return [*self._attached_to, current]

    def _trusts(self, tracking_uri: str) -> bool:
        """Returns whether a server may see credentials: the program itself uses it, not only a journal."""
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
