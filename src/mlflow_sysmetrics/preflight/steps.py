"""Steps 1 to 4 of a preflight: the server, the experiment, the run, and whether it returns what is logged."""

from __future__ import annotations

import logging
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.artifact_target import (
    artifacts_of_run,
    load_artifact_library,
    missing_artifact_library,
)
from mlflow_sysmetrics.mlflow_api.client_store import ClientStore
from mlflow_sysmetrics.mlflow_api.clients import load, open_client, speaks_rest
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.stores import ACTIVE, RUNNING, Store, StoredExperiment, StoredRun
from mlflow_sysmetrics.mlflow_api.transport import Preparation
from mlflow_sysmetrics.preflight.request import PreflightRequest
from mlflow_sysmetrics.preflight.retries import Retries
from mlflow_sysmetrics.runtime.bounded_calls import bounded

PREFLIGHT_TAG = "sysmetrics.preflight_id"  #: finds a run whose creation was not acknowledged
_OPENED_BY_MLFLOW = frozenset({"", "file", "sqlite", "postgresql", "mysql", "mssql"})
_TABLES_SECONDS = 120  # creating or migrating all tables of a database takes 5 s, minutes on a large one
_VERSION_SECONDS = 3  # the timeout of MLflow itself
_log = logging.getLogger("mlflow_sysmetrics")
_METRIC = ("preflight/ok", 1.0)
_RUN_ID = re.compile(r"\w[\w\-]{0,255}", re.ASCII)  # as MLflow defines it; it goes into paths and file names
_PER_BATCH = 100  # parameters, and tags, that MLflow accepts in one batch
_ARTIFACT_DIRECTORY, _ARTIFACT_NAME = "preflight", "ok.txt"
_ARTIFACT = f"artifact {_ARTIFACT_DIRECTORY}/{_ARTIFACT_NAME}"
_ARTIFACT_REMEDY = (
    "Check that the experiment's artifact store exists, and that this machine has the credentials and the "
    "Python package for it (boto3, google-cloud-storage, azure-storage-blob), or start the server with "
    "--serve-artifacts."
)


