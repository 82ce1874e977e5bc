"""A tracking store that MLflow opens itself, as the preflight uses it: a database, a directory, a plugin."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mlflow_sysmetrics.mlflow_api.clients import is_database, log_batch, look_into_database, open_client
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.stores import StoredExperiment, StoredRun
from mlflow_sysmetrics.runtime.bounded_calls import bounded

T = TypeVar("T")


class ClientStore:
    """Answers each question through `MlflowClient`, in a thread, within the given seconds.

    Args:
        tracking_uri: the store.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.status_code: int | None = None  # not HTTP
        self._uri = tracking_uri
        self._client: Any = None

    def reach(self, seconds: float) -> None:
        """Returns if the database accepts a connection. Other stores are checked by `open`."""
        if is_database(self._uri):
            self._call(lambda: look_into_database(self._uri), seconds)

    def open(self, seconds: float) -> None:
        """Creates or migrates the tables if MLflow does so, and reads from them."""

        def open_and_read() -> Any:
            client = open_client(self._uri)
            client.search_experiments(max_results=1)
            return client

        self._client = self._call(open_and_read, seconds)

    def version(self, seconds: float) -> str | None:
        """Returns None: there is no server."""

    def experiment_named(self, name: str, seconds: float) -> StoredExperiment | None:
        """Returns the experiment of that name, even if it is deleted; None if there is none."""
        experiment = self._call(lambda: self._client.get_experiment_by_name(name), seconds)
        return None if experiment is None else _experiment(experiment)

    def experiment(self, experiment_id: str, seconds: float) -> StoredExperiment:
        """Returns an experiment, even if it is deleted."""
        return _experiment(self._call(lambda: self._client.get_experiment(experiment_id), seconds))

    def create_experiment(self, name: str, seconds: float) -> None:
        """Creates an experiment."""
        self._call(lambda: self._client.create_experiment(name), seconds)

    def run_tagged(self, experiment_id: str, key: str, value: str, seconds: float) -> str | None:
        """Returns the id of the run in an experiment that has a tag; None if there is none."""
        wanted = f"tags.`{key}` = '{value}'"
        runs = self._call(
            lambda: self._client.search_runs([experiment_id], filter_string=wanted, max_results=1), seconds
        )
        return str(runs[0].info.run_id) if runs else None

    def create_run(
        self, experiment_id: str, name: str | None, tags: Mapping[str, str], seconds: float
    ) -> str:
        """Starts a run now and returns its id."""
        run = self._call(
            lambda: self._client.create_run(experiment_id, tags=dict(tags), run_name=name), seconds
        )
        return str(run.info.run_id)

    def run(self, run_id: str, seconds: float) -> StoredRun:
        """Returns a run."""
        found = self._call(lambda: self._client.get_run(run_id), seconds)
        info = found.info
        return StoredRun(
            run_id=str(info.run_id),
            experiment_id=str(info.experiment_id),
            status=info.status,
            lifecycle_stage=info.lifecycle_stage,
            run_name=info.run_name,
            start_time=info.start_time or 0,
            end_time=info.end_time,
            metrics=dict(found.data.metrics),
            tags=dict(found.data.tags),
        )

    def set_status(self, run_id: str, status: str, end_time: int | None, seconds: float) -> None:
        """Changes the status of a run, and its end in milliseconds since 1970."""
        if end_time is None:
            self._call(lambda: self._client.update_run(run_id, status=status), seconds)
        else:
            self._call(lambda: self._client.set_terminated(run_id, status, end_time), seconds)

    def log(
        self,
        run_id: str,
        metric: tuple[str, float],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        seconds: float,
    ) -> None:
        """Writes a metric at step 0, parameters and tags; at most a hundred of each."""
        timestamp = time.time_ns() // 1_000_000
        self._call(lambda: log_batch(self._client, run_id, metric, timestamp, params, tags), seconds)

    def _call(self, call: Callable[[], T], seconds: float) -> T:
        began = time.monotonic()
        try:
            return bounded(call, seconds)
        except Exception as error:  # noqa: BLE001 - also what the database, file system or plugin raises
            fault = fault_of_error(error, self._uri, seconds=time.monotonic() - began)
            if fault.cause is Cause.DOWN and not is_database(self._uri) and isinstance(error, OSError):
                fault = Fault(fault.reason, Cause.BAD_DATABASE)  # waiting does not help a directory
        raise fault


def _experiment(experiment: Any) -> StoredExperiment:
    return StoredExperiment(str(experiment.experiment_id), str(experiment.name), experiment.lifecycle_stage)
