"""Delivers orphaned journals in the foreground, and records what no server accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_sysmetrics.cli.output import counted
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.sink import Sink, open_sink
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.recovery import Replayed, replay
from mlflow_sysmetrics.daemon.journal.spool import claim
from mlflow_sysmetrics.daemon.journal.store_files import check_store
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.runs import RunState
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import is_trusted, redacted

# A restarting server is back within seconds. Once this wait has timed out, the remaining journals are tried
# only once: waiting for each of two hundred would take half an hour.
_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one journal.

    Attributes:
        delivered: points that were sent.
        dropped: points that no server will ever accept.
        waiting: points that stay in the journal.
        faults: what could not be sent, with server and reason.
        refusals: what no server will ever accept, with server and reason.
        path: the journal.
        damage: what in it is not understood, and what becomes of it; None if everything is.
        unreachable: whether points wait because a server did not answer, or its file is not there.
    """

    delivered: int
    dropped: int
    waiting: int
    faults: tuple[str, ...]
    refusals: tuple[str, ...]
    path: Path
    damage: str | None = None
    unreachable: bool = False


@dataclass(slots=True)
class OrphanDelivery:
    """Delivers one orphaned journal after another.

    Attributes:
        tracking_uri: used, with its credentials, for the runs of that server.
        progress: called with the number of points settled since the last call.
        open_sink: opens the sink of a tracking server; the default passes credentials to the server of
            `tracking_uri` only.
        wait_seconds: longest wait for a server that does not answer; 0 after the first such wait.
    """

    tracking_uri: str | None
    progress: Callable[[int], None] = lambda _: None
    open_sink: Callable[[str], Sink] | None = None
    wait_seconds: float = _WAIT_SECONDS
    _refusals: list[str] = field(default_factory=list)

    def deliver(self, path: Path) -> Outcome | None:
        """Delivers a journal; returns None if another process has claimed it or has just delivered it.

        The journal is then deleted, unless a run in it is still RUNNING: `reap` needs it to find that run.
        """
        journal = claim(path)
        if journal is None:
            return None
        self._refusals.clear()
        missing = _missing_stores(journal)
        if missing is not None:
            waiting = sum(run.appended - run.acknowledged for run in journal.runs)
            journal.close(delete=False)
            return Outcome(0, 0, waiting, missing, (), path, unreachable=True)
        done = replay(
            journal,
            self._open_recording_sink,
            self.progress,
            tracking_uri=self.tracking_uri,
            wait_seconds=self.wait_seconds,
        )
        if done.faults:
            self.wait_seconds = 0.0
        faults = (*done.kept, *done.faults)
        refusals = (*self._refusals, *done.refused)
        return Outcome(
            done.delivered,
            done.dropped,
            done.waiting,
            faults,
            refusals,
            path,
            _damage(done),
            unreachable=bool(done.faults),
        )

    def _open_recording_sink(self, uri: str) -> Sink:
        check_store(uri)
        opened = open_sink(uri, self._trusts) if self.open_sink is None else self.open_sink(uri)
        return _RecordingSink(opened, uri, self._refusals)

    def _trusts(self, uri: str) -> bool:
        return is_trusted(uri, () if self.tracking_uri is None else (self.tracking_uri,))


def fault_messages(outcomes: Iterable[Outcome]) -> list[str]:
    """Returns all faults for people, each once, with the number of points waiting because of it."""
    refusals: dict[str, None] = {}
    by_fault: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        refusals |= dict.fromkeys(outcome.refusals)
        if outcome.damage is not None:
            refusals[f"{outcome.path} is damaged: {outcome.damage}"] = None
        for fault in outcome.faults:
            by_fault.setdefault(fault, []).append(outcome)
    messages = list(refusals)
    for fault, waiting in by_fault.items():
        where = str(waiting[0].path) if len(waiting) == 1 else counted(len(waiting), "journal")
        points = counted(sum(outcome.waiting for outcome in waiting), "point")
        messages.append(f"{fault}; {points} still in {where}")
    return messages


def _damage(done: Replayed) -> str | None:
    if done.damage is None:
        return None
    place = "it is kept where it is" if done.aside is None else f"set aside as {done.aside}"
    return f"{done.damage}; {place}, and deleted after 30 days"


def _missing_stores(journal: Journal) -> tuple[str, ...] | None:
    """Returns the faults of file stores that do not exist, if the journal has no other store to deliver to.

    Waiting for a server that is down makes sense; a disk that is not mounted does not come back by itself.
    """
    undelivered = {run.tracking_uri for run in journal.runs if run.acknowledged < run.appended}
    missing = [fault for uri in sorted(undelivered) if (fault := _missing(uri)) is not None]
    return tuple(missing) if missing and len(missing) == len(undelivered) else None


def _missing(uri: str) -> str | None:
    try:
        check_store(uri)
    except Fault as fault:
        return fault.reason
    return None


class _RecordingSink:
    """Records which runs were deleted on the server, to report them; the sender gives their points up."""

    def __init__(self, sink: Sink, uri: str, refusals: list[str]) -> None:
        self._sink = sink
        self._uri = uri
        self._refusals = refusals

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970."""
        try:
            return self._sink.started_at(run_id)
        except Fault as fault:
            self._record(run_id, fault)
            raise

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run."""
        try:
            self._sink.send(run_id, points, steps, tags)
        except Fault as fault:
            self._record(run_id, fault)
            raise

    def tags(self, run_id: str) -> Mapping[str, str]:
        return self._sink.tags(run_id)

    def state(self, run_id: str) -> RunState:
        """Returns the state of a run."""
        return self._sink.state(run_id)

    def has_ended(self, run_id: str) -> bool:
        """Returns whether a run has ended."""
        return self._sink.has_ended(run_id)

    def close(self) -> None:
        """Closes the connection."""
        self._sink.close()

    def _record(self, run_id: str, fault: Fault) -> None:
        if not fault.run_is_deleted:
            return
        why = cleaned(fault.reason, self._uri)
        self._refusals.append(f"{redacted(self._uri)}: gave up the points of run {run_id}: {why}")
