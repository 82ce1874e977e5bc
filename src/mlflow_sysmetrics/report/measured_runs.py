"""The runs of a tracking server, with what their system metrics say: read in as few requests as it allows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

from mlflow_sysmetrics.mlflow_api import clients, fluent_state
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.transport import request
from mlflow_sysmetrics.summary.summary import PREFIX

#: Milliseconds since 1970, and the value.
Point = tuple[int, float]

#: What the metrics of an epoch begin with, of the training kit.
EPOCHS = "epoch/"
_SYSTEM = "system/"
_PAGE = 1000  # runs per request; MLflow's default
_BULK_RUNS, _BULK_POINTS = 50, 1000  # per request, and per run in it: the server allows 100 and 2,500
_BULK_SECONDS = 60.0
_SEARCH_PATH = "/api/2.0/mlflow/runs/search"
_SEARCH_SECONDS = 120.0  # a busy server takes half a minute for a thousand runs
_UNREADABLE = frozenset({Cause.DOWN, Cause.UNAUTHENTICATED, Cause.FORBIDDEN})  # whichever way it is asked
_BULK_PATH = "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"  # all versions have it there


class Server(Protocol):
    """A tracking server: every method raises `Fault` if it does not answer."""

    uri: str
    client: Any

    def ask(self, method: Any, *arguments: object, **named: object) -> Any:
        """Returns what a method of its client returns."""

    def pages(self, search: Any, **wanted: object) -> Iterator[Any]:
        """Yields what all pages of a search have."""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run.

    Attributes:
        run_id: the run.
        name: its display name.
        user: who started it; "" if unknown.
        experiment_id: the experiment that it belongs to.
        status: MLflow's word, such as "FINISHED".
        started_at: milliseconds since 1970.
        ended_at: milliseconds since 1970; None while it runs.
        tags: its tags.
        metrics: the newest value of each system metric, and of each metric of an epoch.
    """

    run_id: str
    name: str
    user: str
    experiment_id: str
    status: str
    started_at: int
    ended_at: int | None
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """How long it has run."""
        ends = time.time() * 1000 if self.ended_at is None else self.ended_at
        return max(ends - self.started_at, 0) / 1000

    @property
    def series(self) -> tuple[str, ...]:
        """Keys of its system metrics, without those of its summary."""
        return tuple(
            sorted(key for key in self.metrics if key.startswith(_SYSTEM) and not key.startswith(PREFIX))
        )

    @property
    def host(self) -> str:
        """Name of the machine that it began on; "" if unknown."""
        return self.tags.get("sys.hostname", "")


def split_key(key: str) -> tuple[str, str]:
    """Returns the node id ("" for none) and the name of a system metric."""
    node, _, name = key.removeprefix(_SYSTEM).rpartition("/")
    return node, name


def read_run(server: Server, run_id: str) -> MeasuredRun | None:
    """Returns a run; None if the server does not have it."""
    try:
        return _measured(server.ask(server.client.get_run, run_id))
    except Fault as fault:
        if fault.cause is Cause.MISSING:
            return None
        raise


def read_runs(server: Server, experiment_ids: Sequence[str], since: int | None) -> list[MeasuredRun]:
    """Returns the runs of experiments: one request per thousand.

    Args:
        server: the tracking server.
        experiment_ids: the experiments.
        since: only runs that began later, in milliseconds since 1970.
    """
    wanted = None if since is None else f"attributes.start_time >= {since}"
    if _speaks_rest(server):
        try:
            return list(_searched(server.uri, experiment_ids, wanted))
        except Fault as fault:
            if fault.cause in _UNREADABLE:
                raise
    found = server.pages(
        server.client.search_runs,
        experiment_ids=list(experiment_ids),
        max_results=_PAGE,
        filter_string=wanted or "",
    )
    return [_measured(run) for run in found]


def _searched(uri: str, experiment_ids: Sequence[str], wanted: str | None) -> Iterator[MeasuredRun]:
    """Yields the runs of a server, read from its JSON: MLflow's objects take six times as long to make."""
    body: dict[str, Any] = {"experiment_ids": list(experiment_ids), "max_results": _PAGE}
    body |= {} if wanted is None else {"filter": wanted}
    while True:
        runs, token = request(uri, "POST", _SEARCH_PATH, _SEARCH_SECONDS, json=body).read(_page, uri)
        yield from runs
        if not token:
            return
        body["page_token"] = token


