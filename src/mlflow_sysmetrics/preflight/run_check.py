"""Step 4: whether the run that was started stores what is logged, and returns it."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow_sysmetrics.mlflow_api.artifact_target import (
    artifacts_of_run,
    load_artifact_library,
    missing_artifact_library,
)
from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.stores import RUNNING, Store, StoredRun
from mlflow_sysmetrics.preflight.retries import Retries
from mlflow_sysmetrics.runtime.bounded_calls import bounded

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
