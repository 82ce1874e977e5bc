"""What is known of the watched runs: one thread reads and writes it, another one draws it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock

from mlflow_sysmetrics.exports.readings import metric_of
from mlflow_sysmetrics.live.curves import Point
from mlflow_sysmetrics.report.histories import summarise, thinned
from mlflow_sysmetrics.report.measured_runs import split_key
from mlflow_sysmetrics.summary.summary import PREFIX, VERDICT_TAG

# With these, a view of a node with eight GPUs takes some megabytes, however long it is looked at.
_MOST_POINTS = 600  # of a series; above, half of them are thinned, with their extremes kept
_MOST_SERIES = 1500
MOST_RUNS = 200
_SYSTEM = "system/"


class Series:
    """The newest points of one series, in bounded memory.

    Attributes:
        points: oldest first.
    """

    __slots__ = ("points",)

    def __init__(self) -> None:
        self.points: list[Point] = []

    def add(self, at: int, value: float) -> bool:
        """Adds a point if it is newer than the others; returns whether it did."""
        if not math.isfinite(value) or (self.points and at <= self.points[-1][0]):
            return False
        self.points.append((at, value))
        self._thin()
        return True

    def fill(self, points: Iterable[Point]) -> None:
        """Adds the history of the series."""
        merged = {at: value for at, value in points if math.isfinite(value)}
        self.points = sorted((merged | dict(self.points)).items())
        self._thin()

    def _thin(self) -> None:
        while len(self.points) > _MOST_POINTS:
            half = len(self.points) // 2
            older, newer = self.points[:half], self.points[half:]
            thin = thinned(older, older[0][0], older[-1][0] + 1, half // 4)
            self.points = [*(thin if len(thin) < half else older[::2]), *newer]


@dataclass(slots=True)
class WatchedRun:
    """One run.

    Attributes:
        run_id: the run.
        name: its display name; "" if unknown.
        owner: the process that feeds it, or the machine that it began on.
        status: MLflow's word, or "alive", "ended" or "dead" of a process of this machine.
        started_at: milliseconds since 1970; None if unknown.
        ended_at: milliseconds since 1970; None while it runs.
        tags: its tags.
        series: points of each system metric by its whole key.
        filled: keys whose history was read.
        found: verdicts by our rules, for a run without the tag of one.
    """

    run_id: str
    name: str = ""
    owner: str = ""
    status: str = ""
    started_at: int | None = None
    ended_at: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    found: tuple[tuple[str, str], ...] | None = None

    def add(self, key: str, at: int, value: float) -> bool:
        """Adds a point of a system metric; returns whether it is new."""
        if not key.startswith(_SYSTEM) or key.startswith(PREFIX):
            return False
        series = self.series.get(key)
        if series is None:
            if len(self.series) >= _MOST_SERIES:
                return False
            series = self.series[key] = Series()
        return series.add(at, value)

    @property
    def nodes(self) -> list[str]:
        """Ids of its nodes, "" for a run without one."""
        return sorted({split_key(key)[0] for key in self.series})

    @property
    def last_at(self) -> int | None:
        """Milliseconds since 1970 of its newest point."""
        return max((one.points[-1][0] for one in self.series.values() if one.points), default=None)

    @property
    def verdict(self) -> tuple[str, str]:
        """The verdict and its text; of the run's tag if it has one, else by the rules."""
        told = self.tags.get(VERDICT_TAG)
        if told:
            name, _, text = told.partition(": ")
            return (name, text) if text else ("", told)
        return self.found[0] if self.found else ("", "")

    def judge(self) -> None:
        """Applies the rules to what is known."""
        if not self.tags.get(VERDICT_TAG):
            histories: dict[str, Sequence[Point]] = {key: one.points for key, one in self.series.items()}
            self.found = tuple((one.name, one.text) for one in summarise(histories, self.tags).verdicts)

    def mean_of(self, name: str) -> float | None:
        """Returns the mean over nodes and devices of the newest values of a metric, as ``gpu_{i}_...``."""
        newest = self.last_at or 0
        known = [
            one.points[-1][1]
            for key, one in self.series.items()
            if one.points and newest - one.points[-1][0] < 2 * 75_000
            if (metric := metric_of(split_key(key)[1])[0]) is not None and metric.name == name
        ]
        return sum(known) / len(known) if known else None


class Board:
    """The watched runs, and what is wrong with their source. Hold `lock` while reading or writing.

    Attributes:
        lock: guards everything here.
        title: what is watched.
        runs: by id, in the order in which they are shown.
        chosen: id of the run whose curves are drawn; None for the list.
        trouble: why nothing new comes; "" if all is well.
        trouble_since: seconds since 1970 of its beginning.
        changes: grows with every change.
    """

    def __init__(self, title: str) -> None:
        self.lock = RLock()
        self.title = title
        self.runs: dict[str, WatchedRun] = {}
        self.chosen: str | None = None
        self.trouble = ""
        self.trouble_since = 0.0
        self.changes = 0

    def run(self, run_id: str) -> WatchedRun:
        """Returns a run, added if it is new; the oldest that has ended makes room."""
        if run_id not in self.runs:
            if len(self.runs) >= MOST_RUNS:
                over = [one for one in self.runs.values() if one.ended_at is not None] or [
                    *self.runs.values()
                ]
                del self.runs[over[0].run_id]
            self.runs[run_id] = WatchedRun(run_id)
        return self.runs[run_id]

    def report(self, trouble: str) -> None:
        """Records what is wrong, "" for nothing."""
        if trouble and not self.trouble:
            self.trouble_since = time.time()
        self.changes += trouble != self.trouble
        self.trouble = trouble
