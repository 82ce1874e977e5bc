"""State of a tracking server: experiments, runs and points, and the number of requests by endpoint.

Just enough of MLflow's REST API for `mlflow.start_run`, `log_metric`, `log_batch`, `set_tag`, `get_run` and
`end_run` of MLflow 2.8 to 3.17, in memory.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

#: Modes of log-batch: accept the points; answer with an error; never answer; reset the connection; accept the
#: points after a second.
MODES = ("ok", "500", "hang", "refuse", "slow")


class ApiError(Exception):
    """Becomes an answer with a status and MLflow's JSON error."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.answer = {"error_code": code, "message": message}


class Store:
    """Experiments, runs and points, and the number of requests by endpoint."""

    def __init__(self, log_batch: str = "ok") -> None:
        self.log_batch_mode = log_batch
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Deletes everything except the default experiment and the mode."""
        self.requests: Counter[str] = Counter()
        self.experiments = {"0": "Default"}
        self.runs: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.points: dict[str, dict[str, list[dict[str, Any]]]] = {}

    def counts(self) -> dict[str, Any]:
        """Returns requests by endpoint, and accepted points by run and key."""
        points = {
            run_id: {key: len(series) for key, series in of.items()} for run_id, of in self.points.items()
        }
        return {"requests": dict(self.requests), "points": points}

    def series(self, asked: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Returns the points of one run by key, in order of arrival."""
        return self.points.get(asked["run_id"], {})

    def set_mode(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Sets the mode of log-batch."""
        if asked.get("log_batch") not in MODES:
            message = f"log_batch must be one of {', '.join(MODES)}, got {asked.get('log_batch')!r}"
            raise ApiError(HTTPStatus.BAD_REQUEST, "INVALID_PARAMETER_VALUE", message)
        self.log_batch_mode = asked["log_batch"]
        return {}

    def experiment(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Serves experiments/get and experiments/get-by-name."""
        for experiment_id, name in self.experiments.items():
            if experiment_id == asked.get("experiment_id") or name == asked.get("experiment_name"):
                return {
                    "experiment": {
                        "experiment_id": experiment_id,
                        "name": name,
                        "artifact_location": f"mlflow-artifacts:/{experiment_id}",
                        "lifecycle_stage": "active",
                    }
                }
        raise ApiError(HTTPStatus.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST", f"No experiment {asked}")

    def create_experiment(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Serves experiments/create."""
        experiment_id = str(len(self.experiments))
        self.experiments[experiment_id] = asked["name"]
        return {"experiment_id": experiment_id}

    def create_run(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Serves runs/create."""
        run_id = uuid.uuid4().hex
        experiment_id = asked.get("experiment_id", "0")
        tags = {tag["key"]: tag["value"] for tag in asked.get("tags", ())}
        self.runs[run_id] = {
            "run_id": run_id,
            "run_uuid": run_id,
            "run_name": asked.get("run_name") or tags.get("mlflow.runName") or run_id[:8],
            "experiment_id": experiment_id,
            "user_id": asked.get("user_id", ""),
            "status": "RUNNING",
            "start_time": asked.get("start_time") or time.time_ns() // 1_000_000,
            "artifact_uri": f"mlflow-artifacts:/{experiment_id}/{run_id}/artifacts",
            "lifecycle_stage": "active",
        }
        self.tags[run_id] = tags
        self.points[run_id] = {}
        return self.run({"run_id": run_id})

    def run(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Serves runs/get with the last point of each series, like a real server."""
        run_id = self._known(asked)
        metrics = [{"key": key, **series[-1]} for key, series in self.points[run_id].items()]
        tags = [{"key": key, "value": value} for key, value in self.tags[run_id].items()]
        return {"run": {"info": self.runs[run_id], "data": {"metrics": metrics, "params": [], "tags": tags}}}

    def update_run(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Serves runs/update."""
        run = self.runs[self._known(asked)]
        run.update({name: asked[name] for name in ("status", "end_time", "run_name") if asked.get(name)})
        return {"run_info": run}

    def set_tag(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Serves runs/set-tag."""
        self.tags[self._known(asked)][asked["key"]] = asked["value"]
        return {}

    def log_metric(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Serves runs/log-metric."""
        return self.log_batch({**asked, "metrics": [asked]})

    def log_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Serves runs/log-batch."""
        run_id = self._known(asked)
        points = self.points[run_id]
        for metric in asked.get("metrics", ()):
            point = {name: metric.get(name, 0) for name in ("value", "timestamp", "step")}
            points.setdefault(metric["key"], []).append(point)
        self.tags[run_id].update({tag["key"]: tag["value"] for tag in asked.get("tags", ())})
        return {}

    def _known(self, asked: dict[str, Any]) -> str:
        run_id = asked.get("run_id") or asked.get("run_uuid")
        if run_id not in self.runs:
            raise ApiError(HTTPStatus.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found")
        return str(run_id)


#: By path below /api/2.0/mlflow/; each takes the request and returns the answer.
ENDPOINTS: dict[str, Callable[[Store, dict[str, Any]], dict[str, Any]]] = {
    "experiments/get": Store.experiment,
    "experiments/get-by-name": Store.experiment,
    "experiments/create": Store.create_experiment,
    "runs/create": Store.create_run,
    "runs/get": Store.run,
    "runs/update": Store.update_run,
    "runs/set-tag": Store.set_tag,
    "runs/log-metric": Store.log_metric,
    "runs/log-batch": Store.log_batch,
}

#: Additional endpoints, which are not counted.
OWN_ENDPOINTS: dict[str, Callable[[Store, dict[str, Any]], dict[str, Any] | None]] = {
    "/counts": lambda store, _: store.counts(),
    "/points": Store.series,
    "/reset": lambda store, _: store.reset(),
    "/mode": Store.set_mode,
}
