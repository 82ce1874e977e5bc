"""A tracking server, spoken to in MLflow's REST protocol."""

from __future__ import annotations

import json as json_of
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mlflow_sysmetrics.mlflow_api.classification import fault_of_answer, fault_of_shape
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.stores import StoredExperiment, StoredRun
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer, request

T = TypeVar("T")

_API = "/api/2.0/mlflow/"
_OK = 200
_NOT_FOUND = 404


class RestStore:
    """Answers each question with one request, which MLflow's own retries never touch.

    Args:
        tracking_uri: of the server.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.status_code: int | None = None
        self._uri = tracking_uri
        self._has_health = tracking_uri.partition(":")[0] in {"http", "https"}

    def reach(self, seconds: float) -> None:
        """Returns if the server is up.

        A green /health proves no more: it asks for no credentials, no allowed host and no database.
        """
        if self._has_health:
            answer = self._ask("GET", "/health", seconds)
            if answer.status_code == _OK:
                return
            if answer.status_code != _NOT_FOUND:
                raise self._fault(answer) or Fault("HTTP 200", Cause.NOT_MLFLOW)
        # Databricks has no /health, nor have others that speak this protocol: any answer of MLflow's will do.
        answer = self._ask("GET", f"{_API}experiments/get", seconds, params={"experiment_id": "0"})
        fault = self._fault(answer)
        if fault is not None and fault.cause not in {Cause.MISSING, Cause.REFUSED}:
            raise fault

    def open(self, seconds: float) -> None:
        """Does nothing: the server has its database open."""

    def version(self, seconds: float) -> str | None:
        """Returns the server's version, which servers since MLflow 2.1 tell."""
        if not self._has_health:
            return None
        try:
            answer = self._ask("GET", "/version", seconds)
        except Fault:
            return None
        text = answer.text.strip()
        is_version = answer.status_code == _OK and text[:1].isdigit() and len(text) < 40  # noqa: PLR2004 - a page is longer
        return text if is_version else None

    def experiment_named(self, name: str, seconds: float) -> StoredExperiment | None:
        """Returns an experiment, deleted ones too; None where there is none of that name."""
        try:
            return self._told(
                _experiment, "GET", "experiments/get-by-name", seconds, params={"experiment_name": name}
            )
        except Fault as fault:
            if fault.cause is Cause.MISSING:
                return None
            raise

    def experiment(self, experiment_id: str, seconds: float) -> StoredExperiment:
        """Returns an experiment, deleted ones too."""
        asked = {"experiment_id": experiment_id}
        return self._told(_experiment, "GET", "experiments/get", seconds, params=asked)

    def create_experiment(self, name: str, seconds: float) -> None:
        """Makes an experiment."""
        self._call("POST", "experiments/create", seconds, json={"name": name})

    def run_tagged(self, experiment_id: str, key: str, value: str, seconds: float) -> str | None:
        """Returns the id of the run in an experiment that has a tag; None where there is none."""
        asked = {"experiment_ids": [experiment_id], "filter": f"tags.`{key}` = '{value}'", "max_results": 1}
        return self._told(_first_run_id, "POST", "runs/search", seconds, json=asked)

    def create_run(
        self, experiment_id: str, name: str | None, tags: Mapping[str, str], seconds: float
    ) -> str:
        """Starts a run now and returns its id."""
        asked = {
            "experiment_id": experiment_id,
            "user_id": tags.get("mlflow.user", "unknown"),
            "start_time": _now(),
            "tags": _pairs(tags),
        }
        if name:
            asked["run_name"] = name
        return self._told(_made_run_id, "POST", "runs/create", seconds, json=asked)

    def run(self, run_id: str, seconds: float) -> StoredRun:
        """Returns a run."""
        return self._told(_run, "GET", "runs/get", seconds, params={"run_id": run_id})

    def set_status(self, run_id: str, status: str, end_time: int | None, seconds: float) -> None:
        """Changes the status of a run, and when it ended: milliseconds since 1970."""
        asked: dict[str, object] = {"run_id": run_id, "status": status}
        if end_time is not None:
            asked["end_time"] = end_time
        self._call("POST", "runs/update", seconds, json=asked)

    def log(
        self,
        run_id: str,
        metric: tuple[str, float],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        seconds: float,
    ) -> None:
        """Writes a metric at step 0, parameters and tags; at most a hundred of each."""
        point = {"key": metric[0], "value": metric[1], "timestamp": _now(), "step": 0}
        asked = {"run_id": run_id, "metrics": [point], "params": _pairs(params), "tags": _pairs(tags)}
        self._call("POST", "runs/log-batch", seconds, json=asked)

    def _told(
        self,
        read: Callable[[Any], T],
        method: str,
        endpoint: str,
        seconds: float,
        **body: Mapping[str, object],
    ) -> T:
        """Returns what is read from an answer; JSON of another shape is something else's than MLflow's."""
        text = self._call(method, endpoint, seconds, **body)
        try:
            return read(json_of.loads(text))
        except (KeyError, TypeError, AttributeError, ValueError):
            fault = fault_of_shape(text, self._uri)
        raise fault

    def _call(self, method: str, endpoint: str, seconds: float, **body: Mapping[str, object]) -> str:
        answer = self._ask(method, f"{_API}{endpoint}", seconds, **body)
        fault = self._fault(answer)
        if fault is not None:
            raise fault
        return answer.text

    def _ask(self, method: str, path: str, seconds: float, **body: Mapping[str, object]) -> ServerAnswer:
        self.status_code = None
        answer = request(self._uri, method, path, seconds, **body)
        self.status_code = answer.status_code
        return answer

    def _fault(self, answer: ServerAnswer) -> Fault | None:
        return fault_of_answer(
            answer.status_code,
            answer.text,
            answer.headers,
            self._uri,
            redirected_to=answer.redirected_to,
        )


def _now() -> int:
    return time.time_ns() // 1_000_000


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _experiment(answer: Mapping[str, Any]) -> StoredExperiment:
    told = answer["experiment"]
    return StoredExperiment(
        str(told["experiment_id"]), str(told["name"]), told.get("lifecycle_stage", "active")
    )


def _made_run_id(answer: Mapping[str, Any]) -> str:
    return str(answer["run"]["info"]["run_id"])


def _first_run_id(answer: Mapping[str, Any]) -> str | None:
    runs = answer.get("runs") or [None]
    return None if runs[0] is None else str(runs[0]["info"]["run_id"])


def _run(answer: Mapping[str, Any]) -> StoredRun:
    told, logged = answer["run"]["info"], answer["run"].get("data", {})
    ended = told.get("end_time")
    return StoredRun(
        run_id=str(told.get("run_id") or told["run_uuid"]),
        experiment_id=str(told["experiment_id"]),
        status=told.get("status", "RUNNING"),
        lifecycle_stage=told.get("lifecycle_stage", "active"),
        run_name=told.get("run_name"),
        start_time=int(told.get("start_time", 0)),
        end_time=int(ended) if ended else None,
        metrics={one["key"]: float(one.get("value", 0)) for one in logged.get("metrics", [])},
        tags={one["key"]: one.get("value", "") for one in logged.get("tags", [])},
    )
