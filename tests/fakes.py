"""Fakes that tests control. On the path of pytest (`pythonpath` in pyproject.toml)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.runs import RunState
from mlflow_sysmetrics.samples import Family, Kind, Metric, Sample
from watching import LONG_SECONDS

STARTED_AT = 1_700_000_000_000


def unreachable(reason: str, retry_after: float | None = None) -> Fault:
    """Returns the fault of a server that is down or busy."""
    return Fault(reason, Cause.DOWN, retry_after=retry_after)


def not_allowed(reason: str) -> Fault:
    """Returns the fault of a server that refuses the credentials."""
    return Fault(reason, Cause.UNAUTHENTICATED, status_code=401)


def too_large(reason: str) -> Fault:
    """Returns the fault of a server that takes fewer points at a time."""
    return Fault(reason, Cause.TOO_LARGE, status_code=413)


def run_refused(reason: str) -> Fault:
    """Returns the fault of a server that does not have the run."""
    return Fault(reason, Cause.MISSING, status_code=404, error_code="RESOURCE_DOES_NOT_EXIST")


def invalid(reason: str) -> Fault:
    """Returns the fault of a server that finds something invalid in the request."""
    return Fault(reason, Cause.REFUSED, status_code=400, error_code="INVALID_PARAMETER_VALUE")


def internal(reason: str) -> Fault:
    """Returns the fault of a server that failed at the request, for whatever reason."""
    return Fault(reason, Cause.DOWN, status_code=500, error_code="INTERNAL_ERROR", is_internal=True)


def run_deleted(reason: str) -> Fault:
    """Returns the fault of a server on which the run is deleted."""
    return Fault(reason, Cause.DELETED, status_code=400, error_code="INVALID_PARAMETER_VALUE")


class FakeClock:
    """A clock that stands still until a test moves it; it does not affect waits on conditions."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.jumped = 0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> int:
        return STARTED_AT + self.jumped + round((self.seconds - 100) * 1000)

    def move(self, seconds: float) -> None:
        """Advances the clock."""
        self.seconds += seconds


@dataclass
class Batch:
    """One call of `FakeSink.send`."""

    run_id: str
    points: list[Point]
    steps: list[int]
    tags: dict[str, str]


@dataclass
class FakeSink:
    """A sink that records what it receives, and fails on demand.

    Attributes:
        failures: raised one by one, before anything is accepted.
        batches: accepted batches.
        asked: runs whose start was requested.
        open: a request hangs until this event is set.
        down: whether the server is down.
        running: runs that have not ended.
        present: the tags that runs have.
        closed: how often its connection was closed.
        last_metric_at: time of the newest metric of the program, of each run.
    """

    failures: list[Exception] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    open: threading.Event | None = None
    down: bool = False
    running: set[str] = field(default_factory=set)
    present: dict[str, str] = field(default_factory=dict)
    closed: int = 0
    last_metric_at: int | None = None

    def tags(self, run_id: str) -> Mapping[str, str]:
        return self.present

    def has_ended(self, run_id: str) -> bool:
        return run_id not in self.running

    def state(self, run_id: str) -> RunState:
        if self.down:
            raise unreachable("connection refused")
        status = "RUNNING" if run_id in self.running else "FINISHED"
        return RunState(status, STARTED_AT, {**self.present, **self.tags_of(run_id)}, self.last_metric_at)

    def tags_of(self, run_id: str) -> dict[str, str]:
        """Returns the tags that were sent to a run, the newest of each."""
        return {
            key: value
            for batch in self.batches
            if batch.run_id == run_id
            for key, value in batch.tags.items()
        }

    def started_at(self, run_id: str) -> int:
        self.asked.append(run_id)
        return STARTED_AT

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        if self.open is not None:
            assert self.open.wait(LONG_SECONDS)
        if self.down:
            raise unreachable("connection refused")
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(Batch(run_id, list(points), list(steps), dict(tags)))

    def close(self) -> None:
        self.closed += 1

    def points(self, run_id: str) -> list[Point]:
        """Returns all points of a run, in order of arrival."""
        return [point for batch in self.batches if batch.run_id == run_id for point in batch.points]


def describe(name: str, kind: Kind, unit: str, family: Family, meaning: str) -> Metric:
    """Returns a metric for made-up values."""
    return Metric(
        name=name, kind=kind, unit=unit, family=family, meaning=meaning, source="a test", bad="none by itself"
    )


LEVEL = describe("level_megabytes", Kind.GAUGE, "MB", Family.MEMORY, "a level")
SHARE = describe("share_percentage", Kind.RATE, "%", Family.CPU, "a rate")
TOTAL = describe("total_megabytes", Kind.COUNTER, "MB", Family.NETWORK, "a total")
EVENTS = describe("trouble_events", Kind.EVENTS, "events", Family.NETWORK, "a total that is mostly silent")


class Scripted:
    """A collector that yields `values`, then raises `error` if there is one."""

    family: ClassVar[Family] = Family.CPU
    metrics: ClassVar[tuple[Metric, ...]] = (LEVEL, SHARE, TOTAL, EVENTS)
    values: ClassVar[dict[Metric, float]] = {}
    gaps: tuple[str, ...] = ()
    error: ClassVar[Exception | None] = None
    built: ClassVar[int] = 0

    def __init__(self, host: Host) -> None:
        del host
        type(self).built += 1

    def collect(self, now: float) -> Iterator[Sample]:
        del now
        for metric, value in self.values.items():
            yield metric.sample(value)
        if self.error is not None:
            raise self.error


def scripted(**values: float) -> type[Scripted]:
    """Returns a fresh `Scripted` class with values by metric: level, share, total, events."""
    metrics = {"level": LEVEL, "share": SHARE, "total": TOTAL, "events": EVENTS}
    found = {metrics[name]: value for name, value in values.items()}
    return type("Scripted", (Scripted,), {"values": found, "error": None, "built": 0})