class Steps:
    """Takes steps 1 to 4, and knows what has been created so far.

    Args:
        request: what the caller wants.
        uri: the tracking URI.

    Attributes:
        store: once the protocol of the server is known.
        experiment: once it is found or created.
        run_id: once the run exists.
        run: the run as it was read back at the end.
        resumed: the run as it was found, if one is resumed.
        server_version: version of MLflow on the server, once it has reported one.
    """

    def __init__(self, request: PreflightRequest, uri: str) -> None:
        self.store: Store | None = None
        self.experiment: StoredExperiment | None = None
        self.run_id: str | None = None
        self.run: StoredRun | None = None
        self.resumed: StoredRun | None = None
        self.server_version: str | None = None
        self._request = request
        self._uri = uri
        self._preflight_id = uuid.uuid4().hex
        self._may_exist = False  # a run whose creation was requested and not acknowledged

    def status_code(self) -> int | None:
        """Returns the HTTP status of the last response."""
        return None if self.store is None else self.store.status_code

    def take(self, retries: Retries, on_step: Callable[[], None]) -> None:
        """Takes all steps.

        Args:
            retries: sends the requests; its `step` is set.
            on_step: called when a step begins.

        Raises:
            Fault: a step failed; `retries.step` says which.
        """
        retries.step = 1
        on_step()
        store = self._reach(retries)
        retries.step = 2
        on_step()
        self.experiment = self._find_experiment(store, retries)
        retries.step = 3
        on_step()
        self.run_id = self._resume(store, retries) if self.resumed else self._start(store, retries)
        retries.step = 4
        on_step()
        tags = self._request.tags if self.resumed else {}  # a new run was created with them
        self.run = check_run(store, retries, self.run_id, self._request.params, tags)
        if self._request.check_artifacts:
            run_id = self.run_id
            retries.call(lambda seconds: check_artifacts(self._uri, run_id, seconds))

    def find_lost_run(self, seconds: float) -> None:
        """Looks for a run whose creation may have succeeded although no response said so.

        Raises:
            Fault: the server cannot be asked.
        """
        if self.run_id is None and self._may_exist and self.experiment and self.store:
            wanted = (self.experiment.experiment_id, PREFLIGHT_TAG, self._preflight_id)
            self.run_id = self.store.run_tagged(*wanted, seconds)

    def _reach(self, retries: Retries) -> Store:
        uri = self._uri
        load(uri)
        # Asking whether a database or a directory speaks REST would open it.
        rest = fluent_state.scheme_of(uri) not in _OPENED_BY_MLFLOW and speaks_rest(uri)
        preparation = Preparation(retries.schedule.timeout, retries.leave_out)
        self.store = store = RestStore(uri, preparation) if rest else ClientStore(uri)
        retries.begin()
        retries.call(store.reach)
        if not rest:
            retries.call(store.open, at_least=_TABLES_SECONDS)
        self.server_version = store.version(min(_VERSION_SECONDS, retries.remaining))
        _compare_versions(fluent_state.version(), self.server_version)
        return store

    def _find_experiment(self, store: Store, retries: Retries) -> StoredExperiment:
        name, experiment_id = self._request.experiment_name, None
        if self._request.run_id is not None:
            run_id = self._request.run_id
            self.resumed = retries.call(lambda seconds: store.run(run_id, seconds))
            experiment_id = self.resumed.experiment_id
        elif name is None:
            name, experiment_id = fluent_state.experiment_choice(self._uri)
        if experiment_id is not None:
            known_id = experiment_id
            experiment = retries.call(lambda seconds: store.experiment(known_id, seconds))
        else:
            experiment = _experiment_named(name or "", store, retries)
        if self.resumed is not None and name not in {None, experiment.name}:
            raise Fault(
                f"run {self._request.run_id} belongs to the experiment {experiment.name!r}, not to {name!r}",
                Cause.MISSING,
                remedy="Pass only one of run_id and experiment_name, or two that belong together.",
            )
        if experiment.lifecycle_stage != ACTIVE:
            raise Fault(
                f"the experiment {experiment.name!r} (id {experiment.experiment_id}) is deleted",
                Cause.MISSING,
                remedy=(
                    f"Restore it (mlflow experiments restore -x {experiment.experiment_id}), or use another."
                ),
            )
        return experiment

    def _start(self, store: Store, retries: Retries) -> str:
        """Starts a run once: after a lost response, looks for it before creating it again."""
        experiment_id = self.experiment.experiment_id if self.experiment else "0"
        name = self._request.run_name
        tags = fluent_state.run_tags({**self._request.tags, PREFLIGHT_TAG: self._preflight_id}, name)

        def find_or_start(seconds: float) -> str:
            began = retries.elapsed
            if self._may_exist:
                run_id = store.run_tagged(experiment_id, PREFLIGHT_TAG, self._preflight_id, seconds)
                if run_id is not None:
                    return run_id
            self._may_exist = True
            return store.create_run(experiment_id, name, tags, seconds - (retries.elapsed - began))

        return retries.call(find_or_start)

    def _resume(self, store: Store, retries: Retries) -> str:
        resumed = self.resumed
        if resumed is None:
            raise AssertionError("the run was read in step 2")
        if resumed.lifecycle_stage != ACTIVE:
            raise Fault(
                f"run {resumed.run_id} is deleted",
                Cause.MISSING,
                remedy=f"Restore it (mlflow runs restore --run-id {resumed.run_id}), or start a new one.",
            )
        self.run_id = resumed.run_id
        retries.call(lambda seconds: store.set_status(resumed.run_id, RUNNING, resumed.end_time, seconds))
        return resumed.run_id


def _experiment_named(name: str, store: Store, retries: Retries) -> StoredExperiment:
    """Finds or creates an experiment; another process may create it at the same moment."""
    experiment = retries.call(lambda seconds: store.experiment_named(name, seconds))
    if experiment is not None:
        return experiment
    try:
        retries.call(lambda seconds: store.create_experiment(name, seconds))
    except Fault as fault:
        if fault.cause is not Cause.EXISTS:
            raise
    experiment = retries.call(lambda seconds: store.experiment_named(name, seconds))
    if experiment is None:
        raise Fault(f"the experiment {name!r} was created, but is not found", Cause.NOT_READ_BACK)
    return experiment


