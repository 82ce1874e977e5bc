"""The daemon of this process: made at the first attach, ended at exit, dropped by a forked child."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlflow_sysmetrics.daemon import launch
from mlflow_sysmetrics.daemon.arguments import (
    check_run_id,
    check_started_at,
    check_timeout,
    check_tracking_uri,
)
from mlflow_sysmetrics.daemon.attachments import reported_at_end
from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries, Steps
from mlflow_sysmetrics.daemon.state import Status
from mlflow_sysmetrics.mlflow_api.clients import import_mlflow
from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri
from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored
from mlflow_sysmetrics.runtime.native import RLock
from mlflow_sysmetrics.runtime.threads import run_beside
from mlflow_sysmetrics.settings import Settings

if TYPE_CHECKING:
    from mlflow_sysmetrics.exports.watch import Watch
    from mlflow_sysmetrics.summary.announcer import Announcer

_lock = RLock()  # re-entrant: a signal handler may call in
_daemon: Daemon | None = None
_ENGINES = frozenset({"ray", "distributed", "pyspark"})  # what a program imports that is connected to one
_STARTS_ENGINES = "mlflow_sysmetrics.cluster.engines"  # by name, because that is on a floor above
_NO_PROCESS = -1  # of a copy by pickle, which belongs to no process


class Attachment:
    """Keeps a run attached until `detach`, or to the end of its ``with`` block.

    Attributes:
        run_id: the run.
        tracking_uri: its tracking server.
        series: its series; None if it was never attached. For this package.
    """

    def __init__(self, daemon: Daemon, run_id: str, tracking_uri: str) -> None:
        self.run_id = run_id
        self.tracking_uri = anchored(tracking_uri)
        self._daemon = daemon
        self.series: RunSeries | None = None
        self._pid = os.getpid()

    def begin(self, settings: Settings, started_at: int | None, told: str | None = None) -> None:
        """Attaches the run.

        An exception may arrive here at any point, from a signal handler: `detach` undoes whatever was done.

        Args:
            settings: as in `attach`.
            started_at: as in `attach`.
            told: value of the tag `METRICS_TAG` that the run has already.

        Raises:
            ThreadUnavailable: no thread can be started, a RuntimeError.
        """
        self.series = self._daemon.attach(
            self.run_id, self.tracking_uri, settings, started_at=started_at, holder=self, told=told
        )

    def detach(self, timeout: float | None = None) -> bool:
        """Takes a last sample, ends the run's series and waits for delivery. A second call only waits.

        Args:
            timeout: longest wait in seconds; None means `MLFLOW_SYSMETRICS_FLUSH_TIMEOUT`, or less if an
                outage of the server has used that up already; 0 does not wait.

        Returns:
            True if all points of the run were delivered, or another attachment still holds the run.

        Raises:
            TypeError: `timeout` is not a number.
            SettingsError: `timeout` is NaN.
        """
        check_timeout(timeout)
        if os.getpid() != self._pid:
            return True  # a forked child: the run belongs to its parent
        try:
            series = self._known_series()
            with reported_at_end(series, timeout):
                return series is None or self._daemon.detach(series, timeout, holder=self)
        except BaseException:  # raised by a signal handler: the run ends all the same
            self.release()
            raise

    def release(self) -> None:
        """Ends the run's series without waiting for anything. Safe to call again."""
        series = self._known_series() if os.getpid() == self._pid else None
        if series is not None:
            self._daemon.release(series, self)

    @property
    def is_attached(self) -> bool:
        """Whether this attachment still holds its run."""
        key = self.tracking_uri, self.run_id
        return os.getpid() == self._pid and self._daemon.attachments.held(key, self) is not None

    def _known_series(self) -> RunSeries | None:
        """Returns the series of the run, also if `begin` was interrupted; None if it was never attached."""
        return self.series or self._daemon.attachments.held((self.tracking_uri, self.run_id), self)

    def put_tags(self, tags: dict[str, str]) -> None:
        """Queues tags for the run; the delivery thread sets them."""
        if os.getpid() == self._pid and self.series is not None:
            self.series.channel.sender.append(self.series.channel.queue, tags=tags)

    def watch_end(self, ended: Callable[[Mapping[str, str]], object]) -> None:
        """Has a function called when the server says that the run, of another program, is over.

        Args:
            ended: takes the tags of the run; called in the sender's thread, once a minute from then on.
        """
        if os.getpid() == self._pid and self.series is not None:
            self.series.channel.sender.watch_end(self.series.channel.queue, ended)

    @property
    def announcer(self) -> Announcer | None:
        """What tells the run its summary; None if there is none."""
        return None if self.series is None else self.series.announcer

    @property
    def steps(self) -> Steps:
        """The steps of the run's points, also before it is attached."""
        return self._daemon.attachments.steps_of((self.tracking_uri, self.run_id))

    def __getstate__(self) -> dict[str, object]:
        """A copy by pickle or `copy.deepcopy` is detached, like one in a forked child."""
        return {"run_id": self.run_id, "tracking_uri": self.tracking_uri, "_pid": _NO_PROCESS}

    def offer_host_tags(self) -> None:
        """Has the delivery thread set the host tags if the run, made elsewhere, has none."""
        if os.getpid() == self._pid and self.series is not None:
            from mlflow_sysmetrics.daemon.delivery.host_tags import look_for_host_tags

            look_for_host_tags()
            self.series.channel.sender.append(self.series.channel.queue, host_tags=True)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


