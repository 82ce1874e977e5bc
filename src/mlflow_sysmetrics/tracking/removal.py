"""Takes back what a check has made on a tracking store. MLflow keeps it, as deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from mlflow_sysmetrics.tracking.bounded import bounded
from mlflow_sysmetrics.tracking.classification import fault_of_answer, fault_of_error
from mlflow_sysmetrics.tracking.mlflow_client import open_client, request

T = TypeVar("T")
_API = "/api/2.0/mlflow/"


class Removal(Protocol):
    """Removes things, each within the given seconds; raises `Fault` where it cannot."""

    def delete_run(self, run_id: str, seconds: float) -> None:
        """Deletes a run."""

    def has_runs(self, experiment_id: str, seconds: float) -> bool:
        """Returns whether an experiment has runs that are not deleted."""

    def rename_experiment(self, experiment_id: str, name: str, seconds: float) -> None:
        """Renames an experiment, so that its name is free again: a deleted one still holds it."""

    def delete_experiment(self, experiment_id: str, seconds: float) -> None:
        """Deletes an experiment."""


class RestRemoval:
    """Removes over MLflow's REST protocol.

    Args:
        tracking_uri: of the server.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    def delete_run(self, run_id: str, seconds: float) -> None:
        """Deletes a run."""
        self._post("runs/delete", {"run_id": run_id}, seconds)

    def has_runs(self, experiment_id: str, seconds: float) -> bool:
        """Returns whether an experiment has runs that are not deleted."""
        text = self._post("runs/search", {"experiment_ids": [experiment_id], "max_results": 1}, seconds)
        return '"run_id"' in text

    def rename_experiment(self, experiment_id: str, name: str, seconds: float) -> None:
        """Renames an experiment."""
        self._post("experiments/update", {"experiment_id": experiment_id, "new_name": name}, seconds)

    def delete_experiment(self, experiment_id: str, seconds: float) -> None:
        """Deletes an experiment."""
        self._post("experiments/delete", {"experiment_id": experiment_id}, seconds)

    def _post(self, endpoint: str, body: Mapping[str, object], seconds: float) -> str:
        answer = request(self._uri, "POST", f"{_API}{endpoint}", seconds, json=body)
        fault = fault_of_answer(answer.status_code, answer.text, answer.headers, self._uri)
        if fault is not None:
            raise fault
        return answer.text


class ClientRemoval:
    """Removes through `MlflowClient`, for stores that MLflow opens itself.

    Args:
        tracking_uri: of the store.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    def delete_run(self, run_id: str, seconds: float) -> None:
        """Deletes a run."""
        self._call(lambda client: client.delete_run(run_id), seconds)

    def has_runs(self, experiment_id: str, seconds: float) -> bool:
        """Returns whether an experiment has runs that are not deleted."""
        return bool(self._call(lambda client: client.search_runs([experiment_id], max_results=1), seconds))

    def rename_experiment(self, experiment_id: str, name: str, seconds: float) -> None:
        """Renames an experiment."""
        self._call(lambda client: client.rename_experiment(experiment_id, name), seconds)

    def delete_experiment(self, experiment_id: str, seconds: float) -> None:
        """Deletes an experiment."""
        self._call(lambda client: client.delete_experiment(experiment_id), seconds)

    def _call(self, act: Callable[[Any], T], seconds: float) -> T:
        try:
            return bounded(lambda: act(open_client(self._uri)), seconds)
        except Exception as error:  # noqa: BLE001 - stores raise what their database or plugin raises
            fault = fault_of_error(error, self._uri, seconds=seconds)
        raise fault
