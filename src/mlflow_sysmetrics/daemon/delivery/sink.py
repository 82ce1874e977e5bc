"""Where the points of runs go: the interface, and the sink that writes them to a tracking server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.runs import Metric, Runs, RunState, open_runs
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.runtime.threads import greenlets_may_wait

_ALIVE = frozenset({"RUNNING", "SCHEDULED"})
_MILLISECONDS = 1000
_END_SECONDS = 60.0  # six of the usual sends cost one request more


class Sink(Protocol):
    """Takes points for the runs of one tracking server.

    Each method makes one attempt and raises `Fault` if it fails. Sending the same points again is harmless.
    """

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970."""

    def has_ended(self, run_id: str) -> bool:
        """Returns whether the run is over."""

    def tags(self, run_id: str) -> Mapping[str, str]:
        """Returns the tags of the run."""

    def state(self, run_id: str) -> RunState:
        """Returns the state of the run."""

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run, at most a thousand points."""

    def close(self) -> None:
        """Closes the connection, if there is one; the next call opens it again."""


class BatchRefused(Fault):
    """MLflow refuses a point or a tag of a batch, not the run: it knows the run, and takes an empty batch."""


class Connection:
    """The sink of one tracking server, opened when it is first needed.

    Args:
        tracking_uri: the server.
        open_sink: opens the sink; called until it succeeds.
    """

    def __init__(self, tracking_uri: str, open_sink: Callable[[str], Sink]) -> None:
        self._tracking_uri = tracking_uri
        self._open_sink = open_sink
        self._sink: Sink | None = None

    def __str__(self) -> str:
        """Returns the server's name, without secrets."""
        return f"Tracking server {redacted(self._tracking_uri)}"

    def reason(self, error: Exception) -> str:
        """Returns why an attempt failed, without secrets."""
        kind = "" if isinstance(error, (Fault, JournalUnavailable)) else f"{type(error).__name__}: "
        return cleaned(f"{kind}{error}", self._tracking_uri)

    def send(self, queue: RunQueue, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Delivers points and tags of one run. Takes as long as the server does.

        Raises:
            BatchRefused: one of them is invalid.
            Fault: the server did not accept them, or its client could not be created.
        """
        if not points and not tags:
            return  # all the points were thinned out on disk
        with greenlets_may_wait():
            self._send(self._opened(), queue, points, tags)

    @staticmethod
    def _send(sink: Sink, queue: RunQueue, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        needs_start = any(point.step is None for point in points)
        if needs_start and queue.started_at is None:
            queue.set_started_at(sink.started_at(queue.run_id))
        started_at = queue.started_at or 0
        steps = [
            max(point.timestamp - started_at, 0) // _MILLISECONDS if point.step is None else point.step
            for point in points
        ]
        try:
            sink.send(queue.run_id, points, steps, tags)
        except Fault as fault:
            is_single = len(points) + len(tags) == 1
            if not fault.refuses_content or fault.run_is_deleted or (fault.is_about_size and not is_single):
                raise
            if queue.bisection is None:
                sink.started_at(queue.run_id)
                sink.send(queue.run_id, [], [], {})
            refused = BatchRefused(fault.reason, fault.cause, error_code=fault.error_code)
        else:
            return
        raise refused

    def tags(self, queue: RunQueue) -> Mapping[str, str]:
        """Returns the tags that a run has on the server.

        Raises:
            Fault: the server did not answer, or its client could not be created.
        """
        with greenlets_may_wait():
            return self._opened().tags(queue.run_id)

    def state(self, queue: RunQueue) -> RunState:
        """Returns the state of a run.

        Raises:
            Fault: the server did not answer, or its client could not be created.
        """
        with greenlets_may_wait():
            return self._opened().state(queue.run_id)

    def tags_at_end(self, queue: RunQueue) -> Mapping[str, str] | None:
        """Returns the tags of a run that is over; None while it is not.

        Raises:
            Fault: the server did not answer, or its client could not be created.
        """
        with greenlets_may_wait():
            sink = self._opened()
            return sink.tags(queue.run_id) if sink.has_ended(queue.run_id) else None

    def release(self) -> Sink | None:
        """Returns the sink, which the caller closes; the next request opens another one."""
        sink, self._sink = self._sink, None
        return sink

    def _opened(self) -> Sink:
        if self._sink is None:
            try:
                self._sink = self._open_sink(self._tracking_uri)
            except Exception as error:  # noqa: BLE001
                # MLflow or a plugin creates the store and may raise anything; the next attempt may succeed.
                reason = cleaned(str(error), self._tracking_uri)
            else:
                return self._sink
            raise Fault(f"cannot create a client for {redacted(self._tracking_uri)}: {reason}", Cause.DOWN)
        return self._sink


class EndWatch:
    """Asks whether a run is over.

    Args:
        ended: called with the tags of the run when it is.
        now: monotonic time.
    """

    def __init__(self, ended: Callable[[Mapping[str, str]], object], now: float) -> None:
        self._ended = ended
        self._due_at = now

    def is_due(self, now: float) -> bool:
        """Returns whether it is time to ask; then the next time is a minute later."""
        if now < self._due_at:
            return False
        self._due_at = now + _END_SECONDS
        return True

    def ask(self, connection: Connection, queue: RunQueue) -> None:
        """Asks the server; a failure only delays the answer."""
        with contextlib.suppress(Fault):
            tags = connection.tags_at_end(queue)
            if tags is not None:
                self._ended(tags)


def open_sink(tracking_uri: str, trusts: Callable[[str], bool] = lambda _: True) -> Sink:
    """Returns the sink for a tracking URI.

    Args:
        tracking_uri: the server.
        trusts: returns whether a server may see the credentials of the environment; called for each request.

    Raises:
        Fault: the store is a missing file, perhaps on a disk that is not mounted now. MLflow would create a
            new store, which has no runs.
    """
    if not tracking_uri.lower().startswith(("http:", "https:")):
        from mlflow_sysmetrics.daemon.journal.store_files import check_store

        check_store(tracking_uri)
    return RunSink(open_runs(tracking_uri, lambda: trusts(tracking_uri)))


class RunSink:
    """Writes points to the runs of a tracking server.

    Args:
        runs: the runs of that server.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970."""
        started_at = self._runs.state(run_id).started_at
        if started_at is None:
            raise Fault(f"the server has no start time for run {run_id}", Cause.NOT_MLFLOW)
        return started_at

    def has_ended(self, run_id: str) -> bool:
        """Returns whether the run is over."""
        return self._runs.state(run_id).status not in _ALIVE

    def tags(self, run_id: str) -> Mapping[str, str]:
        """Returns the tags of the run."""
        return self._runs.state(run_id).tags

    def state(self, run_id: str) -> RunState:
        """Returns the state of the run."""
        return self._runs.state(run_id)

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run."""
        try:
            self._send(run_id, points, steps, tags)
        except Fault as fault:
            if fault.cause is not Cause.POINT_EXISTS:
                raise
            from mlflow_sysmetrics.daemon.delivery.resending import send_what_is_missing  # rarely needed

            send_what_is_missing(partial(self._send, run_id), points, steps, tags)

    def close(self) -> None:
        """Closes the connection; the next call opens it again."""
        self._runs.close()

    def _send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        metrics = (
            Metric(point.key, point.value, point.timestamp, step)
            for point, step in zip(points, steps, strict=True)
        )
        self._runs.log_batch(run_id, metrics, tags)