def _compare_versions(client: str, server: str | None) -> None:
    if server and server.partition(".")[0] != client.partition(".")[0]:
        _log.warning(
            "mlflow-sysmetrics: the tracking server runs MLflow %s and this program %s; features of one may "
            "be missing in the other",
            server,
            client,
        )


def check_run(
    store: Store, retries: Retries, run_id: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> StoredRun:
    """Writes a metric, parameters and tags to a run, and returns the run as it is read back.

    Raises:
        Fault: the run is not RUNNING, or does not have the metric.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise Fault(f"the server returned an invalid run id: {run_id!r}", Cause.NOT_READ_BACK)
    left_params, left_tags = list(params.items()), list(tags.items())
    first = True
    while first or left_params or left_tags:
        first = False
        batch = dict(left_params[:_PER_BATCH]), dict(left_tags[:_PER_BATCH])
        left_params, left_tags = left_params[_PER_BATCH:], left_tags[_PER_BATCH:]
        _write(store, retries, run_id, *batch)
    return retries.call(lambda seconds: _read_back(store, run_id, seconds))


def check_artifacts(tracking_uri: str, run_id: str, seconds: float) -> None:
    """Writes the artifact ``preflight/ok.txt`` of a run and reads it back.

    Raises:
        Fault: that failed, or took longer than the given seconds.
    """
    began = time.monotonic()
    uri = ""
    try:
        uri = bounded(lambda: open_client(tracking_uri).get_run(run_id).info.artifact_uri, seconds)
        load_artifact_library(uri)  # on a slow disk an import takes longer than a request may
        read = bounded(lambda: _artifact_round_trip(tracking_uri, run_id, uri), seconds)
    except Exception as error:  # object stores raise what their libraries raise
        failure = fault_of_error(error, tracking_uri, seconds=time.monotonic() - began)
        about = missing_artifact_library(uri) if failure.cause is Cause.NO_DRIVER and uri else None
        fault = Fault(f"{_ARTIFACT}: {failure.reason}", failure.cause, remedy=about or _ARTIFACT_REMEDY)
    else:
        if read == run_id:
            return
        fault = Fault(
            f"{_ARTIFACT} was written, but reads back differently",
            Cause.NOT_READ_BACK,
            remedy=_ARTIFACT_REMEDY,
        )
    raise fault


def _write(
    store: Store, retries: Retries, run_id: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    retries.call(lambda seconds: store.log(run_id, _METRIC, params, tags, seconds))


def _read_back(store: Store, run_id: str, seconds: float) -> StoredRun:
    run = store.run(run_id, seconds)
    key, value = _METRIC
    if run.run_id != run_id:
        raise Fault(f"run {run_id} was requested, but {run.run_id} was returned", Cause.NOT_READ_BACK)
    if run.status != RUNNING:
        raise Fault(f"run {run_id} was started, but is {run.status}", Cause.NOT_READ_BACK)
    if run.metrics.get(key) != value:
        read = run.metrics.get(key, "nothing")
        raise Fault(
            f"{key} = {value:g} was written to run {run_id}, but {read} was read back", Cause.NOT_READ_BACK
        )
    return run


def _artifact_round_trip(tracking_uri: str, run_id: str, artifact_uri: str) -> str:
    artifacts = artifacts_of_run(tracking_uri, artifact_uri)
    with tempfile.TemporaryDirectory() as directory:
        sent = Path(directory, _ARTIFACT_NAME)
        sent.write_text(run_id, encoding="utf-8")
        artifacts.log_artifact(str(sent), _ARTIFACT_DIRECTORY)
        back = Path(directory, "back")
        back.mkdir()
        path = artifacts.download_artifacts(f"{_ARTIFACT_DIRECTORY}/{_ARTIFACT_NAME}", str(back))
        return Path(path).read_text(encoding="utf-8")
