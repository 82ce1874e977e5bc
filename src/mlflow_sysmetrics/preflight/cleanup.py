"""What `mlflow-sysmetrics check` has created on a tracking store, and how it is deleted again.

MLflow keeps deleted runs and experiments, marked as deleted.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error, nothing
from mlflow_sysmetrics.mlflow_api.rest_store import first_run_id
from mlflow_sysmetrics.mlflow_api.stores import Store
from mlflow_sysmetrics.mlflow_api.transport import API, ServerAnswer, request
from mlflow_sysmetrics.runtime.bounded_calls import bounded

T = TypeVar("T")

CHECK_TAG = "sysmetrics.check"  #: on the run that a check creates, with a value unique to the check
OWN_NAME = "mlflow-sysmetrics-check"  #: prefix of the experiments that a check names itself
_LATE_SECONDS = 1.0  # how much later a request that timed out may still take effect


class Deleter(Protocol):
    """Deletes runs and experiments, each within the given seconds; raises `Fault` if it cannot."""

    def delete_run(self, run_id: str, seconds: float) -> None:
        """Deletes a run."""

    def has_runs(self, experiment_id: str, seconds: float) -> bool:
        """Returns whether an experiment has runs that are not deleted."""

    def rename_experiment(self, experiment_id: str, name: str, seconds: float) -> None:
        """Renames an experiment, to free its name: a deleted experiment still holds it."""

    def delete_experiment(self, experiment_id: str, seconds: float) -> None:
        """Deletes an experiment."""


@dataclass
class CreatedObjects:
    """The run and the experiment that a check may have created, even if no response said so.

    Attributes:
        wanted: name of the experiment that the user asked for; None for one that the check names itself,
            so that concurrent checks do not delete each other's.
        token: value of the run's tag.
        experiment_id: once it is known.
        run_id: once it is known.
        experiment_requested: whether its creation was requested.
        experiment_created: whether the server confirmed its creation.
        run_requested: whether the creation of the run was requested.
    """

    wanted: str | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    experiment_id: str | None = None
    run_id: str | None = None
    experiment_requested: bool = False
    experiment_created: bool = False
    run_requested: bool = False

    @property
    def own_name(self) -> str:
        """A name that no experiment of the user has."""
        return f"{OWN_NAME}-{self.token[:8]}"

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.wanted or self.own_name

    def delete(
        self, store: Store, deleter: Deleter, seconds: float, sleep: Callable[[float], None]
    ) -> list[str]:
        """Deletes the run, and the experiment if it was created by the check and has no other runs.

        Args:
            store: where they are.
            deleter: deletes from it.
            seconds: timeout of each request.
            sleep: waits before a run whose creation was not confirmed is looked for once more.

        Returns:
            What could not be deleted and why, one clause each.
        """
        try:
            if self.run_requested:
                self._delete_run(store, deleter, seconds, sleep)
        except Fault as fault:
            return [f"run {self.run_id or 'whose creation was not confirmed'}: {fault.reason}"]
        try:
            if self.experiment_requested:
                self._delete_experiment(store, deleter, seconds)
        except Fault as fault:
            return [f"experiment {self.experiment}: {fault.reason}"]
        return []

    def _delete_run(
        self, store: Store, deleter: Deleter, seconds: float, sleep: Callable[[float], None]
    ) -> None:
        if self.run_id is None:
            self.run_id = self._lost_run(store, seconds)
        if self.run_id is None:
            sleep(_LATE_SECONDS)
            self.run_id = self._lost_run(store, seconds)
        if self.run_id is not None:
            deleter.delete_run(self.run_id, seconds)

    def _lost_run(self, store: Store, seconds: float) -> str | None:
        return store.run_tagged(self.experiment_id or "", CHECK_TAG, self.token, seconds)

    def _delete_experiment(self, store: Store, deleter: Deleter, seconds: float) -> None:
        experiment = store.experiment_named(self.experiment, seconds)
        # Under a name of the user's, without a confirmation, another process may have created it.
        if experiment is None or not (self.experiment_created or self.wanted is None):
            return
        if deleter.has_runs(experiment.experiment_id, seconds):
            return
        if self.wanted is not None:
            # A deleted experiment holds its name, which would make the user's job fail.
            deleter.rename_experiment(experiment.experiment_id, f"{self.own_name} ({self.wanted})", seconds)
        deleter.delete_experiment(experiment.experiment_id, seconds)


class RestDeleter:
    """Deletes over MLflow's REST protocol.

    Args:
        tracking_uri: the server.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    def delete_run(self, run_id: str, seconds: float) -> None:
        """Deletes a run."""
        self._post(nothing, "runs/delete", {"run_id": run_id}, seconds)

    def has_runs(self, experiment_id: str, seconds: float) -> bool:
        """Returns whether an experiment has runs that are not deleted."""
        body = {"experiment_ids": [experiment_id], "max_results": 1}
        return self._post(first_run_id, "runs/search", body, seconds) is not None

    def rename_experiment(self, experiment_id: str, name: str, seconds: float) -> None:
        """Renames an experiment."""
        body = {"experiment_id": experiment_id, "new_name": name}
        self._post(nothing, "experiments/update", body, seconds)

    def delete_experiment(self, experiment_id: str, seconds: float) -> None:
        """Deletes an experiment."""
        self._post(nothing, "experiments/delete", {"experiment_id": experiment_id}, seconds)

    def _post(self, read: Callable[[Any], T], endpoint: str, body: Mapping[str, object], seconds: float) -> T:
        answer = self._ask(f"{API}{endpoint}", body, seconds)
        return answer.read(read, self._uri)

    def _ask(self, path: str, body: Mapping[str, object], seconds: float) -> ServerAnswer:
        return request(self._uri, "POST", path, seconds, json=body)


class ClientDeleter:
    """Deletes through `MlflowClient`, for stores that MLflow opens itself.

    Args:
        tracking_uri: the store.
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
        except Exception as error:  # stores raise what their database or plugin raises
            fault = fault_of_error(error, self._uri, seconds=seconds)
        raise fault
