"""A tracking server as the preflight uses it, in MLflow's REST protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import nothing
from mlflow_sysmetrics.mlflow_api.runs import Metric, json_of
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.stores import StoredExperiment, StoredRun
from mlflow_sysmetrics.mlflow_api.transport import API, Preparation, ServerAnswer, request

T = TypeVar("T")

_OK = 200
_NOT_FOUND = 404
_LONGEST_VERSION = 40  # a page is longer
# Answers of MLflow about an experiment that may not exist: they prove that the server is up.
_ANSWERED = frozenset({Cause.MISSING, Cause.REFUSED, Cause.DELETED, Cause.TOO_LARGE, Cause.FAILED})


class RestStore:
    """Answers each question with one request, without MLflow's own retries.

    Args:
        tracking_uri: the server.
        preparation: a time of its own for credentials, which the seconds of each call then leave out.
    """

    def __init__(self, tracking_uri: str, preparation: Preparation | None = None) -> None:
        self.status_code: int | None = None
        self._preparation = preparation
        self._uri = tracking_uri
        self._has_health = tracking_uri.partition(":")[0] in {"http", "https"}

    def reach(self, seconds: float) -> None:
        """Returns if the server is up.

        A green /health proves nothing else: it checks neither credentials nor host name nor database.
        """
        if self._has_health:
            answer = self._ask("GET", "/health", seconds)
            if answer.status_code == _OK:
                return
            if answer.status_code != _NOT_FOUND:
                raise answer.fault(self._uri) or Fault("HTTP 200", Cause.NOT_MLFLOW)
        # Databricks and other servers of this protocol have no /health. Any answer of MLflow's will do.
        answer = self._ask("GET", f"{API}experiments/get", seconds, params={"experiment_id": "0"})
        fault = answer.fault(self._uri)
        if fault is not None and fault.cause not in _ANSWERED:
            raise fault

    def open(self, seconds: float) -> None:
        """Does nothing: the server has opened its database."""

    def version(self, seconds: float) -> str | None:
        """Returns the server's version; servers since MLflow 2.1 report it."""
        if not self._has_health:
            return None
        try:
            answer = self._ask("GET", "/version", seconds)
        except Fault:
            return None
        text = answer.text.strip()
        is_version = answer.status_code == _OK and text[:1].isdigit() and len(text) < _LONGEST_VERSION
        return cleaned(text, self._uri) if is_version else None  # a server may echo the request instead

    def experiment_named(self, name: str, seconds: float) -> StoredExperiment | None:
        """Returns the experiment of that name, even if it is deleted; None if there is none."""
        query = {"experiment_name": name}
        try:
            return self._call(_experiment, "GET", "experiments/get-by-name", seconds, params=query)
        except Fault as fault:
            if fault.cause is Cause.MISSING:
                return None
            raise

    def experiment(self, experiment_id: str, seconds: float) -> StoredExperiment:
        """Returns an experiment, even if it is deleted."""
        query = {"experiment_id": experiment_id}
        return self._call(_experiment, "GET", "experiments/get", seconds, params=query)

    def create_experiment(self, name: str, seconds: float) -> None:
        """Creates an experiment."""
        self._call(_new_experiment, "POST", "experiments/create", seconds, json={"name": name})

    def run_tagged(self, experiment_id: str, key: str, value: str, seconds: float) -> str | None:
        """Returns the id of the run in an experiment that has a tag; None if there is none."""
        body = {"experiment_ids": [experiment_id], "filter": f"tags.`{key}` = '{value}'", "max_results": 1}
        return self._call(first_run_id, "POST", "runs/search", seconds, json=body)

    def create_run(
        self,
        experiment_id: str,
        name: str | None,
        tags: Mapping[str, str],
        seconds: float,
        *,
        started_at: int | None = None,
    ) -> str:
        """Starts a run and returns its id; it started now, or at a time in milliseconds since 1970."""
        body = {
            "experiment_id": experiment_id,
            "user_id": tags.get("mlflow.user", "unknown"),
            "start_time": _now() if started_at is None else started_at,
            "tags": _pairs(tags),
        }
        if name:
            body["run_name"] = name
        return self._call(_new_run_id, "POST", "runs/create", seconds, json=body)

    def run(self, run_id: str, seconds: float) -> StoredRun:
        """Returns a run."""
        return self._call(_run, "GET", "runs/get", seconds, params={"run_id": run_id})

    def set_status(self, run_id: str, status: str, end_time: int | None, seconds: float) -> None:
        """Changes the status of a run, and its end in milliseconds since 1970."""
        body: dict[str, object] = {"run_id": run_id, "status": status}
        if end_time is not None:
            body["end_time"] = end_time
        self._call(_updated, "POST", "runs/update", seconds, json=body)

    def log(
        self,
        run_id: str,
        metric: tuple[str, float],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        seconds: float,
    ) -> None:
        """Writes a metric at step 0, parameters and tags; at most a hundred of each."""
        self.log_batch(run_id, [Metric(*metric, _now(), 0)], params, tags, seconds)

    def log_batch(
        self,
        run_id: str,
        metrics: Iterable[Metric],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        seconds: float,
    ) -> None:
        """Writes at most 1,000 metrics, parameters and tags; of the latter two at most a hundred each."""
        body = {
            "run_id": run_id,
            "metrics": json_of(metrics),
            "params": _pairs(params),
            "tags": _pairs(tags),
        }
        self._call(nothing, "POST", "runs/log-batch", seconds, json=body)

    def _call(
        self,
        read: Callable[[Any], T],
        method: str,
        endpoint: str,
        seconds: float,
        **body: Any,
    ) -> T:
        """Returns what is read from an answer."""
        return self._ask(method, f"{API}{endpoint}", seconds, **body).read(read, self._uri)

    def _ask(self, method: str, path: str, seconds: float, **body: Any) -> ServerAnswer:
        self.status_code = None
        answer = request(self._uri, method, path, seconds, preparation=self._preparation, **body)
        self.status_code = answer.status_code
        return answer


