"""Journals as a dead process leaves them, and fake servers that hold their runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fakes import run_deleted, run_refused, unreachable
from mlflow_sysmetrics.cli.tracked_runs import TrackedRun
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.lines import NewPoints, dump_points
from mlflow_sysmetrics.daemon.journal.ownership import hostname
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

CPU = "system/cpu_utilization_percentage"
MEMORY = "system/system_memory_usage_percentage"
SERVER = "http://tracking:5000"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def living(
    directory: Path, run_id: str, points: int, uri: str = SERVER, *, silent_s: int = 0, **about: Any
) -> Journal:
    """Returns this process's journal with points of one run, one per second, the last `silent_s` ago."""
    journal = Journal.create(directory, 1_000_000)
    began = now_ms() - (points + silent_s) * 1000
    number = journal.register(run_id, uri, began, **about)
    moments = [began + (index + 1) * 1000 for index in range(points)]
    texts = [dump_points(number, index, at, {CPU: float(index)}) for index, at in enumerate(moments)]
    journal.append_lines(
        [NewPoints(number, index, 1, moments[index], text) for index, text in enumerate(texts)]
    )
    return journal


def orphan(
    directory: Path,
    run_id: str,
    points: int,
    uri: str = SERVER,
    *,
    silent_s: int = 300,
    host: str | None = None,
    **about: Any,
) -> Path:
    """Returns the path of such a journal without an owner, last written `silent_s` ago."""
    journal = living(directory, run_id, points, uri, silent_s=silent_s, **about)
    journal.close(delete=False)
    path = journal.path
    if host is not None:
        path = path.rename(path.with_name(path.name.replace(hostname(), host)))
        journal.path.with_suffix(".lock").rename(path.with_suffix(".lock"))
    backdate(path, silent_s)
    return path


def backdate(path: Path, seconds: float) -> None:
    """Sets the modification time of a journal to that many seconds ago."""
    written = time.time() - seconds
    os.utime(path, (written, written))


def running(run_id: str, *, last_sign: int | None = None, **changes: Any) -> TrackedRun:
    """Returns a run whose status is RUNNING."""
    begun = TrackedRun(
        run_id,
        "a name",
        running=True,
        started_at=now_ms() - 86_400_000,
        experiment_id="0",
        hostname=None,
        last_sign=last_sign,
        system={},
    )
    return replace(begun, **changes)


@dataclass
class FakeServer:
    """Stands in for `TrackingServer`: holds runs in memory, and can be down."""

    runs: dict[str, TrackedRun] = field(default_factory=dict)
    down: str | None = None
    name: str = SERVER
    uri: str = SERVER
    killed: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def client(self) -> Any:
        """Knows none of the runs: their summaries are completed elsewhere."""
        return SimpleNamespace(get_run=None)

    def ask(self, *_: object) -> Any:
        raise Fault("not found", Cause.MISSING)

    def run(self, run_id: str) -> TrackedRun | None:
        if self.down:
            raise unreachable(self.down)
        return self.runs.get(run_id)

    def experiment_ids(self, names: Sequence[str]) -> list[str]:
        if missing := set(names) - {"Default"}:
            raise LookupError(f"no experiment {missing}")
        return ["0"]

    def sampled_runs(self, experiments: Sequence[str]) -> Iterator[TrackedRun]:
        ids = self.experiment_ids(experiments)
        yield from (run for run in self.runs.values() if run.running and run.experiment_id in ids)

    def kill(self, run_id: str, end_time: int, reason: str) -> None:
        self.killed[run_id] = (end_time, reason)
        self.runs[run_id] = replace(self.runs[run_id], running=False)


@dataclass
class FakeSink:
    """Stands in for a sink: accepts points of the runs it knows."""

    runs: Sequence[str] = ()
    down: str | None = None
    ended: bool = False
    deleted: Sequence[str] = ()
    taken: list[tuple[str, Point]] = field(default_factory=list)
    on_send: Callable[[int], None] = lambda _: None

    def started_at(self, run_id: str) -> int:
        return 0

    def has_ended(self, run_id: str) -> bool:
        return self.ended

    def send(
        self,
        run_id: str,
        points: Sequence[Point],
        steps: Sequence[int],
        tags: Mapping[str, str],
    ) -> None:
        if self.down:
            raise unreachable(self.down)
        if run_id in self.deleted:
            raise run_deleted("the run was deleted")
        if run_id not in self.runs:
            raise run_refused("there is no such run")
        self.on_send(len(points))
        self.taken += [(run_id, point) for point in points]

    def close(self) -> None:
        """Does nothing."""
