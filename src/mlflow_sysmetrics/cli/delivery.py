"""Delivers what a process that is gone had owed, and notes what no server will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_sysmetrics.cli.table import counted
from mlflow_sysmetrics.daemon.points import Point
from mlflow_sysmetrics.daemon.recovery import replay
from mlflow_sysmetrics.daemon.sink import Sink, open_sink
from mlflow_sysmetrics.daemon.spool import claim
from mlflow_sysmetrics.daemon.stores import check_store
from mlflow_sysmetrics.daemon.tracking_uris import redacted, without_secrets
from mlflow_sysmetrics.errors import RunDeleted

# A server that is restarted is back within seconds. Where one has let an orphan wait in vain, those after it
# are tried once, or two hundred of them would take half an hour.
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one journal.

    Attributes:
        delivered: points that were sent.
        dropped: points that nobody will ever take.
        waiting: points that wait on.
        faults: what could not be sent, each with its server and the reason.
    """

    delivered: int
    dropped: int
    waiting: int
    faults: tuple[str, ...]


@dataclass(slots=True)
class Delivery:
    """Delivers one orphaned journal after another.

    Attributes:
        tracking_uri: used, with its credentials, for the runs of that server.
        progress: told how many points more are settled.
        open_sink: makes the sink of a tracking server.
        patience_seconds: longest wait for a server that does not answer, until one did not.
    """

    tracking_uri: str | None
    progress: Callable[[int], None] = lambda _: None
    open_sink: Callable[[str], Sink] = open_sink
    patience_seconds: float = _PATIENCE_SECONDS
    _refusals: list[str] = field(default_factory=list)

    def deliver(self, path: Path) -> Outcome | None:
        """Delivers a journal; returns None where another process has it, or has just delivered it.

        The journal is deleted then, unless a run in it still says RUNNING: `reap` is to find that one.
        """
        journal = claim(path)
        if journal is None:
            return None
        self._refusals.clear()
        done = replay(
            journal,
            self._open_noting_sink,
            self.progress,
            tracking_uri=self.tracking_uri,
            patience_seconds=self.patience_seconds,
        )
        if done.faults:
            self.patience_seconds = 0.0
        wait = f"; {counted(done.waiting, 'point')} still in {path}"
        faults = [f"{fault}{wait}" for fault in (*done.kept, *done.faults)]
        return Outcome(done.delivered, done.dropped, done.waiting, (*self._refusals, *faults))

    def _open_noting_sink(self, uri: str) -> Sink:
        check_store(uri)
        return _NotingSink(self.open_sink(uri), uri, self._refusals)


class _NotingSink:
    """Notes which runs were deleted on the server, for people; the sender gives their points up."""

    def __init__(self, sink: Sink, uri: str, refusals: list[str]) -> None:
        self._sink = sink
        self._uri = uri
        self._refusals = refusals

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970."""
        try:
            return self._sink.started_at(run_id)
        except RunDeleted as reason:
            self._note(run_id, reason)
            raise

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run."""
        try:
            self._sink.send(run_id, points, steps, tags)
        except RunDeleted as reason:
            self._note(run_id, reason)
            raise

    def has_ended(self, run_id: str) -> bool:
        """Tells whether a run is over."""
        return self._sink.has_ended(run_id)

    def _note(self, run_id: str, reason: RunDeleted) -> None:
        why = without_secrets(str(reason), self._uri)
        self._refusals.append(
            f"{redacted(self._uri)}: run {run_id} takes no points, which are given up: {why}"
        )