def first_run_id(answer: Mapping[str, Any]) -> str | None:
    """Reads the id of the first run of a search; None if it found none."""
    if "runs" not in answer and answer.keys() - {"next_page_token"}:
        raise ValueError("not a search")
    runs = answer.get("runs") or [None]
    return None if runs[0] is None else str(runs[0]["info"]["run_id"])


def _now() -> int:
    return time.time_ns() // 1_000_000


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _experiment(answer: Mapping[str, Any]) -> StoredExperiment:
    experiment = answer["experiment"]
    return StoredExperiment(
        str(experiment["experiment_id"]), str(experiment["name"]), experiment.get("lifecycle_stage", "active")
    )


def _new_experiment(answer: Mapping[str, Any]) -> str:
    return str(answer["experiment_id"])


def _new_run_id(answer: Mapping[str, Any]) -> str:
    return str(answer["run"]["info"]["run_id"])


def _updated(answer: Mapping[str, Any]) -> None:
    """Reads the answer to an update: MLflow's has the run; servers that imitate it may leave it out."""
    if answer != {} and not isinstance(answer["run_info"], dict):
        raise TypeError("not an object")


def _run(answer: Mapping[str, Any]) -> StoredRun:
    info, logged = answer["run"]["info"], answer["run"].get("data", {})
    ended = info.get("end_time")
    return StoredRun(
        run_id=str(info.get("run_id") or info["run_uuid"]),
        experiment_id=str(info["experiment_id"]),
        status=info.get("status", "RUNNING"),
        lifecycle_stage=info.get("lifecycle_stage", "active"),
        run_name=info.get("run_name"),
        start_time=int(info.get("start_time", 0)),
        end_time=int(ended) if ended else None,
        metrics={one["key"]: float(one.get("value", 0)) for one in logged.get("metrics", [])},
        tags={one["key"]: one.get("value", "") for one in logged.get("tags", [])},
    )
