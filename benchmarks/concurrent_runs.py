"""Cost of N concurrent runs with a point of each series every second."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from counting_server import CountingServer, counting_server
from tables import Cell, Table, ratio
from variants import BUILT_IN, OURS, Variant, fresh_worker

_EVERY_SECOND = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
}
# How many times less CPU while active than the built-in monitor, by number of runs.
AT_LEAST = {1: 3, 16: 15, 64: 20, 256: 20}
_ACTIVE = "client CPU while active, s"
_PHASES = ("start", "active", "end")
_ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], float]], ...] = (
    (_ACTIVE, lambda found: found["active"]["cpu_seconds"]),
    ("client CPU of all starts, s", lambda found: found["start"]["cpu_seconds"]),
    ("client CPU of all ends, s", lambda found: found["end"]["cpu_seconds"]),
    ("client CPU altogether, s", lambda found: sum(found[phase]["cpu_seconds"] for phase in _PHASES)),
    ("requests while active", lambda found: found["active"]["requests"]),
    ("requests altogether", lambda found: sum(found[phase]["requests"] for phase in _PHASES)),
    ("wall time until all have started, s", lambda found: found["start"]["wall_seconds"]),
    ("wall time until all have ended, s", lambda found: found["end"]["wall_seconds"]),
    ("threads of the monitor", lambda found: found["active"]["threads"]),
    ("points per run, median", lambda found: found["points_per_run"]["median"]),
    ("points per run, fewest", lambda found: found["points_per_run"]["fewest"]),
    (
        "client CPU altogether per 1000 points, s",
        lambda found: 1000 * sum(found[phase]["cpu_seconds"] for phase in _PHASES) / found["points"],
    ),
)


def measure(runs: int, seconds: float, repetitions: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the measurements of each repetition of each side; the sides alternate in going first."""
    found: dict[str, list[dict[str, Any]]] = {BUILT_IN.name: [], OURS.name: []}
    for repetition in range(repetitions):
        for variant in (BUILT_IN, OURS) if repetition % 2 == 0 else (OURS, BUILT_IN):
            found[variant.name].append(_once(variant, runs, seconds))
    return found


def _once(variant: Variant, runs: int, seconds: float) -> dict[str, Any]:
    with (
        counting_server() as server,
        fresh_worker(variant.with_environ(**_EVERY_SECOND), server.url) as worker,
    ):
        found = {"start": worker.ask("start", runs=runs)}
        started = _requests(server)
        found["active"] = worker.ask("watch", takes=seconds, seconds=seconds)
        watched = _requests(server)
        found["end"] = worker.ask("end")
        ended = _requests(server)
        points = [sum(series.values()) for series in server.counts()["points"].values()]
    for phase, count in zip(_PHASES, (started, watched - started, ended - watched), strict=True):
        found[phase]["requests"] = count
    found["points"] = sum(points)
    found["points_per_run"] = {"median": statistics.median(points), "fewest": min(points)}
    return found


def _requests(server: CountingServer) -> int:
    return sum(server.counts()["requests"].values())


def table(runs: int, seconds: float, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Returns the table of what `measure` found."""
    rows = []
    for label, pick in _ROWS:
        built_in, ours = (Cell([pick(once) for once in found[name]]) for name in (BUILT_IN.name, OURS.name))
        text = ratio(built_in.median, ours.median)
        if label == _ACTIVE and runs in AT_LEAST:
            is_less = built_in.median >= AT_LEAST[runs] * ours.median
            text += f", at least {AT_LEAST[runs]}: {'yes' if is_less else 'NO'}"
        rows.append((label, built_in.show(), ours.show(), text))
    title = f"{runs} runs at once, active for {seconds:g} s, a point of each series every second"
    return Table(title, ("", "built-in", "ours", "built-in / ours"), rows)