class PointWriter:
    """Delivers the program's own points to one run as samples are: journalled, in order, in the background.

    Attributes:
        run_id: the run.
        tracking_uri: its tracking server.
        gather: writes points that the program has held back; called before a caller waits for delivery.
    """

    def __init__(self, daemon: Daemon, run_id: str, tracking_uri: str, settings: Settings) -> None:
        self.gather: Callable[[], None] | None = None
        self.run_id = run_id
        self.tracking_uri = tracking_uri
        self._daemon = daemon
        self._settings = settings
        self._pid = os.getpid()
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._channel: Channel | None = self._open_channel()

    def write(self, points: Sequence[Point]) -> None:
        """Takes points, in microseconds and without blocking. Ignored in a forked child.

        Writing after `close` opens the writer again.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._channel is None:
                self._channel = self._open_channel()
            self._daemon.sampler.inbox.put(self._channel, points)

    def close(self, timeout: float | None = None) -> bool:
        """Ends the points and waits until those written so far are delivered.

        Args:
            timeout: as in `Attachment.detach`.

        Returns:
            Whether all of them were delivered; the others are delivered later.

        Raises:
            TypeError: as in `Attachment.detach`.
            SettingsError: as in `Attachment.detach`.
        """
        check_timeout(timeout)
        if os.getpid() != self._pid:
            return True
        with self._lock:
            channel, self._channel = self._channel, None
        return channel is None or self._daemon.close_channel(channel, timeout, self._settings)

    def release(self) -> None:
        """Ends the points without a wait, in any thread and at any moment, as when an object is collected."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            self._daemon.release_channel(channel)

    def __getstate__(self) -> dict[str, object]:
        """A copy by pickle or `copy.deepcopy` writes nothing, like one in a forked child."""
        return {"run_id": self.run_id, "tracking_uri": self.tracking_uri, "gather": None, "_pid": _NO_PROCESS}

    def _open_channel(self) -> Channel:
        return self._daemon.open_channel(self.run_id, self.tracking_uri, self._settings, gather=self._gather)

    def _gather(self) -> None:
        if self.gather is not None and os.getpid() == self._pid:
            self.gather()


def attach(
    run_id: str,
    *,
    tracking_uri: str | None = None,
    node_id: str | None = None,
    settings: Settings | None = None,
    started_at: int | None = None,
) -> Attachment:
    """Logs the system metrics of this machine to a run.

    Runs of `mlflow.start_run` are attached automatically. Call this for runs made by
    `MlflowClient.create_run`, as Lightning's logger does. A run that is attached twice is sampled once, until
    both attachments are detached.

    Args:
        run_id: the run.
        tracking_uri: its tracking server; by default the current one.
        node_id: name of this machine in the keys, ``system/<node id>/...``.
        settings: by default those of the environment. The settings of the first attach of the process select
            its collectors.
        started_at: milliseconds since 1970 when the run started; by default the server is asked.

    Returns:
        The attachment; call its `detach`, or use it as a context manager.

    Raises:
        TypeError: an argument is of a wrong type.
        SettingsError: `node_id` cannot be part of a metric name, `run_id` or `tracking_uri` names nothing, or
            `started_at` is out of range.
        ThreadUnavailable: no thread can be started, a RuntimeError.
    """
    check_run_id(run_id)
    given_uri = check_tracking_uri(tracking_uri)
    check_started_at(started_at)
    if settings is not None and not isinstance(settings, Settings):
        raise TypeError(f"settings must be Settings(...), got {settings!r}")
    chosen = Settings.from_environ(node_id=node_id) if settings is None else settings
    if settings is not None and node_id is not None:
        chosen = replace(settings, node_id=node_id)
    launch.wait()
    attachment = prepare(run_id, given_uri, chosen)
    try:
        attachment.begin(chosen, started_at)
        if chosen.tags:
            attachment.offer_host_tags()
        tell_engines(attachment, chosen)
    except BaseException:  # of a signal handler, or no thread can be started
        attachment.detach(timeout=0)
        raise
    return attachment


