"""What a check has made on a tracking store so far, and how that is removed again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_answer, fault_of_error, nothing, read_answer
from mlflow_sysmetrics.mlflow_api.rest_store import first_run_id
from mlflow_sysmetrics.mlflow_api.stores import Store
from mlflow_sysmetrics.mlflow_api.transport import API, ServerAnswer, request
from mlflow_sysmetrics.runtime.bounded_calls import bounded

# FOLDED removal: Takes back what a check has made on a tracking store. MLflow keeps it, as deleted.

T = TypeVar("T")


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
        self._post(nothing, "runs/delete", {"run_id": run_id}, seconds)

    def has_runs(self, experiment_id: str, seconds: float) -> bool:
        """Returns whether an experiment has runs that are not deleted."""
        asked = {"experiment_ids": [experiment_id], "max_results": 1}
        return self._post(first_run_id, "runs/search", asked, seconds) is not None

    def rename_experiment(self, experiment_id: str, name: str, seconds: float) -> None:
        """Renames an experiment."""
        asked = {"experiment_id": experiment_id, "new_name": name}
        self._post(nothing, "experiments/update", asked, seconds)

    def delete_experiment(self, experiment_id: str, seconds: float) -> None:
        """Deletes an experiment."""
        self._post(nothing, "experiments/delete", {"experiment_id": experiment_id}, seconds)

    def _post(self, read: Callable[[Any], T], endpoint: str, body: Mapping[str, object], seconds: float) -> T:
        answer = self._ask(f"{API}{endpoint}", body, seconds)
        fault = fault_of_answer(
            answer.status_code,
            answer.text,
            answer.headers,
            self._uri,
            redirected_to=answer.redirected_to,
            is_to_request=answer.is_to_request,
        )
        if fault is not None:
            raise fault
        return read_answer(answer.text, read, self._uri)

    def _ask(self, path: str, body: Mapping[str, object], seconds: float) -> ServerAnswer:
        return request(self._uri, "POST", path, seconds, json=body)


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


CHECK_TAG = "sysmetrics.check"  #: on the run that a check makes, with a value of its own
OWN_NAME = "mlflow-sysmetrics-check"  #: how the experiments begin that a check names itself
_LATE_SECONDS = 1.0  # how much later a request may take effect that was given up


@dataclass
class Traces:
    """What may be on the store, also where the answer that would tell so never came.

    Attributes:
        wanted: name of the experiment that the user asked for; None for one of the check's own, which no
            other check has: what two at a time make and remove would be in each other's way.
        token: value of the run's tag.
        experiment_id: once it is known.
        run_id: once it is known.
        experiment_begun: whether its making was asked for.
        experiment_made: whether it was answered that it was made.
        run_begun: whether the making of the run was asked for.
    """

    wanted: str | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    experiment_id: str | None = None
    run_id: str | None = None
    experiment_begun: bool = False
    experiment_made: bool = False
    run_begun: bool = False

    @property
    def own_name(self) -> str:
        """A name that no experiment of the user's has."""
        return f"{OWN_NAME}-{self.token[:8]}"

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.wanted or self.own_name

    def remove(
        self, store: Store, removal: Removal, seconds: float, sleep: Callable[[float], None]
    ) -> list[str]:
        """Removes the run, and the experiment if it was made and nobody else has begun to use it.

        Args:
            store: where they are.
            removal: removes from it.
            seconds: longest wait for each answer.
            sleep: waits before a run whose making was not answered is looked for once more.

        Returns:
            What could not be removed and why, one clause each.
        """
        try:
            if self.run_begun:
                self._remove_run(store, removal, seconds, sleep)
        except Fault as fault:
            return [f"run {self.run_id or 'whose making was not answered'}: {fault.reason}"]
        try:
            if self.experiment_begun:
                self._remove_experiment(store, removal, seconds)
        except Fault as fault:
            return [f"experiment {self.experiment}: {fault.reason}"]
        return []

    def _remove_run(
        self, store: Store, removal: Removal, seconds: float, sleep: Callable[[float], None]
    ) -> None:
        if self.run_id is None:
            self.run_id = self._lost_run(store, seconds)
        if self.run_id is None:
            sleep(_LATE_SECONDS)
            self.run_id = self._lost_run(store, seconds)
        if self.run_id is not None:
            removal.delete_run(self.run_id, seconds)

    def _lost_run(self, store: Store, seconds: float) -> str | None:
        return store.run_tagged(self.experiment_id or "", CHECK_TAG, self.token, seconds)

    def _remove_experiment(self, store: Store, removal: Removal, seconds: float) -> None:
        found = store.experiment_named(self.experiment, seconds)
        # One of the user's name whose making was not answered may be somebody else's.
        if found is None or not (self.experiment_made or self.wanted is None):
            return
        if removal.has_runs(found.experiment_id, seconds):
            return
        if self.wanted is not None:
            # A deleted experiment holds its name, and the job would fail for that.
            removal.rename_experiment(found.experiment_id, f"{self.own_name} ({self.wanted})", seconds)
        removal.delete_experiment(found.experiment_id, seconds)
