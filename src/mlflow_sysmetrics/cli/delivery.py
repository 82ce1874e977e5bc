"""Delivers what a process that is gone had owed, and notes what no server will take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_sysmetrics.cli.table import counted
from mlflow_sysmetrics.daemon.delivery.credential_scope import is_trusted
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.sink import Sink, open_sink
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.recovery import replay
from mlflow_sysmetrics.daemon.journal.spool import claim
from mlflow_sysmetrics.daemon.journal.store_files import check_store
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

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
        refusals: what no server will ever take, likewise.
        path: the journal.
    """

    delivered: int
    dropped: int
    waiting: int
    faults: tuple[str, ...]
    refusals: tuple[str, ...]
    path: Path


def told(outcomes: Iterable[Outcome]) -> list[str]:
    """Returns all faults for people, each once, with how many points wait for its end, and where."""
    refusals: dict[str, None] = {}
    stuck: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        refusals |= dict.fromkeys(outcome.refusals)
        for fault in outcome.faults:
            stuck.setdefault(fault, []).append(outcome)
    waits = []
    for fault, owing in stuck.items():
        where = str(owing[0].path) if len(owing) == 1 else counted(len(owing), "journal")
        points = counted(sum(outcome.waiting for outcome in owing), "point")
        waits.append(f"{fault}; {points} still in {where}")
    return [*refusals, *waits]


@dataclass(slots=True)
class Delivery:
    """Delivers one orphaned journal after another.

    Attributes:
        tracking_uri: used, with its credentials, for the runs of that server.
        progress: told how many points more are settled.
        open_sink: makes the sink of a tracking server; by default the real one, which no server but that of
            `tracking_uri` sees credentials through.
        patience_seconds: longest wait for a server that does not answer, until one did not.
    """

    tracking_uri: str | None
    progress: Callable[[int], None] = lambda _: None
    open_sink: Callable[[str], Sink] | None = None
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
        missing = _missing_stores(journal)
        if missing is not None:
            owed = sum(run.appended - run.acknowledged for run in journal.runs)
            journal.close(delete=False)
            return Outcome(0, 0, owed, missing, (), path)
        done = replay(
            journal,
            self._open_noting_sink,
            self.progress,
            tracking_uri=self.tracking_uri,
            wait_seconds=self.patience_seconds,
        )
        if done.faults:
            self.patience_seconds = 0.0
        faults = (*done.kept, *done.faults)
        return Outcome(done.delivered, done.dropped, done.waiting, faults, tuple(self._refusals), path)

    def _open_noting_sink(self, uri: str) -> Sink:
        check_store(uri)
        opened = open_sink(uri, self._trusts) if self.open_sink is None else self.open_sink(uri)
        return _NotingSink(opened, uri, self._refusals)

    def _trusts(self, uri: str) -> bool:
        return is_trusted(uri, () if self.tracking_uri is None else (self.tracking_uri,))


def _missing_stores(journal: Journal) -> tuple[str, ...] | None:
    """Returns what to say of stores that are files and not there, if there is nowhere else to deliver to.

    A server that is away is worth waiting for; a disk that is not mounted does not come back by itself.
    """
    owing = {run.tracking_uri for run in journal.runs if run.acknowledged < run.appended}
    missing = [fault for uri in sorted(owing) if (fault := _missing(uri)) is not None]
    return tuple(missing) if missing and len(missing) == len(owing) else None


def _missing(uri: str) -> str | None:
    try:
        check_store(uri)
    except Fault as fault:
        return fault.reason
    return None


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
        except Fault as fault:
            self._note(run_id, fault)
            raise

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run."""
        try:
            self._sink.send(run_id, points, steps, tags)
        except Fault as fault:
            self._note(run_id, fault)
            raise

    def has_ended(self, run_id: str) -> bool:
        """Tells whether a run is over."""
        return self._sink.has_ended(run_id)

    def _note(self, run_id: str, fault: Fault) -> None:
        if not fault.run_is_deleted:
            return
        why = cleaned(fault.reason, self._uri)
        self._refusals.append(
            f"{redacted(self._uri)}: run {run_id} takes no points, which are given up: {why}"
        )
