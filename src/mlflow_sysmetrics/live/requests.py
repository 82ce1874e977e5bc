"""One request each, without MLflow's retries, which hold a view for minutes while its server is away."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_sysmetrics.mlflow_api import clients, fluent_state
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.transport import API, request
from mlflow_sysmetrics.report.measured_runs import Point, Server, read_history

_SECONDS = 15.0  # a busy database takes some for a search
_BULK_PATH = "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
_MOST_POINTS = 500
_SHOWN_SECONDS = 6 * 3600  # the longest span of a view; our steps are seconds since the start of a run
_UNREADABLE = frozenset({Cause.DOWN, Cause.UNAUTHENTICATED, Cause.FORBIDDEN})
_NEWEST = "attributes.start_time DESC"


@dataclass(frozen=True, slots=True)
class Found:
    """A run as a server has it.

    Attributes:
        run_id: the run.
        name: its display name.
        status: MLflow's word.
        started_at: milliseconds since 1970.
        ended_at: milliseconds since 1970; None while it runs.
        tags: its tags.
        points: newest point of each metric.
    """

    run_id: str
    name: str
    status: str
    started_at: int | None
    ended_at: int | None
    tags: Mapping[str, str]
    points: Mapping[str, Point]


class Requests:
    """Asks a tracking server. Every method makes one request and raises `Fault` if it fails.

    Args:
        server: the server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        store = fluent_state.store_of(server.client)
        self._rest = clients.is_remote(server.uri) and clients.is_plain_rest(store)

    def reach(self) -> None:
        """Returns if a server answers; a store without one is opened already."""
        if self._rest:
            answer = request(
                self._server.uri, "POST", f"{API}experiments/search", _SECONDS, json={"max_results": 1}
            )
            answer.read(lambda document: document.get("experiments"), self._server.uri)

    def run(self, run_id: str) -> Found:
        """Returns a run."""
        if not self._rest:
            return _of_client(self._server.ask(self._server.client.get_run, run_id))
        answer = request(self._server.uri, "GET", f"{API}runs/get", _SECONDS, params={"run_id": run_id})
        return answer.read(lambda document: _of_json(document["run"]), self._server.uri)

    def newest(self, experiment_ids: Sequence[str], most: int) -> list[Found]:
        """Returns the newest runs of experiments."""
        if not self._rest:
            search = self._server.client.search_runs
            found = self._server.ask(
                search, experiment_ids=list(experiment_ids), max_results=most, order_by=[_NEWEST]
            )
            return [_of_client(one) for one in found]
        body = {"experiment_ids": list(experiment_ids), "max_results": most, "order_by": [_NEWEST]}
        answer = request(self._server.uri, "POST", f"{API}runs/search", _SECONDS, json=body)
        return answer.read(
            lambda document: [_of_json(one) for one in document.get("runs", [])], self._server.uri
        )

    def history(self, run_id: str, key: str, since: int) -> list[Point]:
        """Returns points of a series, a few hundred at most of a server that can choose them.

        Args:
            run_id: the run.
            key: the series.
            since: start of the run in milliseconds since 1970.
        """
        if self._rest:
            newest = max(int(time.time() - since / 1000), 0)
            wanted = {"run_ids": [run_id], "metric_key": key, "max_results": _MOST_POINTS}
            wanted |= {"start_step": max(newest - _SHOWN_SECONDS, 0), "end_step": newest + _SHOWN_SECONDS}
            try:
                answer = request(self._server.uri, "GET", _BULK_PATH, _SECONDS, params=wanted)
                return answer.read(_points, self._server.uri)
            except Fault as fault:
                if fault.cause in _UNREADABLE:
                    raise
        return read_history(self._server, run_id, key)


def _points(document: Any) -> list[Point]:
    return [(int(one["timestamp"]), float(one["value"])) for one in document.get("metrics", [])]


def _of_json(run: Any) -> Found:
    info, data = run["info"], run.get("data", {})
    tags = {str(one["key"]): str(one.get("value", "")) for one in data.get("tags", [])}
    return Found(
        run_id=str(info["run_id"]),
        name=tags.get("mlflow.runName", ""),
        status=str(info.get("status", "")),
        started_at=_time(info.get("start_time")),
        ended_at=_time(info.get("end_time")),
        tags=tags,
        points={
            # JSON has no NaN: MLflow writes a word, which float() reads.
            str(one["key"]): (int(one["timestamp"]), float(one.get("value", 0)))
            for one in data.get("metrics", [])
        },
    )


def _of_client(run: Any) -> Found:
    # In MLflow 2.8 only the protocol buffer has the time of a metric.
    metrics = run.data.to_proto().metrics
    return Found(
        run_id=run.info.run_id,
        name=run.data.tags.get("mlflow.runName", ""),
        status=run.info.status,
        started_at=_time(run.info.start_time),
        ended_at=_time(run.info.end_time),
        tags=dict(run.data.tags),
        points={one.key: (int(one.timestamp), float(one.value)) for one in metrics},
    )


def _time(given: object) -> int | None:
    return int(str(given)) if given else None