def _page(document: Any) -> tuple[list[MeasuredRun], str | None]:
    return [_of_json(one) for one in document.get("runs", [])], document.get("next_page_token")


def _of_json(run: Any) -> MeasuredRun:
    info, data = run["info"], run.get("data", {})
    return _made(
        SimpleNamespace(
            run_id=info["run_id"],
            user_id=info.get("user_id"),
            experiment_id=info["experiment_id"],
            status=info["status"],
            start_time=info.get("start_time"),
            end_time=info.get("end_time"),
        ),
        {one["key"]: one.get("value", "") for one in data.get("tags", [])},
        # JSON has no NaN: MLflow writes a word, which float() reads.
        {one["key"]: float(one.get("value", 0)) for one in data.get("metrics", [])},
    )


def read_history(server: Server, run_id: str, key: str) -> list[Point]:
    """Returns all points of a series, oldest first."""
    found = server.ask(server.client.get_metric_history, run_id, key)
    return _in_order((int(one.timestamp), float(one.value)) for one in found)


def read_histories(server: Server, run_ids: Sequence[str], key: str) -> dict[str, list[Point]]:
    """Returns at most a thousand points of one series of each of several runs, oldest first.

    A server of MLflow 2.10 or newer is asked for fifty runs at once; of any other store each run is asked
    for.
    """
    found: dict[str, list[Point]] = {}
    for start in range(0, len(run_ids), _BULK_RUNS):
        some = run_ids[start : start + _BULK_RUNS]
        bulk = _bulk(server, some, key)
        found |= {one: read_history(server, one, key) for one in some} if bulk is None else bulk
    return found


def _bulk(server: Server, run_ids: Sequence[str], key: str) -> dict[str, list[Point]] | None:
    """Returns points of several runs; None if the server does not have such a call."""
    if not _speaks_rest(server):
        return None
    try:
        wanted = {"run_ids": list(run_ids), "metric_key": key, "max_results": _BULK_POINTS}
        answer = request(server.uri, "GET", _BULK_PATH, _BULK_SECONDS, params=wanted)
        rows = answer.read(_rows, server.uri)
    except Fault as fault:
        if fault.cause in _UNREADABLE:
            raise
        return None
    found: dict[str, list[Point]] = {}
    for run_id, timestamp, value in rows:
        found.setdefault(run_id, []).append((timestamp, value))
    return {run_id: _in_order(points) for run_id, points in found.items()}


def _in_order(points: Iterable[Point]) -> list[Point]:
    """Returns the points, oldest first, without those that a program has logged as NaN or infinite."""
    return sorted(point for point in points if math.isfinite(point[1]))


def _rows(document: Any) -> list[tuple[str, int, float]]:
    return [
        (one["run_id"], int(one["timestamp"]), float(one["value"])) for one in document.get("metrics", [])
    ]


def _speaks_rest(server: Server) -> bool:
    uri = server.uri
    return clients.is_remote(uri) and clients.is_plain_rest(fluent_state.store_of(server.client))


def _measured(run: Any) -> MeasuredRun:
    return _made(run.info, dict(run.data.tags), run.data.metrics)


def _made(info: Any, tags: Mapping[str, str], metrics: Mapping[str, float]) -> MeasuredRun:
    return MeasuredRun(
        run_id=info.run_id,
        name=tags.get("mlflow.runName", ""),
        user=tags.get("mlflow.user") or info.user_id or "",
        experiment_id=info.experiment_id,
        status=info.status,
        started_at=int(info.start_time or 0),
        ended_at=int(info.end_time) if info.end_time else None,
        tags=tags,
        metrics={key: value for key, value in metrics.items() if key.startswith((_SYSTEM, EPOCHS))},
    )


def keys_of_runs(runs: Iterable[MeasuredRun]) -> dict[str, list[str]]:
    """Returns which runs have each series: key -> run ids."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for key in run.series:
            found.setdefault(key, []).append(run.run_id)
    return found