def tell_engines(attachment: Any, settings: Settings) -> None:
    """Has the nodes of a cluster that the program is connected to sample the run of an attachment, too."""
    if settings.cluster and not _ENGINES.isdisjoint(sys.modules):
        import_module(_STARTS_ENGINES).start(attachment)


def prepare(run_id: str, tracking_uri: str | None, settings: Settings) -> Attachment:
    """Returns an attachment that does not hold its run before its `begin`.

    Args:
        run_id: the run.
        tracking_uri: its tracking server; by default the current one.
        settings: if this is the first attachment of the process, they select its collectors.
    """
    import_mlflow()
    daemon = _daemon_of_process(settings)
    return Attachment(daemon, run_id, tracking_uri or str(current_tracking_uri()))


def open_writer(run_id: str, *, tracking_uri: str | None = None) -> PointWriter:
    """Opens a writer for the program's own points of a run, whether or not the run is attached.

    Args:
        run_id: the run.
        tracking_uri: its tracking server; by default the current one.

    Raises:
        TypeError: as for `attach`.
        SettingsError: as for `attach`.
        ThreadUnavailable: no thread can be started, a RuntimeError.
    """
    check_run_id(run_id)
    given_uri = check_tracking_uri(tracking_uri)
    settings = Settings.from_environ()
    launch.wait()
    import_mlflow()
    uri = given_uri or str(current_tracking_uri())
    return PointWriter(_daemon_of_process(settings), run_id, uri, settings)


def watch(interval: float | None = None) -> Watch:
    """Starts reading this machine, whether or not runs are attached.

    Args:
        interval: seconds between two readings; by default the sampling interval of the environment.

    Returns:
        A view of the last reading, until it is closed or not read for a minute.

    Raises:
        ThreadUnavailable: no thread can be started, a RuntimeError.
    """
    settings = Settings.from_environ()
    launch.wait()
    return _daemon_of_process(settings).watch(settings.sampling_interval if interval is None else interval)


def flush(timeout: float | None = None) -> bool:
    """Samples once more and waits until all points are on the tracking servers.

    Args:
        timeout: longest wait in seconds; None means `MLFLOW_SYSMETRICS_FLUSH_TIMEOUT`.

    Returns:
        Whether all points are delivered; True if nothing was ever sampled.

    Raises:
        TypeError: `timeout` is not a number.
        SettingsError: `timeout` is NaN.
    """
    check_timeout(timeout)
    launch.wait()
    daemon = _daemon
    return True if daemon is None else daemon.flush(timeout)


def status() -> Status:
    """Returns a snapshot of this process's daemon."""
    launch.wait()
    daemon = _daemon
    return Status() if daemon is None else daemon.status()


def _daemon_of_process(settings: Settings) -> Daemon:
    """Returns the daemon; the first call makes it, with the settings of that call."""
    global _daemon  # noqa: PLW0603 - one per process is the point
    made: list[Daemon] = []
    if _daemon is None:
        # It imports collectors and looks for their sources: too long for a greenlet, and if this one waited
        # under the lock, which belongs to the thread, another one would make a second daemon.
        run_beside(lambda: made.append(Daemon(settings)))
    with _lock:
        if _daemon is None:
            launch.end_with_interpreter()  # first: a signal handler may raise between the two
            _daemon = made[0] if made else Daemon(settings)
        return _daemon


def end() -> None:
    """Ends the daemon with the interpreter."""
    daemon = _daemon
    if daemon is not None:
        daemon.end()


def _forget_parent() -> None:
    """Leaves a forked child without a daemon: its threads are gone, and its locks may stay held for ever."""
    global _lock, _daemon  # noqa: PLW0603
    daemon = _daemon
    _lock = RLock()
    _daemon = None
    if daemon is not None:
        daemon.forget_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)
