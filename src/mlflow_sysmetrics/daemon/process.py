"""The daemon of this process: made at the first attach, ended at exit, forgotten by a forked child."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType

from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.sink import current_tracking_uri, import_mlflow
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.watch import Watch
from mlflow_sysmetrics.daemon.state import Status
from mlflow_sysmetrics.settings import Settings

_lock = threading.RLock()  # a signal handler may come back in
_daemon: Daemon | None = None


class Attachment:
    """Holds a run that the daemon feeds, until it is detached.

    It is a context manager: the run is fed inside the ``with`` block.

    Attributes:
        run_id: the run.
        tracking_uri: its tracking server.
    """

    def __init__(self, daemon: Daemon, series: RunSeries) -> None:
        self.tracking_uri, self.run_id = series.key
        self._daemon = daemon
        self._series = series
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._detached = False

    def detach(self, timeout: float | None = None) -> bool:
        """Takes a last sample, ends the run's series and waits for delivery. Again, it only waits again.

        Args:
            timeout: longest wait in seconds; None is `MLFLOW_SYSMETRICS_FLUSH_TIMEOUT`, and less where an
                outage of the server has used it up already; 0 does not wait.

        Returns:
            Whether all points of the run have been delivered, or somebody else still holds the run.
        """
        if os.getpid() != self._pid:
            return True  # a forked child holds nothing: the run is its parent's
        with self._lock:
            again, self._detached = self._detached, True
        return (self._daemon.deliver if again else self._daemon.detach)(self._series, timeout)

    def put_tags(self, tags: dict[str, str]) -> None:
        """Has the delivery thread set tags on the run."""
        if os.getpid() == self._pid:
            self._series.channel.sender.append(self._series.channel.queue, tags=tags)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


class PointWriter:
    """Delivers points of the program's own to one run, as what is sampled is: journalled, in order, later.

    Attributes:
        run_id: the run.
        tracking_uri: its tracking server.
    """

    def __init__(self, daemon: Daemon, run_id: str, tracking_uri: str, settings: Settings) -> None:
        #: Writes what is held back so far; called before anybody waits for the delivery of the run's points.
        self.gather: Callable[[], None] | None = None
        self.run_id = run_id
        self.tracking_uri = tracking_uri
        self._daemon = daemon
        self._settings = settings
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a signal handler may come back in
        self._channel: Channel | None = self._open_channel()

    def write(self, points: Sequence[Point]) -> None:
        """Takes points. It takes microseconds and waits for nothing; a forked child's are its parent's.

        After a `close` it begins anew.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._channel is None:
                self._channel = self._open_channel()
            self._daemon.sampler.inbox.put(self._channel, points)

    def close(self, timeout: float | None = None) -> bool:
        """Says that no more points will come, and waits for the delivery of those that were taken.

        Args:
            timeout: as in `Attachment.detach`.

        Returns:
            Whether all of them have been delivered; the others are delivered later.
        """
        if os.getpid() != self._pid:
            return True
        with self._lock:
            channel, self._channel = self._channel, None
        return channel is None or self._daemon.close_channel(channel, timeout, self._settings)

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
    """Begins to feed a run with the system metrics of this machine.

    Runs that `mlflow.start_run` makes are attached without this; it serves those made by
    `MlflowClient.create_run`, as Lightning's logger does. Attaching a run twice feeds it once, until both
    attachments are detached.

    Args:
        run_id: the run.
        tracking_uri: its tracking server; by default the one that is in force now.
        node_id: name of this machine in the keys, ``system/<node id>/...``.
        settings: by default those of the environment. Which collectors there are is decided by the first
            attach of the process.
        started_at: milliseconds since 1970 when the run started; by default the server is asked.

    Returns:
        What holds the run; call its `detach`, or use it as a context manager.

    Raises:
        SettingsError: `node_id` cannot be part of a metric name.
        RuntimeError: the interpreter is shutting down.
    """
    chosen = Settings.from_environ(node_id=node_id) if settings is None else settings
    if settings is not None and node_id is not None:
        chosen = replace(settings, node_id=node_id)
    import_mlflow()
    uri = str(tracking_uri or current_tracking_uri())
    daemon = _daemon_of_process(chosen)
    return Attachment(daemon, daemon.attach(run_id, uri, chosen, started_at=started_at))


def open_writer(run_id: str, *, tracking_uri: str | None = None) -> PointWriter:
    """Begins to deliver points of the program's own to a run, beside what is sampled for it, if anything is.

    Args:
        run_id: the run.
        tracking_uri: its tracking server; by default the one that is in force now.

    Returns:
        What takes the points.

    Raises:
        RuntimeError: the interpreter is shutting down.
    """
    settings = Settings.from_environ()
    import_mlflow()
    return PointWriter(
        _daemon_of_process(settings), run_id, str(tracking_uri or current_tracking_uri()), settings
    )


def watch(interval: float | None = None) -> Watch:
    """Begins to have this machine read, whether or not runs are attached, and shows the last reading.

    Args:
        interval: seconds between two readings; by default the sampling interval of the environment.

    Returns:
        What shows it, until it is closed or not looked at for a minute.

    Raises:
        RuntimeError: the interpreter is shutting down.
    """
    settings = Settings.from_environ()
    return _daemon_of_process(settings).watch(settings.sampling_interval if interval is None else interval)


def flush(timeout: float | None = None) -> bool:
    """Samples once more and waits until everything that was sampled is on the tracking servers.

    Args:
        timeout: longest wait in seconds; None is `MLFLOW_SYSMETRICS_FLUSH_TIMEOUT`.

    Returns:
        Whether it is; also if nothing was ever sampled.
    """
    daemon = _daemon
    return True if daemon is None else daemon.flush(timeout)


def status() -> Status:
    """Returns what the daemon of this process is doing."""
    daemon = _daemon
    return Status() if daemon is None else daemon.status()


def _daemon_of_process(settings: Settings) -> Daemon:
    """Returns the daemon, made where there was none; its settings are those of whoever comes first."""
    global _daemon  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _daemon is None:
            _daemon = Daemon(settings)
            _end_with_interpreter()
        return _daemon


def _end_with_interpreter() -> None:
    # Before MLflow's own exit function, which ends the active run and finds nothing to wait for.
    atexit.register(_end)
    # The children of multiprocessing leave without running exit functions, but they run its finalizers.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and multiprocessing.parent_process() is not None:
        util.Finalize(None, _end, exitpriority=0)


def _end() -> None:
    # Not the daemon's own method: a forked child inherits the exit functions, but not the daemon.
    daemon = _daemon
    if daemon is not None:
        daemon.end()


def _forget_parent() -> None:
    """Leaves a forked child without daemon: threads do not survive a fork, and locks may be held for ever."""
    global _lock, _daemon  # noqa: PLW0603
    daemon = _daemon
    _lock = threading.RLock()
    _daemon = None
    if daemon is not None:
        daemon.forget_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)
